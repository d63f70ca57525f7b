"""Raw Kubernetes objects to a Snapshot.

Rules:
1. Nothing is decided here; objects are only read.
2. What cannot be read is never room: a bad quantity of a node is left out, one of a pod keeps the pod waiting.
3. Finished pods hold nothing; terminating ones hold their resources until they are gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

from gangscheduler.model import (
    Amounts,
    Group,
    Node,
    Pod,
    PodShape,
    Requirement,
    Snapshot,
    Taint,
    Template,
    Toleration,
)
from kubeapi import names

Object = Mapping[str, Any]

LEVELS = (names.TOPOLOGY_ZONE, names.TOPOLOGY_BLOCK, names.TOPOLOGY_RACK)
PODS = "pods"
DEFAULT_MAX_PODS = 110
CORDON_TAINT = "node.kubernetes.io/unschedulable"

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}

_QUANTITY = re.compile(r"(?P<number>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)(?P<suffix>[A-Za-z]*)")


class BadQuantity(ValueError):
    """A quantity that Kubernetes would not accept."""


def build(
    now_s: float,
    nodes: Iterable[Object],
    pods: Iterable[Object],
    podgroups: Iterable[Object],
    *,
    scheduler_name: str = names.SCHEDULER_NAME,
) -> Snapshot:
    """The snapshot of these objects, in an order that does not depend on theirs. Linear, plus the sorting."""
    unfinished = (pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"))
    return Snapshot(
        now_s,
        tuple(sorted((_node(raw) for raw in nodes), key=lambda node: node.name)),
        tuple(sorted((_pod(raw, scheduler_name) for raw in unfinished), key=lambda pod: pod.key)),
        tuple(sorted((_group(raw) for raw in podgroups), key=lambda group: group.key)),
    )


@lru_cache(maxsize=4096)
def quantity(text: str, resource: str) -> int:
    """A Kubernetes quantity as an integer, rounded up: milli for cpu, else whole units. Raises BadQuantity."""
    found = _QUANTITY.fullmatch(text)
    if found is None or found["suffix"] not in _SUFFIXES:
        raise BadQuantity(f"{resource}={text!r}: expected a Kubernetes quantity such as 2, 500m or 1Gi")
    value = Decimal(found["number"]) * _SUFFIXES[found["suffix"]]
    scaled = value * 1000 if resource == "cpu" else value
    return int(scaled.to_integral_value(ROUND_CEILING))


def pod_requests(pod_spec: Object) -> dict[str, int]:
    """What the node must have free for this pod, as Kubernetes counts it. Raises BadQuantity.

    Containers and sidecars are summed; an init container counts by its maximum, beside the sidecars that
    were started before it; a limit without a request is the request.
    """
    running: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod_spec.get("initContainers") or ():
        own = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            running = _plus(running, own)
            own = {}
        peak = _largest(peak, _plus(running, own))
    for container in pod_spec.get("containers") or ():
        running = _plus(running, _container_requests(container))
    total = _plus(_largest(peak, running), _amounts(pod_spec.get("overhead") or {}))
    return {name: amount for name, amount in total.items() if amount > 0}


def uses_claims(pod_spec: Object) -> bool:
    """Whether the pod takes devices through resource claims, which requests do not show."""
    return bool(pod_spec.get("resourceClaims"))


def pod_shape(pod_spec: Object) -> PodShape:
    """The shape of a pod or pod template. Raises BadQuantity."""
    required = _get(pod_spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    return PodShape(
        requests=tuple(sorted((pod_requests(pod_spec) | {PODS: 1}).items(), key=_devices_first)),
        selector=tuple(sorted((pod_spec.get("nodeSelector") or {}).items())),
        affinity=tuple(_term(term) for term in required.get("nodeSelectorTerms") or ()),
        tolerations=tuple(_toleration(raw) for raw in pod_spec.get("tolerations") or ()),
    )


def group_shape(workload: Object) -> Template:
    """One TP group of a LeaderWorkerSet (leader first), or the one pod of a Deployment. Raises BadQuantity."""
    spec = workload["spec"]
    template = spec.get("leaderWorkerTemplate")
    if template is None:
        return (pod_shape(spec["template"]["spec"]),)
    worker = template["workerTemplate"]
    leader = template.get("leaderTemplate") or worker
    workers = int(template.get("size", 1)) - 1
    return (pod_shape(leader["spec"]), *[pod_shape(worker["spec"])] * workers)


def _node(raw: Object) -> Node:
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    labels: dict[str, str] = meta.get("labels") or {}
    taints = tuple(_taint(taint) for taint in spec.get("taints") or ())
    conditions = {item["type"]: item.get("status") for item in status.get("conditions") or ()}
    leaving = "deletionTimestamp" in meta or any(taint.key == CORDON_TAINT for taint in taints)
    place = tuple(labels.get(level, "") for level in LEVELS)
    return Node(
        name=meta["name"],
        allocatable=_allocatable(status.get("allocatable") or {}),
        path=(*place, meta["name"]),
        labels=tuple(sorted(labels.items())),
        taints=taints,
        ready=conditions.get("Ready") == "True",
        cordoned=bool(spec.get("unschedulable")) or leaving,
    )


def _allocatable(raw: Object) -> Amounts:
    room = {PODS: DEFAULT_MAX_PODS}
    for name, text in raw.items():
        try:
            room[name] = quantity(str(text), name)
        except BadQuantity:
            continue  # a resource that cannot be read has no room
    return tuple(sorted(room.items()))


def _pod(raw: Object, scheduler_name: str) -> Pod:
    meta, spec = raw["metadata"], raw["spec"]
    labels: dict[str, str] = meta.get("labels") or {}
    namespace = meta.get("namespace", "")
    key = f"{namespace}/{meta['name']}"
    group = _get(spec, "schedulingGroup").get("podGroupName", "")
    unsupported = _unsupported(spec)
    try:
        shape = pod_shape(spec)
    except BadQuantity as error:
        shape, unsupported = PodShape(()), str(error)
    return Pod(
        key=key,
        uid=meta.get("uid", ""),
        shape=shape,
        node=spec.get("nodeName") or "",
        terminating="deletionTimestamp" in meta,
        ours=spec.get("schedulerName") == scheduler_name,
        gated=bool(spec.get("schedulingGates")),
        unsupported=unsupported,
        undoable=_undoable(raw),
        group=f"{namespace}/{group}" if group else "",
        tp_group=(labels.get(names.LWS_GROUP_KEY) if group else None) or key,
        size=_size(meta) if group else 1,
        order=(_index(labels, names.LWS_GROUP_INDEX), _index(labels, names.LWS_WORKER_INDEX)),
        service=labels.get(names.LABEL_SERVICE, ""),
        role=labels.get(names.LABEL_ROLE, ""),
        priority=int(spec.get("priority") or 0),
        created_s=_seconds(meta),
    )


def _undoable(raw: Object) -> bool:
    """Nothing of it has ever run, as far as its status tells, and it has a controller."""
    meta, status = raw["metadata"], raw.get("status") or {}
    if not raw["spec"].get("nodeName") or status.get("phase") != "Pending":
        return False
    containers = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    owned = any(owner.get("controller") for owner in meta.get("ownerReferences") or ())
    return owned and not any(_has_run(container) for container in containers)


def _has_run(container: Object) -> bool:
    states = (container.get("state") or {}).keys() | (container.get("lastState") or {}).keys()
    return bool(container.get("restartCount") or states & {"running", "terminated"})


def _unsupported(spec: Object) -> str:
    """The first constraint that may forbid a node and that the placement does not know."""
    if uses_claims(spec):
        return "resourceClaims"
    for kind in ("podAffinity", "podAntiAffinity"):
        if _get(spec, "affinity", kind).get("requiredDuringSchedulingIgnoredDuringExecution"):
            return f"required {kind}"
    spread = spec.get("topologySpreadConstraints") or ()
    if any(item.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule" for item in spread):
        return "topologySpreadConstraints with DoNotSchedule"
    return ""


def _group(raw: Object) -> Group:
    meta, spec = raw["metadata"], raw.get("spec") or {}
    labels: dict[str, str] = meta.get("labels") or {}
    annotations: dict[str, str] = meta.get("annotations") or {}
    priority = spec.get("priority")
    return Group(
        key=f"{meta.get('namespace', '')}/{meta['name']}",
        uid=meta.get("uid", ""),
        service=labels.get(names.LABEL_SERVICE, ""),
        role=labels.get(names.LABEL_ROLE, ""),
        min_count=int(_get(spec, "schedulingPolicy", "gang").get("minCount") or 0),
        priority=None if priority is None else int(priority),
        created_s=_seconds(meta),
        pods_per_group=_positive(annotations.get(names.ANNOTATION_PODS_PER_GROUP)),
        gpus_per_pod=_positive(annotations.get(names.ANNOTATION_GPUS_PER_POD)),
    )


def _size(meta: Object) -> int:
    if names.LWS_GROUP_KEY not in (meta.get("labels") or {}):
        return 1
    return _positive((meta.get("annotations") or {}).get(names.LWS_SIZE)) or 1


def _positive(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and int(text) > 0 else None


def _index(labels: Object, name: str) -> int:
    text = labels.get(name, "")
    return int(text) if text.isdecimal() else 0


def _seconds(meta: Object) -> float:
    text = meta.get("creationTimestamp")
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _taint(raw: Object) -> Taint:
    return Taint(raw["key"], raw.get("value") or "", raw["effect"])


def _toleration(raw: Object) -> Toleration:
    return Toleration(
        raw.get("key") or "", raw.get("operator") or "Equal", raw.get("value") or "", raw.get("effect") or ""
    )


def _devices_first(item: tuple[str, int]) -> tuple[bool, str]:
    """What is scarce is looked at first."""
    return "/" not in item[0], item[0]


def _term(raw: Object) -> tuple[Requirement, ...]:
    parts = [*(raw.get("matchExpressions") or ()), *(raw.get("matchFields") or ())]
    return tuple(Requirement(part["key"], part["operator"], tuple(part.get("values") or ())) for part in parts)


def _container_requests(container: Object) -> dict[str, int]:
    resources = container.get("resources") or {}
    return _amounts((resources.get("limits") or {}) | (resources.get("requests") or {}))


def _amounts(raw: Object) -> dict[str, int]:
    return {name: quantity(str(text), name) for name, text in raw.items()}


def _plus(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one.keys() | other.keys()}


def _largest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one.keys() | other.keys()}


def _get(raw: Object, *path: str) -> Object:
    for step in path:
        raw = raw.get(step) or {}
    return raw
