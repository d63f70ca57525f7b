"""Kubernetes objects to a Fleet: what the two roles are now, and which pods have metrics.

Rules:
1. Nothing is decided here, and nothing is fetched: objects in, plain values out.
2. Counts of groups come from pods, by identity: a TP group is ready when all its pods are, present while any is left.
3. What cannot be read is Missing with a reason; an explicit request of 0 GPUs is 0, an absent one is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.nearby import ROLES, near_misses
from autoscaler.model import Fleet, Group, Owner, RoleFleet, Writer
from gangscheduler.model import Snapshot
from gangscheduler.place import how_many_fit
from gangscheduler.snapshot import BadQuantity, build, group_shape, pod_requests, uses_claims
from kubeapi import names
from policies.model import Missing, Role

Object = Mapping[str, Any]

DEFAULT_PORT = 8000
FIT_LIMIT = 64
_WORKLOADS, _PODS, _NODES, _PODGROUPS = ("leaderworkersets", "deployments"), "pods", "nodes", "podgroups"


@dataclass(frozen=True, slots=True)
class World:
    """The raw objects of one moment. Pods and nodes of the whole cluster: what fits depends on all of them.

    `unseen`: plurals of kinds that could not be listed, and why: no objects of these means nothing.
    """

    workloads: Sequence[Object]
    pods: Sequence[Object]
    podgroups: Sequence[Object]
    nodes: Sequence[Object]
    unseen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """The fleet, the pods to read metrics from, and the sources that should be there but cannot be read."""

    fleet: Fleet
    targets: tuple[ScrapeTarget, ...]
    failures: Mapping[str, str]


def look(world: World, namespace: str, service: str, now_s: float) -> Seen:
    """See one service. Linear in the cluster's pods and nodes, plus the packing of at most FIT_LIMIT groups."""
    own = [w for w in world.workloads if belongs(w, namespace, service)]
    pods = [pod for pod in world.pods if belongs(pod, namespace, service)]
    snapshot = build(now_s, world.nodes, world.pods, world.podgroups)
    podgroups = {(_meta(group).get("namespace", ""), _meta(group)["name"]): group for group in world.podgroups}
    fleets = {role: _as_seen(_role(role, own, pods, podgroups, snapshot), world.unseen) for role in Role}
    targets, failures = _targets(pods)
    near = near_misses(world, namespace, service) if any(map(_is_empty, fleets.values())) else ()
    fleets = {role: _with(found, near) for role, found in fleets.items()}
    problems = _problems(own, fleets)
    if not any(isinstance(found, Missing) for found in fleets.values()):
        problems += near
    fleet = Fleet(fleets[Role.PREFILL], fleets[Role.DECODE], problems)
    return Seen(fleet, targets, failures)


def is_ready(pod: Object) -> bool:
    """Ready and not on its way out."""
    return _condition_time(pod, "Ready") is not None and "deletionTimestamp" not in _meta(pod)


