"""The controller's nouns: what a tick sees, remembers and decides. Plain frozen values, JSON round-trippable.

Rules:
1. Identity is a UID. Names are for people.
2. Counters are cumulative as scraped; `core.observe` turns them into rates.
3. `float | Missing`: a number that may be unknown says so in its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from forecasting.model import Forecast as Foretold
from forecasting.recent import Fit
from perfmodel.correction import Correction
from policies.burst import Panic
from policies.capacity import Waiting
from policies.manual import Held, Ours
from policies.model import Missing, Pair, Reason, Role
from policies.restore import Drops

Number = float | Missing

NOT_ON_PAGE = "is not on the page"
"""How a reason ends where a page does not have a family: engines show many only with their first request."""
SAYS_NOTHING = "which says nothing"
"""What a reason says of a signal that a page has, but damaged: it may have counted for long."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """A cumulative Prometheus histogram: `counts[i]` observations were <= `bounds_s[i]`; the last bound is inf."""

    bounds_s: tuple[float, ...]
    counts: tuple[float, ...]
    sum_s: float


TokensAt = Literal["arrival", "end"]
"""When a router counts tokens: prompts as they arrive and outputs as they pass, or both when a request has ended."""


@dataclass(frozen=True, slots=True)
class RouterSample:
    """One router, gateway or frontend process: what arrived there, and what its clients saw.

    Counters since its start; `prompts` is how many prompts `prompt_tokens` counts, `cached_tokens` how many of these
    tokens a prefix cache had. `start_s` is when its pod started,
    `ready_s` when it last became ready (Unix seconds).
    """

    uid: str
    pod: str
    at_s: float
    arrivals: Number
    prompt_tokens: Number
    generation_tokens: Number
    finished: Number
    failed: Number
    ttft: Histogram | Missing
    itl: Histogram | Missing
    prompts: Number = Missing("the page does not say it")
    cached_tokens: Number = Missing("the page does not say it")
    tokens_at: TokensAt = "arrival"
    in_flight: Mapping[str, float] | Missing = field(default_factory=dict)
    engine: str = ""
    series: int = 0
    start_s: float = 0.0
    ready_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """One pod of a TP group, as its own page describes it: counters since its start, gauges of now.

    `in_flight` are all requests that it has accepted and not finished, `prompts` those that `prompt_tokens`
    counts, `cached_tokens` what of these a prefix cache had. `engines` counts the engines (data-parallel ranks) whose
    numbers are summed here, `ranks` says which they are. A pod whose page only repeats its leader's engine, or is idle
    beside it, is a sample, too: `core.groups` tells.
    """

    uid: str
    pod: str
    role: Role
    group: str
    at_s: float
    running: Number
    waiting: Number
    waiting_by_reason: Mapping[str, float] | Missing
    kv_usage: Number
    prompt_tokens: Number
    generation_tokens: Number
    finished: Number
    ttft: Histogram | Missing
    itl: Histogram | Missing
    leader: bool = True
    engine: str = ""
    engines: int = 1
    ranks: tuple[str, ...] = ()
    in_flight: Number = Missing("the page does not say it")
    arrivals: Number = Missing("the engine counts no arrivals")
    prompts: Number = Missing("the page does not say it")
    cached_tokens: Number = Missing("the page does not say it")
    kv_usage_max: Number = Missing("the page does not say it")
    kv_capacity_tokens: Number = Missing("the page does not say it")
    preemptions: Number = Missing("the page does not say it")
    queue_time: Histogram | Missing = Missing("the page does not say it")
    series: int = 0
    start_s: float = 0.0
    ready_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Samples:
    """All that metrics said at one moment.

    `failures`: source (pod or query) -> why it gave nothing. `ghosts`: pods whose series a store still has although
    they are gone, not ready, or older than the pod that now bears the name; they were dropped. `partial`: why the
    numbers are a lower bound, or nothing. `models`: model name -> how many pods serve it, whether wanted or not.
    """

    routers: tuple[RouterSample, ...] = ()
    workers: tuple[WorkerSample, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    ghosts: tuple[str, ...] = ()
    partial: str = ""
    models: Mapping[str, int] = field(default_factory=dict)


Owner = Literal["us", "other", "nobody", "unknown"]
"""Whose `spec.replicas` is, by managedFields; `nobody` after an apply that dropped the field."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who last changed a workload's replicas, from managedFields; None in a RoleFleet if that is us."""

    manager: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Group:
    """One TP group that has pods: its key, their names with the leader first, and whether all of them are ready.

    `waits`: it is wanted, and a pod of it has no node. `ordinal`: its number, where the kind counts its groups and
    takes the highest away first.
    """

    key: str
    pods: tuple[str, ...]
    ready: bool = True
    waits: bool = False
    ordinal: int | None = None


