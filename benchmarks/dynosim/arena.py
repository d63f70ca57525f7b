"""`python -m benchmarks.dynosim.arena JOB`: one run of Dynamo's simulator; runs in the environment that has Dynamo.

JOB is a JSON file: `engines` (arguments by role), `facts` (what a policy is told), `trace`, `requests` (how many it
has), `end_s`, `policy`, and where to write what it saw (`reports`, or null). A policy is one of
{"kind": "static"}, {"kind": "schedule", "steps": [[at_s, prefill, decode]]}, {"kind": "planner", "config": {...}} and
{"kind": "command", "argv": [...], "env": {...}}, a process that reads one report a line and answers in one line.
Standard output ends with the result as one JSON line.

Rules:
1. Imports nothing of ours but what imports nothing: the two environments share no package.
2. A request attains when its TTFT and its mean ITL are within the SLO. One without a record did not finish: a miss.
3. GPU-hours are the simulator's: from the moment that a replica is asked for until its drain ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Protocol

from benchmarks.dynosim.score import scored

FIRST_TICK_S = 5.0
SYNC_S = 5.0

Targets = dict[str, Any]


class Policy(Protocol):
    """What Dynamo's simulator calls."""

    def initial_tick_ms(self) -> float:
        """When the first report is wanted."""

    def on_tick(self, report: dict[str, Any]) -> Targets:
        """The targets, and when the next report is wanted."""


class Schedule:
    """Sizes by the time; without steps, the first sizes stay."""

    def __init__(self, steps: list[list[float]]) -> None:
        self._steps = steps

    def initial_tick_ms(self) -> float:
        """As everybody else."""
        return FIRST_TICK_S * 1e3

    def on_tick(self, report: dict[str, Any]) -> Targets:
        """The last step that has begun."""
        now_ms = report["now_ms"]
        begun = [step for step in self._steps if step[0] * 1e3 <= now_ms + 1e-6]
        prefill, decode = (int(begun[-1][1]), int(begun[-1][2])) if begun else (None, None)
        return {"target_prefill": prefill, "target_decode": decode, "next_tick_ms": now_ms + SYNC_S * 1e3}


class Command:
    """A process of its own. Raises RuntimeError when it ends, or says what is no answer."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}
        )

    def initial_tick_ms(self) -> float:
        """As everybody else."""
        return FIRST_TICK_S * 1e3

    def on_tick(self, report: dict[str, Any]) -> Targets:
        """One line there and one line back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(report) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the policy's process ended with code {self._process.wait()}")
        answer: Targets = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=30)


class Watched:
    """A policy, and what was seen of it: how often it changed a size, the largest ones, how long it thought."""

    def __init__(self, policy: Policy, reports: IO[str] | None) -> None:
        self._policy = policy
        self._reports = reports
        self.changes = 0
        self.peak = [0, 0]
        self.thinking_s = 0.0
        self.ticks = 0
        self.sizes: list[list[float]] = []

    def initial_tick_ms(self) -> float:
        """The policy's."""
        return self._policy.initial_tick_ms()

    def on_tick(self, report: dict[str, Any]) -> Targets:
        """The policy's answer."""
        began_s = time.perf_counter()
        answer = self._policy.on_tick(report)
        self.thinking_s += time.perf_counter() - began_s
        self.ticks += 1
        for place, role in enumerate(("prefill", "decode")):
            now, target = report[f"non_draining_{role}_count"], answer[f"target_{role}"]
            self.changes += target is not None and target != now
            self.peak[place] = max(self.peak[place], now if target is None else target)
        groups = [report[f"total_{role}_count"] for role in ("prefill", "decode")]
        if not self.sizes or self.sizes[-1][1:] != groups:
            self.sizes.append([report["now_ms"] / 1e3, *groups])
        if self._reports is not None:
            self._reports.write(json.dumps({"report": report, "answer": answer}) + "\n")
        return answer