def seconds(text: str | None) -> float:
    """An RFC 3339 time as Unix seconds; 0 when there is none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def belongs(obj: Object, namespace: str, service: str) -> bool:
    """Whether the labels of a workload or pod name the service."""
    meta = _meta(obj)
    return meta.get("namespace") == namespace and _labels(obj).get(names.LABEL_SERVICE) == service


def _is_empty(fleet: RoleFleet | Missing) -> bool:
    """Whether labels match no workload, or none of the pods that there should be."""
    return isinstance(fleet, Missing) or (fleet.replicas > 0 and not fleet.present)


def _with(found: RoleFleet | Missing, near: Sequence[str]) -> RoleFleet | Missing:
    """Why a role is not there, and what nearly is."""
    return Missing("; ".join((found.missing, *near))) if isinstance(found, Missing) else found


def _problems(own: Sequence[Object], fleets: Mapping[Role, RoleFleet | Missing]) -> tuple[str, ...]:
    problems = [
        f"{title(workload)}: label {names.LABEL_ROLE}={role!r} is not a role; use one of {', '.join(ROLES)}"
        for workload in own
        if (role := _labels(workload).get(names.LABEL_ROLE)) not in ROLES
    ]
    for fleet in fleets.values():
        if isinstance(fleet, RoleFleet) and isinstance(fleet.gpus_per_group, Missing):
            problems.append(f"{fleet.kind} {fleet.name}: {fleet.gpus_per_group.missing}")
    return tuple(problems)


def _role(
    role: Role,
    own: Sequence[Object],
    pods: Sequence[Object],
    podgroups: Mapping[tuple[str, str], Object],
    snapshot: Snapshot,
) -> RoleFleet | Missing:
    claimed = [workload for workload in own if _labels(workload).get(names.LABEL_ROLE) == role.value]
    if not claimed:
        return Missing(f"no workload has the label {names.LABEL_ROLE}={role.value}")
    if len(claimed) > 1:
        titles = " and ".join(sorted(title(workload) for workload in claimed))
        return Missing(f"{titles} both claim the role {role.value}; keep the label on one of them")
    workload = claimed[0]
    meta, annotations = _meta(workload), _meta(workload).get("annotations") or {}
    members = [pod for pod in pods if _labels(pod).get(names.LABEL_ROLE) == role.value]
    groups = _by_group(members)
    size = _pods_per_group(workload)
    ready = [group for group in groups.values() if _all_ready(group, size)]
    name, minimum = _minimum(workload, podgroups)
    owner, writer = _ownership(meta)
    fit, limit = _fit(workload, snapshot, f"{meta['namespace']}/{name}" if name else "")
    return RoleFleet(
        kind=workload["kind"],
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        created_s=seconds(meta.get("creationTimestamp")),
        replicas=int(workload["spec"].get("replicas", 1)),
        ready=len(ready),
        present=len(groups),
        draining=sum(any("deletionTimestamp" in _meta(pod) for pod in group) for group in groups.values()),
        pods_per_group=size,
        gpus_per_group=_gpus(workload),
        fit=fit,
        pod_group=name,
        min_pods=minimum,
        writer=writer,
        owner=owner,
        paused=annotations.get(names.ANNOTATION_PAUSED, ""),
        resume=annotations.get(names.ANNOTATION_RESUME, ""),
        ready_after_s=tuple(sorted(after for group in ready if (after := _ready_after(group)) is not None)),
        groups=tuple(sorted((_group(key, group, size) for key, group in groups.items()), key=lambda group: group.pods)),
        limiting_resource=limit,
    )


def _as_seen(found: RoleFleet | Missing, unseen: Mapping[str, str]) -> RoleFleet | Missing:
    """What depends on kinds that could not be listed is not known."""
    if isinstance(found, Missing):
        gaps = [f"{plural} are not seen: {unseen[plural]}" for plural in _WORKLOADS if plural in unseen]
        return Missing("; ".join([found.missing, *gaps]))
    if _PODS in unseen:
        return Missing(f"pods are not seen: {unseen[_PODS]}")
    if _NODES in unseen:
        found = replace(found, fit=Missing(f"nodes are not seen: {unseen[_NODES]}"), limiting_resource="")
    if _PODGROUPS in unseen and isinstance(found.min_pods, Missing):
        found = replace(found, min_pods=Missing(f"PodGroups are not seen: {unseen[_PODGROUPS]}"))
    return found


def _by_group(pods: Iterable[Object]) -> dict[str, list[Object]]:
    groups: dict[str, list[Object]] = {}
    for pod in pods:
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            groups.setdefault(_group_key(pod), []).append(pod)
    return groups


def _group_key(pod: Object) -> str:
    """What the pods of one TP group have in common; a pod that is nobody's is a group of its own."""
    return str(_labels(pod).get(names.LWS_GROUP_KEY) or _meta(pod)["uid"])


