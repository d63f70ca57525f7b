"""What a person sets: a `RoleRatioAutoscaler` object, one pydantic model with units in its names.

Rules:
1. Keys are camelCase in YAML, as everywhere in Kubernetes; the unit comes last.
2. An unknown key is an error, never ignored. All problems are reported at once.
3. Numbers that decide anything have a default that is safe in production.
4. The CustomResourceDefinition is made from this file (`autoscaler.crd`): a docstring is what `kubectl explain`
   prints, and a `Rule` is kept here and by the API server, in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from autoscaler.errors import UserError
from policies.behaviour import Behaviour, Direction, Rate
from policies.capacity import CapacityRules
from policies.model import Role

FILE_NAME = r"^[A-Za-z0-9_][-A-Za-z0-9_.]*$"
"""The name of a file without a folder."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What several fields must be together: for Python, and as CEL for the API server.

    `{key}` in the message stands for that key's value, `{a.b}` for one further down.
    """

    holds: Callable[[Any], bool]
    cel: str
    message: str

    PLACE: ClassVar = re.compile(r"\{([\w.]+)\}")

    def text(self, data: Any) -> str:
        """The message about `data`, the model as YAML would have it."""
        return self.PLACE.sub(lambda found: f"{_at(data, found[1]):g}", self.message)


class Model(BaseModel):
    """A part of the object, with the rules that its fields keep together."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.text(self.model_dump(by_alias=True)))
        return self


class Mode(StrEnum):
    """What the controller does with its decisions."""

    OFF = "Off"
    DRY_RUN = "DryRun"
    ACTIVE = "Active"


class Slo(Model):
    """A latency objective: `percentile` % of the samples within `targetMs`."""

    percentile: float = Field(95, gt=0, lt=100)
    """Share of the samples, in %, that must be within the target."""
    target_ms: float = Field(gt=0)
    """The target, in milliseconds."""


class Slos(Model):
    """TTFT and ITL as a user of the service sees them."""

    ttft: Slo = Slo(target_ms=2000)
    """Time to first token, from a request's arrival at the router or gateway."""
    itl: Slo = Slo(target_ms=60)
    """Time between two tokens of one answer."""


class RatioBand(Model):
    """Allowed prefill groups per decode group. Open by default: the work decides."""

    min: float = Field(0.0, ge=0)
    """Fewest prefill groups per decode group."""
    max: float = Field(1000.0, gt=0)
    """Most prefill groups per decode group."""

    rules = (
        Rule(
            lambda band: band.min <= band.max,
            "self.min <= self.max",
            "min {min} is above max {max}: swap them or widen the band",
        ),
    )


class RatePolicy(Model):
    """How far a role may move within any `periodS`."""

    type: Literal["Percent", "Groups"]
    """What the value counts: TP groups, or % of those that were there when the period began."""
    value: int = Field(ge=1)
    """At most so much."""
    period_s: float = Field(gt=0, le=1800)
    """The period, in seconds."""


class Scaling(Model):
    """One direction of one role, as HPA's behavior has it."""

    stabilization_s: float | None = Field(None, ge=0)
    """Move only to the most careful proposal of so many seconds. Absent: 0 up, half a measured cold start down."""
    tolerance: float = Field(0.0, ge=0)
    """A change that is no larger than this share of the present size is left out."""
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    """Which of the policies counts: that which allows most, or least. Disabled: no move in this direction."""
    policies: tuple[RatePolicy, ...] = ()
    """How fast; without any, at once."""

    def direction(self, default_s: float) -> Direction:
        """For the policies; `default_s` is the window that absence means."""
        return Direction(
            window_s=default_s if self.stabilization_s is None else self.stabilization_s,
            rates=tuple(Rate(rate.type, rate.value, rate.period_s) for rate in self.policies),
            select=self.select_policy,
            tolerance=self.tolerance,
        )


