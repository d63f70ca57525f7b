"""The doctor: looks at each service as the controller does, and says what it finds, and whether it could scale.

Rules:
1. The verdict is the controller's own: the conditions of a real tick on a real look. Nothing is written.
2. What the API server alone knows (rights, APIs that it serves) is asked of it.
3. A right is needed for what the mode does: a service that is only observed needs none to write.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoscaler.adapters.fleet import look
from autoscaler.adapters.nearby import near_misses
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.manager import Declared, declared, implied
from autoscaler.drivers.service import Edges, Service
from autoscaler.errors import UserError
from autoscaler.model import Decision, Observation, RoleFleet
from autoscaler.settings import Mode, Settings
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from kubeapi.errors import ApiError
from kubeapi.kinds import Kind
from perfmodel.profile import Profile
from policies.model import ROLES, Missing

REVIEW = Kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)
STOPS = ("ScalingActive", "AbleToScale", "Ready")
"""Conditions without which nothing is scaled, the one that says most first."""


@dataclass(frozen=True, slots=True)
class RoleSeen:
    """What the selectors of one role matched, and what its pages gave. Ages are in seconds."""

    role: str
    workload: str
    pods: int
    pages_wanted: int
    pages_read: int
    series: int
    engines: Mapping[str, int]
    age_s: float | None
    groups: str
    signals: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One service: what was seen, every finding, and why it could not be scaled (nothing: it could)."""

    name: str
    source: str
    mode: str
    cannot: str
    roles: tuple[RoleSeen, ...] = ()
    demand: str = ""
    findings: tuple[str, ...] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """Which services: the one of a settings file, the one named `namespace/service`, or all."""

    config: Config
    service: str | None = None
    settings: Settings | None = None
    profile: Profile | None = None


async def diagnose(options: DoctorOptions) -> list[Diagnosis]:
    """Look at every asked service, all at once. Raises ApiError, UserError (nothing is declared, an unknown name)."""
    async with KubeClient(options.config, field_manager=names.MANAGER_CONTROLLER) as client:
        cluster = Cluster(client) if options.settings else Cluster(client, kinds.RRA)
        try:
            await cluster.start()
            asked = _asked(options, cluster)
            found = (_diagnose(title, one, client, cluster) for title, one in sorted(asked.items()))
            return list(await asyncio.gather(*found))
        finally:
            await cluster.stop()


def _asked(options: DoctorOptions, cluster: Cluster) -> dict[str, Declared]:
    """`namespace/service` (of an rra that cannot be read: its name) -> what is declared."""
    if options.settings:
        own = options.settings
        return {f"{own.metadata.namespace}/{own.spec.service}": Declared(None, own, options.profile)}
    rras = declared(cluster.objects(kinds.RRA))
    workloads = [*cluster.objects(kinds.LWS), *cluster.objects(kinds.DEPLOYMENT)]
    every = {**rras, **implied(workloads, cluster.objects(kinds.NODE), rras)}
    named = {_title(key, found): found for key, found in every.items()}
    if not named:
        raise UserError(
            f"no service: no RoleRatioAutoscaler, and no workload with the label {names.LABEL_SERVICE} and the "
            f"annotation {names.ANNOTATION_PROFILE}; create one, or give --settings FILE"
        )
    if options.service is None:
        return named
    if options.service not in named:
        raise UserError(f"--service {options.service}: no such service; there are {', '.join(sorted(named))}")
    return {options.service: named[options.service]}


def _title(key: tuple[str, str], found: Declared) -> str:
    return f"{key[0]}/{found.settings.spec.service if found.settings else key[1]}"


async def _diagnose(title: str, found: Declared, client: KubeClient, cluster: Cluster) -> Diagnosis:
    source = f"rra {found.obj['metadata']['name']}" if found.obj else "labels or a file"
    if found.settings is None or found.profile is None:
        return Diagnosis(title, source, "unknown", "; ".join(found.problems), findings=found.problems)
    settings = found.settings
    if settings.spec.mode is Mode.OFF:
        return Diagnosis(title, source, settings.spec.mode, "mode Off: set mode DryRun or Active")
    observation, decision = await _ticks(settings, found.profile, client, cluster)
    namespace, service = settings.metadata.namespace, settings.spec.service
    seen = look(cluster.world(), namespace, service, observation.now_s)
    wanted: Counter[str] = Counter(target.role for target in seen.targets)
    pods = _pods(cluster, namespace, service)
    roles = tuple(
        _role(role, observation, decision, pods[role], wanted[role])
        for role in (*(role.value for role in ROLES), names.ROLE_ROUTER)
    )
    refused = await _refused(settings, observation, client) if settings.spec.writes else ()
    near = near_misses(cluster.world(), namespace, service)
    failures = (f"{source}: {why}" for source, why in sorted(observation.samples.failures.items()))
    served = [reason.detail["why"] for reason in cluster.served.reasons]
    told = {one.type: f"{one.status} {one.reason}" for one in decision.conditions}
    findings = tuple(map(str, (*failures, *near, *refused, *served, *observation.fleet.problems)))
    return Diagnosis(
        title, source, settings.spec.mode, _cannot(decision, refused), roles, _demand(decision), findings, told
    )


