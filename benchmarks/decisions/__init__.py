"""Decisions in the simulator: ours over its safety knob, beside fixed sizes, all other policies and an oracle.

How: short stretches of two scenarios (`python -m benchmarks.decisions --quick`); the whole ones take hours of one core
(`python -m benchmarks.decisions`, docs/decisions.md). A run of ours is told with how many baselines attain as much as
it does for no more GPU-hours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoscaler.errors import UserError
from benchmarks.decisions.bench import Bench
from benchmarks.decisions.plan import QUICK, Key, parts
from benchmarks.decisions.runs import Row
from benchmarks.decisions.score import Outcome, outcome
from benchmarks.errors import BenchmarkError
from benchmarks.figure import Figure, figure
from benchmarks.shared import shared


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is run; `traces` None: those of the shared material."""

    scenarios: Sequence[str] = QUICK
    traces: Path | None = None
    policies: Sequence[str] = ()
    jobs: int = os.cpu_count() or 1


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """Figures of each run of ours."""
    bench = Bench(sizes.traces or shared("data/traces"), sizes.jobs, sizes.policies, quick=True)
    rows: dict[Key, Row] = {}
    try:
        scenarios = [parts(name, quick=True) for name in sizes.scenarios]
        bench.check(scenarios)
        bench.run(scenarios, rows, again=False, done=lambda row: None)
    except UserError as error:
        raise BenchmarkError("; ".join(error.problems)) from error
    outcomes = [outcome(each, rows) for each in scenarios]
    return [one for found in outcomes if found is not None for one in _figures(found)]


def _figures(found: Outcome) -> list[Figure]:
    figures = []
    for ours in (one for one in found.scores if one.kind == "ours"):
        name = f"{found.scenario}, {ours.policy}, {ours.gpu_hours:.2f} GPU-h, {ours.over_oracle:.2f} of the oracle's"
        beaten = next(one.beaten_by for one in found.verdicts if one.policy == ours.policy)
        missed = 100 * (1 - ours.attainment)
        figures.append(figure(f"{name}: requests missed", "%", [missed]))
        figures.append(figure(f"{name}: beaten by", "baselines", [len(beaten)], median=1))
    return figures