class Capacity(Model):
    """Whether nodes can come for groups that have no place."""

    mode: Literal["fixed", "provisionable"] = "fixed"
    """fixed: ask only for groups that fit now. provisionable: groups may wait, so that a node autoscaler sees them."""
    provision_timeout_s: float = Field(900.0, gt=0)
    """A group that has had no place for so many seconds is withdrawn, and not asked for again for as long."""
    node_start_s: float = Field(300.0, ge=0)
    """Seconds until a new node is ready: a part of the cold start of groups that need one (provisionable)."""

    @property
    def policy(self) -> CapacityRules:
        """For the policies."""
        return CapacityRules(self.mode, self.provision_timeout_s, self.node_start_s)


SILENCE_S = 300.0
"""What a shorter silence ends is one traffic, unless the settings say otherwise."""


class RoleSettings(Model):
    """Bounds and behaviour of one role. Groups are TP groups, all ranks of one engine, never pods."""

    min_groups: int = Field(1, ge=1)
    """Fewest TP groups."""
    max_groups: int = Field(8, ge=1)
    """Most TP groups."""
    scale_up: Scaling = Scaling()
    """How it grows."""
    scale_down: Scaling = Scaling()
    """How it shrinks."""
    cold_start_s: float = Field(120, gt=0)
    """Seconds from a group's creation until it serves; used until the fleet has shown its own."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Sequences that one engine runs at once (decode), where the engines are set below the profile's limit."""

    rules = (
        Rule(
            lambda role: role.min_groups <= role.max_groups,
            "self.minGroups <= self.maxGroups",
            "minGroups {minGroups} is above maxGroups {maxGroups}: raise maxGroups or lower minGroups",
        ),
    )

    def behaviour(self, cold_start_s: float) -> Behaviour:
        """For the policies, with the measured cold start. To keep a group for as long as it takes to start one would
        cost at most twice what perfect foresight does (ski rental); half of it is enough beside a forecast that keeps
        bursts.
        """
        return Behaviour(self.scale_up.direction(0.0), self.scale_down.direction(cold_start_s / 2))

    def silence_s(self, cold_start_s: float) -> float:
        """How long bursts are remembered when no work comes at all: no shorter than the window to shrink, which such a
        silence stands for.
        """
        given_s = self.scale_down.stabilization_s
        return max(SILENCE_S, 2 * cold_start_s) if given_s is None else given_s


class Queries(Model):
    """Instant queries in PromQL, each of which gives one signal in place of the engines' own names for it.

    A result is joined to a pod by its label `pod`. One without it speaks for a whole role, by its label `role` or
    `roleratio_role` (prefill, decode, router). A pod that a query gives no result for lacks the signal; it is never
    taken for 0. Counters are counts since a start, not rates, which the controller measures itself. They are of pods;
    one with the role router is a gateway that is no pod of the service, and counts tokens as requests end.
    """

    running: str | None = Field(None, min_length=1)
    """Requests in an engine's batch."""
    waiting: str | None = Field(None, min_length=1)
    """Requests that an engine has accepted and does not run."""
    kv_usage: str | None = Field(None, min_length=1)
    """Share of an engine's KV cache in use, 0 to 1; of a role, the mean over its engines."""
    arrivals: str | None = Field(None, min_length=1)
    """Counter of the requests that arrived at a router, or at an engine where there is no router."""
    prompt_tokens: str | None = Field(None, min_length=1)
    """Counter of prompt tokens, of the same processes as arrivals."""
    generation_tokens: str | None = Field(None, min_length=1)
    """Counter of generated tokens, of the same processes as arrivals."""
    finished: str | None = Field(None, min_length=1)
    """Counter of the requests that ended, of the same processes as arrivals."""

    @property
    def named(self) -> dict[str, str]:
        """Key -> query of those that are set."""
        return {to_camel(key): value for key, value in self.model_dump(exclude_none=True).items()}


