"""The report's numbers on a run small enough to count by hand, and a page that needs nothing else."""

from __future__ import annotations

import re
from array import array
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import pytest

from roleratio.records import FleetSample, Outcome, RequestRecord, Restart, Run, ScaleEvent, SloTargets, Span
from roleratio.report import charts, numbers, page

SLO = SloTargets(ttft_ms=1000, itl_ms=50)


def request(
    at_s: float, ttft_s: float | None, gaps_s: list[float], outcome: Outcome = Outcome.OK, error: str = ""
) -> RequestRecord:
    tokens = 0 if ttft_s is None else 1 + len(gaps_s)
    return RequestRecord(at_s, 100, tokens, ttft_s, at_s + 1, tokens, array("f", gaps_s), outcome, error)


REQUESTS = (
    request(0, 0.5, [0.04, 0.04]),  # met
    request(10, 1.5, [0.04]),  # TTFT missed
    request(20, 0.5, [0.04, 0.08]),  # mean ITL 60 ms missed
    request(30, 0.5, [0.02, 0.07]),  # met: the mean counts
    request(40, 0.9, []),  # met: one token has no ITL
    request(50, 0.1, [0.01], Outcome.FAILED, "cut <b>"),
    request(60, None, [], Outcome.FAILED, "HTTP 503"),
    request(70, 0.2, [0.01], Outcome.UNFINISHED),
)

SAMPLES = (
    FleetSample(-5, "prefill", wanted=1, ready=0, starting=1, draining=0),
    FleetSample(-1, "prefill", wanted=1, ready=1, starting=0, draining=0),
    FleetSample(-5, "decode", wanted=1, ready=1, starting=0, draining=0),
    FleetSample(20, "prefill", wanted=3, ready=1, starting=2, draining=0),
    FleetSample(30, "prefill", wanted=3, ready=3, starting=0, draining=0),
    FleetSample(60, "prefill", wanted=1, ready=1, starting=0, draining=2),
    FleetSample(80, "prefill", wanted=1, ready=1, starting=0, draining=0),
)

RUN = Run(
    title="a <title>",
    fleet="autoscaled",
    window_s=100.0,
    end_s=110.0,
    spans=(Span("first", 0, 50), Span("second", 50, 100)),
    slo=SLO,
    gpus_per_group=2,
    requests=REQUESTS,
    samples=SAMPLES,
    events=(
        ScaleEvent(20, "prefill", 1, 3, "roleratio-controller", ("prefill Grow (from=1 to=3)",)),
        ScaleEvent(60, "prefill", 3, 1, "kubectl"),
    ),
    min_count_patches=2,
    first_request_s=9.5,
    decision_journal="decisions.jsonl",
    settings={"seed": 7},
    versions={"roleratio": "1"},
)


def test_failed_and_unfinished_requests_are_misses() -> None:
    summary = numbers.summary(RUN)
    assert (summary["requests_sent"], summary["requests_ok"], summary["requests_failed"]) == (8, 5, 3)
    assert summary["requests_unfinished"] == 1
    assert summary["slo_attainment"] == pytest.approx(3 / 8)


@pytest.mark.parametrize(("number", "met"), list(enumerate([True, False, False, True, True, False, False, False])))
def test_what_meets_the_slo(number: int, met: bool) -> None:
    assert numbers.met(REQUESTS[number], SLO) is met


def test_attainment_of_nothing_is_unknown() -> None:
    assert numbers.attainment([], SLO) is None


def test_percentiles_are_over_all_tokens_and_lie_between_ranks() -> None:
    itl = numbers.summary(RUN)["itl_ms"]
    seen = sorted([40, 40, 40, 40, 80, 20, 70, 10, 10])
    assert itl["p50"] == pytest.approx(seen[4], abs=0.01)
    assert itl["p95"] == pytest.approx(seen[7] + (seen[8] - seen[7]) * 0.6, abs=0.01)
    assert numbers.percentile([], 0.5) is None
    assert numbers.percentile([3.0], 0.99) == 3.0


def test_ttft_percentiles_leave_out_only_requests_without_a_first_token() -> None:
    assert len(numbers.ttfts_s(REQUESTS)) == 7


def test_gpu_hours_count_from_the_ask_until_the_pods_are_gone() -> None:
    # prefill: 1 group to 20 s, 3 held to 80 s (starting, ready, then draining), 1 to 100 s.
    assert numbers.gpu_hours(RUN, "prefill") == pytest.approx((20 + 3 * 60 + 20) * 2 / 3600)
    assert numbers.gpu_hours(RUN, "decode") == pytest.approx(100 * 2 / 3600)
    assert numbers.gpu_hours(RUN, "prefill", until_s=25) == pytest.approx((20 + 3 * 5) * 2 / 3600)


