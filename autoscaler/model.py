"""The controller's nouns: what a tick sees, remembers and decides. Plain frozen values, JSON round-trippable.

Rules:
1. Identity is a UID. Names are for people.
2. Counters are cumulative as scraped; `core.observe` turns them into rates.
3. `float | Missing`: a number that may be unknown says so in its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from policies.manual import Held, Ours
from policies.model import Missing, Pair, Reason, Role
from policies.restore import Drops

Number = float | Missing


@dataclass(frozen=True, slots=True)
class Histogram:
    """A cumulative Prometheus histogram: `counts[i]` observations were <= `bounds_s[i]`; the last bound is inf."""

    bounds_s: tuple[float, ...]
    counts: tuple[float, ...]
    sum_s: float


@dataclass(frozen=True, slots=True)
class RouterSample:
    """One router or gateway process: what arrived there, and what its clients saw."""

    uid: str
    at_s: float
    arrivals: float
    prompt_tokens: float
    generation_tokens: float
    finished: float
    failed: float
    ttft: Histogram | Missing
    itl: Histogram | Missing
    in_flight: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """One engine: the leader of a TP group. Counters since its start, gauges of now."""

    uid: str
    pod: str
    role: Role
    at_s: float
    running: Number
    waiting: Number
    waiting_deferred: Number
    kv_usage: Number
    prompt_tokens: Number
    generation_tokens: Number
    finished: Number
    ttft: Histogram | Missing
    itl: Histogram | Missing


@dataclass(frozen=True, slots=True)
class Samples:
    """All that metrics said at one moment.

    `failures`: source (pod or query) -> why it gave nothing. `ghosts`: pods that are gone or not ready, whose
    series a store still has; they were dropped.
    """

    routers: tuple[RouterSample, ...] = ()
    workers: tuple[WorkerSample, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    ghosts: tuple[str, ...] = ()


Owner = Literal["us", "other", "nobody", "unknown"]
"""Whose `spec.replicas` is, by managedFields; `nobody` after an apply that dropped the field."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who last changed a workload's replicas, from managedFields; None in a RoleFleet if that is us."""

    manager: str
    at_s: float


@dataclass(frozen=True, slots=True)
class RoleFleet:
    """One role's workload as the cluster shows it; numbers are TP groups unless they say pods or GPUs.

    `present` counts groups with any pod left, `draining` those of them that are on their way out. `fit` is how
    many more groups of this shape could be placed now, beside all pods that exist. `ready_after_s` holds the
    measured cold starts of the groups that are ready.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    created_s: float
    replicas: int
    ready: int
    present: int
    pods_per_group: int
    gpus_per_group: int | Missing
    fit: int | Missing
    pod_group: str | None = None
    min_pods: int | Missing = Missing("no PodGroup")
    writer: Writer | None = None
    paused: str = ""
    resume: str = ""
    draining: int = 0
    ready_after_s: tuple[float, ...] = ()
    leaders: tuple[str, ...] = ()
    limiting_resource: str = ""
    owner: Owner = "unknown"

    @property
    def unborn(self) -> int:
        """Groups that were asked for and have no pod yet: no fit has counted them."""
        return max(0, self.replicas - (self.present - self.draining))


@dataclass(frozen=True, slots=True)
class Fleet:
    """Both roles, or why one cannot be managed (no workload, two claiming one role, an unreadable shape)."""

    prefill: RoleFleet | Missing
    decode: RoleFleet | Missing
    problems: tuple[str, ...] = ()

    def __getitem__(self, role: Role) -> RoleFleet | Missing:
        return self.prefill if role is Role.PREFILL else self.decode


@dataclass(frozen=True, slots=True)
class Observation:
    """The world at `now_s` (Unix seconds)."""

    now_s: float
    samples: Samples
    fleet: Fleet


@dataclass(frozen=True, slots=True)
class Demand:
    """Offered work at one moment, measured at arrival over the last `window_s`; shorter than usual in a burst."""

    at_s: float
    window_s: float
    requests_per_s: float
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    prompt_tokens_mean: float
    output_tokens_mean: float
    burst: bool = False


@dataclass(frozen=True, slots=True)
class Latency:
    """What users saw over the last window: the SLO's percentile in ms, and the share within the target."""

    value_ms: Number
    attained: Number
    basis: Literal["router", "estimated"]


@dataclass(frozen=True, slots=True)
class RoleSignals:
    """What a role's workers say of themselves: attribution, never demand."""

    running: Number
    waiting: Number
    waiting_deferred: Number
    kv_usage: Number
    cold_start_s: float
    blind: bool


@dataclass(frozen=True, slots=True)
class Signals:
    """An observation understood."""

    demand: Demand | Missing
    ttft: Latency
    itl: Latency
    prefill: RoleSignals
    decode: RoleSignals

    def __getitem__(self, role: Role) -> RoleSignals:
        return self.prefill if role is Role.PREFILL else self.decode


@dataclass(frozen=True, slots=True)
class RoleForecast:
    """Offered tokens/s of one role at `horizon_s` from now: the median and the quantile to size for."""

    horizon_s: float
    quantile: float
    tokens_per_s_q50: float
    tokens_per_s_high: float
    tokens_mean: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Both roles' demand, one cold start ahead."""

    prefill: RoleForecast
    decode: RoleForecast

    def __getitem__(self, role: Role) -> RoleForecast:
        return self.prefill if role is Role.PREFILL else self.decode


@dataclass(frozen=True, slots=True)
class Totals:
    """Reset-corrected sums over all sources at one moment; differences are rates over any window.

    `decoding` is how many requests were being decoded just then.
    """

    at_s: float
    arrivals: float = 0.0
    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0
    finished: float = 0.0
    decoding: float = 0.0


@dataclass(frozen=True, slots=True)
class LatencyTotals:
    """The two latency histograms at one moment, reset-corrected, bucket by bucket."""

    at_s: float
    ttft: Histogram | Missing
    itl: Histogram | Missing


@dataclass(frozen=True, slots=True)
class State:
    """All that one tick hands to the next. Losing it is safe: sizes are held until enough has been seen."""

    started_s: float | None = None
    sources: tuple[RouterSample, ...] = ()
    totals: tuple[Totals, ...] = ()
    latencies: tuple[LatencyTotals, ...] = ()
    demands: tuple[Demand, ...] = ()
    proposals: tuple[tuple[float, Pair], ...] = ()
    floors: tuple[tuple[float, Pair], ...] = ()
    written: Mapping[Role, Ours] = field(default_factory=dict)
    manual: Mapping[Role, Held] = field(default_factory=dict)
    drops: Mapping[Role, Drops] = field(default_factory=dict)
    minimum_lowered_s: Mapping[Role, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """The next single change: `replicas` in TP groups, `min_count` in pods."""

    kind: Literal["replicas", "min_count"]
    role: Role
    before: int
    after: int


ConditionStatus = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """A state that lasts, as Kubernetes writes it."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where the fleet should go: groups per role, and the floor that the gang minimum protects."""

    groups: Pair
    floor: Pair


@dataclass(frozen=True, slots=True)
class Decision:
    """What one tick decided, and all of why."""

    state: State
    target: Target | None
    step: Step | None
    why: tuple[Reason, ...]
    conditions: tuple[Condition, ...]
    signals: Signals
    forecast: Forecast | None
