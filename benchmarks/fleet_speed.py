"""Requests that a simulated service gets through in a second, on one core, ticks of the controller included.

How: whole runs of shipped scenarios under our controller, or under fixed sizes for what the world alone costs; reading
traces is not counted, making the requests is. That the time is linear in the requests shows in two lengths of one load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.figure import Figure, figure
from benchmarks.shared import shared
from benchmarks.stopwatch import timed
from roleratio.simulation import Prepared, find_scenario

LIMIT_US = 200.0

Case = tuple[str, str, float]
"""Scenario, policy, seconds of load."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is run, and how often."""

    repeats: int = 3
    cases: Sequence[Case] = (
        ("azure-code", "ours", 3420.0),
        ("azure-code", "static:20,2", 3420.0),
        ("azure-conversation", "ours", 1740.0),
        ("m-large-day", "ours", 3600.0),
        ("m-large-day", "ours", 14_400.0),
        ("m-large-day", "static:4,4", 3600.0),
    )


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of a simulated service's speed."""
    return [_figure(case, sizes.repeats) for case in sizes.cases]


def _figure(case: Case, repeats: int) -> Figure:
    """Microseconds per request; the name says requests per second, of the median."""
    name, policy, duration_s = case
    prepared = Prepared(find_scenario(name), shared("data/traces"))
    prepared.scenario = prepared.scenario.model_copy(update={"duration_s": duration_s})
    spent_ms: list[float] = []
    requests = ticks = 0
    for _ in range(repeats):
        with timed(spent_ms):
            result = prepared.run(policy, prepared.scenario.seed)
        requests, ticks = len(result.requests), result.ticks
    us = sorted(ms * 1e3 / requests for ms in spent_ms)
    speed = 1e6 / us[(len(us) - 1) // 2]
    text = f"{name}, {duration_s:g} s, {policy}: {requests:,} requests, {ticks:,} ticks: {speed:,.0f} requests/s"
    return figure(text, "us/request", us, median=LIMIT_US)
