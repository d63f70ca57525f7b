"""Policies by their names, as the arena takes them.

`ours`, `ours:FILE` (settings), `static:P,D` (begins with these sizes), `oracle` and `oracle:FACTOR`, `planner:NAME`
(Dynamo's), and `NAME=COMMAND`, a process that speaks the same protocol as ours.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoscaler.errors import UserError
from benchmarks.dynosim import traces
from benchmarks.dynosim.context import ENVIRONMENT, load_context, profile_of
from benchmarks.dynosim.scenarios import FIRST_TICK_S, MAX_GPUS, Scenario
from policies.model import ROLES, Pair, Role
from simulator.oracle import Oracle, RoleNeeds, Steps, fluid_needs

_LOAD: Mapping[str, Any] = {"enable_load_scaling": True}
_QUICK: Mapping[str, Any] = {"throughput_adjustment_interval_seconds": 30, "load_predictor": "kalman"}


@dataclass(frozen=True, slots=True)
class Planner:
    """Settings of Dynamo's planner, and the shares of the SLO that it is told to aim at."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    ttft_share: float = 1.0
    itl_share: float = 1.0


PLANNERS: Mapping[str, Planner] = {
    # Its defaults for an SLA: throughput alone, every 180 s, ARIMA; the performance model is tuned every 5 s.
    "default": Planner(),
    "load": Planner({**_LOAD, "enable_throughput_scaling": False}),
    "both": Planner(_LOAD),
    "constant": Planner({**_LOAD, "throughput_adjustment_interval_seconds": 30, "load_predictor": "constant"}),
    "kalman": Planner({**_LOAD, **_QUICK}),
    # It shrinks only with much room.
    "careful": Planner({**_LOAD, **_QUICK, "load_scaling_down_sensitivity": 20}),
    # It is told of tighter targets than there are: the most that we have got out of it.
    "tight": Planner({**_LOAD, **_QUICK, "load_scaling_down_sensitivity": 20}, 0.1, 0.7),
    "tight-throughput": Planner(_QUICK, 0.1, 0.7),
    # What it does when no SLA is told: thresholds on queues and KV use.
    "thresholds": Planner({"optimization_target": "throughput"}),
}
NAMES = ("ours[:SETTINGS]", "static:P,D", "oracle[:FACTOR]", *(f"planner:{name}" for name in PLANNERS), "NAME=COMMAND")


def started_for(name: str, scenario: Scenario) -> Scenario:
    """The scenario as it begins under a policy: fixed sizes are there from the start. Raises UserError."""
    kind, _, rest = name.partition(":")
    return replace(scenario, initial=_pair(name, rest)) if kind == "static" else scenario


def made(name: str, scenario: Scenario, context: Path, seed: int) -> dict[str, Any]:
    """The policy of a job. Raises UserError for a name that is not known."""
    title, equals, command = name.partition("=")
    if equals and title.isidentifier():
        return {"kind": "command", "argv": shlex.split(command), "env": {ENVIRONMENT: str(context)}}
    kind, _, rest = name.partition(":")
    if kind == "ours":
        argv = [sys.executable, "-m", "benchmarks.dynosim.policy", "--stdio"]
        settings = ["--settings", str(Path(rest).resolve())] if rest else []
        return {"kind": "command", "argv": [*argv, *settings], "env": {ENVIRONMENT: str(context)}}
    if kind == "static":
        return {"kind": "static"}
    if kind == "oracle":
        return {"kind": "schedule", "steps": _oracle(scenario, context, seed, _factor(name, rest))}
    if kind == "planner" and rest in PLANNERS:
        return {"kind": "planner", "config": planner(scenario, rest)}
    raise UserError(f"policy {name!r}: no such policy; use one of {', '.join(NAMES)}")


def check(name: str, scenario: Scenario) -> None:
    """Raises UserError for a policy that cannot be made."""
    started_for(name, scenario)
    kind, _, rest = name.partition(":")
    if kind == "oracle":
        _factor(name, rest)
    elif kind == "ours" and rest and not Path(rest).is_file():
        raise UserError(f"policy {name!r}: no such settings file; give an existing one")
    else:
        made(name, scenario, Path("unused"), 0)


def planner(scenario: Scenario, name: str) -> dict[str, Any]:
    """The configuration of Dynamo's planner: what every policy is told, and one of its modes."""
    mode = PLANNERS[name]
    return {
        "mode": "disagg",
        "backend": "vllm",
        "environment": "virtual",
        "optimization_target": "sla",
        "ttft_ms": scenario.ttft_ms * mode.ttft_share,
        "itl_ms": scenario.itl_ms * mode.itl_share,
        "max_gpu_budget": MAX_GPUS,
        "prefill_engine_num_gpu": scenario.tp[Role.PREFILL],
        "decode_engine_num_gpu": scenario.tp[Role.DECODE],
        "report_interval_hours": None,
        "live_dashboard_port": 0,
        "control_api_port": 0,
        **mode.settings,
    }


def _oracle(scenario: Scenario, context: Path, seed: int, factor: float) -> list[list[float]]:
    """What perfect knowledge asks for: the fluid needs of what really comes, times a factor, one cold start ahead."""
    profile = profile_of(load_context(str(context)))
    step_s = max(1.0, scenario.ttft_ms / 1e3)
    fluid = fluid_needs(traces.requests(scenario.load, seed), profile, scenario.itl_ms, 0.0, step_s)
    needs = {
        role: RoleNeeds(_grown(fluid[role], factor), scenario.startup_s, scenario.tp[role], scenario.initial[role])
        for role in ROLES
    }
    oracle = Oracle.of(needs, FIRST_TICK_S)
    times = sorted({0.0, *(at_s for role in ROLES for at_s, _ in oracle.asked[role])})
    return [[at_s, *(max(1, oracle.at(role, at_s)) for role in ROLES)] for at_s in times]


def _grown(steps: Steps, factor: float) -> list[tuple[float, int]]:
    """The steps times a factor, rounded up, with at least one group until the end."""
    *before, (end_s, _) = steps
    grown: list[tuple[float, int]] = []
    for at_s, groups in before:
        more = max(1, math.ceil(groups * factor - 1e-9))
        if not grown or grown[-1][1] != more:
            grown.append((at_s, more))
    return [*grown, (end_s, 0)]


def _pair(name: str, text: str) -> Pair:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(f"policy {name!r}: expected static:P,D, groups of both roles, such as static:3,4")
    return Pair(int(parts[0]), int(parts[1]))


def _factor(name: str, text: str) -> float:
    try:
        factor = float(text or "1")
    except ValueError:
        factor = 0.0
    if not 0.1 <= factor <= 10:
        raise UserError(f"policy {name!r}: expected oracle:FACTOR, a number from 0.1 to 10, such as oracle:1.2")
    return factor
