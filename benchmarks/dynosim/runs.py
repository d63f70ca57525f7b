"""Runs of the arena: what they need, made once, the processes, and the file of what is finished.

Rules:
1. A line of runs.jsonl is a finished run; one that is there is not run again.
2. Each run is a process in the environment that has Dynamo; every one that was started is ended.
3. A run that fails is told, and does not keep the others from running.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.dynosim import roster, traces
from benchmarks.dynosim.scenarios import GRACE_S, TRACE_BLOCK_TOKENS, Scenario
from benchmarks.processes import ROOT, BenchmarkError
from policies.model import ROLES

Row = dict[str, Any]
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """One policy in one scenario."""

    scenario: Scenario
    policy: str
    seed: int

    @property
    def key(self) -> Key:
        """What makes it the same run."""
        return self.scenario.name, self.policy, self.seed


@dataclass(slots=True)
class Bench:
    """A folder of runs. `python`: the interpreter that has Dynamo; `keep_reports`: write what policies saw and said."""

    folder: Path
    python: Path
    keep_reports: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: set[subprocess.Popen[str]] = field(default_factory=set)

    def rows(self) -> list[Row]:
        """What is finished, the last run of each key."""
        return finished(self.folder / "runs.jsonl")

    def run_all(self, runs: Sequence[Run], jobs: int, tell: Callable[[Row], None]) -> list[str]:
        """Run what is not finished, `jobs` at once; what failed, one line each."""
        for one in runs:
            self.prepare(one)
        failures: list[str] = []
        pool = ThreadPoolExecutor(max_workers=jobs)
        try:
            for run, future in [(run, pool.submit(self._run, run)) for run in runs]:
                try:
                    tell(future.result())
                except BenchmarkError as error:
                    failures.append(f"{' '.join(map(str, run.key))}: {error}")
                    print(f"referee: {failures[-1]}", file=sys.stderr, flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in [*self._running]:
                process.terminate()
            pool.shutdown(wait=True)
        return failures

    def prepare(self, run: Run) -> None:
        """The trace and the context, before anything runs beside them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (count := self.trace(run).with_suffix(".count")).exists():
            count.write_text(str(traces.write(run.scenario.load, run.seed, self.trace(run))), encoding="utf-8")
        context = self.context(run)
        if not context.exists():
            tables = self._tables(run.scenario)
            facts = roster.started_for(run.policy, run.scenario).facts()
            context.write_text(json.dumps({**facts, **tables}), encoding="utf-8")

    def _tables(self, scenario: Scenario) -> Row:
        engines = {role.value: scenario.engine(role) for role in ROLES}
        path = self.folder / f"tables-{_digest(engines)}.json"
        if not path.exists():
            asked = self.folder / f"engines-{_digest(engines)}.json"
            asked.write_text(json.dumps(engines), encoding="utf-8")
            path.write_text(json.dumps(self._process("benchmarks.dynosim.tables", asked)), encoding="utf-8")
        found: Row = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _run(self, run: Run) -> Row:
        scenario = roster.started_for(run.policy, run.scenario)
        count = int(self.trace(run).with_suffix(".count").read_text(encoding="utf-8"))
        name = f"{run.scenario.name}-{_digest(run.policy)}-{run.seed}"
        job = {
            "engines": {role.value: scenario.engine(role) for role in ROLES},
            "facts": scenario.facts(),
            "trace": str(self.trace(run)),
            "trace_block_tokens": TRACE_BLOCK_TOKENS,
            "requests": count,
            "end_s": last_arrival_s(self.trace(run)) + GRACE_S,
            "policy": roster.made(run.policy, scenario, self.context(run).resolve(), run.seed),
            "reports": str(self.folder / f"reports-{name}.jsonl") if self.keep_reports else None,
        }
        path = self.folder / f"job-{name}.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        scenario_name, policy, seed = run.key
        row = {
            "scenario": scenario_name,
            "policy": policy,
            "seed": seed,
            **self._process("benchmarks.dynosim.arena", path),
        }
        with self._lock, (self.folder / "runs.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        return row

    def _process(self, module: str, argument: Path) -> Row:
        """A module in Dynamo's environment; the last line that it prints. Raises BenchmarkError with what it said."""
        if not self.python.exists():
            raise BenchmarkError(f"--python {self.python}: no such file; `make dynosim-env` makes it")
        argv = ["nice", str(self.python), "-m", module, str(argument.resolve())]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._running.add(process)
        try:
            out, said = process.communicate()
        finally:
            self._running.discard(process)
        if process.returncode:
            last = [line for line in said.splitlines() if line.strip()][-1:] or ["no output"]
            raise BenchmarkError(f"ended with code {process.returncode}: {last[0].strip()}")
        found: Row = json.loads(out.splitlines()[-1])
        return found

    def trace(self, run: Run) -> Path:
        """What is replayed."""
        return self.folder / f"trace-{_digest(run.scenario.load_key())}-{run.seed}.jsonl"

    def context(self, run: Run) -> Path:
        """What policies are told."""
        scenario = roster.started_for(run.policy, run.scenario)
        return self.folder / f"context-{_digest([scenario.facts(), scenario.model.path])}.json"


def finished(path: Path) -> list[Row]:
    """The runs in a file, the last one of each key. Raises BenchmarkError for a line that is none."""
    if not path.exists():
        return []
    found: dict[Key, Row] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found[row["scenario"], row["policy"], row["seed"]] = row
        except (ValueError, KeyError, TypeError):
            raise BenchmarkError(f"{path}:{number}: not a finished run; remove the line, and it is run again") from None
    return list(found.values())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def last_arrival_s(trace: Path) -> float:
    """The time of the last line, without reading the whole file."""
    with trace.open("rb") as file:
        file.seek(max(0, trace.stat().st_size - 1_000_000))
        last: float = json.loads(file.read().splitlines()[-1])["timestamp"]
    return last / 1e3
