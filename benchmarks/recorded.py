"""Recorded runs of real vLLM engines: what was asked and measured, and the engine that simulates it.

How a run is read: arrivals are differences of `arrival_time`, which has a clock of its own; TTFT = first_token_ts -
queued_ts, end to end = last_token_ts - queued_ts, ITL = (last_token_ts - first_token_ts) / (output_toks - 1) of each
request with two tokens or more. The profile lies beside the run: `profile_<run>_tp<N>_*.csv.gz`.

Rule: a run that cannot be simulated from its profile alone is refused, never approximated.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from perfmodel.layers import LayerSteps, load_layer_steps
from perfmodel.models import model_shape
from perfmodel.profile import ProfileError
from perfmodel.tables import capped
from simulator.config import EngineConfig, EngineError
from simulator.engine import Engine
from simulator.job import Job
from simulator.replay import replay

STAMPS = ("arrival_time", "queued_ts", "first_token_ts", "last_token_ts")
COUNTS = ("input_toks", "output_toks")
SINGLE = ("data_parallel_size", "pipeline_parallel_size")
DEFAULTS = EngineConfig()
NO_LIMIT = 1 << 62

Latencies = Mapping[str, Sequence[float]]
"""Seconds per request, under `ttft`, `itl` and `e2e`."""


class RunError(ValueError):
    """A run that cannot be used; one line per problem."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was measured, times in seconds."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    queued_s: float
    first_token_s: float
    last_token_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run, ready to be simulated."""

    name: str
    requests: tuple[Request, ...]
    # What the real engine had; the simulated one has as many, or as the profile covers.
    seats: int
    config: EngineConfig
    costs: LayerSteps

    def arrivals(self) -> list[tuple[float, Job]]:
        """Fresh jobs at their times since the first arrival."""
        return [(one.arrival_s, Job(one.prompt_tokens, one.output_tokens)) for one in self.requests]

    def measured(self) -> Latencies:
        """What the real engine took."""
        return latencies(
            [(one.queued_s, one.first_token_s, one.last_token_s, one.output_tokens) for one in self.requests]
        )


def simulate(run: Run) -> Latencies:
    """What the simulated engine took. Raises RunError where engine or profile do not reach as far as the run."""
    arrivals = run.arrivals()
    jobs = [job for _, job in arrivals]
    try:
        replay(Engine(run.config, run.costs), arrivals)
    except ProfileError as error:
        raise RunError(f"{run.name}: {error}") from error
    stamps = []
    for job in jobs:
        if job.queued_s is None or job.first_token_s is None or job.last_token_s is None:
            raise RunError(f"{run.name}: a request of {job.tokens} tokens does not fit the KV blocks of the engine")
        stamps.append((job.queued_s, job.first_token_s, job.last_token_s, job.output_tokens))
    covered = run.config.max_num_seqs
    if covered < run.seats and _most_at_once(jobs) >= covered:
        raise RunError(f"{run.name}: max_num_seqs = {run.seats}: the profile covers {covered}, all of which are used")
    return latencies(stamps)


def _most_at_once(jobs: Sequence[Job]) -> int:
    """The most jobs between being scheduled and their last token."""
    changes = [(job.scheduled_s or 0.0, 1) for job in jobs] + [(job.last_token_s or 0.0, -1) for job in jobs]
    return max(accumulate(change for _, change in sorted(changes)))


def latencies(stamps: Sequence[tuple[float, float, float, int]]) -> Latencies:
    """From (queued, first token, last token, output tokens) of each request."""
    return {
        "ttft": [first - queued for queued, first, _, _ in stamps],
        "itl": [(last - first) / (tokens - 1) for _, first, last, tokens in stamps if tokens > 1],
        "e2e": [last - queued for queued, _, last, _ in stamps],
    }


def load_run(prefix: str) -> Run:
    """The run at `prefix` (a path without `_meta.json`). Raises RunError."""
    meta_path = Path(f"{prefix}_meta.json")
    try:
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
        arguments = meta["engine_kwargs"]
        tp = int(arguments.get("tensor_parallel_size") or 1)
        model = str(meta.get("model") or arguments["model"])
        asked = _config(meta)
    except OSError as error:
        raise RunError(f"{meta_path}: cannot be read: {error.strerror}; expected a run's prefix") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{meta_path}: not the description of a run: {type(error).__name__}: {error}") from error
    if several := [name for name in SINGLE if (arguments.get(name) or 1) != 1]:
        raise RunError(f"{meta_path}: {several[0]} = {arguments[several[0]]}: expected one engine, 1")
    if arguments.get("enable_expert_parallel"):
        raise RunError(f"{meta_path}: enable_expert_parallel = true: expected one engine without expert parallelism")
    stem = meta_path.parent / f"profile_{Path(prefix).name}_tp{tp}"
    if not Path(f"{stem}_attention.csv.gz").exists():
        raise RunError(f"{stem}_attention.csv.gz: no such file; expected the run's profile beside it")
    try:
        costs = load_layer_steps(stem, model_shape(model), tp)
        config = replace(
            asked,
            max_num_seqs=min(asked.max_num_seqs, costs.max_seqs),
            max_model_len=min(asked.max_model_len, costs.max_context),
        )
        config.check(costs)
    except (ProfileError, EngineError) as error:
        raise RunError(str(error)) from error
    requests = _requests(Path(f"{prefix}_requests.jsonl.gz"), config)
    return Run(Path(prefix).name, requests, asked.max_num_seqs, config, costs)


def _config(meta: Mapping[str, Any]) -> EngineConfig:
    """The engine as it was asked for, or as it was resolved where the run says so; else vLLM's defaults."""
    asked = meta["engine_kwargs"]
    resolved = meta.get("resolved_config") or {}
    scheduler, cache = resolved.get("scheduler_config") or {}, resolved.get("cache_config") or {}
    kv = meta.get("kv_cache") or {}

    def first(name: str, group: Mapping[str, Any], kind: type, default: Any) -> Any:
        found = [one for one in (asked.get(name), group.get(name)) if isinstance(one, kind)]
        return found[0] if found else default

    blocks = kv.get("num_gpu_blocks")
    return EngineConfig(
        max_num_seqs=first("max_num_seqs", scheduler, int, DEFAULTS.max_num_seqs),
        max_num_batched_tokens=first("max_num_batched_tokens", scheduler, int, DEFAULTS.max_num_batched_tokens),
        max_model_len=first("max_model_len", resolved.get("model_config") or {}, int, NO_LIMIT),
        # One block is vLLM's null block, which holds nobody's KV.
        kv_blocks=int(blocks) - 1 if blocks else None,
        block_tokens=int(kv.get("block_size") or first("block_size", cache, int, DEFAULTS.block_tokens)),
        async_scheduling=first("async_scheduling", scheduler, bool, True),
        prefix_caching=first("enable_prefix_caching", cache, bool, True),
    )


