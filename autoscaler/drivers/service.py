"""One service: observe, tick, record, act. A dry run prints instead of acting.

Rules:
1. One step per tick; a failed step is told, forgotten, and decided anew from what is seen next.
2. Nothing is written while `may_write` says no: a leader that lost its Lease is silent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from autoscaler.adapters import act
from autoscaler.adapters.exporter import Exporter
from autoscaler.adapters.fleet import look
from autoscaler.adapters.journal import JournalWriter
from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.adapters.scrape import Scraper, ScrapeTarget
from autoscaler.core import tick
from autoscaler.drivers.cluster import Cluster
from autoscaler.model import Condition, Decision, Observation, RoleFleet, Samples, State, Step
from autoscaler.settings import Settings
from kubeapi.client import KubeClient
from kubeapi.errors import ApiError, Forbidden
from perfmodel.profile import Profile
from policies.model import ROLES, Code, Reason, Stage

log = logging.getLogger("roleratio.controller")

# A condition worth an Event when it changes, and the status that is a warning.
_TOLD = {"ScalingActive": "False", "AbleToScale": "False", "ForeignWriter": "", "Paused": "", "SLOReachable": "False"}


class MetricsReader(Protocol):
    """Where samples come from."""

    async def read(self, targets: list[ScrapeTarget], now_s: float, service: str) -> Samples:
        """A sample or a reason from every target."""

    async def close(self) -> None:
        """Close connections."""


@dataclass(frozen=True, slots=True)
class Edges:
    """What a service's loop touches beside the cluster: journal and exporter are optional."""

    client: KubeClient
    cluster: Cluster
    exporter: Exporter | None = None
    journal: Path | None = None
    may_write: Callable[[], bool] = lambda: True
    dry_run: bool = False


class Service:
    """The state between ticks of one service, and its edges.

    `refused` holds the last write that the API server did not allow, until one succeeds.
    """

    def __init__(self, settings: Settings, profile: Profile, edges: Edges) -> None:
        self._edges = edges
        self._journal = JournalWriter(edges.journal) if edges.journal else None
        self._state = State()
        self._conditions: dict[str, Condition] = {}
        self.refused: tuple[Reason, ...] = ()
        self.settings, self._profile = self._as_run(settings), profile
        self._reader = _reader(settings)

    def _as_run(self, settings: Settings) -> Settings:
        """The core must know that nothing will be written."""
        return settings.without_writes() if self._edges.dry_run else settings

    async def update(self, settings: Settings, profile: Profile) -> None:
        """Go on with other settings; what was learned stays."""
        if settings.spec.metrics != self.settings.spec.metrics:
            await self._reader.close()
            self._reader = _reader(settings)
        if self._edges.exporter and _names(settings) != _names(self.settings):
            self._edges.exporter.forget(self.settings)
        self.settings, self._profile = self._as_run(settings), profile

    async def close(self) -> None:
        """Close everything."""
        if self._edges.exporter:
            self._edges.exporter.forget(self.settings)
        await self._reader.close()
        if self._journal:
            self._journal.close()

    async def step(self, now_s: float) -> tuple[Observation, Decision]:
        """One whole tick."""
        observation = await self._observe(now_s)
        started = time.perf_counter()
        decision = tick(self._state, observation, self.settings, self._profile)
        spent_s = time.perf_counter() - started
        if self._journal:
            self._journal.append(self._state, observation, self.settings, self._profile, decision)
        if self._edges.exporter:
            self._edges.exporter.observe(self.settings, observation, decision, spent_s)
        self._state = decision.state
        if decision.step:
            await self._act(decision.step, observation, decision, now_s)
        await self._tell_conditions(observation, decision, now_s)
        return observation, decision

    @property
    def _writes(self) -> bool:
        return self.settings.spec.writes and self._edges.may_write()

    async def _observe(self, now_s: float) -> Observation:
        """See everything once; takes at most one scrape timeout."""
        service, namespace = self.settings.spec.service, self.settings.metadata.namespace
        seen = look(self._edges.cluster.world(), namespace, service, now_s)
        samples = await self._reader.read(list(seen.targets), now_s, f"{namespace}/{service}")
        failures = {**seen.failures, **samples.failures, **self._edges.cluster.stale()}
        return Observation(now_s, replace(samples, failures=failures), seen.fleet)

    async def _act(self, step: Step, seen: Observation, decision: Decision, now_s: float) -> None:
        fleet = seen.fleet[step.role]
        assert isinstance(fleet, RoleFleet)
        patch = act.patch_for(step, fleet)
        why = act.why_text(decision.why, step.role)
        if not self._writes:
            log.info("would %s: %s", patch, why)
            return
        log.info("%s %s %d -> %d: %s", step.role, step.kind, step.before, step.after, why)
        try:
            await act.send(self._edges.client, patch)
            self.refused = ()
        except ApiError as error:
            log.warning("%s failed: %s", patch, error.message)
            if isinstance(error, Forbidden):
                detail = {"why": error.message}
                self.refused = (Reason(Stage.ACT, Code.WRITE_REFUSED, step.role, detail),)
            await self._event(fleet, "FailedRescale", f"{patch}: {error.message}", True, now_s)
            return
        reason = "SuccessfulRescale" if step.kind == "replicas" else "MinimumMoved"
        await self._event(fleet, reason, f"{step.kind} {step.before} -> {step.after}: {why}", False, now_s)

    async def _tell_conditions(self, seen: Observation, decision: Decision, now_s: float) -> None:
        """A log line and an Event for every condition that changed."""
        for condition in decision.conditions:
            before = self._conditions.get(condition.type)
            self._conditions[condition.type] = condition
            unchanged = before is not None and (before.status, before.reason) == (condition.status, condition.reason)
            if unchanged or condition.type not in _TOLD or (before is None and not condition.message):
                continue
            warning = condition.status == _TOLD[condition.type]
            text = f"{condition.type}={condition.status}: {condition.message or condition.reason}"
            log.log(logging.WARNING if warning else logging.INFO, "%s", text)
            if self._writes:
                for fleet in _concerned(seen, condition):
                    await self._event(fleet, condition.reason, text, warning, now_s)

    async def _event(self, fleet: RoleFleet, reason: str, message: str, warning: bool, now_s: float) -> None:
        await act.record(self._edges.client, fleet, reason, message, warning=warning, now_s=now_s)


def _names(settings: Settings) -> tuple[str, str]:
    return settings.metadata.namespace, settings.spec.service


def _reader(settings: Settings) -> MetricsReader:
    metrics = settings.spec.metrics
    if metrics.prometheus_url:
        namespace = settings.metadata.namespace
        return PrometheusReader(metrics.prometheus_url, metrics.scrape_timeout_s, metrics.stale_after_s, namespace)
    return Scraper(metrics.scrape_timeout_s)


def _concerned(seen: Observation, condition: Condition) -> list[RoleFleet]:
    """The roles that a condition's message names; both when it names none."""
    fleets = {role: fleet for role in ROLES if isinstance(fleet := seen.fleet[role], RoleFleet)}
    named = [fleet for role, fleet in fleets.items() if f"{role.value} " in condition.message]
    return named or list(fleets.values())
