"""Queueing: known values, a simulated queue, and monotony."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.queueing import erlang_c, late_share, queue_servers, slot_servers


@pytest.mark.parametrize(
    ("servers", "load", "expected"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (10, 8.0, 0.4092), (3, 3.0, 1.0), (4, 9.0, 1.0)],
)
def test_erlang_c(servers: int, load: float, expected: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("servers", "load", "slack_s"), [(1, 0.6, 1.0), (3, 2.2, 0.5), (6, 5.0, 0.4)])
def test_late_share_is_what_a_simulated_queue_shows(servers: int, load: float, slack_s: float) -> None:
    rng = random.Random(3)
    free, now_s, late, jobs = [0.0] * servers, 0.0, 0, 60_000
    for _ in range(jobs):
        now_s += rng.expovariate(load)
        start_s = max(now_s, heapq.heappop(free))
        late += start_s - now_s > slack_s
        heapq.heappush(free, start_s + rng.expovariate(1.0))
    assert late_share(servers, load, 1.0, 1.0, slack_s) == pytest.approx(late / jobs, abs=0.03)


@given(st.floats(0.01, 40), st.floats(0.05, 5), st.floats(0, 4), st.floats(0.01, 0.3))
def test_the_fewest_servers_that_are_enough(load: float, service_s: float, slack_s: float, late_max: float) -> None:
    servers = queue_servers(load, service_s, 1.0, slack_s, late_max, 4096)
    assert late_share(servers, load, service_s, 1.0, slack_s) <= late_max
    if servers - 1 > load:
        assert late_share(servers - 1, load, service_s, 1.0, slack_s) > late_max


@given(st.floats(0.1, 500), st.integers(1, 64))
def test_slots_cover_the_mean_and_grow_with_it(load: float, slots: int) -> None:
    servers = slot_servers(load, slots, 0.95)
    assert servers * slots >= load
    assert slot_servers(load * 2, slots, 0.95) >= servers


def test_no_load_needs_no_slots() -> None:
    assert slot_servers(0.0, 16, 0.95) == 0