@dataclass(frozen=True, slots=True)
class RoleFleet:
    """One role's workload as the cluster shows it; numbers are TP groups unless they say pods or GPUs.

    `present` counts groups with any pod left, `draining` those of them that are on their way out. `fit` is how
    many more groups of this shape could be placed now, beside all pods that exist. `ready_after_s` holds the
    measured cold starts of the groups that are ready, without their waits for a node.
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
    groups: tuple[Group, ...] = ()
    limiting_resource: str = ""
    owner: Owner = "unknown"

    @property
    def unborn(self) -> int:
        """Groups that were asked for and have no pod yet: no fit has counted them."""
        return max(0, self.replicas - (self.present - self.draining))

    @property
    def held(self) -> int:
        """Groups that cost: those that exist, also while they drain, and those that were asked for."""
        return self.present + self.unborn

    @property
    def unplaced(self) -> int:
        """Groups that were asked for and have no place."""
        return self.unborn + sum(group.waits for group in self.groups)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Both roles, or why one cannot be managed (no workload, two claiming one role, an unreadable shape)."""

    prefill: RoleFleet | Missing
    decode: RoleFleet | Missing
    problems: tuple[str, ...] = ()

    def __getitem__(self, role: Role) -> RoleFleet | Missing:
        return self.prefill if role is Role.PREFILL else self.decode


Series = Literal["requests_per_s", "prompt_tokens_per_s", "output_tokens_per_s", "cached_share"]
"""What is foretold of a service: fields of a Demand. The share of prompt tokens that a prefix cache has is foretold
where engines count them; no size is made of it.
"""
WORK: Mapping[Role, Series] = {Role.PREFILL: "prompt_tokens_per_s", Role.DECODE: "output_tokens_per_s"}
"""Each role's work."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a forecaster outside of the tick has foretold by now, of each series that it knows at one horizon.

    `only`: nothing but this may speak, to measure what a forecast is worth; a tick then plans with its median and the
    errors that it has shown.
    """

    series: Mapping[Series, Foretold] = field(default_factory=dict)
    only: bool = False

    def of(self, role: Role) -> Foretold | None:
        """What is foretold of one role's work."""
        return self.series.get(WORK[role])


@dataclass(frozen=True, slots=True)
class Observation:
    """The world at `now_s` (Unix seconds)."""

    now_s: float
    samples: Samples
    fleet: Fleet
    outlook: Outlook = Outlook()


@dataclass(frozen=True, slots=True)
class Demand:
    """Offered work at one moment, measured at arrival over the last `window_s`; shorter than usual in a burst.

    Prefill's work is prompt tokens, decode's is output tokens; what is not known of one role says so, and does not
    take the other's with it. `cached_share`: of the prompt tokens that were computed lately, those that a prefix cache
    had (0 to 1). `basis`: who counted the arrivals.
    """

    at_s: float
    window_s: float
    requests_per_s: Number
    prompt_tokens_per_s: Number
    output_tokens_per_s: Number
    prompt_tokens_mean: Number
    output_tokens_mean: Number
    cached_share: Number = Missing("nobody counts cached prompt tokens")
    burst: bool = False
    basis: Literal["router", "prefill", "decode", "none"] = "router"

    def tokens_per_s(self, role: Role) -> Number:
        """The work of one role."""
        return self.prompt_tokens_per_s if role is Role.PREFILL else self.output_tokens_per_s

    def tokens_mean(self, role: Role) -> Number:
        """The mean length of one request's work for a role."""
        return self.prompt_tokens_mean if role is Role.PREFILL else self.output_tokens_mean

    @property
    def known(self) -> bool:
        """Whether the work of both roles is known."""
        return not any(isinstance(self.tokens_per_s(role), Missing) for role in Role)


