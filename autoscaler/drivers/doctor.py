"""The doctor: looks at each service as the controller does, and says what it finds, and whether it could scale.

Rules:
1. The verdict is the controller's own: the conditions of real ticks on real looks. Nothing is written.
2. What the API server alone knows (rights, APIs that it serves) is asked of it, and told in the reasons of the tick.
3. A right is needed for what the mode does: a service that is only observed needs none to write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from autoscaler.adapters import rra
from autoscaler.adapters.fleet import look
from autoscaler.adapters.nearby import likely_routers, near_misses
from autoscaler.adapters.scrape import NO_ANSWER
from autoscaler.core.conditions import conditions
from autoscaler.core.groups import named
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.manager import Declared, declared, implied
from autoscaler.drivers.matched import RoleSeen, roles_seen
from autoscaler.drivers.rights import lacking, reads, writes
from autoscaler.drivers.served import why_no_crd
from autoscaler.drivers.service import Edges, Service
from autoscaler.errors import UserError
from autoscaler.model import Condition, Decision, Observation, RoleFleet, Samples
from autoscaler.settings import Mode, Settings
from kubeapi import kinds, names
from kubeapi.client import KubeClient, Object
from kubeapi.config import Config
from kubeapi.errors import NotFound
from perfmodel.profile import Profile
from policies.model import ROLES, Code, Missing, Reason, Stage

STOPS = ("ScalingActive", "AbleToScale", "Ready")
"""Conditions without which nothing is scaled, the one that says most first."""
LOOKED_FOR = (
    f"RoleRatioAutoscaler objects, and for LeaderWorkerSets and Deployments with the labels {names.LABEL_SERVICE} and "
    f"{names.LABEL_ROLE}"
)
OUTSIDE = (
    "no pod answers from here: outside the cluster's network, look from the controller's place: kubectl exec "
    "--namespace=roleratio-system deployment/roleratio-controller -- roleratio doctor"
)
PERIOD_S = 2.0
"""Seconds between two looks, at most."""

_REMEDIES = {
    Code.NO_WORKLOAD: f"give the workload and its pod template {names.LABEL_SERVICE} and {names.LABEL_ROLE}",
    Code.SWITCHED_OFF: "set spec.mode DryRun or Active",
    Code.DEMAND_MISSING: "put right what is found above",
    Code.ROLE_BLIND: "put right what is found above",
}
"""What to do where the reason's own words do not say it."""
_REMARKS = (Code.GHOSTS_DROPPED, Code.METRICS_PARTIAL, Code.UNIT_ERROR, Code.SIGNAL_DAMAGED)
_TOLD = (Code.WRITE_REFUSED, Code.WRITE_FAILED, Code.REPORT_FAILED, Code.ANOTHER_CONTROLLER)
"""What a controller that runs knows better."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One service: what was seen, every finding, and why it could not be scaled (nothing: it could).

    `unreadable`: source -> why. `near`: what is nearly the service's. `lacks`: rights. `also`: the rest.
    """

    name: str
    source: str
    mode: str
    metrics: str
    cannot: str
    roles: tuple[RoleSeen, ...] = ()
    demand: str = ""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    near: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """Which services: the one of a settings file, the one named `namespace/service`, or all.

    `user`: whose rights are asked; else those of whoever asks.
    """

    config: Config
    service: str | None = None
    settings: Settings | None = None
    profile: Profile | None = None
    user: str | None = None


async def diagnose(options: DoctorOptions) -> list[Diagnosis]:
    """Look at every asked service, all at once; none, where nothing declares one. Raises ApiError, UserError."""
    async with AsyncExitStack() as stack:
        client = KubeClient(options.config, field_manager=names.MANAGER_CONTROLLER)
        await stack.enter_async_context(client)
        no_crd = "" if options.settings else await _no_crd(client)
        cluster = Cluster(client) if options.settings or no_crd else Cluster(client, kinds.RRA)
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        doctor = _Doctor(options, client, cluster, (no_crd,) if no_crd else ())
        rras = [] if options.settings or no_crd else cluster.objects(kinds.RRA)
        return list(await asyncio.gather(*(doctor.diagnose(*one) for one in _asked(options, cluster, rras))))


async def _no_crd(client: KubeClient) -> str:
    """Why there are no rras, or nothing where there may be some."""
    try:
        await client.list(kinds.RRA)
    except NotFound:
        return await why_no_crd(client)
    return ""