def main() -> int:
    """Run the job in the file that is named."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    began_s = time.perf_counter()
    reports = open(job["reports"], "w", encoding="utf-8") if job["reports"] else None  # noqa: SIM115
    try:
        found = _planner(job, reports) if job["policy"]["kind"] == "planner" else _policy(job, reports)
    finally:
        if reports is not None:
            reports.close()
    print(json.dumps({**found, "wall_s": round(time.perf_counter() - began_s, 1)}))
    return 0


def _policy(job: dict[str, Any], reports: IO[str] | None) -> dict[str, Any]:
    """A run under a policy of ours or of anybody's."""
    from dynamo._core import run_mocker_trace_replay

    asked = job["policy"]
    policy = Command(asked["argv"], asked["env"]) if asked["kind"] == "command" else Schedule(asked.get("steps", []))
    watched = Watched(policy, reports)
    try:
        result = run_mocker_trace_replay(**_arguments(job), replay_mode="offline", scaling_policy=watched)
    finally:
        if isinstance(policy, Command):
            policy.close()
    seen = {
        "changes": watched.changes,
        "peak": watched.peak,
        "tick_ms": round(1e3 * watched.thinking_s / max(1, watched.ticks), 2),
        "sizes": watched.sizes,
    }
    return {**scored(job, result.summary, result.per_request, result.lifecycle_operations or []), **seen}


def _planner(job: dict[str, Any], reports: IO[str] | None) -> dict[str, Any]:
    """A run under Dynamo's own planner, as its `run_trace_replay` makes it, and watched like any other."""
    from dynamo._core import run_mocker_trace_replay
    from dynamo.replay.planner import planner_replay_adapter

    scope = planner_replay_adapter(
        extra_engine_args=None,
        prefill_engine_args=_engine(job, "prefill"),
        decode_engine_args=_engine(job, "decode"),
        planner_config_arg=json.dumps(job["policy"]["config"]),
        performance_model_metadata={role: _performance(job, role) for role in ("prefill", "decode")},
        capture_details=False,
    )
    with scope as adapter:
        watched = Watched(adapter, reports)
        result = run_mocker_trace_replay(**_arguments(job), replay_mode="offline", scaling_policy=watched)
        seen = {"changes": watched.changes, "peak": watched.peak, "sizes": watched.sizes}
        return {**scored(job, result.summary, result.per_request, result.lifecycle_operations or []), **seen}


def _arguments(job: dict[str, Any]) -> dict[str, Any]:
    facts = job["facts"]
    return {
        "trace_files": [job["trace"]],
        "prefill_engine_args": _engine(job, "prefill"),
        "decode_engine_args": _engine(job, "decode"),
        "num_prefill_workers": facts["init_prefill"],
        "num_decode_workers": facts["init_decode"],
        "router_mode": facts["router"],
        "trace_block_size": job["trace_block_tokens"],
        "max_sim_time_ms": job["end_s"] * 1e3,
        "sla_ttft_ms": facts["ttft_ms"],
        "sla_itl_ms": facts["itl_ms"],
        "capture_per_request": True,
    }


def _engine(job: dict[str, Any], role: str) -> Any:
    from dynamo.mocker import MockEngineArgs

    return MockEngineArgs(**job["engines"][role])


def _performance(job: dict[str, Any], role: str) -> dict[str, Any]:
    """Each role's own performance model: the roles may differ in TP."""
    engine = job["engines"][role]
    config = {
        "backend": engine["aic_backend"],
        "system": engine["aic_system"],
        "model_path": engine["aic_model_path"],
        "tp_size": engine["aic_tp_size"],
        "backend_version": engine["aic_backend_version"],
    }
    moe = {key: engine[f"aic_{key}"] for key in ("moe_tp_size", "moe_ep_size") if f"aic_{key}" in engine}
    return {"provider": "aic", "config": {**config, **moe}}


if __name__ == "__main__":
    sys.exit(main())
