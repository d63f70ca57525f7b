"""Many runs of one scenario: policies times seeds, spread over processes by joblib.

Rules:
1. One task is one run, told by plain data; what comes back is its numbers, not its requests. Equal tasks give equal
   numbers, wherever they run.
2. How tasks are spread is joblib's business: processes of this machine unless the caller says otherwise by
   `joblib.parallel_config`, whose Dask and Ray backends take the same tasks to other machines (docs/simulator.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from policies.model import ROLES
from roleratio.simulation import Prepared
from simulator.oracle import gpu_hours
from simulator.port import Wanted
from simulator.result import FleetRow, Result, Span, rounded
from simulator.roster import oracle_needs
from simulator.world import World

Progress = Callable[[float], object]
"""Told the simulated seconds that a run has come to."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run."""

    scenario: Path
    policy: str
    seed: int
    traces: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The numbers of one run (`Result.summary` and the oracle's), its fleet over time, and how long it took to run."""

    task: Task
    summary: dict[str, Any]
    fleet: tuple[FleetRow, ...]
    spans: tuple[Span, ...]
    wall_s: float


def run_task(task: Task, prepared: Prepared | None = None, progress: Progress | None = None) -> Outcome:
    """Run one task. Raises UserError."""
    ready = prepared or Prepared(task.scenario, task.traces)
    began_s = time.perf_counter()
    result = ready.run(task.policy, task.seed, None if progress is None else _watching(progress))
    wall_s = time.perf_counter() - began_s
    return Outcome(task, _summary(ready, task, result), tuple(result.fleet), tuple(result.spans), wall_s)


def sweep(
    tasks: Sequence[Task], jobs: int | None = None, done: Callable[[Outcome], object] | None = None
) -> list[Outcome]:
    """Run all, in parallel; in the order of the tasks. `jobs` None: as `joblib.parallel_config` says, else one.

    `done` is told of each that is ready, which joblib's backend for Ray cannot.
    """
    calls = (delayed(run_task)(task) for task in tasks)
    if done is None:
        return list(Parallel(n_jobs=jobs)(calls))
    found: dict[Task, Outcome] = {}
    for outcome in Parallel(n_jobs=jobs, return_as="generator_unordered")(calls):
        found[outcome.task] = outcome
        done(outcome)
    return [found[task] for task in tasks]


def _watching(progress: Progress) -> Callable[[World, Any, Wanted], object]:
    return lambda world, seen, wanted: progress(seen.now_s)


def _summary(prepared: Prepared, task: Task, result: Result) -> dict[str, Any]:
    """The result's numbers beside those of the oracle."""
    needs = oracle_needs(prepared.scenario, prepared.profile, prepared.load(task.seed).requests)
    least = gpu_hours(needs)
    peak = {role.value: max(groups for _, groups in needs[role].steps) for role in ROLES}
    oracle = {
        "gpu_hours": rounded(least, 4),
        "max_groups": peak,
        "gpu_hours_over_oracle": rounded(result.gpu_hours_total / least, 4) if least else None,
    }
    return {**result.summary(), "oracle": oracle, "problems": list(result.problems)}
