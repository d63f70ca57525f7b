"""The bottleneck: the same prefill queue for three reasons, and groups only where they help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.profile import Profile, load_profile
from policies.model import Code, Reason, Role
from tests.autoscaler.sizing import Moment

QUEUE = Moment(3.0, 2000.0, ready=(2, 2), unassigned=900.0)


def slow_network(gb_per_s: float) -> Profile:
    return replace(load_profile(), transfer_gb_per_s=gb_per_s)


def told(moment: Moment) -> Reason | None:
    return next((reason for reason in moment.sized().why if reason.code is Code.BOTTLENECK), None)


@pytest.mark.parametrize(
    ("moment", "stage"),
    [
        (Moment(3.0, 8000.0, 20.0, ready=(1, 4)), "prefill"),
        (Moment(3.0, 100.0, 900.0, ready=(4, 1)), "decode"),
        (Moment(3.0, 2000.0, 20.0, ready=(4, 4), profile=slow_network(0.1)), "transfer"),
        (QUEUE, "prefill"),
        (replace(QUEUE, decode_waiting=200.0), "decode"),
        (replace(QUEUE, deferred=200.0, profile=slow_network(0.5)), "transfer"),
        (replace(QUEUE, deferred=200.0, decode_waiting=200.0, profile=slow_network(0.5)), "decode"),
    ],
)
def test_which_stage_is_narrowest(moment: Moment, stage: str) -> None:
    assert moment.sized().bottleneck == stage
    found = told(moment)
    assert found is not None
    assert found.detail["stage"] == stage
    assert {"prefill_load", "transfer_load", "decode_load"} <= found.detail.keys()


def test_a_prefill_queue_adds_prefill_groups_only_where_prefill_is_narrowest() -> None:
    calm = replace(QUEUE, unassigned=0.0)
    for role, queue in ((Role.PREFILL, QUEUE), (Role.DECODE, replace(QUEUE, decode_waiting=200.0))):
        assert queue.of(role).groups > calm.of(role).groups
        assert queue.of(role.partner).groups == calm.of(role.partner).groups


def test_a_full_link_gets_links_with_prefill_groups_and_no_decode_group() -> None:
    profile = load_profile()
    fast = Moment(8.0, 2000.0, 20.0, ready=(4, 8), profile=profile)
    half_a_second = replace(fast, profile=slow_network(2000 * profile.kv_bytes_per_token / 1e9 / 0.5))
    assert half_a_second.sized().bottleneck == "transfer"
    assert fast.of(Role.PREFILL).groups < 8
    # Four links busy all the time: twice as many, so that transfers do not wait for longer than they take.
    assert half_a_second.of(Role.PREFILL).groups == 8
    assert half_a_second.of(Role.DECODE).groups == fast.of(Role.DECODE).groups


def test_a_transfer_that_is_too_slow_alone_is_helped_by_no_group() -> None:
    found = told(Moment(0.5, 2000.0, 20.0, ready=(1, 2), profile=slow_network(0.1)))
    assert found is not None
    assert found.detail["helps"] == "no group, but a faster network"


def test_a_stage_with_room_is_not_told_and_one_without_says_how_much() -> None:
    assert told(Moment(1.0, ready=(4, 4))) is None
    for ready, capacity, least, most in ((1, "over", 5.0, 6.0), (6, "near", 0.85, 1.0)):
        found = told(Moment(18.5, 2000.0, 20.0, ready=(ready, 8)))
        assert found is not None
        load = found.detail["prefill_load"]
        assert isinstance(load, float)
        assert found.detail["capacity"] == capacity
        assert least < load < most


def test_a_role_without_groups_leaves_it_unknown() -> None:
    assert Moment(3.0, ready=(0, 1)).sized().bottleneck is None
