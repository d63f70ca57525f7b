"""The built-in workload: equal seeds, and phases that differ as their names say."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean

import pytest

from roleratio import workload
from roleratio.traces import Arrival


def in_phase(requests: tuple[Arrival, ...], number: int, duration_s: float) -> list[Arrival]:
    span = workload.spans(duration_s)[number]
    return [request for request in requests if span.start_s <= request.at_s < span.end_s]


def test_equal_seeds_give_equal_requests_and_others_do_not() -> None:
    assert workload.arrivals(7) == workload.arrivals(7)
    assert workload.arrivals(7) != workload.arrivals(8)


def test_arrivals_are_ordered_and_within_the_run() -> None:
    times = [request.at_s for request in workload.arrivals(1)]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < workload.DEFAULT_DURATION_S


def test_phases_have_the_rate_and_the_means_that_they_claim() -> None:
    long_s = 40_000.0
    requests = workload.arrivals(3, long_s)
    calm = workload.CALM
    for number, phase in enumerate(workload.PHASES):
        found = in_phase(requests, number, long_s)
        assert len(found) / (phase.share * long_s) == pytest.approx(calm.rate_rps, rel=0.05)
        inputs, outputs = fmean(r.input_tokens for r in found), fmean(r.output_tokens for r in found)
        assert inputs == pytest.approx(calm.inputs.mean * phase.input_factor, rel=0.05)
        assert outputs == pytest.approx(calm.outputs.mean * phase.output_factor, rel=0.05)


def test_lengths_stay_within_their_clips() -> None:
    for request in workload.arrivals(5, 4000.0):
        assert workload.CALM.inputs.low <= request.input_tokens <= workload.CALM.inputs.high * 4
        assert workload.CALM.outputs.low <= request.output_tokens <= workload.CALM.outputs.high * 3


def test_phases_fill_the_run_and_scale_with_its_length() -> None:
    for duration_s in (30.0, 240.0):
        spans = workload.spans(duration_s)
        assert spans[0].start_s == 0
        assert spans[-1].end_s == pytest.approx(duration_s)
        assert all(before.end_s == after.start_s for before, after in pairwise(spans))