class MetricsSettings(Model):
    """Where signals come from: a Prometheus, or each pod's own metrics page."""

    model: str | None = Field(None, min_length=1)
    """Name of the model as the engines show it, like Qwen/Qwen3-32B: only its series count. Without it, all count."""
    prometheus_url: str | None = Field(None, pattern=r"^https?://")
    """A Prometheus that scrapes the service; without one, the controller reads the pods' own pages."""
    prometheus_token_file: str | None = Field(None, pattern=FILE_NAME)
    """File with the bearer token, in /etc/roleratio/credentials/HOST of the controller, HOST being prometheusUrl's."""
    prometheus_ca_file: str | None = Field(None, pattern=FILE_NAME)
    """File with the CA's certificate, in the same folder; without one, the CAs that public web sites use."""
    prometheus_headers_file: str | None = Field(None, pattern=FILE_NAME)
    """File with headers, in the same folder, one a line, like X-Scope-OrgID: team-a."""
    queries: Queries = Queries()
    """Queries of your own, which replace what is known of the engines' names; they need a prometheusUrl."""
    stale_after_s: float = Field(30, gt=0)
    """A sample that is older is missing, not zero."""
    scrape_timeout_s: float = Field(2, gt=0)
    """Seconds to wait for one page or query."""
    window_s: float = Field(15, ge=2)
    """Seconds over which rates are measured."""

    rules = (
        Rule(
            lambda metrics: metrics.prometheus_url is not None or not metrics.needs_prometheus,
            "has(self.prometheusUrl) || !(has(self.prometheusTokenFile) || has(self.prometheusCaFile) || "
            "has(self.prometheusHeadersFile) || (has(self.queries) && ("
            + " || ".join(f"has(self.queries.{to_camel(key)})" for key in Queries.model_fields)
            + ")))",
            "prometheusUrl is not set, but keys that need it are: set it, or remove prometheusTokenFile, "
            "prometheusCaFile, prometheusHeadersFile and queries",
        ),
    )

    @property
    def needs_prometheus(self) -> bool:
        """Whether anything is set that only a Prometheus can use."""
        files = (self.prometheus_token_file, self.prometheus_ca_file, self.prometheus_headers_file)
        return any(file is not None for file in files) or bool(self.queries.named)


class Spec(Model):
    """One service and how it is scaled."""

    service: str = Field(pattern=r"^[a-z0-9A-Z]([-a-z0-9A-Z_.]{0,61}[a-z0-9A-Z])?$")
    """Value of the label roleratio.dev/service on the service's workloads, in this object's namespace."""
    mode: Mode = Mode.DRY_RUN
    """Off: left alone. DryRun: decide and tell, write nothing. Active: scale."""
    profile: str = Field(min_length=1)
    """How fast the engines are: the name of a profile that is shipped, or a file that the controller can read."""
    slo: Slos = Slos()
    """The latencies to keep."""
    gpu_budget: int = Field(ge=1)
    """GPUs that both roles together may use, at every moment."""
    ratio_band: RatioBand = RatioBand()
    """Allowed prefill groups per decode group."""
    prefill: RoleSettings = RoleSettings()
    """The prefill role."""
    decode: RoleSettings = RoleSettings()
    """The decode role."""
    capacity: Capacity = Capacity()
    """What is done about groups that have no place."""
    metrics: MetricsSettings = MetricsSettings()
    """Where signals come from."""
    sync_period_s: float = Field(5, gt=0)
    """Seconds between two decisions."""
    manual_hold_s: float = Field(1800, ge=0)
    """How long a number that somebody else wrote is kept, in seconds; 0: not at all."""
    forecast_quantile: float | None = Field(None, gt=0.5, lt=1)
    """Share of the work to come that is to be covered; absent, the percentile of the role's SLO. Higher is safer."""
    backlog_drain_s: float = Field(60, gt=0)
    """Seconds in which requests that a router holds should be worked off, beside what arrives: groups are added for it
    at the bottleneck. What waits on workers already is counted against shrinking in the same way.
    """
    minimum_settle_s: float = Field(2, ge=0)
    """Seconds that a scheduler gets to see a lowered gang minimum before replicas go."""

    rules = (
        Rule(
            lambda spec: spec.metrics.scrape_timeout_s < spec.sync_period_s,
            "self.metrics.scrapeTimeoutS < self.syncPeriodS",
            "metrics.scrapeTimeoutS {metrics.scrapeTimeoutS} is not below syncPeriodS {syncPeriodS}: lower it, "
            "or a pod that hangs delays the next tick",
        ),
        Rule(
            lambda spec: spec.prefill.min_groups + spec.decode.min_groups <= spec.gpu_budget,
            "self.prefill.minGroups + self.decode.minGroups <= self.gpuBudget",
            "gpuBudget {gpuBudget} cannot hold prefill.minGroups {prefill.minGroups} and decode.minGroups "
            "{decode.minGroups} at one GPU a group: raise gpuBudget or lower a minimum",
        ),
    )

    @property
    def writes(self) -> bool:
        """Whether steps are carried out; otherwise they are only told."""
        return self.mode is Mode.ACTIVE

    def covered(self, role: Role) -> float:
        """The share of a role's work that its forecast is to cover."""
        slo = self.slo.ttft if role is Role.PREFILL else self.slo.itl
        return slo.percentile / 100 if self.forecast_quantile is None else self.forecast_quantile

    def role(self, role: Role) -> RoleSettings:
        """The settings of one role."""
        return self.prefill if role is Role.PREFILL else self.decode


