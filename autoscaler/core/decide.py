"""Decide: a proposal becomes a target through the policies, in this order, each with its reasons.

0. restore      a number that an apply dropped is still ours
1. bounds       minimum and maximum groups
2. ratio        the band between the roles
3. unread       groups that cannot be read are full on the way down, where workers count the demand
4. stabilise    windows per direction; nothing shrinks before a whole window has been seen
5. bounds       again: a size outside of them is corrected at once, also when blind
6. holds        blind role, partial numbers, unknown cost, pause, a person's number
7. budget       exact projection into the GPU budget; held roles are not cut

A role without a size (its demand is missing) stays where it is, inside its bounds; its partner goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoscaler.core.size import Sized
from autoscaler.model import Observation, RoleFleet, Signals, State, Target
from autoscaler.settings import Settings
from policies.bounds import bound
from policies.budget import fit_budget
from policies.hold import Hold, apply_holds
from policies.manual import ANOTHER, Held, Ours, Seen, manual_hold
from policies.model import ROLES, Code, Detail, Missing, Pair, Reason, Role, Stage, Verdict
from policies.ratio import keep_ratio
from policies.restore import WINDOW_S, Drops, look_for_drop
from policies.stabilise import Proposals, stabilise
from policies.unread import keep_unread

DEFAULT_REPLICAS = 1


@dataclass(frozen=True, slots=True)
class Managed:
    """Both workloads, known to be there."""

    prefill: RoleFleet
    decode: RoleFleet

    def __getitem__(self, role: Role) -> RoleFleet:
        return self.prefill if role is Role.PREFILL else self.decode

    @property
    def replicas(self) -> Pair:
        """Groups asked for now."""
        return Pair(self.prefill.replicas, self.decode.replicas)


@dataclass(frozen=True, slots=True)
class Decided:
    """The target, the state that goes on, and why."""

    target: Target
    state: State
    why: tuple[Reason, ...]


def decide(
    state: State, seen: Observation, fleet: Managed, signals: Signals, sized: Sized, settings: Settings
) -> Decided:
    """Run the policies."""
    spec, now_s = settings.spec, seen.now_s
    minimum = Pair(spec.prefill.min_groups, spec.decode.min_groups)
    maximum = Pair(spec.prefill.max_groups, spec.decode.max_groups)
    why: list[Reason] = []
    state, current, reasons = _dropped(state, now_s, fleet)
    why += reasons
    state, holds, reasons = _holds(state, now_s, fleet, signals, settings)
    why += reasons
    windows = _windows(settings)
    seen_s = 0.0 if state.started_s is None else now_s - state.started_s
    unsized = tuple(role for role in ROLES if isinstance(sized[role], Missing))
    proposal, reasons = _proposal(sized, current, minimum, maximum, signals, settings)
    why += reasons
    target, reasons = stabilise(proposal, current, state.proposals, now_s, **windows, seen_s=seen_s)
    why += reasons
    target, reasons = bound(target, minimum, maximum)
    why += reasons
    target, reasons = apply_holds(target, current, holds)
    why += reasons
    target, reasons = _budget(target, current, minimum, fleet, holds, unsized, spec.gpu_budget)
    why += reasons
    keep_s = max(*windows["up_s"], *windows["down_s"])
    state = replace(state, proposals=_remember(state.proposals, now_s, proposal, keep_s))
    floor, state = _floor(state, now_s, fleet, sized, target, minimum, windows, seen_s, keep_s)
    echoes = tuple(role for role in unsized if target[role] == fleet[role].replicas)
    return Decided(Target(target, floor, echoes), state, tuple(why))


def _proposal(
    sized: Sized, current: Pair, minimum: Pair, maximum: Pair, signals: Signals, settings: Settings
) -> Verdict:
    """What each role needs, inside its bounds and the band; a role without a size stays where it is."""
    why: list[Reason] = []
    needed = current
    for role in ROLES:
        size = sized[role]
        if isinstance(size, Missing):
            why.append(Reason(Stage.DECIDE, Code.HELD_BLIND, role, {"why": size.missing}))
        else:
            one, reasons = bound(needed.with_role(role, size.groups), minimum, maximum)
            needed = needed.with_role(role, one[role])
            why += [reason for reason in reasons if reason.role is role]
    band = settings.spec.ratio_band
    raised, reasons = keep_ratio(needed, band.min, band.max, maximum)
    if all(reason.role and not isinstance(sized[reason.role], Missing) for reason in reasons):
        needed, why = raised, [*why, *reasons]
    counted = signals.demand.basis == "router"
    unread = {role: signals[role].unread for role in ROLES if not (counted or signals[role].blind)}
    kept, reasons = keep_unread(needed, current, unread)
    return kept, (*why, *reasons)


def _windows(settings: Settings) -> dict[str, tuple[float, float]]:
    prefill, decode = settings.spec.prefill, settings.spec.decode
    return {
        "up_s": (prefill.scale_up_stabilization_s, decode.scale_up_stabilization_s),
        "down_s": (prefill.scale_down_stabilization_s, decode.scale_down_stabilization_s),
    }


def _remember(history: Proposals, now_s: float, pair: Pair, keep_s: float) -> tuple[tuple[float, Pair], ...]:
    return (*((at_s, old) for at_s, old in history if at_s > now_s - keep_s), (now_s, pair))


def _holds(
    state: State, now_s: float, fleet: Managed, signals: Signals, settings: Settings
) -> tuple[State, Mapping[Role, tuple[Hold, ...]], tuple[Reason, ...]]:
    """All holds per role; the manual ones carry on in the state."""
    holds: dict[Role, tuple[Hold, ...]] = {}
    manual: dict[Role, Held] = {}
    why: list[Reason] = []
    # In a dry run somebody else is in charge: every change is theirs, and none of them is a hold.
    hold_s = settings.spec.manual_hold_s if settings.spec.writes else 0.0
    for role in ROLES:
        found = [*_blind(role, signals), *_partial(role, signals), *_cost(role, fleet)]
        found += _paused(fleet[role].paused, settings.metadata.paused)
        found += _given_up(state.drops[role], fleet[role])
        held = _manual(state, now_s, role, fleet[role], hold_s)
        if held is not None:
            manual[role] = held
            left_s = hold_s - (now_s - held.since_s)
            detail: Detail = {
                "writer": held.manager,
                "ours": held.ours,
                "theirs": held.theirs,
                "for_s": round(left_s),
            }
            code = Code.ANOTHER_CONTROLLER if held.manager == ANOTHER else Code.MANUAL_HOLD
            found.append(Hold(code, True, True, detail, pinned=fleet[role].replicas))
        elif role in state.manual:
            detail = {"writer": state.manual[role].manager, "theirs": state.manual[role].theirs}
            why.append(Reason(Stage.DECIDE, Code.MANUAL_RESUMED, role, detail))
        holds[role] = tuple(found)
    return replace(state, manual=manual, written=_written(state, fleet, manual, now_s)), holds, tuple(why)


def _written(state: State, fleet: Managed, manual: Mapping[Role, Held], now_s: float) -> dict[Role, Ours]:
    """What we take as our own number: what we last wrote; at first sight and around a hold, what we find."""
    found = {role: Ours(fleet[role].replicas, fleet[role].replicas, now_s) for role in ROLES}
    free = [role for role in ROLES if role not in manual and role not in state.manual]
    return found | {role: state.written[role] for role in free if role in state.written}


def _blind(role: Role, signals: Signals) -> list[Hold]:
    if not signals[role].blind:
        return []
    return [Hold(Code.ROLE_BLIND, False, True, {"why": "no worker of this role can be read"})]


def _partial(role: Role, signals: Signals) -> list[Hold]:
    """What is only a lower bound may make a role grow, not shrink."""
    why, unread = signals.partial, signals.prefill.unread
    if role is Role.DECODE and signals.demand.basis == "prefill" and unread:
        why = why or f"what arrived at {len(unread)} unread prefill groups is not known: {', '.join(unread[:5])}"
    return [Hold(Code.METRICS_PARTIAL, False, True, {"why": why})] if why else []


def _cost(role: Role, fleet: Managed) -> list[Hold]:
    """An unknown cost of either role makes the total unknown: then nothing grows."""
    unknown = {r: gpus for r in ROLES if isinstance(gpus := fleet[r].gpus_per_group, Missing)}
    if not unknown:
        return []
    named = role if role in unknown else role.partner
    return [Hold(Code.COST_UNKNOWN, True, False, {"of": named.value, "why": unknown[named].missing})]


def _paused(*marks: str) -> list[Hold]:
    """A pause of the workload, of the whole service, or both."""
    return [
        Hold(Code.PAUSED, mark in ("all", "out"), mark in ("all", "in"), {"paused": mark})
        for mark in marks
        if mark in ("all", "in", "out")
    ]


def _manual(state: State, now_s: float, role: Role, fleet: RoleFleet, hold_s: float) -> Held | None:
    look = Seen(
        now_s=now_s,
        replicas=fleet.replicas,
        ours=state.written.get(role),
        foreign_manager=_foreign(state, role, fleet),
        written_at_s=fleet.writer.at_s if fleet.writer else fleet.created_s,
        created_s=fleet.created_s,
        resume=fleet.resume,
    )
    return manual_hold(look, state.manual.get(role), hold_s)


def _foreign(state: State, role: Role, fleet: RoleFleet) -> str | None:
    """Who else may have set the number. In our own name that is known only of one that we know not to be ours."""
    if fleet.owner == "us":
        return ANOTHER if role in state.written else None
    return fleet.writer.manager if fleet.writer and not _is_default(fleet) else None


def _dropped(state: State, now_s: float, fleet: Managed) -> tuple[State, Pair, tuple[Reason, ...]]:
    """The sizes to decide from: where somebody's apply dropped our number, it is still ours."""
    current = fleet.replicas
    drops: dict[Role, Drops] = {}
    why: list[Reason] = []
    for role in ROLES:
        own, ours = fleet[role], state.written.get(role)
        drops[role] = look_for_drop(
            state.drops.get(role, Drops()),
            now_s,
            unowned=_is_default(own) and not _unwritten(own, ours),
            replicas=own.replicas,
            ours=ours.replicas if ours else None,
        )
        if drops[role].dropped and ours and not drops[role].given_up:
            current = current.with_role(role, ours.replicas)
            detail: Detail = {"ours": ours.replicas, "found": own.replicas, "by": _who(own)}
            why.append(Reason(Stage.DECIDE, Code.FIELD_RESTORED, role, detail))
    return replace(state, drops=drops), current, tuple(why)


