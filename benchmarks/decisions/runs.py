"""Runs of the bench, spread over processes by joblib, and the file of those that are finished.

Rules:
1. A line of runs.jsonl is a finished run; it is not run again. The last line of a key counts.
2. A row holds sums and counts, so that parts and seeds can be added up. Times are counted in buckets of 2 %.
3. Nothing here needs more than the repository, pydantic, PyYAML, joblib and numpy: no network, no cluster's client.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from autoscaler.errors import UserError
from benchmarks.decisions.plan import NEEDS, Key, Run
from policies.model import ROLES
from roleratio.simulation import Prepared
from simulator.flight import Cause
from simulator.oracle import RoleNeeds, gpu_hours
from simulator.result import max_groups
from simulator.roster import oracle_needs

Row = dict[str, Any]

BUCKET = 1.02
SOURCES = ("autoscaler", "forecasting", "gangscheduler", "perfmodel", "policies", "simulator")
"""The packages on which the numbers of a run depend."""


@lru_cache(maxsize=4)
def prepared(path: Path, traces: Path | None) -> Prepared:
    """A scenario with its traces, read once per process. Raises UserError."""
    return Prepared(path, traces)


def run(one: Run, traces: Path | None) -> Row:
    """One run, or what a part needs, as plain data. Raises UserError."""
    began_s = time.perf_counter()
    # What was read is shared by all parts of this process; the scenario is each part's own.
    ready = copy(prepared(one.part.path, traces))
    ready.scenario = one.part.of(ready.scenario)
    found = _needs(ready, one) if one.policy == NEEDS else _judged(ready, one)
    scenario, policy, seed, start_s, duration_s = one.key
    key = {"scenario": scenario, "policy": policy, "seed": seed, "start_s": start_s, "duration_s": duration_s}
    return {**key, **found, "sources": sources(one.part.path), "wall_s": round(time.perf_counter() - began_s, 2)}


def _judged(ready: Prepared, one: Run) -> Row:
    result = ready.run(one.policy, one.part.seed)
    causes = Counter(Cause(cause).name.lower() for cause in result.requests.cause if cause != Cause.NONE)
    return {
        "requests": len(result.requests),
        "misses": dict(sorted(causes.items())),
        "left_out": result.left_out,
        "gpu_hours": round(result.gpu_hours_total, 6),
        "ttft_s": _counted(result.requests.ttft_s),
        "itl_s": _counted(result.requests.itl_s),
        "changes": len(result.events),
        "max_groups": {role.value: max_groups(result.fleet, role, result.window_s) for role in ROLES},
        "peak_gpus": result.peak_gpus,
        "problems": list(result.problems),
    }


def _needs(ready: Prepared, one: Run) -> Row:
    """The oracle's cost, and groups needed: the mean over time and the peak."""
    requests = [one for one in ready.load(one.part.seed).requests if one[0] < ready.scenario.duration_s]
    needs = oracle_needs(ready.scenario, ready.profile, requests)
    return {
        "requests": len(requests),
        "gpu_hours": round(gpu_hours(needs), 6),
        "gpus_per_group": ready.profile.gpus,
        "mean": {role.value: round(_mean(needs[role]), 4) for role in ROLES},
        "peak": {role.value: max(groups for _, groups in needs[role].steps) for role in ROLES},
    }


def _mean(needs: RoleNeeds) -> float:
    steps = needs.steps
    return sum(groups * (until_s - at_s) for (at_s, groups), (until_s, _) in pairwise(steps)) / steps[-1][0]


def _counted(values_s: Iterable[float]) -> dict[str, int]:
    """How many values are in each bucket; what is not known is in none."""
    counts = Counter(math.floor(math.log(max(value, 1e-6), BUCKET)) for value in values_s if not math.isnan(value))
    return {str(bucket): count for bucket, count in sorted(counts.items())}


@cache
def sources(scenario: Path) -> str:
    """Which sources made a number: a digest of the scenario and of all files of ours on which it depends."""
    root = Path(__file__).resolve().parents[2]
    files = (file for name in SOURCES for file in (root / name).rglob("*") if file.suffix in (".py", ".json"))
    digest = hashlib.sha256(scenario.read_bytes())
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def run_all(runs: Iterable[Run], traces: Path | None, jobs: int, done: Callable[[Row], object]) -> None:
    """Run all, `jobs` at once, in their order; `done` is told of each that is ready. Raises UserError."""
    calls = (delayed(run)(one, traces) for one in runs)
    # A run is long: one is taken when another has ended, not ahead.
    for row in Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")(calls):
        done(row)


@dataclass(frozen=True, slots=True)
class Finished:
    """The file of finished runs."""

    path: Path

    def rows(self) -> dict[Key, Row]:
        """What is finished, the last run of each key. Raises UserError."""
        found: dict[Key, Row] = {}
        if not self.path.exists():
            return found
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                found[row["scenario"], row["policy"], row["seed"], row["start_s"], row["duration_s"]] = row
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{self.path}:{number}: not a finished run; remove the line, and it is run again"
                ) from None
        return found

    def add(self, row: Row) -> None:
        """Keep one."""
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
