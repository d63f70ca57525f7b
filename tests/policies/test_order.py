"""Policies in a row: whatever the order of those in the middle, bounds, holds and the budget hold at the end."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from policies.behaviour import Behaviour, Direction, Rate, behave, tolerate
from policies.bounds import bound
from policies.budget import cost_gpus, keep_budget
from policies.burst import BurstRules, Panic, keep_burst
from policies.hold import Hold, apply_holds
from policies.model import ROLES, Code, Missing, Pair, Role, Verdict
from policies.ratio import keep_ratio, name_ratio
from policies.slo import keep_slo
from policies.survivors import Load, keep_survivors
from policies.unread import keep_unread

counts = st.integers(1, 24)
pairs = st.builds(Pair, counts, counts)
MINIMUM, MAXIMUM = Pair(1, 1), Pair(20, 20)
RULES = {
    role: Behaviour(
        Direction(0.0, (Rate("Groups", 4, 60.0),), tolerance=0.1), Direction(60.0, (Rate("Percent", 50, 60.0),))
    )
    for role in ROLES
}
PANICS, CALM = {Role.PREFILL: Panic(980.0, 12)}, {role: BurstRules(60.0, 120.0) for role in ROLES}
BLIND = Hold(Code.ROLE_BLIND, no_growth=False, no_shrink=True, detail={"why": "unread"})

Policy = Callable[[Pair, Pair], Verdict]
MIDDLE: dict[str, Policy] = {
    "ratio": lambda proposal, _: keep_ratio(proposal, 0.5, 2.0, MAXIMUM),
    "unread": lambda proposal, current: keep_unread(proposal, current, {Role.DECODE: ("decode-1",)}),
    "tolerance": lambda proposal, current: tolerate(proposal, current, RULES),
    "behaviour": lambda proposal, current: behave(
        proposal, current, RULES, history=[(970.0, Pair(9, 2))], sizes=[(950.0, Pair(8, 8))], now_s=1000.0, seen_s=900.0
    ),
    "survivors": lambda proposal, current: keep_survivors(
        proposal, current, {Role.PREFILL: Load(4.0, 1.0), Role.DECODE: Load(Missing("?"), 1.0)}
    ),
    "slo": lambda proposal, current: keep_slo(proposal, current, {Role.PREFILL: 6, Role.DECODE: 3}),
    "burst": lambda proposal, current: keep_burst(proposal, current, PANICS, 1000.0, CALM),
}
"""Of these the controller uses: ratio, unread, tolerance, behaviour, survivors, slo, burst."""


def run(order: list[str], proposal: Pair, current: Pair, blind: bool, costs: dict[Role, int | Missing]) -> Verdict:
    """All policies: bounds first, those of the middle, then bounds, holds and the budget."""
    target, _ = bound(proposal, MINIMUM, MAXIMUM)
    for name in order:
        target, _ = MIDDLE[name](target, current)
    target, _ = bound(target, MINIMUM, MAXIMUM)
    target, _ = apply_holds(target, current, {Role.DECODE: (BLIND,) if blind else ()})
    kept = Pair(1, min(target.decode, current.decode)) if blind else MINIMUM
    return keep_budget(target, current, kept, costs, 32)


@given(
    order=st.permutations(sorted(MIDDLE)),
    proposal=pairs,
    current=pairs,
    blind=st.booleans(),
    gpus=st.builds(Pair, st.integers(1, 4), st.integers(1, 4)),
)
def test_bounds_holds_and_budget_hold_in_any_order(
    order: list[str], proposal: Pair, current: Pair, blind: bool, gpus: Pair
) -> None:
    target, _ = run(order, proposal, current, blind, {role: gpus[role] for role in ROLES})
    if blind:
        assert target.decode >= min(current.decode, MAXIMUM.decode)
    kept = Pair(1, min(current.decode, target.decode)) if blind else MINIMUM
    assert cost_gpus(target, gpus) <= max(32, cost_gpus(kept, gpus))
    highest = MAXIMUM if not blind else Pair(MAXIMUM.prefill, max(MAXIMUM.decode, current.decode))
    assert all(MINIMUM[role] <= target[role] <= highest[role] for role in ROLES)


@given(order=st.permutations(sorted(MIDDLE)), proposal=pairs, current=pairs)
def test_with_an_unknown_cost_no_order_grows_anything(order: list[str], proposal: Pair, current: Pair) -> None:
    target, _ = run(order, proposal, current, False, {Role.PREFILL: 2, Role.DECODE: Missing("no claim read")})
    assert all(target[role] <= current[role] for role in ROLES)


@given(
    order=st.permutations(["survivors", "slo", "burst", "unread"]),
    proposal=pairs,
    current=pairs,
)
def test_floors_after_the_behaviour_keep_its_direction_and_its_rates(
    order: list[str], proposal: Pair, current: Pair
) -> None:
    tolerated, _ = tolerate(proposal, current, RULES)
    moved, _ = MIDDLE["behaviour"](tolerated, current)
    target = moved
    for name in order:
        target, _ = MIDDLE[name](target, current)
    for role in ROLES:
        low, high = sorted((proposal[role], current[role]))
        assert low <= target[role] <= high
        assert target[role] >= moved[role]
        assert target[role] <= max(current[role], moved[role])


@given(proposal=pairs, current=pairs)
def test_a_ratio_repair_before_the_rates_is_limited_by_them_and_named_where_it_falls_short(
    proposal: Pair, current: Pair
) -> None:
    repaired, _ = MIDDLE["ratio"](proposal, current)
    target, _ = MIDDLE["behaviour"](repaired, current)
    for role in ROLES:
        assert target[role] <= max(current[role], 8 + 4)
    inside = 0.5 * target.decode <= target.prefill <= 2.0 * target.decode
    assert [reason.code for reason in name_ratio(target, 0.5, 2.0)] == ([] if inside else [Code.RATIO_OUTSIDE])