def _is_default(fleet: RoleFleet) -> bool:
    """Whether the number is nobody's. A scale to 0 leaves it unowned, too; only the default is a dropped field."""
    return fleet.owner == "nobody" and fleet.replicas == DEFAULT_REPLICAS


def _unwritten(fleet: RoleFleet, ours: Ours | None) -> bool:
    """Whether our last write has not come about, or is not seen yet: the number before it, unwritten since."""
    return (
        ours is not None and fleet.replicas == ours.before and (fleet.writer is None or fleet.writer.at_s < ours.at_s)
    )


def _given_up(drops: Drops, fleet: RoleFleet) -> list[Hold]:
    if not drops.given_up:
        return []
    detail: Detail = {"by": _who(fleet), "times": len(drops.at_s), "within_s": WINDOW_S}
    return [Hold(Code.RESTORE_GIVEN_UP, True, True, detail, pinned=fleet.replicas)]


def _who(fleet: RoleFleet) -> str:
    return fleet.writer.manager if fleet.writer else "unknown"


def _budget(
    target: Pair,
    current: Pair,
    minimum: Pair,
    fleet: Managed,
    holds: Mapping[Role, tuple[Hold, ...]],
    unsized: tuple[Role, ...],
    budget: int,
) -> tuple[Pair, tuple[Reason, ...]]:
    prefill, decode = fleet.prefill.gpus_per_group, fleet.decode.gpus_per_group
    if isinstance(prefill, Missing) or isinstance(decode, Missing):
        return target, ()
    held = {role for role in ROLES if role in unsized or any(hold.no_shrink for hold in holds[role])}
    kept = [min(target[role], current[role]) if role in held else minimum[role] for role in ROLES]
    return fit_budget(target, Pair(*kept), Pair(prefill, decode), budget)


def _floor(
    state: State,
    now_s: float,
    fleet: Managed,
    sized: Sized,
    target: Pair,
    minimum: Pair,
    windows: dict[str, tuple[float, float]],
    seen_s: float,
    keep_s: float,
) -> tuple[Pair, State]:
    """The median demand's groups, at least the minimum, at most the target and the ready ones, at least 1.

    It falls only after the shrink window, so that a noisy median does not patch every tick.
    """
    present = Pair(*(_floor_now(fleet[role]) for role in ROLES))
    median = {role: present[role] if isinstance(size := sized[role], Missing) else size.floor for role in ROLES}
    wanted = Pair(*(max(median[role], minimum[role]) for role in ROLES))
    steady, _ = stabilise(wanted, present, state.floors, now_s, **windows, seen_s=seen_s)
    floor = Pair(*(max(1, min(steady[role], target[role], fleet[role].ready)) for role in ROLES))
    return floor, replace(state, floors=_remember(state.floors, now_s, wanted, keep_s))


def _floor_now(fleet: RoleFleet) -> int:
    if isinstance(fleet.min_pods, Missing):
        return 1
    return max(1, fleet.min_pods // fleet.pods_per_group)
