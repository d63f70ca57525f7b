"""The nouns that policies share: roles, sizes, Missing, and reasons as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """The two roles of disaggregated serving."""

    PREFILL = "prefill"
    DECODE = "decode"

    @property
    def partner(self) -> Role:
        """The other one."""
        return Role.DECODE if self is Role.PREFILL else Role.PREFILL


ROLES = (Role.PREFILL, Role.DECODE)


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that is not known, and why: the type that keeps absent, stale and zero apart."""

    missing: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One number of TP groups per role."""

    prefill: int
    decode: int

    def __getitem__(self, role: Role) -> int:
        return self.prefill if role is Role.PREFILL else self.decode

    def with_role(self, role: Role, groups: int) -> Pair:
        """The same pair with one role changed."""
        return Pair(groups, self.decode) if role is Role.PREFILL else Pair(self.prefill, groups)


class Stage(StrEnum):
    """Where in a tick a reason arose; `act` is what the cluster said afterwards."""

    OBSERVE = "observe"
    FORECAST = "forecast"
    SIZE = "size"
    DECIDE = "decide"
    PLAN = "plan"
    ACT = "act"


class Code(StrEnum):
    """Every reason that the controller can give. Stable: people alert on them."""

    DEMAND_MISSING = "DemandMissing"
    ROLE_BLIND = "RoleBlind"
    SCRAPE_FAILED = "ScrapeFailed"
    GHOSTS_DROPPED = "GhostsDropped"
    METRICS_PARTIAL = "MetricsPartial"
    UNIT_ERROR = "UnitError"
    SIGNAL_DAMAGED = "SignalDamaged"
    UNREAD_IS_FULL = "UnreadIsFull"
    STALLED_NO_SUPPLY = "StalledNoSupply"
    COUNTER_RESET = "CounterReset"
    BURST = "Burst"
    NO_TRAFFIC = "NoTraffic"
    LATENCY_ESTIMATED = "LatencyEstimated"
    WORKLOAD_PROBLEM = "WorkloadProblem"
    COST_UNKNOWN = "CostUnknown"
    FORECAST = "Forecast"
    SIZED_FOR_TTFT = "SizedForTTFT"
    SIZED_FOR_ITL = "SizedForITL"
    SLO_UNREACHABLE = "SLOUnreachable"
    BOTTLENECK = "Bottleneck"
    GROUP_STALLED = "GroupStalled"
    BOUNDED = "Bounded"
    STABILISED = "Stabilised"
    WITHIN_TOLERANCE = "WithinTolerance"
    RATE_LIMITED = "RateLimited"
    WARMING_UP = "WarmingUp"
    RATIO_REPAIRED = "RatioRepaired"
    RATIO_UNREACHABLE = "RatioUnreachable"
    RATIO_OUTSIDE = "RatioOutside"
    SLO_FLOOR = "SLOFloor"
    SURVIVORS_FULL = "SurvivorsFull"
    PANIC = "Panic"
    PANIC_RELEASING = "PanicReleasing"
    BUDGET_CAPPED = "BudgetCapped"
    BUDGET_BELOW_MINIMUM = "BudgetBelowMinimum"
    HELD_BLIND = "HeldBlind"
    MANUAL_HOLD = "ManualHold"
    MANUAL_RESUMED = "ManualResumed"
    FIELD_RESTORED = "FieldRestored"
    RESTORE_GIVEN_UP = "RestoreGivenUp"
    PAUSED = "Paused"
    DOES_NOT_FIT = "DoesNotFit"
    FIT_UNKNOWN = "FitUnknown"
    PROVISIONING = "Provisioning"
    NOT_PROVISIONED = "NotProvisioned"
    AT_TARGET = "AtTarget"
    GROW = "Grow"
    SHRINK = "Shrink"
    LOWER_MINIMUM = "LowerMinimum"
    RAISE_MINIMUM = "RaiseMinimum"
    WAIT_MINIMUM_SEEN = "WaitMinimumSeen"
    WAIT_DRAIN = "WaitDrain"
    WAIT_BUDGET = "WaitBudget"
    WAIT_READY = "WaitReady"
    NO_WORKLOAD = "NoWorkload"
    SPEC_INVALID = "SpecInvalid"
    SERVICE_CLAIMED = "ServiceClaimed"
    SWITCHED_OFF = "SwitchedOff"
    WRITE_REFUSED = "WriteRefused"
    WRITE_FAILED = "WriteFailed"
    REPORT_FAILED = "ReportFailed"
    ANOTHER_CONTROLLER = "AnotherController"
    WATCH_FAILED = "WatchFailed"
    CRD_OUTDATED = "CRDOutdated"
    PODGROUPS_NOT_SERVED = "PodGroupsNotServed"


Detail = Mapping[str, str | float | int | bool]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was decided: the only source of log lines, events, conditions and metrics."""

    stage: Stage
    code: Code
    role: Role | None = None
    detail: Detail = field(default_factory=dict)

    def __str__(self) -> str:
        words = " ".join(f"{key}={_plain(value)}" for key, value in self.detail.items())
        subject = f"{self.role} " if self.role else ""
        return f"{subject}{self.code}" + (f" ({words})" if words else "")


Verdict = tuple[Pair, tuple[Reason, ...]]


def _plain(value: str | float | int | bool) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