@dataclass(frozen=True, slots=True)
class Latency:
    """What users saw over the last window: the SLO's percentile in ms, and the share within the target."""

    value_ms: Number
    attained: Number
    basis: Literal["router", "estimated"]


@dataclass(frozen=True, slots=True)
class RoleSignals:
    """What a role's workers say of themselves: attribution, never demand.

    Sums and means are over TP groups. `unread`: the ready groups that could not be read whole, by their leaders;
    `engines_per_group` is 1 until a group has shown more. `stalled`: groups that hold work and make no progress, by
    their leaders. `node_start_s`: how long the next group would wait for a node before its cold start.
    """

    running: Number
    waiting: Number
    waiting_deferred: Number
    kv_usage: Number
    cold_start_s: float
    blind: bool
    kv_usage_max: Number = Missing("no worker gave it")
    groups_read: int = 0
    engines_per_group: float = 1.0
    unread: tuple[str, ...] = ()
    stalled: tuple[str, ...] = ()
    node_start_s: float = 0.0

    @property
    def lead_s(self) -> float:
        """How long it takes until one more group serves: what a forecast has to look ahead."""
        return self.node_start_s + self.cold_start_s


@dataclass(frozen=True, slots=True)
class Signals:
    """An observation understood. `partial`: why the demand is a lower bound, or nothing."""

    demand: Demand
    ttft: Latency
    itl: Latency
    prefill: RoleSignals
    decode: RoleSignals
    partial: str = ""

    def __getitem__(self, role: Role) -> RoleSignals:
        return self.prefill if role is Role.PREFILL else self.decode

    def with_role(self, role: Role, signals: RoleSignals) -> Signals:
        """The same, with those of one role changed."""
        return replace(self, prefill=signals) if role is Role.PREFILL else replace(self, decode=signals)


@dataclass(frozen=True, slots=True)
class RoleForecast:
    """Offered tokens/s of one role at `horizon_s` from now: what is expected, and what covers the share `quantile` of
    the work. `tokens_mean` is the mean length; `model` is who says so (`forecasting.recent`).
    """

    horizon_s: float
    quantile: float
    tokens_per_s_q50: float
    tokens_per_s_high: float
    tokens_mean: float
    model: str = "now"


@dataclass(frozen=True, slots=True)
class Forecast:
    """Each role's demand, one cold start ahead, or why it is not known."""

    prefill: RoleForecast | Missing
    decode: RoleForecast | Missing

    def __getitem__(self, role: Role) -> RoleForecast | Missing:
        return self.prefill if role is Role.PREFILL else self.decode


Origin = Literal["router", "prefill", "decode"]
Count = Literal[
    "arrivals", "offered_tokens", "prompt_tokens", "prompts", "cached_tokens", "generation_tokens", "finished", "served"
]
"""What is summed up over an origin's sources:

`arrivals`: requests that came in; where nobody counts them, those that finished, run and wait. `offered_tokens`: prompt
tokens at arrival. `prompt_tokens` of `prompts` prompts that were computed, of which a prefix cache had `cached_tokens`.
`generation_tokens` of `finished` requests; `served` counts those that run by half.
"""
Counts = Mapping[Count, float]
"""A count that is not there is not known."""
ORIGINS: tuple[Origin, ...] = get_args(Origin)
COLUMNS: Mapping[Origin, Mapping[Count, int]] = {
    origin: {count: row * len(get_args(Count)) + column for column, count in enumerate(get_args(Count))}
    for row, origin in enumerate(ORIGINS)
}
"""Where each origin's counts stand in a row of `Totals`."""


