"""The numbers of a run.

Rules:
1. Failed and unfinished requests are misses; nothing is left out of the denominator.
2. A request meets the SLO when its TTFT and its own mean ITL are within the targets.
3. A group costs its GPUs from the moment it is asked for until its pods are gone: cold start and drain are paid.
4. A percentile of nothing is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from roleratio.records import FleetSample, Outcome, RequestRecord, Run, SloTargets, Span

ROLES = ("prefill", "decode")


def summary(run: Run) -> dict[str, Any]:
    """`report.json`."""
    counts = {outcome: sum(r.outcome is outcome for r in run.requests) for outcome in Outcome}
    peak = {role: max_groups(run, role) for role in ROLES}
    return {
        "title": run.title,
        "fleet": run.fleet,
        "requests_sent": len(run.requests),
        "requests_ok": counts[Outcome.OK],
        "requests_failed": len(run.requests) - counts[Outcome.OK],
        "requests_unfinished": counts[Outcome.UNFINISHED] + counts[Outcome.OPEN],
        "requests_retried": sum(r.retries > 0 for r in run.requests),
        "requests_left_out": run.requests_left_out,
        "first_request_s": rounded(run.first_request_s),
        "window_s": rounded(run.window_s),
        "end_s": rounded(run.end_s),
        "slo": {"ttft_ms": run.slo.ttft_ms, "itl_ms": run.slo.itl_ms},
        "slo_attainment": rounded(attainment(run.requests, run.slo), 4),
        "ttft_ms": percentiles_ms(ttfts_s(run.requests)),
        "itl_ms": percentiles_ms(gaps_s(run.requests)),
        "tokens": {
            "input": sum(r.input_tokens for r in run.requests),
            "output": sum(r.tokens for r in run.requests),
        },
        "gpu_hours": {role: rounded(gpu_hours(run, role), 4) for role in ROLES},
        "max_groups": peak,
        "static_fleet": _static_fleet(run, peak),
        "phases": [_phase(run, span) for span in run.spans],
        "scale_events": [
            {
                "t_s": rounded(event.t_s, 2),
                "role": event.role,
                "from": event.before,
                "to": event.after,
                "by": event.by,
                "reasons": list(event.reasons),
            }
            for event in run.events
        ],
        "min_count_patches": run.min_count_patches,
        "restarts": [{"t_s": rounded(one.t_s, 2), "what": one.what} for one in run.restarts],
        "decision_journal": run.decision_journal,
        "errors": errors(run.requests),
        "settings": dict(run.settings),
        "versions": dict(run.versions),
    }


def attainment(requests: Sequence[RequestRecord], slo: SloTargets) -> float | None:
    """Share of the requests that met the SLO; None when there were none."""
    if not requests:
        return None
    return sum(met(request, slo) for request in requests) / len(requests)


def met(request: RequestRecord, slo: SloTargets) -> bool:
    """Whether one request succeeded within both targets. One with a single token has no ITL to miss."""
    if request.outcome is not Outcome.OK or request.ttft_s is None:
        return False
    itl_s = request.mean_itl_s
    return request.ttft_s * 1e3 <= slo.ttft_ms and (itl_s is None or itl_s * 1e3 <= slo.itl_ms)


def ttfts_s(requests: Iterable[RequestRecord]) -> list[float]:
    """Every TTFT that was seen, also of requests that failed later."""
    return [request.ttft_s for request in requests if request.ttft_s is not None]


def gaps_s(requests: Iterable[RequestRecord]) -> list[float]:
    """Every time between two tokens."""
    return [gap for request in requests for gap in request.gaps_s]


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Linear between the two nearest ranks of a sorted sequence; None of nothing."""
    if not ordered:
        return None
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def percentiles_ms(values_s: Iterable[float]) -> dict[str, float | None]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(values_s)
    names = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
    return {name: _ms(percentile(ordered, share)) for name, share in names.items()}


def gpu_hours(run: Run, role: str, until_s: float | None = None) -> float:
    """GPU-hours of one role over the window, or over its part before `until_s`."""
    end_s = run.window_s if until_s is None else until_s
    return _integral(run.samples, role, end_s, lambda sample: sample.held) * run.gpus_per_group / 3600


def max_groups(run: Run, role: str) -> int:
    """The largest number of groups that were paid for at once."""
    held = [s.held for s, end_s in lasting(run.samples, role, run.window_s) if end_s > max(s.t_s, 0.0)]
    return max(held, default=0)