def _group(key: str, pods: Iterable[Object], size: int) -> Group:
    ordered = sorted(pods, key=lambda pod: (not _is_leader(pod), _meta(pod)["name"]))
    leaving = any("deletionTimestamp" in _meta(pod) for pod in ordered)
    return Group(
        key,
        tuple(_meta(pod)["name"] for pod in ordered),
        _all_ready(ordered, size),
        waits=not leaving and not all(pod["spec"].get("nodeName") for pod in ordered),
        ordinal=_ordinal(ordered[0]),
    )


def _ordinal(leader: Object) -> int | None:
    """The group's index, where its workload counts them."""
    text = str(_labels(leader).get(names.LWS_GROUP_INDEX, ""))
    return int(text) if text.isdecimal() else None


def _all_ready(group: Sequence[Object], size: int) -> bool:
    return len(group) == size and all(is_ready(pod) for pod in group)


def _pods_per_group(workload: Object) -> int:
    template = workload["spec"].get("leaderWorkerTemplate")
    return int(template.get("size", 1)) if template else 1


def _gpus(workload: Object) -> int | Missing:
    """GPUs of one TP group: every pod of it, every container, as the scheduler counts them."""
    template = workload["spec"].get("leaderWorkerTemplate")
    if template is None:
        specs = [workload["spec"]["template"]["spec"]]
    else:
        worker = template["workerTemplate"]["spec"]
        leader = (template.get("leaderTemplate") or template["workerTemplate"])["spec"]
        specs = [leader, *[worker] * (_pods_per_group(workload) - 1)]
    if any(uses_claims(spec) for spec in specs):
        return Missing("GPUs come through resourceClaims, whose cost is not known")
    try:
        gpus = sum(pod_requests(spec).get(names.GPU, 0) for spec in specs)
    except BadQuantity as error:
        return Missing(str(error))
    if gpus == 0 and not all(map(_names_gpus, specs)):
        return Missing(f"no container requests {names.GPU}; request it, or 0 where it needs none")
    return gpus


def _names_gpus(spec: Object) -> bool:
    """Whether a pod says how many GPUs it takes, be it none."""
    containers = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    asked = [container.get("resources") or {} for container in containers]
    return any(names.GPU in (one.get(kind) or {}) for one in asked for kind in ("requests", "limits"))


def _fit(workload: Object, snapshot: Snapshot, podgroup: str) -> tuple[int | Missing, str]:
    try:
        fit = how_many_fit(snapshot, group_shape(workload), FIT_LIMIT, podgroup=podgroup)
    except BadQuantity as error:
        return Missing(str(error)), ""
    return fit.groups, fit.limiting_resource


def _minimum(workload: Object, podgroups: Mapping[tuple[str, str], Object]) -> tuple[str | None, int | Missing]:
    """The role's PodGroup and its minCount in pods, where the minimum is ours to move."""
    spec = workload["spec"]
    template = spec["leaderWorkerTemplate"]["workerTemplate"] if "leaderWorkerTemplate" in spec else spec["template"]
    name = (template["spec"].get("schedulingGroup") or {}).get("podGroupName")
    if not name:
        return None, Missing("the pod template names no PodGroup")
    group = podgroups.get((_meta(workload)["namespace"], name))
    if group is None:
        return None, Missing(f"PodGroup {name} does not exist")
    owner = next((o for o in _meta(group).get("ownerReferences") or () if o.get("controller")), None)
    if owner is not None:
        return None, Missing(f"PodGroup {name} belongs to {owner['kind']} {owner['name']}")
    count = ((group["spec"].get("schedulingPolicy") or {}).get("gang") or {}).get("minCount")
    if count is None:
        return None, Missing(f"PodGroup {name} has no gang policy")
    return name, int(count)


