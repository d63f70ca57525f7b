"""Decide: a proposal becomes a target through the policies, in this order, each with its reasons.

 0. restore      a number that an apply dropped is still ours
 1. bounds       minimum and maximum groups
 2. stalled      groups that make no progress are no supply: as many come on top
 3. ratio        the band between the roles that a person set, by raising the short one
 4. unread       groups that cannot be read are full on the way down
 5. tolerance    what is too small a change is none; what comes out is remembered as the proposal
 6. behaviour    windows, then rates per direction; a role that is outrun does not wait for its window to grow;
                 a silence that ended the forecast's memory is as long as the window to shrink, and stands for it
 7. survivors    no shrink to where those that stay would be full with what arrives now
 8. SLO          no shrink below what the median demand needs
 9. burst        no shrink while a burst lasts; afterwards its peak is let go slowly
10. bounds       again: a size outside of them is corrected at once, also when blind
11. holds        blind role, partial numbers, pause, a person's number
12. budget       exact projection into the GPU budget; held roles are not cut; with an unknown cost nothing grows
13. ratio        named where all this leaves the pair outside of the band of a person and of the work

A role without a size (its demand is missing) stays where it is, inside its bounds; its partner goes on.
7 to 9 only stop a shrink. Capacity has its say when a step is planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoscaler.core.holds import Managed, look_for_holds, restore_dropped
from autoscaler.core.size import RoleSize, Sized
from autoscaler.model import Forecast, Observation, RoleFleet, Signals, State, Target
from autoscaler.settings import Settings
from forecasting.recent import SILENCE
from policies.behaviour import Behaviour, Behaviours, behave, remember_size, tolerate
from policies.bounds import bound
from policies.budget import keep_budget
from policies.burst import BurstRules, keep_burst, panicking, watch_burst
from policies.hold import apply_holds
from policies.model import ROLES, Code, Missing, Pair, Reason, Role, Stage, Verdict
from policies.ratio import ALIKE, Band, Span, band_of_work, keep_ratio, name_ratio, narrowed
from policies.slo import keep_slo
from policies.stabilise import stabilise
from policies.stalled import add_stalled, no_supply
from policies.survivors import Load, keep_survivors
from policies.unread import keep_unread

_History = tuple[tuple[float, Pair], ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """The target, the state that goes on, and why."""

    target: Target
    state: State
    why: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class _Look:
    """What the policies of one tick have in common. `current`: groups to decide from; `sizes`: of the sized roles;
    `idle`: groups that are no supply, and come on top of what the work needs.
    """

    now_s: float
    seen_s: float
    current: Pair
    minimum: Pair
    maximum: Pair
    fleet: Managed
    signals: Signals
    sizes: Mapping[Role, RoleSize]
    idle: Pair
    settings: Settings
    behaviours: Behaviours

    @property
    def windows(self) -> dict[str, tuple[float, float]]:
        """Both windows as `stabilise` takes them."""
        prefill, decode = self.behaviours[Role.PREFILL], self.behaviours[Role.DECODE]
        return {
            "up_s": (prefill.up.window_s, decode.up.window_s),
            "down_s": (prefill.down.window_s, decode.down.window_s),
        }

    @property
    def keep_s(self) -> float:
        """How far back proposals have to be known."""
        return max(max(pair) for pair in self.windows.values())

    @property
    def supply(self) -> Pair:
        """Groups that serve."""
        return Pair(*(max(0, self.fleet[role].ready - self.idle[role]) for role in ROLES))


def decide(
    state: State,
    seen: Observation,
    fleet: Managed,
    signals: Signals,
    expected: Forecast,
    sized: Sized,
    settings: Settings,
) -> Decided:
    """Run the policies. Linear in the kept history."""
    why: list[Reason] = []

    def keep(verdict: Verdict) -> Pair:
        why.extend(verdict[1])
        return verdict[0]

    state, current, reasons = restore_dropped(state, seen.now_s, fleet)
    why += reasons
    state, holds, reasons = look_for_holds(state, seen.now_s, fleet, signals, settings)
    why += reasons
    look = _look(state, seen.now_s, current, fleet, signals, expected, sized, settings)
    proposal = keep(_proposal(sized, look))
    state, target, reasons = _moved(state, proposal, look)
    why += reasons
    target = keep(keep_survivors(target, current, _loads(expected, look)))
    target = keep(keep_slo(target, current, _floors_of_slo(look)))
    target = keep(keep_burst(target, current, state.panics, look.now_s, _burst_rules(signals)))
    target = keep(bound(target, look.minimum, look.maximum))
    target = keep(apply_holds(target, current, holds))
    kept = tuple(role for role in ROLES if role not in look.sizes or any(hold.no_shrink for hold in holds[role]))
    target = keep(_budget(target, kept, look))
    why += _outside(target, look)
    floor, state = _floor(state, target, look)
    echoes = tuple(role for role in ROLES if role not in look.sizes and target[role] == fleet[role].replicas)
    return Decided(Target(target, floor, echoes, kept), state, tuple(why))


def _look(
    state: State,
    now_s: float,
    current: Pair,
    fleet: Managed,
    signals: Signals,
    expected: Forecast,
    sized: Sized,
    settings: Settings,
) -> _Look:
    spec = settings.spec
    sizes = {role: found for role in ROLES if not isinstance(found := sized[role], Missing)}
    needed = {role: sizes[role].groups if role in sizes else 0 for role in ROLES}
    return _Look(
        now_s=now_s,
        seen_s=0.0 if state.started_s is None else now_s - state.started_s,
        current=current,
        minimum=Pair(spec.prefill.min_groups, spec.decode.min_groups),
        maximum=Pair(spec.prefill.max_groups, spec.decode.max_groups),
        fleet=fleet,
        signals=signals,
        sizes=sizes,
        idle=Pair(*(no_supply(len(signals[role].stalled), needed[role], fleet[role].ready) for role in ROLES)),
        settings=settings,
        behaviours={role: _behaviour(role, signals, expected, settings) for role in ROLES},
    )


def _behaviour(role: Role, signals: Signals, expected: Forecast, settings: Settings) -> Behaviour:
    rules, ask = settings.spec.role(role).behaviour(signals[role].cold_start_s), expected[role]
    if isinstance(ask, Missing) or ask.model != SILENCE:
        return rules
    return replace(rules, down=replace(rules.down, window_s=0.0))


def _proposal(sized: Sized, look: _Look) -> Verdict:
    """What each role needs, inside its bounds and the band; a role without a size stays where it is."""
    why: list[Reason] = []
    needed = look.current
    for role in ROLES:
        size = sized[role]
        if isinstance(size, Missing):
            why.append(Reason(Stage.DECIDE, Code.HELD_BLIND, role, {"why": size.missing}))
        else:
            one, reasons = bound(needed.with_role(role, size.groups), look.minimum, look.maximum)
            needed = needed.with_role(role, one[role])
            why += [reason for reason in reasons if reason.role is role]
    needed, reasons = add_stalled(needed, {role: look.signals[role].stalled for role in ROLES}, look.idle, look.maximum)
    why += reasons
    band = look.settings.spec.ratio_band
    raised, reasons = keep_ratio(needed, band.min, band.max, look.maximum, _weights(look.fleet))
    if all(raised[role] == needed[role] or role in look.sizes for role in ROLES):
        needed, why = raised, [*why, *reasons]
    signals = look.signals
    unread = {role: signals[role].unread for role in ROLES if not signals[role].blind}
    needed, reasons = keep_unread(needed, look.current, unread)
    return needed, (*why, *reasons)


def _weights(fleet: Managed) -> Pair:
    """GPUs of a group of each role, to tell the cheapest repair; alike where one is not known."""
    prefill, decode = fleet.prefill.gpus_per_group, fleet.decode.gpus_per_group
    return ALIKE if isinstance(prefill, Missing) or isinstance(decode, Missing) else Pair(prefill, decode)


def _moved(state: State, proposal: Pair, look: _Look) -> tuple[State, Pair, tuple[Reason, ...]]:
    """Tolerance, windows and rates, and what is remembered for them. Linear in the kept history."""
    now_s, rules = look.now_s, _burst_rules(look.signals)
    wanted = Pair(*(_expected(look.sizes.get(role)) for role in ROLES))
    keep_s = max(look.behaviours[role].longest_period_s for role in ROLES)
    panics = watch_burst(state.panics, now_s, wanted, look.supply, rules)
    sizes = remember_size(state.sizes, now_s, look.current, keep_s)
    tolerated, why = tolerate(proposal, look.current, look.behaviours)
    target, reasons = behave(
        tolerated,
        look.current,
        look.behaviours,
        history=state.proposals,
        sizes=sizes,
        now_s=now_s,
        seen_s=look.seen_s,
        panicking=panicking(panics, now_s, rules),
    )
    proposals = _remember(state.proposals, now_s, tolerated, look.keep_s)
    return replace(state, proposals=proposals, sizes=sizes, panics=panics), target, (*why, *reasons)


def _remember(history: _History, now_s: float, pair: Pair, keep_s: float) -> _History:
    return (*((at_s, old) for at_s, old in history if at_s > now_s - keep_s), (now_s, pair))


def _burst_rules(signals: Signals) -> dict[Role, BurstRules]:
    """A burst is over after a cold start without another one, and let go in one more: what was paid to have it."""
    return {role: BurstRules(signals[role].cold_start_s, signals[role].cold_start_s) for role in ROLES}


def _expected(size: RoleSize | None) -> int:
    """Groups for what is expected: a peak that is over before a group has started is no reason to start one."""
    return size.floor if size else 0


def _loads(expected: Forecast, look: _Look) -> dict[Role, Load]:
    """What arrives at each role. Where it is within what was sized for, the size is enough."""
    loads: dict[Role, Load] = {}
    for role in ROLES:
        size, ask, rate = look.sizes.get(role), expected[role], look.signals.demand.tokens_per_s(role)
        if size is None:
            loads[role] = Load(Missing("its demand is not known"), 0.0)
            continue
        covered = not isinstance(ask, Missing) and not isinstance(rate, Missing) and rate <= ask.tokens_per_s_high
        loads[role] = Load(
            size.load,
            size.load_most,
            look.idle[role],
            max(size.groups, size.floor) if covered else None,
        )
    return loads


def _floors_of_slo(look: _Look) -> dict[Role, int | Missing]:
    """The groups that meet the SLO for the median demand, beside those that are stalled."""
    return {
        role: look.sizes[role].floor + look.idle[role] if role in look.sizes else Missing("its demand is not known")
        for role in ROLES
    }


def _budget(target: Pair, kept: tuple[Role, ...], look: _Look) -> Verdict:
    held = [min(target[role], look.current[role]) if role in kept else look.minimum[role] for role in ROLES]
    return keep_budget(target, look.current, Pair(*held), look.fleet.costs, look.settings.spec.gpu_budget)


def _outside(target: Pair, look: _Look) -> tuple[Reason, ...]:
    """The work's own band asks for nothing: each role has what its work needs. It tells what has come of that."""
    wanted = look.settings.spec.ratio_band
    band = narrowed(Band(wanted.min, wanted.max), band_of_work(*(_span(role, look) for role in ROLES)))
    return name_ratio(target, band.low, band.high)


