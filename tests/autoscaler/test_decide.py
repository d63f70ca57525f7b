"""Decide: the policies in their order, what each of them adds, and what holds for any history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from autoscaler.codec import decode, encode
from autoscaler.core.size import RoleSize
from autoscaler.model import State
from policies.budget import cost_gpus
from policies.model import ROLES, Code, Missing, Pair, Role
from tests.autoscaler.loop import Loop, both, need
from tests.autoscaler.plant import make_settings

QUICK = {"maxGroups": 40, "coldStartS": 10}
UNKNOWN = Missing("no arrivals counted")


def chosen(prefill: dict[str, Any] | None = None, decode: dict[str, Any] | None = None, **spec: Any) -> Any:
    roles = {"prefill": QUICK | (prefill or {}), "decode": QUICK | (decode or {})}
    return make_settings(**{"gpuBudget": 400, **roles, **spec})


def test_growth_is_immediate_and_a_shrink_waits_for_half_a_measured_cold_start() -> None:
    loop = Loop(chosen(), cold_start_s=30.0).start(2, 2)
    assert loop.tick(both(need(5), need(2))).target.groups == Pair(5, 2)
    loop.run(both(need(5), need(2)), 5)
    assert loop.tick(both(need(1, load=0.1), need(2))).target.groups.prefill == 5
    assert loop.reason(Code.STABILISED).detail["window_s"] == 15.0
    loop.run(both(need(1, load=0.1), need(2)), 90)
    assert loop.now == Pair(1, 2)


@pytest.mark.parametrize(
    ("rules", "groups"),
    [
        pytest.param({}, 20, id="at once"),
        pytest.param({"policies": [{"type": "Groups", "value": 3, "periodS": 60}]}, 7, id="groups"),
        pytest.param({"policies": [{"type": "Percent", "value": 50, "periodS": 60}]}, 6, id="percent"),
        pytest.param({"selectPolicy": "Disabled"}, 4, id="disabled"),
        pytest.param({"stabilizationS": 60}, 4, id="window"),
    ],
)
def test_growth_within_a_minute(rules: dict[str, Any], groups: int) -> None:
    loop = Loop(chosen(prefill={"scaleUp": rules}))
    loop.start(4, 1).run(both(need(4), need(1)), 10)
    loop.run(both(need(20, floor=4), need(1)), 50)
    assert loop.now.prefill == groups


def test_a_role_that_is_outrun_does_not_wait_for_its_window_to_grow() -> None:
    loop = Loop(chosen(prefill={"scaleUp": {"stabilizationS": 60}})).start(4, 1)
    loop.run(both(need(4), need(1)), 10)
    assert loop.tick(both(need(7), need(1))).target.groups.prefill == 4
    assert loop.tick(both(need(9), need(1))).target.groups.prefill == 9


def test_a_small_change_is_none_and_a_large_one_is_whole() -> None:
    loop = Loop(chosen(prefill={"scaleUp": {"tolerance": 0.2}})).start(10, 1)
    assert loop.tick(both(need(12), need(1))).target.groups.prefill == 10
    assert Code.WITHIN_TOLERANCE in loop.codes
    assert loop.state.proposals[-1][1] == Pair(10, 1)
    assert loop.tick(both(need(13), need(1))).target.groups.prefill == 13


def test_a_burst_is_kept_for_a_cold_start_after_its_last_sign_and_let_go_slowly() -> None:
    brief = {"scaleDown": {"stabilizationS": 0}}
    loop = Loop(chosen(prefill=brief, decode=brief), cold_start_s=10.0).start(2, 1)
    loop.run(both(need(8), need(1)), 12)
    assert loop.now.prefill == 8
    kept = [loop.tick(both(need(1, load=0.1), need(1))).target.groups.prefill for _ in range(25)]
    assert kept[0] == 8
    assert kept[-1] == 1
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) > 3


def test_stalled_groups_come_on_top_and_no_survivor_is_one() -> None:
    loop = Loop(chosen()).start(3, 3)
    loop.said[Role.DECODE] = {"stalled": ("decode-0",)}
    assert loop.tick(both(need(3), need(3))).target.groups == Pair(3, 4)
    stalled = loop.reason(Code.STALLED_NO_SUPPLY)
    assert (stalled.role, stalled.detail["stalled"], stalled.detail["named"]) == (Role.DECODE, 1, "decode-0")
    loop.run(both(need(1, load=0.1), need(1, load=0.1)), 120)
    assert loop.now == Pair(1, 2)
    narrow = Loop(chosen(decode={"maxGroups": 3})).start(3, 3)
    narrow.said[Role.DECODE] = {"stalled": ("decode-0",)}
    assert narrow.tick(both(need(3), need(3))).target.groups.decode == 3


@pytest.mark.parametrize(
    ("stalled", "needed", "groups"),
    [
        pytest.param(2, 4, 6, id="half of them are replaced"),
        pytest.param(3, 4, 4, id="most of them: what ails them would stall the new ones"),
        pytest.param(1, 0, 1, id="no work: none is missed, and none stops the shrink"),
    ],
)
def test_what_stalls_them_all_is_named_and_drives_no_growth(stalled: int, needed: int, groups: int) -> None:
    loop = Loop(chosen()).start(1, 4)
    loop.said[Role.DECODE] = {"stalled": tuple(f"decode-{index}" for index in range(stalled))}
    sizes = both(need(1), need(needed, load=0.5 * needed))
    loop.run(sizes, 2)
    assert loop.reason(Code.STALLED_NO_SUPPLY).detail["stalled"] == stalled
    loop.run(sizes, 60)
    assert loop.now.decode == groups


def test_a_role_of_one_group_that_stalls_gets_another_one_and_no_third() -> None:
    loop = Loop(chosen()).start(1, 1)
    loop.said[Role.DECODE] = {"stalled": ("decode-0",)}
    loop.run(both(need(1), need(1)), 30)
    assert loop.now.decode == 2
    loop.said[Role.DECODE] = {"stalled": ("decode-0", "decode-1")}
    loop.run(both(need(1), need(1)), 3)
    assert loop.now.decode == 2


def test_a_persons_band_raises_the_short_role_and_the_works_own_band_only_tells() -> None:
    sizes = both(need(6), need(2))
    assert Loop(chosen()).start(6, 2).tick(sizes).target.groups == Pair(6, 2)
    loop = Loop(chosen(ratioBand={"min": 0.5, "max": 1.5})).start(6, 2)
    assert loop.tick(sizes).target.groups == Pair(6, 4)
    assert Code.RATIO_REPAIRED in loop.codes
    stuck = Loop(chosen(decode={"scaleUp": {"selectPolicy": "Disabled"}})).start(6, 3)
    stuck.tick(both(need(6), need(6)))
    assert stuck.reason(Code.RATIO_OUTSIDE).detail == {"prefill": 6, "decode": 3, "low": 1.0, "high": 1.0}


def test_a_band_out_of_reach_is_named_and_neared() -> None:
    loop = Loop(chosen(decode={"maxGroups": 3}, ratioBand={"min": 0.5, "max": 1.5})).start(6, 2)
    assert loop.tick(both(need(6), need(2))).target.groups == Pair(6, 3)
    assert {Code.RATIO_UNREACHABLE, Code.RATIO_OUTSIDE} <= loop.codes


def test_survivors_keep_what_comes_now_where_a_fall_is_only_expected() -> None:
    brief = {"scaleDown": {"stabilizationS": 0}}
    loop = Loop(chosen(prefill=brief, decode=brief), falls=True).start(10, 1)
    loop.run(both(need(4, load=6.4), need(1, load=0.1)), 60)
    assert loop.now.prefill == 9
    assert loop.reason(Code.SURVIVORS_FULL).detail["most"] == pytest.approx(0.72)


@pytest.mark.parametrize("load", [7.0, 7.1, 7.2])
def test_survivors_hold_nothing_above_what_sizing_has_for_this_very_load(load: float) -> None:
    brief = {"scaleDown": {"stabilizationS": 0}}
    loop = Loop(chosen(prefill=brief, decode=brief)).start(12, 1)
    loop.run(both(need(9, load=load), need(1)), 60)
    assert loop.now.prefill == 9


def test_the_slo_floor_stops_a_shrink_and_drives_no_growth() -> None:
    brief = {"maxGroups": 3, "scaleDown": {"stabilizationS": 0}}
    loop = Loop(chosen(prefill=brief, decode=brief)).start(2, 2)
    assert loop.tick(both(RoleSize(1, 4, 0.1, 1.0, 1.0, 1.0), need(2))).target.groups.prefill == 2
    assert Code.SLO_FLOOR in loop.codes


def test_a_blind_role_stays_and_its_partner_grows() -> None:
    loop = Loop(chosen()).start(4, 4)
    loop.said[Role.DECODE] = {"blind": True}
    loop.run(both(need(8), need(1, load=0.0)), 60)
    assert loop.now == Pair(8, 4)
    loop.run(both(need(8), UNKNOWN), 60)
    assert loop.now == Pair(8, 4)
    assert {Code.HELD_BLIND, Code.ROLE_BLIND} & loop.codes


def test_with_an_unknown_cost_nothing_grows_and_everything_may_shrink() -> None:
    loop = Loop(chosen()).start(4, 4)
    loop.changes[Role.DECODE] = {"gpus_per_group": Missing("GPUs come through resourceClaims")}
    loop.run(both(need(8), need(1, load=0.0)), 60)
    assert loop.now == Pair(4, 1)
    unknown = loop.reason(Code.COST_UNKNOWN)
    assert (unknown.role, unknown.detail["of"]) == (Role.PREFILL, "decode")


def test_a_budget_below_both_minimums_is_one_reason_and_no_growth() -> None:
    minimum = {"minGroups": 2}
    loop = Loop(chosen(prefill=minimum, decode=minimum, gpuBudget=6)).start(2, 2)
    decided = loop.tick(both(need(5), need(5)))
    assert decided.target.groups == Pair(2, 2)
    found = [reason for reason in loop.why if reason.code is Code.BUDGET_BELOW_MINIMUM]
    assert [str(reason) for reason in found] == ["BudgetBelowMinimum (minimum_gpus=8 budget_gpus=6)"]


def test_the_memory_of_a_tick_survives_as_json_and_stays_short() -> None:
    rates = {"policies": [{"type": "Groups", "value": 2, "periodS": 30}]}
    loop = Loop(chosen(prefill={"scaleUp": rates}), room_gpus=8).start(2, 1)
    for count in (2, 9, 9, 3, 12) * 40:
        loop.run(both(need(count), need(2)), 3)
    assert loop.state.panics
    assert loop.state.sizes
    assert decode(State, encode(State, loop.state)) == loop.state
    assert len(loop.state.sizes) <= 32
    assert len(loop.state.proposals) <= loop.cold_start_s / loop.period_s + 1


# For any history.

sizes_ = some.builds(
    lambda groups, floor, share, most: need(max(groups, floor), floor, max(groups, floor) * share * most, most),
    some.integers(0, 12),
    some.integers(0, 12),
    some.floats(0, 1.3),
    some.floats(0.2, 1.0),
)
looks = some.lists(some.tuples(sizes_ | some.just(UNKNOWN), sizes_, some.integers(1, 25)), min_size=1, max_size=12)
policies_ = some.lists(
    some.fixed_dictionaries(
        {
            "type": some.sampled_from(["Percent", "Groups"]),
            "value": some.integers(1, 120),
            "periodS": some.sampled_from([5, 30]),
        }
    ),
    max_size=2,
)
directions = some.fixed_dictionaries(
    {
        "policies": policies_,
        "selectPolicy": some.sampled_from(["Max", "Min", "Disabled"]),
        "tolerance": some.sampled_from([0.0, 0.3]),
    },
    optional={"stabilizationS": some.sampled_from([0, 7, 40])},
)
roles = some.fixed_dictionaries({"scaleUp": directions, "scaleDown": directions})
flags = some.booleans()


@settings(max_examples=60, deadline=None)
@given(
    prefill=roles, decode=roles, looks=looks, start=some.tuples(some.integers(1, 12), some.integers(1, 12)), fall=flags
)
def test_what_is_decided_never_goes_against_what_was_proposed(
    prefill: Any, decode: Any, looks: Any, start: tuple[int, int], fall: bool
) -> None:
    loop = Loop(chosen(prefill, decode), falls=fall).start(*start)
    for own, partner, ticks in looks:
        for _ in range(ticks):
            before = loop.now
            target = loop.tick(both(own, partner)).target.groups
            raw = loop.state.proposals[-1][1]
            for role in ROLES:
                low, high = sorted((raw[role], before[role]))
                assert low <= target[role] <= high


@settings(max_examples=60, deadline=None)
@given(
    looks=looks,
    start=some.tuples(some.integers(1, 6), some.integers(1, 6)),
    gpus=some.builds(Pair, some.integers(1, 4), some.integers(1, 4)),
    budget=some.integers(4, 50),
    blind=flags,
)
def test_the_budget_holds_at_every_step_also_while_groups_drain(
    looks: Any, start: tuple[int, int], gpus: Pair, budget: int, blind: bool
) -> None:
    loop = Loop(chosen(gpuBudget=budget), gpus=gpus).start(*start)
    loop.said[Role.DECODE] = {"blind": blind}
    for own, partner, ticks in looks:
        for _ in range(ticks):
            paid, before = loop.paid_gpus, loop.now
            target = loop.tick(both(own, partner)).target.groups
            assert loop.paid_gpus <= max(budget, paid)
            if blind:
                assert loop.now.decode >= before.decode
            kept = before.decode if blind else 1
            held = Pair(before.prefill if isinstance(own, Missing) else 1, min(kept, target.decode))
            assert cost_gpus(target, gpus) <= max(budget, cost_gpus(held, gpus))


@settings(max_examples=40, deadline=None)
@given(looks=looks, start=some.tuples(some.integers(1, 6), some.integers(1, 6)))
def test_equal_inputs_give_equal_decisions(looks: Any, start: tuple[int, int]) -> None:
    first, second = (Loop(chosen()).start(*start) for _ in range(2))
    for own, partner, ticks in looks:
        assert first.run(both(own, partner), ticks) == second.run(both(own, partner), ticks)
    assert first.state == replace(second.state)
