"""Runs of the bench, spread over processes by joblib, and the file of those that are finished.

Rules:
1. A line of runs.jsonl is a finished run; it is not run again. The last line of a key counts.
2. A row holds sums and counts, so that parts and seeds can be added up. Times are counted in buckets of 2 %.
3. What a forecast is worth and how far ramps were started ahead is told of a run that has settled: a policy begins
   with nothing seen, and how it does then is another matter.
4. Nothing here needs more than the repository, pydantic, PyYAML, joblib and numpy: no network, no cluster's client.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from autoscaler.errors import UserError
from benchmarks.decisions.plan import NEEDS, Key, Part, Run
from forecasting.recent import ERRORS_S
from policies.model import ROLES, Role
from roleratio.simulation import Prepared
from simulator.flight import Cause
from simulator.oracle import Oracle, RoleNeeds, gpu_hours
from simulator.ramps import split, starts, wanted_of
from simulator.result import Result, max_groups
from simulator.roster import oracle_needs
from simulator.scenario import Scenario

Row = dict[str, Any]

BUCKET = 1.02
SETTLED_COLD_STARTS, SETTLED_SHARE = 5, 0.25
"""A policy that has seen nothing needs some time: so many cold starts, at most that share of a run."""
SOURCES = ("autoscaler", "forecasting", "gangscheduler", "perfmodel", "policies", "simulator")
"""The packages on which the numbers of a run depend."""


@lru_cache(maxsize=4)
def prepared(path: Path, traces: Path | None) -> Prepared:
    """A scenario with its traces, read once per process. Raises UserError."""
    return Prepared(path, traces)


def _cut(part: Part, traces: Path | None) -> Prepared:
    """A part's own scenario; what was read is shared by all parts of this process."""
    ready = copy(prepared(part.path, traces))
    ready.scenario = part.of(ready.scenario)
    return ready


def run(one: Run, traces: Path | None) -> Row:
    """One run, or what a part needs, as plain data. Raises UserError."""
    began_s = time.perf_counter()
    ready = _cut(one.part, traces)
    needed = _needed(one.part, traces)
    found = _needs(ready, needed) if one.policy == NEEDS else _judged(ready, one, needed)
    scenario, policy, seed, start_s, duration_s = one.key
    key = {"scenario": scenario, "policy": policy, "seed": seed, "start_s": start_s, "duration_s": duration_s}
    return {**key, **found, "sources": sources(one.part.path), "wall_s": round(time.perf_counter() - began_s, 2)}


@dataclass(frozen=True, slots=True)
class _Needed:
    """How many requests a part has, what they need, and what of it is `felt` (`core.forecast`), whose rises are ramps:
    no policy starts a group for a crowd of two seconds.
    """

    requests: int
    needs: Mapping[Role, RoleNeeds]
    felt: Mapping[Role, RoleNeeds]


@lru_cache(maxsize=2)
def _needed(part: Part, traces: Path | None) -> _Needed:
    """Kept: the runs of one part often follow each other."""
    ready = _cut(part, traces)
    scenario, profile = ready.scenario, ready.profile
    requests = [one for one in ready.load(part.seed).requests if one[0] < scenario.duration_s]
    felt = oracle_needs(scenario, profile, requests, ERRORS_S)
    return _Needed(len(requests), oracle_needs(scenario, profile, requests), felt)


def _judged(ready: Prepared, one: Run, needed: _Needed) -> Row:
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
        "settled": _settled(ready.scenario, result),
        "ramps": {role.value: _ramps(ready, result, role, needed.felt[role]) for role in ROLES},
        "problems": list(result.problems),
    }


def settled_s(scenario: Scenario) -> float:
    """From when on a run has settled."""
    return min(SETTLED_COLD_STARTS * scenario.start.typical_s, SETTLED_SHARE * scenario.duration_s)


def _settled(scenario: Scenario, result: Result) -> dict[str, float]:
    """Requests that came to a run that had settled, misses among them, and what it cost from then on."""
    from_s = settled_s(scenario)
    came = [index for index, at_s in enumerate(result.requests.at_s) if at_s >= from_s]
    hours = sum(result.gpu_hours(role, from_s) for role in ROLES)
    missed = sum(not result.requests.met(index) for index in came)
    return {"requests": len(came), "missed": missed, "gpu_hours": round(hours, 6)}


def _ramps(ready: Prepared, result: Result, role: Role, needs: RoleNeeds) -> dict[str, dict[str, float]]:
    """How much of what the demand made anybody start was asked for one cold start before."""
    wanted = wanted_of(result.fleet, role, ready.scenario.duration_s)
    every = starts(needs, wanted, ready.scenario.autoscaler.role(role).max_groups)
    from_s = settled_s(ready.scenario) + needs.cold_start_s
    found = [one for one in every if one.from_s >= from_s]
    return {name: ramps.to_json() for name, ramps in split(found, needs.cold_start_s).items()}


def _needs(ready: Prepared, needed: _Needed) -> Row:
    """The oracle's cost, and groups needed: the mean over time and the peak."""
    needs = needed.needs
    return {
        "requests": needed.requests,
        "gpu_hours": round(gpu_hours(needs), 6),
        "settled": {"gpu_hours": round(gpu_hours(_since(needs, settled_s(ready.scenario))), 6)},
        "gpus_per_group": ready.profile.gpus,
        "mean": {role.value: round(_mean(needs[role]), 4) for role in ROLES},
        "peak": {role.value: max(groups for _, groups in needs[role].steps) for role in ROLES},
    }


def _since(needs: Mapping[Role, RoleNeeds], from_s: float) -> dict[Role, RoleNeeds]:
    """What is needed from a moment on, the groups that the oracle has then being there."""
    found = {}
    for role, need in needs.items():
        steps = [
            (max(at_s, from_s), groups) for (at_s, groups), (until_s, _) in pairwise(need.steps) if until_s > from_s
        ]
        there = Oracle.of({role: need}).at(role, from_s)
        found[role] = replace(need, steps=[*steps, *need.steps[-1:]], initial=there)
    return found


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