def _requests(path: Path, config: EngineConfig) -> tuple[Request, ...]:
    """The measured requests in order of arrival, the first at 0."""
    problems: list[str] = []
    rows: list[Mapping[str, Any]] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                row = json.loads(line)
                if problem := _problem(row, config):
                    problems.append(f"{path}:{number}: {problem}")
                rows.append(row)
    except (OSError, EOFError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}; expected gzipped JSON lines") from error
    if problems or not rows:
        raise RunError("\n".join(capped(path, problems) or [f"{path}: has no requests"]))
    rows.sort(key=lambda row: float(row["arrival_time"]))
    began_s = rows[0]["arrival_time"]
    return tuple(
        Request(
            row["arrival_time"] - began_s,
            row["input_toks"],
            row["output_toks"],
            row["queued_ts"],
            row["first_token_ts"],
            row["last_token_ts"],
        )
        for row in rows
    )


def _problem(row: Any, config: EngineConfig) -> str | None:
    """What is wrong with one request."""
    if not isinstance(row, Mapping):
        return f"{row!r}: expected an object"
    for name in STAMPS:
        if not (isinstance(row.get(name), int | float) and math.isfinite(row[name])):
            return f"{name} = {row.get(name)!r}: expected seconds"
    for name in COUNTS:
        if not (isinstance(row.get(name), int) and row[name] >= 1):
            return f"{name} = {row.get(name)!r}: expected 1 or more"
    if not row["queued_ts"] <= row["first_token_ts"] <= row["last_token_ts"]:
        return "expected queued_ts <= first_token_ts <= last_token_ts"
    if (tokens := row["input_toks"] + row["output_toks"]) > config.max_model_len:
        return f"{tokens} tokens: expected at most {config.max_model_len}, which engine and profile cover"
    return None