def lasting(samples: Iterable[FleetSample], role: str, end_s: float) -> list[tuple[FleetSample, float]]:
    """A role's samples, each with the time until which it held."""
    own = [sample for sample in samples if sample.role == role and sample.t_s < end_s]
    ends_s = [after.t_s for after in own[1:]] + [end_s]
    return list(zip(own, ends_s, strict=True)) if own else []


def errors(requests: Iterable[RequestRecord]) -> dict[str, int]:
    """How often each error was seen, most frequent first."""
    counts: dict[str, int] = {}
    for request in requests:
        if request.error:
            counts[request.error] = counts.get(request.error, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


@dataclass(frozen=True, slots=True)
class Bin:
    """What happened in one stretch of time; percentiles over what was seen in it."""

    start_s: float
    end_s: float
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    ttft_ms: dict[str, float | None]
    itl_ms: dict[str, float | None]


def bins(run: Run, width_s: float) -> list[Bin]:
    """The run in stretches of `width_s`: demand at arrival, latencies when they were seen."""
    count = max(1, math.ceil(run.window_s / width_s))
    spans = [(i * width_s, min((i + 1) * width_s, run.window_s)) for i in range(count)]
    arrived = [0] * count
    inputs = [0] * count
    outputs = [0] * count
    ttfts: list[list[float]] = [[] for _ in range(count)]
    gaps: list[list[float]] = [[] for _ in range(count)]

    def index(t_s: float) -> int:
        return min(count - 1, int(t_s / width_s))

    for request in run.requests:
        at = index(request.at_s)
        arrived[at] += 1
        inputs[at] += request.input_tokens
        if request.ttft_s is None:
            continue
        seen_s = request.at_s + request.ttft_s
        ttfts[index(seen_s)].append(request.ttft_s)
        outputs[index(seen_s)] += 1
        for gap in request.gaps_s:
            seen_s += gap
            outputs[index(seen_s)] += 1
            gaps[index(seen_s)].append(gap)
    return [
        Bin(
            start_s,
            end_s,
            arrived[i] / (end_s - start_s),
            inputs[i] / (end_s - start_s),
            outputs[i] / (end_s - start_s),
            percentiles_ms(ttfts[i]),
            percentiles_ms(gaps[i]),
        )
        for i, (start_s, end_s) in enumerate(spans)
    ]


def rounded(value: float | None, digits: int = 3) -> float | None:
    """A number as the report prints it; None stays None."""
    return None if value is None else round(value, digits)


def _phase(run: Run, span: Span) -> dict[str, Any]:
    """The requests that arrived in one phase, and the mean groups that were ready in it."""
    requests = [r for r in run.requests if span.start_s <= r.at_s < span.end_s]
    length_s = span.end_s - span.start_s

    def mean_ready(role: str) -> float:
        def ready(sample: FleetSample) -> int:
            return sample.ready

        until = _integral(run.samples, role, span.end_s, ready)
        return (until - _integral(run.samples, role, span.start_s, ready)) / length_s

    return {
        "name": span.name,
        "start_s": rounded(span.start_s),
        "end_s": rounded(span.end_s),
        "requests": len(requests),
        "slo_attainment": rounded(attainment(requests, run.slo), 4),
        "ttft_ms": percentiles_ms(ttfts_s(requests)),
        "itl_ms": percentiles_ms(gaps_s(requests)),
        "ready_groups_mean": {role: rounded(mean_ready(role), 2) for role in ROLES},
    }


def _static_fleet(run: Run, peak: dict[str, int]) -> dict[str, Any]:
    """What a fleet that always has this run's peak would have cost over the same window."""
    hours = {role: peak[role] * run.gpus_per_group * run.window_s / 3600 for role in ROLES}
    total = sum(hours.values())
    spent = sum(gpu_hours(run, role) for role in ROLES)
    return {
        "groups": peak,
        "gpu_hours": {role: rounded(hours[role], 4) for role in ROLES},
        "saved_share": rounded(1 - spent / total, 4) if total else None,
    }


def _integral(samples: Iterable[FleetSample], role: str, end_s: float, value: Callable[[FleetSample], int]) -> float:
    """Seconds times value from 0 to `end_s`."""
    return sum(
        value(sample) * max(0.0, until_s - max(0.0, sample.t_s)) for sample, until_s in lasting(samples, role, end_s)
    )


def _ms(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s * 1e3, 2)