@dataclass(frozen=True, slots=True)
class Source:
    """One process as last seen: what it has counted, each count as of when it was last given.

    `engines`: the data-parallel ranks whose counts are summed here. `unsure`: counts that it has shown damaged and
    never whole: what they were is not known, so that they do not begin at zero when they are given.
    """

    uid: str
    at_s: float
    counts: Counts
    ttft: Histogram | Missing
    itl: Histogram | Missing
    engines: tuple[str, ...] = ()
    unsure: tuple[Count, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """Reset-corrected sums at one moment, of the counts that were given just then, in the order of `COLUMNS`.

    Differences are rates over any window. A plain row: a history of them is most of what a service takes in memory.
    """

    at_s: float
    row: tuple[float | None, ...]

    def of(self, origin: Origin, count: Count) -> float | None:
        """One sum; None where nobody gave it."""
        return self.row[COLUMNS[origin][count]]


@dataclass(frozen=True, slots=True)
class LatencyTotals:
    """The two latency histograms at one moment, reset-corrected, bucket by bucket."""

    at_s: float
    ttft: Histogram | Missing
    itl: Histogram | Missing


@dataclass(frozen=True, slots=True)
class Watched:
    """An engine's pod as last seen: what it held and had counted, when the counts last moved, its times to learn from.

    `queued` and `first` are (count, sum in s) of its histograms of queue time and TTFT, `itl` of its ITL; None where
    that is not given.
    """

    uid: str
    at_s: float
    moved_s: float
    counted: float
    running: float
    waiting: float
    prompt_tokens: float | None = None
    queued: tuple[float, float] | None = None
    first: tuple[float, float] | None = None
    itl: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """By how much the profile of that name is off, as seen in the fleet.

    `context`: tokens held in decode per sequence, over what the mean lengths of requests say. `cached_share`: of prompt
    tokens, what a prefix cache keeps having (`core.learn`).
    """

    profile: str = ""
    correction: Correction = field(default_factory=Correction)
    context: float = 1.0
    cached_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Course:
    """One role's offered tokens/s in even steps (`core.forecast`), oldest first, the last one ended at `end_s`; None
    where it is not known. `told`: what was foretold at the end of each step. `tokens_mean` is the last known length;
    `fit` says since `fitted_s` who forecasts.
    """

    end_s: float
    values: tuple[float | None, ...] = ()
    told: tuple[float | None, ...] = ()
    tokens_mean: float = 0.0
    fit: Fit | None = None
    fitted_s: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """All that one tick hands to the next. Losing it is safe: sizes are held until enough has been seen."""

    started_s: float | None = None
    sources: tuple[Source, ...] = ()
    sums: Mapping[Origin, Counts] = field(default_factory=dict)
    totals: tuple[Totals, ...] = ()
    latencies: tuple[LatencyTotals, ...] = ()
    demands: tuple[Demand, ...] = ()
    engines: Mapping[Role, float] = field(default_factory=dict)
    proposals: tuple[tuple[float, Pair], ...] = ()
    floors: tuple[tuple[float, Pair], ...] = ()
    written: Mapping[Role, Ours] = field(default_factory=dict)
    manual: Mapping[Role, Held] = field(default_factory=dict)
    drops: Mapping[Role, Drops] = field(default_factory=dict)
    minimum_lowered_s: Mapping[Role, float] = field(default_factory=dict)
    watched: tuple[Watched, ...] = ()
    learned: Learned = field(default_factory=Learned)
    sizes: tuple[tuple[float, Pair], ...] = ()
    panics: Mapping[Role, Panic] = field(default_factory=dict)
    waiting: Mapping[Role, Waiting] = field(default_factory=dict)
    courses: Mapping[Role, Course] = field(default_factory=dict)


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
    """Where the fleet should go: groups per role, and the floor that the gang minimum protects.

    `unsized`: roles whose need is not known, and whose groups are just what is there now. `kept`: roles of which
    nothing may be taken away now, not even what waits in vain.
    """

    groups: Pair
    floor: Pair
    unsized: tuple[Role, ...] = ()
    kept: tuple[Role, ...] = ()

    def desires(self, role: Role) -> bool:
        """Whether a role's groups are what it needs, and not merely what is there."""
        return role not in self.unsized


@dataclass(frozen=True, slots=True)
class Decision:
    """What one tick decided, and all of why."""

    state: State
    target: Target | None
    step: Step | None
    why: tuple[Reason, ...]
    conditions: tuple[Condition, ...]
    signals: Signals
    forecast: Forecast
