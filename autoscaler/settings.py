"""What a person sets: a `RoleRatioAutoscaler` object, one pydantic model with units in its names.

Rules:
1. Keys are camelCase in YAML, as everywhere in Kubernetes; the unit comes last.
2. An unknown key is an error, never ignored. All problems are reported at once.
3. Numbers that decide anything have a default that is safe in production.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from autoscaler.errors import UserError
from policies.model import Role


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Slo(_Model):
    """A latency objective: `percentile` % of the samples within `targetMs`."""

    percentile: float = Field(95, gt=0, lt=100)
    target_ms: float = Field(gt=0)


class Slos(_Model):
    """TTFT and ITL as a user of the service sees them."""

    ttft: Slo = Slo(target_ms=2000)
    itl: Slo = Slo(target_ms=60)


class RatioBand(_Model):
    """Allowed prefill groups per decode group. Open by default: the work decides."""

    min: float = Field(0.0, ge=0)
    max: float = Field(1000.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: swap them or widen the band")
        return self


class RoleSettings(_Model):
    """Bounds and behaviour of one role.

    minGroups, maxGroups: TP groups. scaleDownStabilizationS: shrink only to the largest proposal of this window.
    coldStartS: used until the fleet has shown its own. maxNumSeqs: sequences that one group runs at once
    (decode), when the engines are configured below the profile's limit.
    """

    min_groups: int = Field(1, ge=1)
    max_groups: int = Field(8, ge=1)
    scale_down_stabilization_s: float = Field(300, ge=0)
    scale_up_stabilization_s: float = Field(0, ge=0)
    cold_start_s: float = Field(120, gt=0)
    max_num_seqs: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_groups > self.max_groups:
            raise ValueError(
                f"minGroups {self.min_groups} is above maxGroups {self.max_groups}: raise maxGroups or lower minGroups"
            )
        return self


class MetricsSettings(_Model):
    """Where signals come from: a Prometheus, or each pod's own metrics page. staleAfterS: older samples are missing."""

    prometheus_url: str | None = Field(None, pattern=r"^https?://")
    stale_after_s: float = Field(30, gt=0)
    scrape_timeout_s: float = Field(2, gt=0)
    window_s: float = Field(15, ge=2)


class Spec(_Model):
    """One service and how it is scaled."""

    service: str = Field(pattern=r"^[a-z0-9A-Z]([-a-z0-9A-Z_.]{0,61}[a-z0-9A-Z])?$")
    mode: Literal["live", "dry-run"] = "live"
    profile: str
    slo: Slos = Field(default_factory=Slos)
    gpu_budget: int = Field(ge=1)
    ratio_band: RatioBand = RatioBand()
    prefill: RoleSettings = RoleSettings()
    decode: RoleSettings = RoleSettings()
    metrics: MetricsSettings = MetricsSettings()
    sync_period_s: float = Field(5, gt=0)
    manual_hold_s: float = Field(1800, ge=0)
    forecast_quantile: float = Field(0.9, gt=0.5, lt=1)
    minimum_settle_s: float = Field(2, ge=0)

    @model_validator(mode="after")
    def _scrape_within_sync(self) -> Self:
        if self.metrics.scrape_timeout_s >= self.sync_period_s:
            raise ValueError(
                f"metrics.scrapeTimeoutS {self.metrics.scrape_timeout_s:g} is not below syncPeriodS "
                f"{self.sync_period_s:g}: lower it, or a pod that hangs delays the next tick"
            )
        return self

    @property
    def writes(self) -> bool:
        """Whether steps are carried out; otherwise they are only told."""
        return self.mode == "live"

    def role(self, role: Role) -> RoleSettings:
        """The settings of one role."""
        return self.prefill if role is Role.PREFILL else self.decode


class Metadata(_Model):
    """Name and namespace of the object; the service's workloads live in the same namespace."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str
    namespace: str = "default"


class Settings(_Model):
    """A RoleRatioAutoscaler object."""

    api_version: Literal["roleratio.dev/v1alpha1"] = "roleratio.dev/v1alpha1"
    kind: Literal["RoleRatioAutoscaler"] = "RoleRatioAutoscaler"
    metadata: Metadata
    spec: Spec

    def without_writes(self) -> Settings:
        """The same settings for a dry run."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"mode": "dry-run"})})


def load_settings(path: Path) -> Settings:
    """Read FILE. Raises UserError with one line per problem: key, value, what was expected, remedy."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"settings file {path}: cannot be read: {error.strerror}; give an existing file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"settings file {path}: not YAML: {' '.join(str(error).split())}") from error
    return parse_settings(data, str(path))


def parse_settings(data: Any, source: str) -> Settings:
    """Validate a parsed object; `source` names it in errors."""
    if not isinstance(data, dict):
        raise UserError(f"{source}: expected a RoleRatioAutoscaler object, found {type(data).__name__}")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise UserError(*(_line(source, problem) for problem in error.errors())) from error


def _line(source: str, problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "object"
    if problem["type"] == "extra_forbidden":
        return f"{source}: {key}: unknown key; remove it or check its spelling and place"
    if problem["type"] == "missing":
        return f"{source}: {key}: required, but absent; add it"
    message = problem["msg"].removeprefix("Value error, ")
    value = "" if isinstance(problem["input"], dict) else f" {problem['input']!r}:"
    return f"{source}: {key}:{value} {message[0].lower() + message[1:]}"
