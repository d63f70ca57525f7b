"""What a demo will do, checked before anything starts: the requests, the fleet's shape, where to write.

Rule: after `make_plan` nothing that a person typed can be wrong any more.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from autoscaler.errors import UserError
from perfmodel.profile import load_profile
from roleratio import traces, workload
from roleratio.demo import prometheus
from roleratio.demo.manifests import GPUS_PER_GROUP, Shape
from roleratio.records import Span
from roleratio.traces import Arrival
from serving.options import DEFAULT_PROFILE

NODES = 8
GPUS_PER_NODE = 4
GPU_BUDGET = NODES * GPUS_PER_NODE


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One demo. `arrivals_left_out` are those that the model's context cannot hold; `guest_of` is the kubeconfig of a
    cluster that is used instead of an embedded one."""

    title: str
    arrivals: tuple[Arrival, ...]
    arrivals_left_out: int
    spans: tuple[Span, ...]
    shape: Shape
    autoscaled: bool
    seed: int
    headless: bool
    report: Path
    kubeconfig_out: Path | None
    guest_of: Path | None = None
    prometheus: str | None = None

    @property
    def fleet(self) -> str:
        """The fleet in words."""
        groups = f"{self.shape.prefill_groups} + {self.shape.decode_groups} groups"
        return f"autoscaled from {groups}" if self.autoscaled else f"static, {groups}"


def make_plan(arguments: argparse.Namespace) -> Plan:
    """The plan of `roleratio demo`'s arguments. Raises UserError."""
    prefill, decode = arguments.static or (1, 1)
    if (prefill + decode) * GPUS_PER_GROUP > GPU_BUDGET:
        raise UserError(
            f"--static {prefill},{decode}: {prefill + decode} groups of {GPUS_PER_GROUP} GPUs do not fit the demo's "
            f"{GPU_BUDGET} GPUs; give at most {GPU_BUDGET // GPUS_PER_GROUP} groups together"
        )
    title, arrivals, spans = _load(arguments)
    limit_tokens = load_profile(DEFAULT_PROFILE).max_model_len
    fitting = tuple(a for a in arrivals if a.input_tokens + a.output_tokens <= limit_tokens)
    if not fitting:
        raise UserError(
            f"{title}: no request in the chosen window ({len(arrivals)} found, longest context {limit_tokens} tokens); "
            "change --start-s or --duration-s"
        )
    return Plan(
        title=f"roleratio demo: {title}",
        arrivals=fitting,
        arrivals_left_out=len(arrivals) - len(fitting),
        spans=spans,
        shape=Shape(prefill, decode, arguments.cold_start_s),
        autoscaled=arguments.static is None,
        seed=arguments.seed,
        headless=arguments.headless,
        report=_directory(arguments.report),
        kubeconfig_out=arguments.kubeconfig_out,
        guest_of=arguments.kubeconfig,
        prometheus=None if arguments.prometheus is None else prometheus.find(arguments.prometheus),
    )


def _load(arguments: argparse.Namespace) -> tuple[str, tuple[Arrival, ...], tuple[Span, ...]]:
    if arguments.trace is None:
        duration_s = arguments.duration_s or workload.DEFAULT_DURATION_S
        found = workload.arrivals(arguments.seed, duration_s)
        return f"built-in workload, seed {arguments.seed}", found, workload.spans(duration_s)
    trace = traces.read(arguments.trace)
    start_s, speed = arguments.start_s or 0.0, arguments.speed or 1.0
    found = traces.select(trace, start_s=start_s, speed=speed, duration_s=arguments.duration_s)
    end_s = arguments.duration_s or max((trace.span_s - start_s) / speed, 1.0)
    title = f"{arguments.trace.name} from {start_s:g} s, speed {speed:g}"
    return title, found, (Span(trace.format, 0.0, end_s),)


def _directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--report {path}: cannot be made: {error.strerror}; give another directory") from error
    return path
