"""Requests that the simulated engine gets through in a second, on one core: the recorded runs and a trace of Azure's.

How: whole replays, the engine made anew for each; loading profiles and traces is not counted. That the time is linear
in the requests shows in the trace, repeated to 10,000 and to 100,000 requests.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.fidelity import shared_runs
from benchmarks.figure import Figure, figure
from benchmarks.processes import BenchmarkError
from benchmarks.recorded import Run, RunError, load_run
from benchmarks.shared import shared
from benchmarks.stopwatch import timed
from simulator.engine import Engine
from simulator.job import Job
from simulator.replay import replay

TRACE = "data/traces/azure_llm_2023_conv.csv.gz"
LIMIT_US = 200.0

Request = tuple[float, int, int]
"""Seconds since the first arrival, prompt tokens, output tokens."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How often each replay is timed, and how long the repeated trace is."""

    repeats: int = 5
    few: int = 10_000
    many: int = 100_000


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of the engine's speed."""
    try:
        runs = [load_run(prefix) for prefix in shared_runs()]
    except RunError as error:
        raise BenchmarkError(str(error)) from error
    figures = []
    for run in runs:
        requests = [(one.arrival_s, one.prompt_tokens, one.output_tokens) for one in run.requests]
        figures.append(_figure(run.name, run, requests, sizes.repeats))
    trace = read_trace(shared(TRACE), runs[0].config.max_model_len)
    figures.append(_figure(f"Azure conversation on {runs[0].name}", runs[0], trace, sizes.repeats))
    for count in (sizes.few, sizes.many):
        figures.append(_figure(f"the same, repeated to {count:,} requests", runs[0], repeated(trace, count), 1))
    return figures


def read_trace(path: Path, max_tokens: int) -> list[Request]:
    """The requests of a trace (TIMESTAMP, ContextTokens, GeneratedTokens) that fit `max_tokens`, in its order."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = [
            (
                datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(),
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
            )
            for row in csv.DictReader(lines)
        ]
    began_s = rows[0][0]
    return [(at_s - began_s, prompt, output) for at_s, prompt, output in rows if prompt + output <= max_tokens]


def repeated(trace: Sequence[Request], count: int) -> list[Request]:
    """The trace again and again, one after the other, to `count` requests."""
    length_s = trace[-1][0] * (1 + 1 / len(trace))
    rounds = range(-(-count // len(trace)))
    return [(at_s + i * length_s, prompt, output) for i in rounds for at_s, prompt, output in trace][:count]


def _figure(name: str, run: Run, requests: Sequence[Request], repeats: int) -> Figure:
    """Microseconds per request; the name says requests per second, of the median."""
    spent_ms: list[float] = []
    for _ in range(repeats):
        arrivals = [(at_s, Job(prompt, output)) for at_s, prompt, output in requests]
        with timed(spent_ms):
            replay(Engine(run.config, run.costs), arrivals)
    us = sorted(ms * 1e3 / len(requests) for ms in spent_ms)
    return figure(f"{name}: {1e6 / us[(len(us) - 1) // 2]:,.0f} requests/s", "us/request", us, median=LIMIT_US)