def test_what_happened_before_the_load_is_not_charged_but_carries_over() -> None:
    assert numbers.gpu_hours(RUN, "prefill", until_s=10) == pytest.approx(10 * 2 / 3600)


def test_peak_and_static_fleet() -> None:
    summary = numbers.summary(RUN)
    assert summary["max_groups"] == {"prefill": 3, "decode": 1}
    static = summary["static_fleet"]
    assert static["gpu_hours"]["prefill"] == pytest.approx(3 * 2 * 100 / 3600, abs=1e-4)
    spent = 220 * 2 / 3600 + 100 * 2 / 3600
    assert static["saved_share"] == pytest.approx(1 - spent / (4 * 2 * 100 / 3600), abs=1e-4)


def test_phases_count_their_own_requests_and_groups() -> None:
    first, second = numbers.summary(RUN)["phases"]
    assert (first["requests"], second["requests"]) == (5, 3)
    assert first["slo_attainment"] == pytest.approx(3 / 5)
    assert second["slo_attainment"] == 0
    assert first["ready_groups_mean"] == {"prefill": pytest.approx((30 + 3 * 20) / 50), "decode": 1.0}


def test_bins_hold_every_request_and_token_once() -> None:
    found = numbers.bins(RUN, 30.0)
    assert [b.end_s for b in found] == [30.0, 60.0, 90.0, 100.0]
    assert sum(b.requests_per_s * (b.end_s - b.start_s) for b in found) == pytest.approx(len(REQUESTS))
    tokens = sum(r.tokens for r in REQUESTS)
    assert sum(b.output_tokens_per_s * (b.end_s - b.start_s) for b in found) == pytest.approx(tokens)


def test_scale_events_and_errors_are_told() -> None:
    summary = numbers.summary(RUN)
    assert summary["scale_events"][0] == {
        "t_s": 20,
        "role": "prefill",
        "from": 1,
        "to": 3,
        "by": "roleratio-controller",
        "reasons": ["prefill Grow (from=1 to=3)"],
    }
    assert summary["errors"] == {"cut <b>": 1, "HTTP 503": 1}


class Tags(HTMLParser):
    """Open tags must be closed, and nothing may be loaded."""

    void = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.loaded += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing() -> None:
    style = resources.files("roleratio.report").joinpath("style.css").read_text(encoding="utf-8")
    html = page.render(RUN, numbers.summary(RUN), style)
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert tags.loaded == []
    assert "script" not in tags.names
    assert "url(" not in html
    assert "@import" not in html
    assert tags.names.count("svg") == 8
    assert "a &lt;title&gt;" in html
    assert "cut &lt;b&gt;" in html
    assert "kubectl" in html
    assert not re.search(r"\bnan\b|\binf\b|None", html)


def test_parts_that_were_restarted_are_told_with_their_time() -> None:
    run = replace(RUN, restarts=(Restart(75.26, "controller ended by signal 9, restarted"),))
    summary = numbers.summary(run)
    assert summary["restarts"] == [{"t_s": 75.26, "what": "controller ended by signal 9, restarted"}]
    assert "<p>1:15 controller ended by signal 9, restarted</p>" in page.render(run, summary, "")


def test_a_run_without_any_request_served_still_has_a_page() -> None:
    run = Run(
        "t",
        "static",
        10.0,
        10.0,
        (),
        SLO,
        2,
        (request(1, None, [], Outcome.FAILED, "x"),),
        (),
        (),
        0,
        None,
        None,
        {},
        {},
    )
    html = page.render(run, numbers.summary(run), "")
    assert "0.0 %" in html
    assert "The fleet was never changed." in html


@pytest.mark.parametrize(
    ("top", "whole", "step"),
    [(0.9, False, 0.5), (0.9, True, 1.0), (4, True, 1.0), (13_000, False, 5000), (0, False, 1)],
)
def test_axis_steps_are_round(top: float, whole: bool, step: float) -> None:
    assert charts.nice_step(top, whole=whole) == step


@pytest.mark.parametrize(("t_s", "text"), [(0, "0:00"), (90, "1:30"), (3661, "1:01:01")])
def test_clock(t_s: float, text: str) -> None:
    assert charts.clock(t_s) == text


def test_a_missing_value_breaks_the_line() -> None:
    chart = charts.Chart(10, 1, "u", "l")
    chart.line([(0, 0.1), (1, 0.2), (2, None), (3, 0.3), (4, 0.4)], "plain")
    assert len(chart.parts) == 2
