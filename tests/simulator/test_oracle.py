"""The oracle against its definition in layers, and against every schedule that there is, on small series."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.profile import load_profile
from policies.model import Pair, Role
from simulator.oracle import Oracle, RoleNeeds, Steps, ahead, fluid_needs, gpu_hours, group_seconds, steps_of
from tests.simulator.seen import seen


@pytest.mark.parametrize(
    ("series", "cold_start_s", "expected"),
    [
        pytest.param([0, 2, 2, 0], 1.0, [(-1.0, 0), (0.0, 2), (3.0, 0)], id="asked for one cold start ahead"),
        pytest.param([2, 0, 0, 1, 0], 2.0, [(-2.0, 2), (1.0, 1), (4.0, 0)], id="a gap of a cold start is filled"),
        pytest.param([1, 0, 0, 0, 1], 2.0, [(-2.0, 1), (1.0, 0), (2.0, 1), (5.0, 0)], id="a longer one is not"),
        pytest.param([3, 1, 2], 0.0, [(0.0, 3), (1.0, 1), (2.0, 2), (3.0, 0)], id="no cold start"),
        pytest.param([1, 3, 1], 9.0, [(-9.0, 1), (-8.0, 3), (2.0, 1), (3.0, 0)], id="all within one cold start"),
        pytest.param([0, 0], 1.0, [(-1.0, 0)], id="no need"),
        pytest.param([], 1.0, [], id="nothing"),
    ],
)
def test_what_the_oracle_asks_for(series: list[int], cold_start_s: float, expected: list[tuple[float, int]]) -> None:
    assert ahead(steps_of(series, 0.0, 1.0), cold_start_s) == expected


def by_layers(series: list[int], cold_start: int) -> int:
    """The definition: per layer the time on, min(gap, D) across each gap, plus D."""
    total = 0
    for layer in range(1, max(series, default=0) + 1):
        on = [at for at, groups in enumerate(series) if groups >= layer]
        total += len(on) + cold_start
        total += sum(min(later - earlier - 1, cold_start) for earlier, later in pairwise(on))
    return total


def by_dynamic_programming(series: list[int], cold_start: int) -> float:
    """The cheapest of all schedules in whole steps: every state is how many groups serve and how many start at which
    age; each step any number may be asked for, and any of those that serve may go."""
    most = max(series, default=0)
    needed = [0] * cold_start + series

    @cache
    def rest(at: int, serving: int, starting: tuple[int, ...]) -> float:
        if at == len(needed):
            return 0
        best = float("inf")
        for asked in range(most + 1):
            ages = (*starting, asked)
            ready, waiting = (ages[0], ages[1:]) if len(ages) > cold_start else (0, ages)
            for kept in range(needed[at], serving + ready + 1):
                if kept + sum(waiting) <= 2 * most:
                    best = min(best, kept + sum(waiting) + rest(at + 1, kept, waiting))
        return best

    return rest(0, 0, (0,) * cold_start)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(0, 3))
def test_no_schedule_is_cheaper(series: list[int], cold_start: int) -> None:
    needs = RoleNeeds(steps_of(series, 0.0, 1.0), cold_start, 1)
    assert group_seconds(needs) == pytest.approx(by_dynamic_programming(series, cold_start))


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 20))
def test_it_is_the_sum_over_layers(series: list[int], cold_start: int) -> None:
    needs = RoleNeeds(steps_of(series, 0.0, 1.0), cold_start, 1)
    assert group_seconds(needs) == pytest.approx(by_layers(series, cold_start))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.floats(0, 20), st.floats(0, 90))
def test_it_asks_for_the_most_within_a_cold_start(series: list[int], cold_start_s: float, now_s: float) -> None:
    steps = steps_of(series, 0.0, 1.0)
    oracle = Oracle.of({Role.DECODE: RoleNeeds(steps, cold_start_s, 1)})
    within = [groups for at, groups in enumerate(series) if at + 1 > now_s and at <= now_s + cold_start_s]
    assert oracle.at(Role.DECODE, now_s) == max(within, default=0)


def test_groups_that_are_there_at_the_start_have_cost_nothing_before_it() -> None:
    steps = steps_of([3, 1], 100.0, 10.0)
    assert group_seconds(RoleNeeds(steps, 5.0, 1)) == 3 * 10 + 1 * 10 + 3 * 5
    assert group_seconds(RoleNeeds(steps, 5.0, 1, initial=2)) == 3 * 10 + 1 * 10 + 1 * 5


def test_the_oracle_as_a_policy_sets_both_roles_a_margin_early() -> None:
    needs = {
        Role.PREFILL: RoleNeeds(steps_of([1, 3], 0.0, 100.0), 20.0, 1),
        Role.DECODE: RoleNeeds(steps_of([2], 0.0, 200.0), 60.0, 1),
    }
    oracle = Oracle.of(needs, margin_s=5.0)
    went = [oracle.groups(seen(now_s, [None], [None])) for now_s in (0.0, 74.0, 75.0, 199.0, 200.0)]
    assert went == [Pair(1, 2), Pair(1, 2), Pair(3, 2), Pair(3, 2), Pair(0, 0)]


def test_gpu_hours_are_of_both_roles() -> None:
    steps = steps_of([2], 0.0, 3600.0)
    needs = {Role.PREFILL: RoleNeeds(steps, 0.0, 2), Role.DECODE: RoleNeeds(steps, 1800.0, 4)}
    assert gpu_hours(needs) == 2 * 2 + 3 * 4


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([(0.0, 1), (0.0, 0)], "expected a time after 0.0"),
        ([(0.0, -1), (1.0, 0)], "0 or more"),
        ([(0.0, 1), (1.0, 2)], "expected 0, which ends the series"),
    ],
)
def test_what_is_no_series_is_refused(steps: Steps, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ahead(steps, 1.0)


PROFILE = load_profile()


def test_a_steady_flow_needs_its_work_and_its_slots() -> None:
    prompt, output, itl_ms = 1000, 200, 60.0
    context = 1104.0  # 1100, to the next of the coarse contexts
    slots = PROFILE.max_decode_batch(context, itl_ms)
    held_s = output * PROFILE.decode_ms(slots, context) / 1000
    rate = 40.0
    requests = [(at / rate, prompt, output) for at in range(int(rate * 200))]
    needs = fluid_needs(requests, PROFILE, itl_ms, 0.0, 10.0)
    at_100_s = {role: [groups for at_s, groups in steps if at_s <= 100.0][-1] for role, steps in needs.items()}
    assert at_100_s[Role.PREFILL] == math.ceil(rate * PROFILE.prefill_ms(prompt) / 1000)
    assert at_100_s[Role.DECODE] == math.ceil(rate * held_s / slots)


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(1, 8000), st.integers(1, 2000)), max_size=20),
    st.sampled_from((1.0, 7.0)),
)
def test_no_work_is_lost(requests: list[tuple[float, int, int]], step_s: float) -> None:
    needs = fluid_needs(requests, PROFILE, 60.0, 0.0, step_s)
    work_s = sum(PROFILE.prefill_ms(prompt) for _, prompt, _ in requests) / 1000
    assert group_seconds(RoleNeeds(needs[Role.PREFILL], 0.0, 1)) >= work_s - 1e-6
    assert bool(needs[Role.DECODE]) == bool(requests)
