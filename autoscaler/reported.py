"""What an rra's status says: one pydantic model, from which its schema is made and which its writer fills in.

Rules:
1. Counts are TP groups unless the name says pods.
2. What is not known is absent, never zero.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from autoscaler.settings import Mode

DATE_TIME: JsonDict = {"format": "date-time"}
WHOLE: JsonDict = {"format": "int64"}


def keyed_by(key: str) -> JsonDict:
    """A list whose items are told apart by a field, so that several writers can own one each."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class _Reported(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class RoleReport(_Reported):
    """One role, as it is and as it should be."""

    name: Literal["prefill", "decode"]
    """prefill or decode."""
    groups: str | None = None
    """ready/desired, for a column."""
    current: int | None = Field(None, ge=0)
    """Groups that the workload asks for."""
    ready: int | None = Field(None, ge=0)
    """Groups whose pods are all ready."""
    desired: int | None = Field(None, ge=0)
    """Groups that the controller wants."""
    floor: int | None = Field(None, ge=0)
    """Groups that the gang minimum should protect: what the median demand needs."""
    min_count_pods: int | None = Field(None, ge=0)
    """The PodGroup's minCount, in pods."""
    placeable: int | None = Field(None, ge=0)
    """How many more groups the cluster could place now."""
    demand_tokens_per_s: float | None = Field(None, ge=0)
    """Offered work now, in tokens per second: prompt tokens or output tokens."""
    forecast_tokens_per_s: float | None = Field(None, ge=0)
    """Offered work to size for, one cold start ahead."""
    horizon_s: float | None = Field(None, ge=0)
    """How far ahead that is: this role's own cold start, in seconds."""
    forecast_by: str | None = None
    """Who forecasts now: mean, a line, memory (of bursts), told (learned from a longer history), or now."""
    learned_error: float | None = Field(None, ge=0)
    """Error of the learned forecast of this role's work so far: summed errors over summed work (WAPE)."""


class LastDecision(_Reported):
    """The decision that this status tells of."""

    time: str = Field(json_schema_extra=DATE_TIME)
    """When it was made."""
    summary: str = ""
    """Its most telling reason, for a column."""
    step: str | None = None
    """The one change that it made, or in DryRun would have made."""
    reasons: list[str] = Field([], json_schema_extra={"x-kubernetes-list-type": "atomic"})
    """Why, in the order of the stages: observe, forecast, size, decide, plan."""


class ConditionReport(_Reported):
    """A state that lasts."""

    type: str
    """What the condition is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int | None = Field(None, json_schema_extra=WHOLE)
    """The generation of the spec that this was said about."""
    last_transition_time: str = Field(json_schema_extra=DATE_TIME)
    """When the status last changed."""
    reason: str
    """Its gravest cause, in one word."""
    message: str = ""
    """Every cause, with numbers."""


class Report(_Reported):
    """What the controller last saw and decided."""

    observed_generation: int | None = Field(None, json_schema_extra=WHOLE)
    """The generation of the spec that was in force."""
    mode: Mode | None = None
    """What the controller does with its decisions; a controller started with --dry-run says DryRun."""
    roles: list[RoleReport] = Field([], json_schema_extra=keyed_by("name"))
    """Both roles."""
    ratio: str | None = None
    """Desired prefill to decode groups, like 3:1."""
    bottleneck: Literal["none", "prefill", "decode"] | None = None
    """The role whose ready groups fall furthest short of what the demand needs."""
    last_decision: LastDecision | None = None
    """The decision that this status tells of."""
    conditions: list[ConditionReport] = Field([], json_schema_extra=keyed_by("type"))
    """The states that last."""
