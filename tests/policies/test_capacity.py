"""Capacity: growth clamped to what fits, or waiting for nodes and given up in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.capacity import CapacityRules, Waiting, node_start_s, offer_capacity, watch_waiting
from policies.model import Code, Missing, Role

FIXED = CapacityRules("fixed", 300.0, 120.0)
NODES = CapacityRules("provisionable", 300.0, 120.0)


@pytest.mark.parametrize(
    ("rules", "fit", "groups", "codes"),
    [
        (FIXED, 1, 3, [Code.DOES_NOT_FIT]),
        (FIXED, 9, 6, []),
        (NODES, 1, 6, [Code.PROVISIONING]),
        (NODES, 9, 6, []),
        (NODES, Missing("?"), 6, [Code.PROVISIONING]),
    ],
)
def test_growth_from_2_to_6(rules: CapacityRules, fit: int | Missing, groups: int, codes: list[Code]) -> None:
    offer = offer_capacity(Role.DECODE, 2, 6, fit, Waiting(), 0.0, rules, withdrawable=0)
    assert offer.groups == groups
    assert [reason.code for reason in offer.why] == codes


def test_the_oldest_gets_the_place_and_the_rest_keep_their_time() -> None:
    waiting = watch_waiting(Waiting(), 0.0, 2)
    waiting = watch_waiting(waiting, 100.0, 3)
    assert waiting.since_s == (0.0, 0.0, 100.0)
    assert watch_waiting(waiting, 150.0, 1).since_s == (100.0,)
    assert watch_waiting(waiting, 150.0, 0).since_s == ()


def test_what_stays_unplaced_is_withdrawn_and_not_asked_for_again_at_once() -> None:
    waiting = watch_waiting(watch_waiting(Waiting(), 0.0, 2), 100.0, 3)
    early = offer_capacity(Role.DECODE, 5, 5, 0, waiting, 299.0, NODES, withdrawable=5)
    assert (early.groups, [r.code for r in early.why]) == (5, [Code.PROVISIONING])
    late = offer_capacity(Role.DECODE, 5, 5, 0, waiting, 300.0, NODES, withdrawable=5)
    assert (late.groups, [r.code for r in late.why]) == (3, [Code.NOT_PROVISIONED])
    after = watch_waiting(late.waiting, 305.0, 1)
    assert offer_capacity(Role.DECODE, 3, 5, 0, after, 305.0, NODES, withdrawable=5).groups == 3
    assert offer_capacity(Role.DECODE, 3, 5, 1, after, 305.0, NODES, withdrawable=5).groups == 4
    third = offer_capacity(Role.DECODE, 3, 5, 0, watch_waiting(after, 400.0, 1), 400.0, NODES, withdrawable=3)
    assert (third.groups, [r.code for r in third.why]) == (2, [Code.NOT_PROVISIONED])
    again = offer_capacity(Role.DECODE, 2, 5, 0, third.waiting, 700.0, NODES, withdrawable=5)
    assert again.groups == 5


def test_no_more_is_withdrawn_than_may_be() -> None:
    waiting = watch_waiting(Waiting(), 0.0, 3)
    assert offer_capacity(Role.PREFILL, 3, 3, 0, waiting, 900.0, FIXED, withdrawable=2).groups == 1


def test_a_shrink_needs_no_room() -> None:
    assert offer_capacity(Role.PREFILL, 4, 2, 0, Waiting(), 0.0, NODES, withdrawable=0).groups == 2


@pytest.mark.parametrize(
    ("rules", "growth", "fit", "expected"),
    [(FIXED, 3, 0, 0.0), (NODES, 1, 1, 0.0), (NODES, 2, 1, 120.0), (NODES, 1, Missing("?"), 120.0)],
)
def test_a_node_that_must_start_first_takes_its_time(
    rules: CapacityRules, growth: int, fit: int | Missing, expected: float
) -> None:
    assert node_start_s(growth, fit, rules) == expected


@given(
    looks=st.lists(st.tuples(st.floats(1, 200), st.integers(0, 8), st.integers(0, 8), st.integers(0, 4)), max_size=20),
    rules=st.sampled_from((FIXED, NODES)),
)
def test_nothing_waits_longer_than_it_may(looks: list[tuple[float, int, int, int]], rules: CapacityRules) -> None:
    now_s, current, waiting = 0.0, 1, Waiting()
    for wait_s, wanted, unplaced, fit in looks:
        now_s += wait_s
        waiting = watch_waiting(waiting, now_s, min(unplaced, current))
        offer = offer_capacity(Role.DECODE, current, wanted, fit, waiting, now_s, rules, withdrawable=current)
        assert 0 <= offer.groups <= max(current, wanted)
        assert all(now_s - since_s < rules.provision_timeout_s for since_s in offer.waiting.since_s)
        current, waiting = offer.groups, offer.waiting