def _asked(options: DoctorOptions, cluster: Cluster, objects: Sequence[Object]) -> list[tuple[str, Declared]]:
    """`namespace/service` (of an rra that cannot be read: its name), and what is declared. Raises UserError."""
    if options.settings:
        own = options.settings
        return [(f"{own.metadata.namespace}/{own.spec.service}", Declared(None, own, options.profile))]
    rras = declared(objects)
    workloads = [*cluster.objects(kinds.LWS), *cluster.objects(kinds.DEPLOYMENT)]
    every = {**rras, **implied(workloads, cluster.objects(kinds.NODE), rras)}
    found = [(_title(key, one), one) for key, one in every.items()]
    found += _labelled({title for title, _ in found}, workloads)
    if options.service is None or not found:
        return sorted(found, key=lambda one: one[0])
    chosen = [one for one in found if one[0] == options.service]
    if not chosen:
        there = ", ".join(sorted({title for title, _ in found}))
        raise UserError(f"--service {options.service}: no such service; there are {there}")
    return chosen


def _title(key: tuple[str, str], found: Declared) -> str:
    if found.settings:
        return f"{key[0]}/{found.settings.spec.service}"
    service = str((found.obj or {}).get("spec", {}).get("service") or key[1])
    return f"{key[0]}/{service}"


def _labelled(known: set[str], workloads: Sequence[Object]) -> list[tuple[str, Declared]]:
    """Services that labels name, and that nobody looks at."""
    problem = (
        f"no rra names this service, and no workload of it has the annotation {names.ANNOTATION_PROFILE}, so a "
        "controller that follows the cluster leaves it alone: create an rra, or give --settings FILE"
    )
    titles = {
        f"{meta['namespace']}/{service}"
        for meta in (workload["metadata"] for workload in workloads)
        if (service := (meta.get("labels") or {}).get(names.LABEL_SERVICE))
    }
    return [(title, Declared(None, problems=(problem,))) for title in sorted(titles - known)]


class _Doctor:
    """What all diagnoses of one run share. `of_all`: what was found of every service."""

    def __init__(self, options: DoctorOptions, client: KubeClient, cluster: Cluster, of_all: tuple[str, ...]) -> None:
        self._options = options
        self._client = client
        self._cluster = cluster
        self._of_all = of_all

    async def diagnose(self, name: str, found: Declared) -> Diagnosis:
        source = "the settings file" if self._options.settings else "labels alone"
        if found.obj:
            source = f"rra {found.obj['metadata']['name']}"
        settings = found.settings
        if settings is None or found.profile is None:
            why = "; ".join(found.problems)
            cannot = _refused(found.code, why) if found.obj else why
            return self._unsettled(Diagnosis(name, source, "unknown", "", cannot))
        mode, metrics = settings.spec.mode, settings.spec.metrics.prometheus_url or "the pods' own pages"
        if mode is Mode.OFF:
            return Diagnosis(name, source, mode, metrics, _refused(Code.SWITCHED_OFF, "mode Off"))
        seen, decision = await self._ticks(settings, found.profile)
        world, key = self._cluster.world(), (settings.metadata.namespace, settings.spec.service)
        lacks = await self._lacks(settings, seen, tells=found.obj is not None)
        told = conditions((*decision.why, *lacks)) if settings.spec.writes else decision.conditions
        near = tuple(dict.fromkeys((*near_misses(world, *key), *likely_routers(world, *key))))
        return Diagnosis(
            name,
            source,
            mode,
            metrics,
            _cannot(told),
            roles=roles_seen(world, key, look(world, *key, seen.now_s).targets, seen),
            demand=_demand(decision),
            unreadable=dict(sorted(seen.samples.failures.items())),
            near=near,
            lacks=tuple(str(reason.detail["why"]) for reason in lacks),
            also=(*self._of_all, *self._also(settings, seen, decision, near), *_told(found)),
            conditions={one.type: f"{one.status} {one.reason}" for one in told},
        )

    def _unsettled(self, found: Diagnosis) -> Diagnosis:
        """What labels match, where no settings say how to read and to size it."""
        world, now_s = self._cluster.world(), time.time()
        namespace, _, service = found.name.partition("/")
        seen = Observation(now_s, Samples(), look(world, namespace, service, now_s).fleet)
        near = near_misses(world, namespace, service)
        return replace(found, roles=roles_seen(world, (namespace, service), (), seen), near=near, also=self._of_all)

    async def _ticks(self, settings: Settings, profile: Profile) -> tuple[Observation, Decision]:
        """The controller's ticks, until the demand is known, cannot become so, or a whole window has passed."""
        service = Service(settings, profile, Edges(self._client, self._cluster, dry_run=True))
        period_s = min(PERIOD_S, settings.spec.sync_period_s)
        until_s = time.monotonic() + settings.spec.metrics.window_s + 3 * period_s
        ticks = 0
        try:
            while True:
                seen, decision = await service.step(time.time(), self._cluster.served.reasons)
                ticks += 1
                hopeless = ticks > 1 and _shows_nothing(seen)
                if decision.signals.demand.known or hopeless or time.monotonic() > until_s:
                    return seen, decision
                await asyncio.sleep(period_s)
        finally:
            await service.close()

    async def _lacks(self, settings: Settings, seen: Observation, *, tells: bool) -> tuple[Reason, ...]:
        """The rights that are needed and not there; what only a mode that writes needs counts only in that."""
        needed = writes(seen.fleet, settings.metadata.namespace, tells=tells)
        rights = (*reads(), *(right for right in needed if settings.spec.writes))
        return await lacking(self._client, rights, self._options.user)

    def _also(self, settings: Settings, seen: Observation, decision: Decision, near: Sequence[str]) -> tuple[str, ...]:
        """What the API server lacks, what is wrong with the workloads, and what is odd about the samples."""
        told = [str(reason.detail["why"]) for reason in self._cluster.served.reasons]
        told += [problem for problem in seen.fleet.problems if problem not in near]
        told += [str(reason) for reason in decision.why if reason.code in _REMARKS]
        fleets = [fleet for role in ROLES if isinstance(fleet := seen.fleet[role], RoleFleet)]
        empty = [fleet for fleet in fleets if fleet.replicas and not fleet.present]
        told += [f"{fleet.kind} {fleet.name} has no pod: see its events" for fleet in empty if not near]
        if settings.spec.metrics.prometheus_url is None and _reaches_nobody(seen):
            told.append(OUTSIDE)
        return tuple(told)


