"""What a metrics page says, engine by engine: the nouns of reading pages. Plain frozen values.

Rules:
1. A value that the page does not say is `Missing` with the reason. It is never 0.
2. Names end in their unit where they have one: `_total` counts since the process started, `_tokens` are tokens,
   `kv_usage` is 0..1, times are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from autoscaler.model import Histogram, Number
from policies.model import Missing

Kind = Literal["engine", "frontend", "gateway", "router", "none"]
Serves = Literal["prefill", "decode", "both"]
RoleBasis = Literal["label", "behaviour"]

NOT_SAID = Missing("the page's engine has no such signal")


@dataclass(frozen=True, slots=True)
class Distribution:
    """Observations in seconds since the process started; the buckets may be unusable where count and sum are not."""

    count: float
    sum_s: float
    buckets: Histogram | Missing


Spread = Distribution | Missing
Split = Mapping[str, float] | Missing


@dataclass(frozen=True, slots=True)
class Signals:
    """Everything that pages say and the controller can use.

    Load: `running` and `waiting` are requests; `waiting_by_reason` splits `waiting` (vLLM: `deferred` waits for remote
    KV and is not load); `in_flight` counts both where a page does not tell them apart; `held_kv` are finished prompts
    whose KV has not been pulled; `awake` 0 is an engine that sleeps and serves nothing.
    `arrivals_total` counts requests as they come in, `finished_total` all that ended, `failed_total` those of them
    without any output. `prompt_tokens_received_total` came as KV from elsewhere, `prompt_tokens_computed_total` were
    prefilled here: on a decode worker the former are prompts counted a second time.
    """

    running: Number = NOT_SAID
    waiting: Number = NOT_SAID
    waiting_by_reason: Split = NOT_SAID
    in_flight: Number = NOT_SAID
    in_flight_by_stage: Split = NOT_SAID
    swapped: Number = NOT_SAID
    held_kv: Number = NOT_SAID
    draining: Number = NOT_SAID
    awake: Number = NOT_SAID
    disagg_queues: Split = NOT_SAID
    kv_usage: Number = NOT_SAID
    kv_usage_max: Number = NOT_SAID
    kv_capacity_tokens: Number = NOT_SAID
    kv_demand_ratio: Number = NOT_SAID
    preemptions_total: Number = NOT_SAID
    prompt_tokens_total: Number = NOT_SAID
    prompt_tokens_cached_total: Number = NOT_SAID
    prompt_tokens_computed_total: Number = NOT_SAID
    prompt_tokens_received_total: Number = NOT_SAID
    generation_tokens_total: Number = NOT_SAID
    kv_transfers_total: Number = NOT_SAID
    arrivals_total: Number = NOT_SAID
    finished_total: Number = NOT_SAID
    failed_total: Number = NOT_SAID
    gateway_queue: Number = NOT_SAID
    pool_average_queue: Number = NOT_SAID
    pool_average_running: Number = NOT_SAID
    pool_ready: Number = NOT_SAID
    ttft: Spread = NOT_SAID
    itl: Spread = NOT_SAID
    queue_time: Spread = NOT_SAID


@dataclass(frozen=True, slots=True)
class Unit:
    """One engine, data-parallel rank or pool of a page; `id` holds the labels that tell it from the others."""

    id: Mapping[str, str]
    signals: Signals
    role: Serves | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """Series that were seen and not used."""

    names: str
    why: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page understood. `problem` says why `kind` is `none`. `cautions`: signal -> why it is not what it is called.

    `series`: how many of the page's series have names that are read.
    """

    engine: str | None
    kind: Kind
    models: tuple[str, ...] = ()
    units: tuple[Unit, ...] = ()
    totals: Signals = Signals()
    role: Serves | None = None
    role_basis: RoleBasis | None = None
    ignored: tuple[Ignored, ...] = ()
    cautions: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    series: int = 0
