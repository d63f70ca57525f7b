"""How much of a ramp was started one cold start ahead: small series with known answers, and the oracle, which is never
late.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.model import Role
from simulator.oracle import RoleNeeds, Steps, ahead, steps_of
from simulator.ramps import Ramps, Start, split, starts, wanted_of
from simulator.result import FleetRow

COLD_S = 10.0
RAMP = [(0.0, 1), (30.0, 3), (60.0, 1), (90.0, 0)]
"""Two groups more for half a minute."""


def needs(steps: Steps, cold_start_s: float = COLD_S) -> RoleNeeds:
    return RoleNeeds(steps, cold_start_s, 1, 1)


@pytest.mark.parametrize(
    ("wanted", "late_s"),
    [
        pytest.param([(0.0, 1), (20.0, 3), (60.0, 1), (90.0, 0)], [0, 0], id="one cold start ahead"),
        pytest.param([(0.0, 3), (90.0, 0)], [0, 0], id="always there"),
        pytest.param([(0.0, 1), (30.0, 3), (90.0, 0)], [10, 10], id="when they are needed"),
        pytest.param([(0.0, 1), (18.0, 2), (24.0, 3), (90.0, 0)], [4, 0], id="the second one late"),
        pytest.param([(0.0, 1), (90.0, 0)], [30, 30], id="never"),
        pytest.param([(0.0, 1), (55.0, 3), (90.0, 0)], [30, 30], id="ready when it is over"),
        pytest.param([(0.0, 1), (15.0, 3), (22.0, 2), (25.0, 3), (90.0, 0)], [5, 0], id="let go before it was needed"),
        pytest.param([(0.0, 3), (35.0, 1), (90.0, 0)], [0, 0], id="there when the need begins"),
    ],
)
def test_each_group_of_a_ramp_is_ahead_or_late(wanted: Steps, late_s: list[float]) -> None:
    found = starts(needs(RAMP), wanted, 9)
    assert [(one.rise, one.group, one.from_s, one.until_s) for one in found] == [(1, 3, 30, 60), (1, 2, 30, 60)]
    assert [one.late_s for one in found] == late_s


def test_what_is_needed_within_the_first_cold_start_is_not_counted() -> None:
    early = [(0.0, 2), (9.0, 3), (30.0, 0)]
    assert starts(needs(early), [(0.0, 1), (30.0, 0)], 9) == []


def test_a_gap_of_a_cold_start_is_no_ramp_and_a_longer_one_is() -> None:
    short = [(0.0, 2), (40.0, 1), (50.0, 2), (90.0, 0)]
    longer = [(0.0, 2), (40.0, 1), (51.0, 2), (90.0, 0)]
    always = [(0.0, 2), (90.0, 0)]
    assert starts(needs(short), always, 9) == []
    assert starts(needs(longer), always, 9) == [Start(2, 2, 51.0, 90.0, 0.0)]


def test_a_need_above_the_most_groups_is_nobodys() -> None:
    found = starts(needs(RAMP), [(0.0, 1), (20.0, 2), (90.0, 0)], 2)
    assert [(one.group, one.late_s) for one in found] == [(2, 0.0)]


def test_ramps_are_added_up_apart_from_bursts() -> None:
    burst = [(0.0, 1), (30.0, 2), (35.0, 1), (60.0, 3), (80.0, 0)]
    found = split(starts(needs(burst), [(0.0, 1), (50.0, 2), (80.0, 0)], 9), COLD_S)
    assert found["bursts"] == Ramps(1, 0, 1, 0, 5.0, 5.0)
    assert found["lasting"] == Ramps(1, 0, 2, 1, 40.0, 20.0)
    assert Ramps.of([]) == Ramps()


def test_what_a_run_wanted_is_one_roles_and_the_last_said_of_a_moment() -> None:
    rows = [
        FleetRow(0.0, Role.PREFILL, 1, 1, 0, 0),
        FleetRow(0.0, Role.DECODE, 7, 7, 0, 0),
        FleetRow(5.0, Role.PREFILL, 2, 1, 1, 0),
        FleetRow(5.0, Role.PREFILL, 3, 1, 2, 0),
        FleetRow(8.0, Role.PREFILL, 3, 3, 0, 0),
        FleetRow(30.0, Role.PREFILL, 9, 3, 6, 0),
    ]
    assert wanted_of(rows, Role.PREFILL, 20.0) == [(0.0, 1), (5.0, 3), (20.0, 0)]
    assert wanted_of([], Role.PREFILL, 20.0) == []


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 6))
def test_the_oracle_is_never_late_and_starts_what_it_pays_for(series: list[int], cold_start: int) -> None:
    steps = steps_of(series, 0.0, 1.0)
    asked = ahead(steps, cold_start)
    found = starts(needs(steps, cold_start), asked, 9)
    assert all(one.is_ahead for one in found)
    assert all(one.until_s > one.from_s >= cold_start for one in found)
    rises = [(at_s, after - before) for (_, before), (at_s, after) in pairwise(asked) if after > before]
    assert len(found) == sum(groups for at_s, groups in rises if at_s >= 0) + (asked[0][0] >= 0) * asked[0][1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_more_groups_are_never_later(series: list[int], wanted: list[int]) -> None:
    need = needs(steps_of(series, 0.0, 1.0), 3.0)
    less = starts(need, steps_of(wanted, 0.0, 1.0), 9)
    more = starts(need, steps_of([groups + 1 for groups in wanted], 0.0, 1.0), 9)
    assert sum(one.late_s for one in more) <= sum(one.late_s for one in less)
    assert Ramps.of(more).ahead >= Ramps.of(less).ahead
