"""How fast a role may move: HPA's `behavior`, per role and direction, over a pair of roles.

Rules:
1. The order is HPA's: tolerance, then the stabilisation window, then the rate policies.
2. raw <= current implies stabilised <= current, and raw >= current implies stabilised >= current, for any history.
3. What is remembered as the history of proposals is what `tolerate` returned, as HPA does it.
4. The size at a period's start is what was seen then, whoever changed it: a person's growth counts against the rate,
   too. Where nothing is known from before the period (after a restart) its start is the oldest size that is known.

Semantics: kubernetes/kubernetes pkg/controller/podautoscaler/horizontal.go, stabilizeRecommendationWithBehaviors,
calculateScaleUpLimitWithScalingRules and calculateScaleDownLimitWithBehaviors; the tolerance per direction is KEP-4951.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from policies.model import ROLES, Code, Pair, Reason, Role, Stage, Verdict
from policies.stabilise import Proposals, stabilise

Sizes = Sequence[tuple[float, Pair]]
"""Sizes as they were seen, in order of time; a size holds until the next entry."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `value` groups, or `value` % of the groups at its start, within any `period_s`."""

    unit: Literal["Percent", "Groups"]
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of one role. No rates: as fast as wanted. `tolerance`: the share of the current size that a change
    must exceed."""

    window_s: float
    rates: tuple[Rate, ...] = ()
    select: Literal["Max", "Min", "Disabled"] = "Max"
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Both directions of one role; the defaults are HPA's windows and rates, without its tolerance."""

    up: Direction = field(
        default_factory=lambda: Direction(0.0, (Rate("Percent", 100, 15.0), Rate("Groups", 4, 15.0)), "Max")
    )
    down: Direction = field(default_factory=lambda: Direction(300.0, (Rate("Percent", 100, 15.0),), "Max"))

    @property
    def longest_period_s(self) -> float:
        """How far back sizes have to be known."""
        return max((rate.period_s for rate in (*self.up.rates, *self.down.rates)), default=0.0)


Behaviours = Mapping[Role, Behaviour]


def tolerate(proposal: Pair, current: Pair, behaviours: Behaviours) -> Verdict:
    """Keep a role whose change is within the tolerance of its direction. From 0, nothing is within it."""
    target, why = proposal, []
    for role in ROLES:
        wanted, now = proposal[role], current[role]
        tolerance = (behaviours[role].up if wanted > now else behaviours[role].down).tolerance
        if wanted != now and abs(wanted - now) <= tolerance * now + 1e-9:
            why.append(_reason(Code.WITHIN_TOLERANCE, role, wanted, now, tolerance=tolerance))
            target = target.with_role(role, now)
    return target, tuple(why)


def behave(
    proposal: Pair,
    current: Pair,
    behaviours: Behaviours,
    *,
    history: Proposals,
    sizes: Sizes,
    now_s: float,
    seen_s: float,
    panicking: Collection[Role] = (),
) -> Verdict:
    """Windows, then rates. `history`: tolerated proposals before this one; `sizes`: what `remember_size` keeps;
    `seen_s`: for how long proposals have been kept. A panicking role does not wait for its window on the way up.

    Linear in the history and in the kept sizes.
    """
    up = {role: 0.0 if role in panicking else behaviours[role].up.window_s for role in ROLES}
    target, windowed = stabilise(
        proposal,
        current,
        history,
        now_s,
        up_s=(up[Role.PREFILL], up[Role.DECODE]),
        down_s=(behaviours[Role.PREFILL].down.window_s, behaviours[Role.DECODE].down.window_s),
        seen_s=seen_s,
    )
    target, limited = limit_rates(target, current, behaviours, sizes, now_s)
    return target, (*windowed, *limited)


def limit_rates(proposal: Pair, current: Pair, behaviours: Behaviours, sizes: Sizes, now_s: float) -> Verdict:
    """Move each role no further than its rate policies allow, and never against the proposal's direction."""
    target, why = proposal, []
    for role in ROLES:
        wanted, now = proposal[role], current[role]
        known = [(at_s, pair[role]) for at_s, pair in sizes]
        if wanted > now:
            groups = min(wanted, max(now, _up_limit(behaviours[role].up, known, now, now_s)))
        else:
            groups = max(wanted, min(now, _down_limit(behaviours[role].down, known, now, now_s)))
        if groups != wanted:
            why.append(_reason(Code.RATE_LIMITED, role, wanted, groups))
            target = target.with_role(role, groups)
    return target, tuple(why)


def remember_size(sizes: Sizes, now_s: float, current: Pair, keep_s: float) -> tuple[tuple[float, Pair], ...]:
    """The sizes after this look: the changes of the last `keep_s` and the size before them, then this look.

    A change is dated at the look before it, as our own writes are made right after one.
    """
    before = tuple(sizes)
    if before:
        last_s, last = before[-1]
        looked = len(before) > 1 and before[-2][1] == last
        changes = before[:-1] if looked else before
        before = changes if current == last else (*changes, (last_s, current))
    kept = (*before, (now_s, current))
    old = sum(1 for at_s, _ in kept if at_s <= now_s - keep_s)
    return kept[max(0, old - 1) :]


def _up_limit(rules: Direction, known: Sequence[tuple[float, int]], now: int, now_s: float) -> int:
    """The most groups allowed now."""
    limits = [_grown(rate, _at(known, now_s - rate.period_s, now)) for rate in rules.rates]
    if rules.select == "Disabled":
        return now
    return (min if rules.select == "Min" else max)(limits) if limits else _UNLIMITED


def _down_limit(rules: Direction, known: Sequence[tuple[float, int]], now: int, now_s: float) -> int:
    """The fewest groups allowed now."""
    limits = [_shrunk(rate, _at(known, now_s - rate.period_s, now)) for rate in rules.rates]
    if rules.select == "Disabled":
        return now
    return (max if rules.select == "Min" else min)(limits) if limits else 0


_UNLIMITED = 1 << 30


def _grown(rate: Rate, start: int) -> int:
    return start + rate.value if rate.unit == "Groups" else -(-start * (100 + rate.value) // 100)


def _shrunk(rate: Rate, start: int) -> int:
    return max(0, start - rate.value if rate.unit == "Groups" else start * (100 - rate.value) // 100)


def _at(known: Sequence[tuple[float, int]], then_s: float, now: int) -> int:
    """The size at a moment: that of the last entry up to it, else of the oldest entry, else the present one."""
    size = known[0][1] if known else now
    for at_s, groups in known:
        if at_s > then_s:
            break
        size = groups
    return size


def _reason(code: Code, role: Role, wanted: int, kept: int, **more: float) -> Reason:
    return Reason(Stage.DECIDE, code, role, {"wanted": wanted, "kept": kept, **more})