class Metadata(Model):
    """Name and namespace of the object; the service's workloads live in the same namespace."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str
    namespace: str = "default"
    annotations: dict[str, str] = Field(default_factory=dict)

    @property
    def paused(self) -> str:
        """`all`, `in` (no shrink), `out` (no growth), or nothing."""
        return self.annotations.get("roleratio.dev/paused", "")


class Settings(Model):
    """A RoleRatioAutoscaler object."""

    api_version: Literal["roleratio.dev/v1alpha1"] = "roleratio.dev/v1alpha1"
    kind: Literal["RoleRatioAutoscaler"] = "RoleRatioAutoscaler"
    metadata: Metadata
    spec: Spec

    def without_writes(self) -> Settings:
        """The same settings, of which nothing is carried out."""
        if not self.spec.writes:
            return self
        return self.model_copy(update={"spec": self.spec.model_copy(update={"mode": Mode.DRY_RUN})})


def load_settings(path: Path) -> Settings:
    """Read FILE. Raises UserError with one line per problem: key, value, what was expected, remedy."""
    return parse_settings(read_yaml(path, f"settings file {path}"), str(path))


def read_yaml(path: Path, source: str) -> Any:
    """What a YAML file holds; `source` names it in errors. Raises UserError."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}; give an existing file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not YAML: {' '.join(str(error).split())}") from error


def parse_settings(data: Any, source: str) -> Settings:
    """Validate a parsed object; `source` names it in errors."""
    if not isinstance(data, dict):
        raise UserError(f"{source}: expected a RoleRatioAutoscaler object, found {type(data).__name__}")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise UserError(*(problem_line(source, problem) for problem in error.errors())) from error


def problem_line(source: str, problem: Any) -> str:
    """One of pydantic's problems in a line: where, what is there, what is expected."""
    key = ".".join(str(part) for part in problem["loc"]) or "object"
    if problem["type"] == "extra_forbidden":
        return f"{source}: {key}: unknown key; remove it or check its spelling and place"
    if problem["type"] == "missing":
        return f"{source}: {key}: required, but absent; add it"
    message = problem["msg"].removeprefix("Value error, ")
    value = "" if isinstance(problem["input"], dict) else f" {problem['input']!r}:"
    return f"{source}: {key}:{value} {message[0].lower() + message[1:]}"


def _at(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data[key]
    return data