def _reaches_nobody(seen: Observation) -> bool:
    answered = seen.samples.routers or seen.samples.workers
    failures = seen.samples.failures.values()
    return bool(failures) and not answered and all(why.startswith(NO_ANSWER) for why in failures)


def _told(found: Declared) -> tuple[str, ...]:
    """What the object's status says of a controller that runs."""
    if found.obj is None:
        return ()
    if not found.status:
        return (f"{rra.title_of(found.obj)} has no status: is a controller running, and does it lead?",)
    return tuple(
        f"a controller has told of {one['type']}={one['status']}: {one['message']}"
        for one in found.status.get("conditions", ())
        if one["reason"] in _TOLD
    )


def _refused(code: Code, why: str) -> str:
    """What the controller says of an object that it does not act on."""
    return _cannot(conditions((Reason(Stage.OBSERVE, code, None, {"why": why}),), looked=False))


def _shows_nothing(seen: Observation) -> bool:
    """Whether more looks at the same will not tell the demand."""
    nothing_read = not seen.samples.routers and not seen.samples.workers
    return nothing_read or any(isinstance(seen.fleet[role], Missing) for role in ROLES)


def _demand(decision: Decision) -> str:
    demand = decision.signals.demand
    if isinstance(demand.requests_per_s, Missing):
        return f"unknown: {demand.requests_per_s.missing}"
    return f"{demand.requests_per_s:.4g} requests/s, as counted by {demand.basis}"


def _cannot(told: Sequence[Condition]) -> str:
    by_type = {condition.type: condition for condition in told}
    for kind in STOPS:
        if (one := by_type[kind]).status == "False":
            remedy = _REMEDIES.get(Code(one.reason))
            return f"{kind}=False: {one.message}" + (f"; to do: {remedy}" if remedy else "")
    return ""


def unreadable_lines(unreadable: Mapping[str, str]) -> list[str]:
    """One line for each cause."""
    causes: dict[str, list[str]] = {}
    for source, why in unreadable.items():
        causes.setdefault(why, []).append(source)
    return [f"{named(sources)}: {why}" for why, sources in causes.items()]