def _ownership(meta: Object) -> tuple[Owner, Writer | None]:
    """Whose spec.replicas is, and who last wrote it, or the object when nobody owns the number any more."""
    entries = meta.get("managedFields") or ()
    if not entries:
        return "unknown", None
    owners = [entry for entry in entries if "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})]
    main = [entry for entry in entries if entry.get("subresource") != "status"]
    last = max(owners or main or entries, key=lambda entry: seconds(entry.get("time")))
    writer = Writer(_manager(last), seconds(last.get("time")))
    if not owners:
        return "nobody", writer
    return ("us", None) if writer.manager == names.MANAGER_CONTROLLER else ("other", writer)


def _manager(entry: Object) -> str:
    """Whose entry it is. Of the controllers of kube-controller-manager only one writes to /scale."""
    manager = str(entry.get("manager", "unknown"))
    hpa = manager == names.MANAGER_KUBERNETES and entry.get("subresource") == "scale"
    return f"{manager} (HorizontalPodAutoscaler)" if hpa else manager


def _ready_after(group: Sequence[Object]) -> float | None:
    """The measured cold start: from the group's first pod to its last one's readiness, without the longest wait for a
    node, which says nothing of the next group; None after a restart.
    """
    statuses = [status for pod in group for status in pod["status"].get("containerStatuses") or ()]
    if any(status.get("restartCount", 0) for status in statuses):
        return None
    created = min(seconds(_meta(pod).get("creationTimestamp")) for pod in group)
    ready = [_condition_time(pod, "Ready") or 0.0 for pod in group]
    return max(0.0, max(ready) - created - max(map(_waited_s, group)))


def _waited_s(pod: Object) -> float:
    """How long a pod had no node; 0 where nobody has noted that it got one."""
    placed_s = _condition_time(pod, "PodScheduled")
    return 0.0 if placed_s is None else max(0.0, placed_s - seconds(_meta(pod).get("creationTimestamp")))


def _targets(pods: Sequence[Object]) -> tuple[tuple[ScrapeTarget, ...], Mapping[str, str]]:
    """Routers, leaders, and the other pods of a group that say where their metrics are."""
    targets, failures = [], {}
    for pod in pods:
        role, name = _labels(pod).get(names.LABEL_ROLE), _meta(pod)["name"]
        if role not in ROLES or not (_is_leader(pod) or _metrics_port(pod)):
            continue
        ready_s = _condition_time(pod, "Ready")
        if ready_s is not None and is_ready(pod):
            targets.append(_target(pod, _known(role), ready_s))
        elif role == names.ROLE_ROUTER and "deletionTimestamp" not in _meta(pod):
            failures[name] = "the router is not ready"
    return tuple(targets), failures


def _target(pod: Object, role: Literal["router", "prefill", "decode"], ready_s: float) -> ScrapeTarget:
    meta = _meta(pod)
    return ScrapeTarget(
        pod=meta["name"],
        uid=meta["uid"],
        role=role,
        url=_url(pod),
        group=_group_key(pod),
        leader=_is_leader(pod),
        start_s=seconds(meta.get("creationTimestamp")),
        ready_s=ready_s,
    )


def _known(role: str) -> Literal["router", "prefill", "decode"]:
    return "prefill" if role == names.ROLE_PREFILL else "decode" if role == names.ROLE_DECODE else "router"


def _url(pod: Object) -> str:
    port = _metrics_port(pod) or next(iter(_ports(pod)), {}).get("containerPort", DEFAULT_PORT)
    return f"http://{pod['status'].get('podIP', '')}:{port}/metrics"


def _metrics_port(pod: Object) -> int | None:
    """The port whose name says that metrics are there."""
    named = {port.get("name"): int(port["containerPort"]) for port in _ports(pod)}
    return named.get("metrics") or named.get("http")


def _ports(pod: Object) -> list[Object]:
    return [port for container in pod["spec"]["containers"] for port in container.get("ports") or ()]


def _is_leader(pod: Object) -> bool:
    return bool(_labels(pod).get(names.LWS_WORKER_INDEX, "0") == "0")


def _condition_time(pod: Object, kind: str) -> float | None:
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == kind and condition["status"] == "True":
            return seconds(condition.get("lastTransitionTime"))
    return None


def title(obj: Object) -> str:
    """Kind and name, for messages."""
    return f"{obj['kind']} {_meta(obj)['name']}"


def _meta(obj: Object) -> Any:
    return obj["metadata"]


def _labels(obj: Object) -> Mapping[str, str]:
    return _meta(obj).get("labels") or {}
