"""Panic: when it begins, what it keeps, and how it lets go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.burst import BurstRules, Panic, Panics, keep_burst, panicking, watch_burst
from policies.model import ROLES, Code, Pair, Role

RULES = {role: BurstRules(threshold=2.0, calm_s=60.0, release_s=100.0) for role in ROLES}
pairs = st.builds(Pair, st.integers(0, 20), st.integers(0, 20))


@pytest.mark.parametrize(
    ("wanted", "ready", "expected"),
    [
        pytest.param(Pair(4, 3), Pair(2, 2), {Role.PREFILL: Panic(10.0, 4)}, id="twice is enough, at the first look"),
        pytest.param(Pair(3, 3), Pair(2, 2), {}, id="less is not"),
        pytest.param(Pair(2, 1), Pair(0, 0), {Role.PREFILL: Panic(10.0, 2)}, id="none ready counts as one"),
    ],
)
def test_entry(wanted: Pair, ready: Pair, expected: Panics) -> None:
    assert watch_burst({}, 10.0, wanted, ready, RULES) == expected


def test_a_panic_keeps_its_peak_then_lets_go_in_a_line() -> None:
    panics = watch_burst({}, 0.0, Pair(10, 1), Pair(4, 1), RULES)
    panics = watch_burst(panics, 5.0, Pair(12, 1), Pair(7, 1), RULES)
    went = []
    for now_s in (30.0, 59.0, 60.0, 85.0, 110.0, 159.0, 160.0):
        panics = watch_burst(panics, now_s, Pair(1, 1), Pair(12, 1), RULES)
        target, why = keep_burst(Pair(1, 1), Pair(12, 1), panics, now_s, RULES)
        went.append((target.prefill, why[0].code if why else None))
    held, slow = Code.PANIC, Code.PANIC_RELEASING
    assert went == [(12, held), (12, held), (12, slow), (9, slow), (6, slow), (1, None), (1, None)]
    assert panics == {}


def test_a_second_burst_begins_a_new_panic_at_what_is_left() -> None:
    panics = {Role.PREFILL: Panic(0.0, 12)}
    panics = watch_burst(panics, 110.0, Pair(8, 1), Pair(4, 1), RULES)
    assert panics == {Role.PREFILL: Panic(110.0, 8)}
    assert watch_burst({Role.PREFILL: Panic(0.0, 20)}, 110.0, Pair(8, 1), Pair(4, 1), RULES)[Role.PREFILL].peak == 10


@given(looks=st.lists(st.tuples(st.floats(0.1, 50), pairs, pairs), min_size=1, max_size=20))
def test_a_panic_never_drives_growth_and_never_shrinks_while_it_lasts(
    looks: list[tuple[float, Pair, Pair]],
) -> None:
    now_s = 0.0
    panics: Panics = {}
    for wait_s, wanted, current in looks:
        now_s += wait_s
        panics = watch_burst(panics, now_s, wanted, current, RULES)
        target, _ = keep_burst(wanted, current, panics, now_s, RULES)
        for role in ROLES:
            assert min(wanted[role], current[role]) <= target[role] <= max(wanted[role], current[role])
            if role in panicking(panics, now_s, RULES):
                assert target[role] >= min(current[role], panics[role].peak)
