"""What was seen of one run: requests, fleet changes, scale events. Plain values.

Rules:
1. Times are seconds since the load began; a fleet change before that has a negative time.
2. A request that has no first token has no TTFT: None, never 0.
3. A record is filled in by the load client alone; everybody else only reads it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended."""

    OPEN = "open"
    OK = "ok"
    FAILED = "failed"
    UNFINISHED = "unfinished"


@dataclass(slots=True)
class RequestRecord:
    """One request as its client saw it. `gaps_s` are the times between its tokens, in order."""

    at_s: float
    input_tokens: int
    output_tokens: int
    ttft_s: float | None = None
    end_s: float | None = None
    tokens: int = 0
    gaps_s: array[float] = field(default_factory=lambda: array("f"))
    outcome: Outcome = Outcome.OPEN
    error: str = ""
    retries: int = 0

    @property
    def mean_itl_s(self) -> float | None:
        """Mean time between tokens; None when fewer than two came."""
        return sum(self.gaps_s) / len(self.gaps_s) if self.gaps_s else None


@dataclass(frozen=True, slots=True)
class FleetSample:
    """TP groups of one role from a moment on: wanted (spec), ready, starting, draining."""

    t_s: float
    role: str
    wanted: int
    ready: int
    starting: int
    draining: int

    @property
    def held(self) -> int:
        """Groups that are paid for: from the moment one is asked for until its pods are gone."""
        return self.ready + self.starting + self.draining


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """A change of a role's wanted groups. `reasons` are the controller's own, from its journal."""

    t_s: float
    role: str
    before: int
    after: int
    by: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restart:
    """A part of the product ended by itself and was started again: which one, and how it ended."""

    t_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Span:
    """A named stretch of the load: a phase of the built-in workload, or a whole trace."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class SloTargets:
    """What a request must meet: its TTFT, and its mean ITL."""

    ttft_ms: float
    itl_ms: float


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run, as the report needs it.

    `window_s` is what GPU-hours are counted over: from the first moment of the load until its last request has
    ended, whether or not the fleet is scaled, so that runs of the same load can be compared. `end_s` is when the
    run was over: the fleet may shrink after the load.
    """

    title: str
    fleet: str
    window_s: float
    end_s: float
    spans: tuple[Span, ...]
    slo: SloTargets
    gpus_per_group: int
    requests: tuple[RequestRecord, ...]
    samples: tuple[FleetSample, ...]
    events: tuple[ScaleEvent, ...]
    min_count_patches: int
    first_request_s: float | None
    decision_journal: str | None
    settings: Mapping[str, object]
    versions: Mapping[str, str]
    requests_left_out: int = 0
    restarts: tuple[Restart, ...] = ()