async def _ticks(
    settings: Settings, profile: Profile, client: KubeClient, cluster: Cluster
) -> tuple[Observation, Decision]:
    """The controller's ticks, until the demand is known or a whole window has passed."""
    service = Service(settings, profile, Edges(client, cluster, dry_run=True))
    period_s = min(1.0, settings.spec.sync_period_s)
    until_s = time.monotonic() + settings.spec.metrics.window_s + 3 * period_s
    try:
        while True:
            seen, decision = await service.step(time.time())
            if decision.signals.demand.known or time.monotonic() > until_s:
                return seen, decision
            await asyncio.sleep(period_s)
    finally:
        await service.close()


def _pods(cluster: Cluster, namespace: str, service: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for pod in cluster.objects(kinds.POD):
        labels = pod["metadata"].get("labels") or {}
        if pod["metadata"]["namespace"] == namespace and labels.get(names.LABEL_SERVICE) == service:
            found[labels.get(names.LABEL_ROLE, "")] += 1
    return found


def _role(role: str, seen: Observation, decision: Decision, pods: int, wanted: int) -> RoleSeen:
    routers, workers = seen.samples.routers, [one for one in seen.samples.workers if one.role.value == role]
    samples: list[Any] = list(routers) if role == names.ROLE_ROUTER else list(workers)
    ages_s = [seen.now_s - sample.at_s for sample in samples]
    fleet = None if role == names.ROLE_ROUTER else getattr(seen.fleet, role)
    workload, groups, signals = "", "", {}
    if isinstance(fleet, RoleFleet):
        workload = f"{fleet.kind} {fleet.name}"
        groups = f"{fleet.ready} of {fleet.replicas} groups ready"
    elif isinstance(fleet, Missing):
        workload = fleet.missing
    if fleet is not None:
        said = getattr(decision.signals, role)
        signals = {name: _said(getattr(said, name)) for name in ("running", "waiting", "kv_usage")}
    engines = dict(sorted(Counter(sample.engine or "unknown" for sample in samples).items()))
    series = sum(sample.series for sample in samples)
    age_s = max(ages_s, default=None)
    return RoleSeen(role, workload, pods, wanted, len(samples), series, engines, age_s, groups, signals)


def _said(value: float | Missing) -> str:
    return f"unknown ({value.missing})" if isinstance(value, Missing) else f"{value:.4g}"


def _demand(decision: Decision) -> str:
    demand = decision.signals.demand
    if isinstance(demand.requests_per_s, Missing):
        return f"unknown: {demand.requests_per_s.missing}"
    return f"{demand.requests_per_s:.4g} requests/s, as counted by {demand.basis}"


def _cannot(decision: Decision, refused: tuple[str, ...]) -> str:
    told = {condition.type: condition for condition in decision.conditions}
    for kind in STOPS:
        if told[kind].status == "False":
            return f"{kind}=False: {told[kind].message or told[kind].reason}"
    return "; ".join(refused)


async def _refused(settings: Settings, seen: Observation, client: KubeClient) -> tuple[str, ...]:
    """The rights that writing would need and that this identity lacks."""
    asked: list[tuple[str, str, str, str]] = [("create", "", "events", "")]
    for role in ROLES:
        if isinstance(fleet := seen.fleet[role], RoleFleet):
            kind = kinds.LWS if fleet.kind == kinds.LWS.kind else kinds.DEPLOYMENT
            asked.append(("patch", kind.group, kind.plural, "scale"))
            if fleet.pod_group:
                asked.append(("patch", kinds.PODGROUP.group, kinds.PODGROUP.plural, ""))
    found = [await _may_not(client, settings.metadata.namespace, *one) for one in dict.fromkeys(asked)]
    return tuple(text for text in found if text)


async def _may_not(client: KubeClient, namespace: str, verb: str, group: str, plural: str, subresource: str) -> str:
    what = f"{verb} {plural}/{subresource}".removesuffix("/")
    attributes = {"verb": verb, "group": group, "resource": plural, "namespace": namespace}
    if subresource:
        attributes["subresource"] = subresource
    try:
        answer = await client.create(REVIEW, {"spec": {"resourceAttributes": attributes}})
    except ApiError:
        return ""  # A server without authorization refuses nobody.
    if answer.get("status", {}).get("allowed"):
        return ""
    return f"this identity may not {what} in namespace {namespace}; apply manifests/overlays/active, or grant it"
