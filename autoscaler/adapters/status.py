"""One decision with all that explains it: what `/v1/status` serves, and what `explain` reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoscaler.adapters.journal import Recorded
from autoscaler.codec import CodecError, decode, encode
from autoscaler.errors import UserError
from autoscaler.model import Decision, Fleet, Learned, Observation, Outlook
from autoscaler.settings import Settings, parse_settings


@dataclass(frozen=True, slots=True)
class Status:
    """The last decision about one service: `failures` are the sources that gave no sample, and why.

    `learned`: by how much the profile was found to be off; `outlook`: what the learned forecasts had said.
    """

    settings: Settings
    now_s: float
    fleet: Fleet
    decision: Recorded
    failures: Mapping[str, str] = field(default_factory=dict)
    learned: Learned = field(default_factory=Learned)
    outlook: Outlook = field(default_factory=Outlook)

    @classmethod
    def of(cls, settings: Settings, observation: Observation, decision: Decision) -> Status:
        """The status after one tick."""
        failures, learned = observation.samples.failures, decision.state.learned
        recorded, outlook = Recorded.of(decision), observation.outlook
        return cls(settings, observation.now_s, observation.fleet, recorded, failures, learned, outlook)

    @property
    def service(self) -> str:
        """`namespace/service`."""
        return f"{self.settings.metadata.namespace}/{self.settings.spec.service}"


def to_json(status: Status) -> dict[str, Any]:
    """A status as plain JSON data."""
    return {
        "settings": status.settings.model_dump(mode="json", by_alias=True, exclude_none=True),
        "now_s": status.now_s,
        "fleet": encode(Fleet, status.fleet),
        "failures": dict(status.failures),
        "decision": encode(Recorded, status.decision),
        "learned": encode(Learned, status.learned),
        "outlook": encode(Outlook, status.outlook),
    }


def from_json(data: Any, source: str) -> Status:
    """The status in plain JSON data; `source` names it in errors. Raises UserError."""
    if not isinstance(data, Mapping):
        raise UserError(f"{source}: expected an object with settings, fleet and decision; ask a roleratio controller")
    try:
        return Status(
            settings=parse_settings(data.get("settings"), f"{source}: settings"),
            now_s=decode(float, data.get("now_s")),
            fleet=decode(Fleet, data.get("fleet")),
            decision=decode(Recorded, data.get("decision")),
            failures=decode(dict, data.get("failures")),
            learned=decode(Learned, data.get("learned")),
            outlook=decode(Outlook, data.get("outlook")),
        )
    except CodecError as error:
        raise UserError(f"{source}: {error}; ask a controller of this version") from error
