"""Why a role may not move: blind, partial, paused, a person's number, a number that keeps being dropped.

Rules:
1. A hold concerns one role and directions of it; the partner goes on.
2. What a person wrote, and what was dropped by an apply, is told from replicas, owners and what we last wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoscaler.model import RoleFleet, Signals, State
from autoscaler.settings import Settings
from policies.hold import Hold
from policies.manual import ANOTHER, Held, Ours, Seen, manual_hold
from policies.model import ROLES, Code, Detail, Missing, Pair, Reason, Role, Stage
from policies.restore import WINDOW_S, Drops, look_for_drop

DEFAULT_REPLICAS = 1
Holds = Mapping[Role, tuple[Hold, ...]]


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

    @property
    def costs(self) -> Mapping[Role, int | Missing]:
        """GPUs of one group."""
        return {role: self[role].gpus_per_group for role in ROLES}


def look_for_holds(
    state: State, now_s: float, fleet: Managed, signals: Signals, settings: Settings
) -> tuple[State, Holds, tuple[Reason, ...]]:
    """All holds per role; the manual ones carry on in the state."""
    holds: dict[Role, tuple[Hold, ...]] = {}
    manual: dict[Role, Held] = {}
    why: list[Reason] = []
    # In a dry run somebody else is in charge: every change is theirs, and none of them is a hold.
    hold_s = settings.spec.manual_hold_s if settings.spec.writes else 0.0
    for role in ROLES:
        found = [*_blind(role, signals), *_partial(role, signals)]
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


def restore_dropped(state: State, now_s: float, fleet: Managed) -> tuple[State, Pair, tuple[Reason, ...]]:
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
