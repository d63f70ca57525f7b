"""HPA's behaviour over a pair of roles: tables worked by hand, and what no history may ever do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.behaviour import Behaviour, Direction, Rate, behave, limit_rates, remember_size, tolerate
from policies.model import ROLES, Code, Pair, Role

pairs = st.builds(Pair, st.integers(0, 40), st.integers(0, 40))
rates = st.builds(Rate, st.sampled_from(("Percent", "Groups")), st.integers(1, 200), st.sampled_from((15.0, 60.0)))
directions = st.builds(
    Direction,
    st.floats(0, 300),
    st.lists(rates, max_size=3).map(tuple),
    st.sampled_from(("Max", "Min", "Disabled")),
    st.floats(0, 0.5),
)
behaviours = st.fixed_dictionaries({role: st.builds(Behaviour, directions, directions) for role in ROLES})
histories = st.lists(st.tuples(st.floats(0, 1000), pairs), max_size=8)
sizes = histories.map(lambda entries: sorted(entries, key=lambda entry: entry[0]))


def both(up: Direction | None = None, down: Direction | None = None) -> dict[Role, Behaviour]:
    hpa = Behaviour()
    return {role: Behaviour(up or hpa.up, down or hpa.down) for role in ROLES}


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        pytest.param(1, 9, 5, id="4 groups are more than 100 % of 1"),
        pytest.param(6, 30, 12, id="100 % of 6 are more than 4 groups"),
        pytest.param(6, 7, 7, id="slower than the rate"),
        pytest.param(8, 1, 1, id="100 % down is all"),
    ],
)
def test_the_defaults_are_hpa_s(current: int, wanted: int, expected: int) -> None:
    target, why = limit_rates(Pair(wanted, 3), Pair(current, 3), both(), [], 100.0)
    assert target == Pair(expected, 3)
    assert [(reason.code, reason.role) for reason in why] == (
        [(Code.RATE_LIMITED, Role.PREFILL)] if expected != wanted else []
    )


TEN_PERCENT, TWO = Rate("Percent", 10, 60.0), Rate("Groups", 2, 60.0)


@pytest.mark.parametrize(
    ("select", "up_to", "down_to"),
    [("Max", 33, 27), ("Min", 32, 28), ("Disabled", 30, 30)],
)
def test_select_policy(select: str, up_to: int, down_to: int) -> None:
    rules = Direction(0.0, (TEN_PERCENT, TWO), select)  # type: ignore[arg-type]
    for wanted, expected in ((60, up_to), (0, down_to)):
        target, _ = limit_rates(Pair(wanted, wanted), Pair(30, 30), both(rules, rules), [], 100.0)
        assert target == Pair(expected, expected)


def test_what_was_added_in_the_period_counts_and_what_was_added_before_does_not() -> None:
    rules = both(Direction(0.0, (Rate("Groups", 4, 60.0),)))
    seen = [(0.0, Pair(2, 2)), (50.0, Pair(5, 2))]
    assert limit_rates(Pair(20, 20), Pair(5, 2), rules, seen, 100.0)[0] == Pair(6, 6)
    assert limit_rates(Pair(20, 20), Pair(5, 2), rules, seen, 110.0)[0] == Pair(9, 6)


def test_percentages_are_rounded_so_that_something_always_moves() -> None:
    rules = both(*(Direction(0.0, (Rate("Percent", 10, 60.0),)) for _ in range(2)))
    assert limit_rates(Pair(9, 9), Pair(1, 1), rules, [], 0.0)[0] == Pair(2, 2)
    assert limit_rates(Pair(0, 0), Pair(1, 10), rules, [], 0.0)[0] == Pair(0, 9)
    steep = both(*(Direction(0.0, (Rate("Percent", 29, 60.0),)) for _ in range(2)))
    assert limit_rates(Pair(0, 0), Pair(100, 100), steep, [], 0.0)[0] == Pair(71, 71)


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [(10, 11, 10), (10, 12, 12), (10, 9, 9), (20, 19, 20), (0, 1, 1), (1, 0, 0)],
)
def test_tolerance_per_direction(current: int, wanted: int, expected: int) -> None:
    rules = both(Direction(0.0, tolerance=0.1), Direction(0.0, tolerance=0.05))
    target, why = tolerate(Pair(wanted, wanted), Pair(current, current), rules)
    assert target == Pair(expected, expected)
    assert [reason.code for reason in why] == ([Code.WITHIN_TOLERANCE] * 2 if expected != wanted else [])


def test_a_panic_does_not_wait_for_its_window() -> None:
    rules = both(Direction(60.0))
    past = [(90.0, Pair(3, 3))]
    said = {"history": past, "sizes": [], "now_s": 100.0, "seen_s": 900.0}
    assert behave(Pair(8, 8), Pair(3, 3), rules, **said)[0] == Pair(3, 3)  # type: ignore[arg-type]
    assert behave(Pair(8, 8), Pair(3, 3), rules, panicking=(Role.DECODE,), **said)[0] == Pair(3, 8)  # type: ignore[arg-type]


def test_windows_come_before_rates() -> None:
    rules = both(Direction(60.0, (Rate("Groups", 4, 15.0),)))
    target, why = behave(
        Pair(20, 3), Pair(3, 3), rules, history=[(90.0, Pair(12, 3))], sizes=[], now_s=100.0, seen_s=900.0
    )
    assert target == Pair(7, 3)
    assert [reason.code for reason in why] == [Code.STABILISED, Code.RATE_LIMITED]


@given(raw=pairs, current=pairs, rules=behaviours, past=histories, seen=sizes, seen_s=st.floats(0, 1000))
def test_no_history_turns_a_direction_around(
    raw: Pair,
    current: Pair,
    rules: dict[Role, Behaviour],
    past: list[tuple[float, Pair]],
    seen: list[tuple[float, Pair]],
    seen_s: float,
) -> None:
    tolerated, _ = tolerate(raw, current, rules)
    target, _ = behave(tolerated, current, rules, history=past, sizes=seen, now_s=1000.0, seen_s=seen_s)
    for role in ROLES:
        low, high = sorted((raw[role], current[role]))
        assert low <= target[role] <= high


@given(looks=st.lists(st.tuples(st.floats(0.1, 40), pairs), min_size=1, max_size=30), rate=rates)
def test_no_period_holds_more_growth_than_its_rate_allows(looks: list[tuple[float, Pair]], rate: Rate) -> None:
    rules = both(Direction(0.0, (rate,)), Direction(0.0, select="Disabled"))
    now_s, current, seen, went = 0.0, Pair(1, 1), (), [(0.0, Pair(1, 1))]
    for wait_s, wanted in looks:
        now_s += wait_s
        seen = remember_size(seen, now_s, current, rate.period_s)
        current, _ = limit_rates(wanted, current, rules, seen, now_s)
        went.append((now_s, current))
        for role in ROLES:
            start = [pair[role] for at_s, pair in went if at_s <= now_s - rate.period_s] or [1]
            most = start[-1] + rate.value if rate.unit == "Groups" else -(-start[-1] * (100 + rate.value) // 100)
            assert current[role] <= most


def test_sizes_are_kept_as_changes_and_no_longer_than_needed() -> None:
    seen: tuple[tuple[float, Pair], ...] = ()
    for now_s, groups in ((0.0, 1), (5.0, 1), (10.0, 2), (30.0, 3), (40.0, 3)):
        seen = remember_size(seen, now_s, Pair(groups, 1), 60.0)
    # A change is dated at the look before it.
    assert [(at_s, pair.prefill) for at_s, pair in seen] == [(0.0, 1), (5.0, 2), (10.0, 3), (40.0, 3)]
    seen = remember_size(seen, 100.0, Pair(3, 1), 60.0)
    assert [(at_s, pair.prefill) for at_s, pair in seen] == [(10.0, 3), (100.0, 3)]
    assert replace(Behaviour(), up=Direction(0.0, (TWO,))).longest_period_s == 60.0
