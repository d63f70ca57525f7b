"""Requests to come: in order, at their rate, as bursty as asked, and no more in memory than needed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice, pairwise
from math import inf, sqrt
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as some

from simulator.arrivals import (
    Binned,
    LogNormal,
    Process,
    Request,
    Window,
    copied,
    gaps,
    gaps_of_shape,
    recorded,
    renewals,
    wave,
)
from simulator.rng import geometric, weibull_cv, weibull_shape


def rng(seed: int = 1) -> random.Random:
    return random.Random(seed)


@pytest.mark.parametrize(
    ("process", "cv"), [("poisson", 1.0), ("gamma", 0.5), ("gamma", 3.0), ("weibull", 0.5), ("weibull", 2.5)]
)
def test_gaps_have_mean_one_and_their_variation(process: Process, cv: float) -> None:
    gap, source = gaps(process, cv), rng()
    drawn = [gap(source) for _ in range(60_000)]
    assert fmean(drawn) == pytest.approx(1, rel=0.04)
    assert pstdev(drawn) / fmean(drawn) == pytest.approx(cv, rel=0.06)


@pytest.mark.parametrize(("process", "shape"), [("gamma", 0.25), ("weibull", 0.6)])
def test_thinned_gaps_are_those_between_kept_requests(process: Process, shape: float) -> None:
    """Against thinning request by request: equal mean and variation."""
    keep, whole, source = 0.1, gaps_of_shape(process, shape), rng()
    slowly = [sum(whole(source) for _ in range(geometric(source, keep))) for _ in range(15_000)]
    thinned = gaps_of_shape(process, shape, keep)
    at_once = [thinned(source) for _ in range(15_000)]
    assert fmean(at_once) == pytest.approx(1 / keep, rel=0.04)
    assert pstdev(at_once) == pytest.approx(pstdev(slowly), rel=0.06)


def test_a_rate_that_changes_is_followed() -> None:
    windows = [
        (Window(0, 100, 5.0), gaps("poisson")),
        (Window(100, 150, 0.0), gaps("poisson")),
        (Window(150, 300, 20.0), gaps("gamma", 0.5)),
    ]
    times = list(renewals(windows, rng()))
    assert times == sorted(times)
    assert sum(at_s < 100 for at_s in times) == pytest.approx(500, abs=4 * sqrt(500))
    assert not any(100 < at_s < 150 for at_s in times)
    assert sum(at_s > 150 for at_s in times) == pytest.approx(3000, abs=4 * sqrt(3000))


def test_a_wave_has_its_mean_and_its_peak() -> None:
    windows = list(wave(1, 24, 900, 1800))
    assert fmean(window.rate_rps for window in windows) == pytest.approx(12.5)
    assert max(window.rate_rps for window in windows) == pytest.approx(24, abs=0.01)
    assert windows[0].rate_rps == pytest.approx(12.5, abs=0.3)
    assert windows[-1].end_s == 1800
    assert all(before.end_s == pytest.approx(after.start_s) for before, after in pairwise(windows))


def test_the_shape_of_a_weibull_distribution_is_found_by_its_variation() -> None:
    assert weibull_shape(1.0) == pytest.approx(1.0)
    assert weibull_cv(weibull_shape(3.7)) == pytest.approx(3.7)


def test_lengths_have_their_mean_and_keep_their_bounds() -> None:
    lengths, source = LogNormal(1000, 0.5, 100, 3500), rng()
    drawn = [lengths.draw(source, 2.0) for _ in range(20_000)]
    assert fmean(drawn) == pytest.approx(2000, rel=0.02)
    assert max(drawn) <= 7000
    assert {LogNormal(50).draw(source) for _ in range(5)} == {50}
    binned = Binned([1, 2, 10, 20], [(0, 0.25), (2, 0.75)])
    counts = [binned.draw(source) for _ in range(4000)]
    assert set(counts) == {1, *range(10, 20)}
    assert counts.count(1) == pytest.approx(1000, abs=120)


TRACE: list[Request] = [(0.0, 10, 1), (4.0, 20, 2), (10.0, 30, 3)]


def test_a_trace_from_somewhere_faster_and_for_a_while() -> None:
    assert list(recorded(TRACE)) == TRACE
    assert list(recorded(TRACE, start_s=4, speed=2)) == [(0.0, 20, 2), (3.0, 30, 3)]
    assert list(recorded(TRACE, duration_s=10)) == TRACE[:2]


TIMES = some.lists(some.floats(0, 50), max_size=20).map(sorted)


@given(TIMES, some.integers(1, 5), some.floats(0, 20))
def test_copies_are_in_order_and_near_their_request(times: list[float], copies: int, within_s: float) -> None:
    trace = [(at_s, index + 1, 1) for index, at_s in enumerate(times)]
    found = list(copied(trace, copies, within_s, rng()))
    assert len(found) == copies * len(trace)
    assert [one[0] for one in found] == sorted(one[0] for one in found)
    assert all(max(0.0, times[which - 1] - within_s) <= at_s <= times[which - 1] + within_s for at_s, which, _ in found)


def test_an_endless_load_is_not_held_in_memory() -> None:
    def endless() -> Iterator[tuple[Window, object]]:
        start_s = 0.0
        while start_s < inf:
            yield Window(start_s, start_s + 1, 10.0), gaps("poisson")
            start_s += 1

    trace = ((at_s, 1, 1) for at_s in renewals(endless(), rng()))  # type: ignore[arg-type]
    assert len(list(islice(copied(trace, 3, 5.0, rng()), 1000))) == 1000