def _span(role: Role, look: _Look) -> Span | Missing:
    """What a role's work may come to need, inside its bounds; nothing where there is no work."""
    size = look.sizes.get(role)
    if size is None or size.low <= 0:
        return Missing("no work is known")
    needs = (min(size.low, size.floor), max(size.high, size.groups))
    low, high = (min(max(groups, look.minimum[role]), look.maximum[role]) for groups in needs)
    return Span(low, high + look.idle[role])


def _floor(state: State, target: Pair, look: _Look) -> tuple[Pair, State]:
    """The median demand's groups, at least the minimum, at most the target and the ready ones, at least 1.

    It falls only after the shrink window, so that a noisy median does not patch every tick.
    """
    fleet = look.fleet
    present = Pair(*(_floor_now(fleet[role]) for role in ROLES))
    median = {role: look.sizes[role].floor if role in look.sizes else present[role] for role in ROLES}
    wanted = Pair(*(max(median[role], look.minimum[role]) for role in ROLES))
    steady, _ = stabilise(wanted, present, state.floors, look.now_s, **look.windows, seen_s=look.seen_s)
    floor = Pair(*(max(1, min(steady[role], target[role], fleet[role].ready)) for role in ROLES))
    return floor, replace(state, floors=_remember(state.floors, look.now_s, wanted, look.keep_s))


def _floor_now(fleet: RoleFleet) -> int:
    if isinstance(fleet.min_pods, Missing):
        return 1
    return max(1, fleet.min_pods // fleet.pods_per_group)
