"""One service: observe, tick, record, act. A dry run prints instead of acting.

Rules:
1. One step per tick; a failed step is told, forgotten, and decided anew from what is seen next.
2. Nothing is written while `may_write` says no: a leader that lost its Lease is silent.
3. What lasts is told once: one condition, one Event, one line in the log. An Event that could not be written is
   kept in its newest words until it can be.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from autoscaler.adapters import act
from autoscaler.adapters.exporter import Exporter
from autoscaler.adapters.fleet import look
from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.journal import JournalWriter
from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.adapters.scrape import Scraper
from autoscaler.core import tick
from autoscaler.core.conditions import conditions
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.trouble import Troubles
from autoscaler.drivers.warm import Foresight
from autoscaler.model import Condition, Decision, Observation, RoleFleet, Samples, State, Step
from autoscaler.outlook import leads_s
from autoscaler.settings import Settings
from kubeapi import events
from kubeapi.client import KubeClient
from kubeapi.errors import ApiError, Conflict, Forbidden, Invalid, NotFound, NotLeader
from kubeapi.events import About
from perfmodel.profile import Profile
from policies.model import ROLES, Code, Reason, Stage

log = logging.getLogger("roleratio.controller")

# A condition worth an Event when it changes, and the status that is a warning.
_TOLD = {
    "ScalingActive": "False",
    "AbleToScale": "False",
    "ForeignWriter": "",
    "Paused": "",
    "SLOReachable": "False",
    "Reporting": "False",
    "Blind": "True",
    "Served": "False",
}
KEPT_EVENTS = 20
# How the API server refuses what is new in a namespace on its way out; the 403 is of no right.
_TERMINATED = "because it is being terminated"


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
    learning: asyncio.Lock | None = None
    """Services learn their history in turns; without it none is learned, as for a few ticks."""


@dataclass(frozen=True, slots=True)
class _Event:
    """An Event that is yet to be written."""

    about: About
    reason: str
    text: str
    warning: bool


class Service:
    """The state between ticks of one service, and its edges.

    `troubles` are the writes that come to nothing. `about` is the object that Events about the whole service go to;
    without one they go to its workloads.
    """

    def __init__(self, settings: Settings, profile: Profile, edges: Edges, state: State | None = None) -> None:
        self._edges = edges
        self._journal = JournalWriter(edges.journal) if edges.journal else None
        self._state = state or State()
        self._conditions: dict[str, Condition] = {}
        self._unwritten: dict[tuple[str, str], _Event] = {}
        self._stale_since_s: dict[str, float] = {}
        self.about: About | None = None
        self._name = "/".join(_names(settings))
        self.troubles = Troubles(self._name)
        self.settings, self._profile = self._as_run(settings), profile
        self._reader = _reader(settings)
        self._last: Decision | None = None
        self._foresight = Foresight(settings, edges.journal, edges.learning)

    def _as_run(self, settings: Settings) -> Settings:
        """The core must know that nothing will be written."""
        return settings.without_writes() if self._edges.dry_run else settings

    async def update(self, settings: Settings, profile: Profile) -> None:
        """Go on with other settings; what was learned stays."""
        if settings.spec.metrics != self.settings.spec.metrics:
            await self._reader.close()
            self._reader = _reader(settings)
        if _names(settings) != _names(self.settings):
            self._foresight.close()
            self._foresight = Foresight(settings, self._edges.journal, self._edges.learning)
            if self._edges.exporter:
                self._edges.exporter.forget(self.settings)
        self._name = "/".join(_names(settings))
        self.settings, self._profile = self._as_run(settings), profile

    async def close(self) -> None:
        """Close everything."""
        if self._edges.exporter:
            self._edges.exporter.forget(self.settings)
        await self._reader.close()
        self._foresight.close()
        if self._journal:
            self._journal.close()

    async def step(self, now_s: float, also: Sequence[Reason] = ()) -> tuple[Observation, Decision]:
        """One whole tick. `also`: reasons from outside; the decision comes back with them, and with ours."""
        observation = await self._observe(now_s)
        started = time.perf_counter()
        decision = tick(self._state, observation, self.settings, self._profile)
        spent_s = time.perf_counter() - started
        if self._journal:
            self._journal.append(self._state, observation, self.settings, self._profile, decision)
        self._state, self._last = decision.state, decision
        self._foresight.see(decision)
        if decision.step:
            await self._act(decision.step, observation, decision, now_s)
        elif self.troubles.passes("step"):
            self.troubles.over("step", now_s, "no longer wanted")
        watches = self._watches(now_s)
        why = (*decision.why, *watches, *self.troubles.reasons(told=bool(watches)), *also)
        decision = replace(decision, why=why, conditions=conditions(why))
        if self._edges.exporter:
            self._edges.exporter.observe(self.settings, observation, decision, spent_s)
        self._tell_conditions(observation, decision)
        await self._write_events(now_s)
        return observation, decision

    def _watches(self, now_s: float) -> tuple[Reason, ...]:
        """The watches that are not fresh and do not become so by themselves at once."""
        cluster = self._edges.cluster
        stale, unseen = cluster.stale(), cluster.unseen()
        if self._stale_since_s and not stale:
            self.troubles.anew()
        self._stale_since_s = {plural: self._stale_since_s.get(plural, now_s) for plural in stale}
        lasting = [plural for plural in stale if plural in unseen or self._stale_since_s[plural] < now_s]
        return tuple(
            Reason(Stage.OBSERVE, Code.WATCH_FAILED, None, {"of": plural, "why": stale[plural]}) for plural in lasting
        )

    @property
    def _writes(self) -> bool:
        return self.settings.spec.writes and self._edges.may_write()

    async def _observe(self, now_s: float) -> Observation:
        """See everything once; takes at most one scrape timeout."""
        service, namespace = self.settings.spec.service, self.settings.metadata.namespace
        seen = look(self._edges.cluster.world(), namespace, service, now_s)
        samples = await self._reader.read(list(seen.targets), now_s, f"{namespace}/{service}")
        samples = replace(samples, failures={**seen.failures, **samples.failures})
        outlook = self._foresight.say(now_s, leads_s(self.settings, self._last))
        return Observation(now_s, samples, seen.fleet, outlook)

    async def _act(self, step: Step, seen: Observation, decision: Decision, now_s: float) -> None:
        fleet = seen.fleet[step.role]
        assert isinstance(fleet, RoleFleet)
        patch = act.patch_for(step, fleet)
        why = act.why_text(decision.why, step.role)
        if not self._writes:
            log.info("%s: would %s: %s", self._name, patch, why)
            return
        try:
            await act.send(self._edges.client, patch)
        except ApiError as error:
            if isinstance(error, Conflict | Invalid):
                self._edges.cluster.doubt(patch.kind)
            code = Code.WRITE_REFUSED if isinstance(error, Forbidden) else Code.WRITE_FAILED
            self.troubles.failed("step", error, now_s, code, step.role)
            return
        log.info("%s: %s %s %d -> %d: %s", self._name, step.role, step.kind, step.before, step.after, why)
        self.troubles.over("step", now_s)
        reason = "SuccessfulRescale" if step.kind == "replicas" else "MinimumMoved"
        text = f"{step.kind} {step.before} -> {step.after}: {why}"
        self._keep(_Event(act.about(fleet), reason, text, False))

    def _tell_conditions(self, seen: Observation, decision: Decision) -> None:
        """A log line and an Event for every condition that changed."""
        for condition in decision.conditions:
            before = self._conditions.get(condition.type)
            self._conditions[condition.type] = condition
            unchanged = before is not None and (before.status, before.reason) == (condition.status, condition.reason)
            if unchanged or condition.type not in _TOLD or (before is None and not condition.message):
                continue
            if condition.type == "Blind" and Code.WATCH_FAILED not in (condition.reason, before and before.reason):
                continue
            warning = condition.status == _TOLD[condition.type]
            text = f"{condition.type}={condition.status}: {condition.message or condition.reason}"
            log.log(logging.WARNING if warning else logging.INFO, "%s: %s", self._name, text)
            for about in self._concerned(seen, condition):
                self._keep(_Event(about, condition.reason, text, warning))

    def _concerned(self, seen: Observation, condition: Condition) -> list[About]:
        """The workload of the one role that a condition's message names, else the service."""
        if self.about and condition.reason == Code.ANOTHER_CONTROLLER:
            return [self.about]
        fleets = {role: fleet for role in ROLES if isinstance(fleet := seen.fleet[role], RoleFleet)}
        named = [act.about(fleet) for role, fleet in fleets.items() if f"{role.value} " in condition.message]
        if len(named) == 1:
            return named
        return [self.about] if self.about else [act.about(fleet) for fleet in fleets.values()]

    def _keep(self, event: _Event) -> None:
        """An Event to be written; of one reason about one thing only the newest."""
        if self._writes and len(self._unwritten) < KEPT_EVENTS:
            self._unwritten[event.about.uid, event.reason] = event

    async def _write_events(self, now_s: float) -> None:
        """All that are kept; after one that fails the rest is for the next tick."""
        for key, event in list(self._unwritten.items()):
            if not self._writes:
                self._unwritten.clear()
                return
            try:
                await events.write(
                    self._edges.client, event.about, event.reason, event.text, now_s=now_s, warning=event.warning
                )
            except NotLeader:
                return
            except NotFound:
                log.debug("no event %s: its namespace is gone", event.reason)
            except ApiError as error:
                if _TERMINATED in error.message:
                    self._unwritten.clear()
                    return
                self.troubles.failed("events", error, now_s, Code.REPORT_FAILED)
                return
            del self._unwritten[key]
            self.troubles.over("events", now_s)


def _names(settings: Settings) -> tuple[str, str]:
    return settings.metadata.namespace, settings.spec.service


def _reader(settings: Settings) -> MetricsReader:
    metrics = settings.spec.metrics
    if metrics.prometheus_url:
        return PrometheusReader(metrics, settings.metadata.namespace)
    return Scraper(metrics.scrape_timeout_s, metrics.model)
