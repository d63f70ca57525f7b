"""The series to score: files that a user names, else the shared traces.

Rules:
1. A file is CSV, gzip or not, with a header; time (s or ISO 8601) in the first column, the value in the second.
2. Token rates of ServeGen are sums over clients of rate times the mean length of their six hours, as far as lengths
   are known; a window of which the total is 0 is missing, not idle. Azure's requests are counted in steps of 60 s.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.forecast.origins import Task
from benchmarks.shared import shared
from forecasting.series import Grid, SeriesError, regular
from forecasting.table import read_points

SERVEGEN, AZURE = ("m-large", "m-mid"), ("code", "conv")
SERVEGEN_STEPS, AZURE_STEPS, STEPS = (1, 2, 6), (2, 5, 10), (1, 2, 6)
LENGTHS_S, AZURE_STEP_S = 21_600, 60.0

Points = list[tuple[float, float]]


def from_files(paths: list[Path], steps: tuple[int, ...]) -> list[Task]:
    """One task a file. Raises SeriesError naming it, OSError."""
    return [Task(_stem(path), _grid(path), steps) for path in paths]


def _grid(path: Path) -> Grid:
    points = read_points(path.read_bytes(), str(path))
    try:
        return regular(points)
    except SeriesError as error:
        raise SeriesError(f"{path}: {error}") from None


def from_shared() -> list[Task]:
    """The shared traces. Raises BenchmarkError where they are absent."""
    tasks = [
        Task(f"{model}_{name}", regular(points), SERVEGEN_STEPS)
        for model in SERVEGEN
        for name, points in _servegen(model)
    ]
    for trace in AZURE:
        tasks += [
            Task(f"azure-{trace}_{name}", regular(points, AZURE_STEP_S, "idle"), AZURE_STEPS)
            for name, points in _azure(trace)
        ]
    return tasks


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".csv")


def _servegen(model: str) -> Iterator[tuple[str, Points]]:
    base = f"data/traces/servegen/{model}"
    totals = {float(row["t_s"]): float(row["total_rps"]) for row in _rows(f"{base}_total_rate.csv.gz")}
    means: dict[tuple[int, int], tuple[float, float]] = {}
    for line in list(_lines(f"{base}_client_lengths.jsonl.gz"))[1:]:
        row = json.loads(line)
        if "input_tokens_mean" in row and "output_tokens_mean" in row:
            means[row["client"], row["t_s"]] = row["input_tokens_mean"], row["output_tokens_mean"]
    tokens = {at_s: [0.0, 0.0] for at_s, total in totals.items() if total > 0}
    for window in _rows(f"{base}_client_windows.csv.gz"):
        at_s, rate = float(window["t_s"]), float(window["rate_rps"])
        lengths = means.get((int(window["client"]), int(at_s // LENGTHS_S) * LENGTHS_S))
        if lengths and at_s in tokens:
            tokens[at_s][0] += rate * lengths[0]
            tokens[at_s][1] += rate * lengths[1]
    yield "rate", sorted(totals.items())
    yield "input", sorted((at_s, pair[0]) for at_s, pair in tokens.items())
    yield "output", sorted((at_s, pair[1]) for at_s, pair in tokens.items())


def _azure(trace: str) -> Iterator[tuple[str, Points]]:
    steps: dict[int, list[float]] = {}
    first_s: float | None = None
    for row in _rows(f"data/traces/azure_llm_2023_{trace}.csv.gz"):
        at_s = datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC).timestamp()
        first_s = at_s if first_s is None else first_s
        step = steps.setdefault(int((at_s - first_s) // AZURE_STEP_S), [0.0, 0.0, 0.0])
        for column, amount in enumerate((1.0, float(row["ContextTokens"]), float(row["GeneratedTokens"]))):
            step[column] += amount / AZURE_STEP_S
    # The last minute is cut off by the end of the trace.
    for column, name in enumerate(("requests", "input", "output")):
        yield name, [(i * AZURE_STEP_S, steps.get(i, [0.0] * 3)[column]) for i in range(max(steps))]


def _lines(path: str) -> Iterator[str]:
    with gzip.open(shared(path)) as packed:
        yield from io.TextIOWrapper(packed, encoding="utf-8")


def _rows(path: str) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(_lines(path))
