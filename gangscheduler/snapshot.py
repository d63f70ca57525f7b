"""Raw Kubernetes objects to a Snapshot.

Rules:
1. Nothing is decided here; objects are only read.
2. What cannot be read is never room: a bad quantity of a node is left out, one of a pod keeps the pod waiting.
3. Finished pods hold nothing; terminating ones hold their resources until they are gone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal, Overflow
from functools import lru_cache
from typing import Any

from gangscheduler.layout import checked
from gangscheduler.model import (
    LEVELS,
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

PODS = "pods"
DEFAULT_MAX_PODS = 110
# Sums of what a few nodes have must stay exact in 64 bits.
MOST = Decimal(2**62)
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
    groups: Iterable[Object],
    *,
    scheduler_name: str = names.SCHEDULER_NAME,
    levels: tuple[str, ...] = LEVELS,
) -> Snapshot:
    """The snapshot of these objects, in an order that does not depend on theirs. Linear, plus the sorting.

    `groups` are PodGroups and CompositePodGroups; `levels` the topology levels as node labels, outermost first.
    """
    pods = list(pods)
    unfinished = (pod for pod in pods if not is_finished(pod))
    done = Counter(group_of(pod) for pod in pods if pod.get("status", {}).get("phase") == "Succeeded")
    read = (read_group(raw) for raw in groups)
    snapshot = Snapshot(
        now_s,
        tuple(sorted((read_node(raw, levels) for raw in nodes), key=lambda node: node.name)),
        tuple(sorted((read_pod(raw, scheduler_name) for raw in unfinished), key=lambda pod: pod.key)),
        tuple(sorted((replace(one, fulfilled=done[one.key]) for one in read), key=lambda group: group.key)),
        levels,
    )
    return checked(snapshot)


@lru_cache(maxsize=4096)
def quantity(text: str, resource: str) -> int:
    """A Kubernetes quantity as an integer, rounded up: milli for cpu, else whole units. Raises BadQuantity."""
    found = _QUANTITY.fullmatch(text)
    if found is None or found["suffix"] not in _SUFFIXES:
        raise BadQuantity(f"{resource}={text!r}: expected a Kubernetes quantity such as 2, 500m or 1Gi")
    try:
        value = Decimal(found["number"]) * _SUFFIXES[found["suffix"]]
        scaled = value * 1000 if resource == "cpu" else value
    except Overflow:
        scaled = 2 * MOST
    if not 0 <= scaled <= MOST:
        raise BadQuantity(f"{resource}={text!r}: expected a quantity from 0 to 4e18")
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


def is_finished(pod: Object) -> bool:
    """Whether it holds nothing any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def refused_by(pod: Object, scheduler_name: str) -> str:
    """The node that let this pod of ours fail before any of its containers ran, else the empty string.

    A kubelet's admission does that: OutOfcpu, UnexpectedAdmissionError, NodeAffinity, and reasons to come. A pod whose
    own deadline passed was not refused.
    """
    spec, status = pod["spec"], pod.get("status") or {}
    ours = spec.get("schedulerName") == scheduler_name and status.get("phase") == "Failed"
    if not ours or status.get("reason") == "DeadlineExceeded" or _has_started(status):
        return ""
    return spec.get("nodeName") or ""


def group_of(pod: Object) -> str:
    """The key of the PodGroup that the pod names, the empty string without one."""
    group = _get(pod["spec"], "schedulingGroup").get("podGroupName")
    return f"{pod['metadata'].get('namespace', '')}/{group}" if group else ""


def family_of(pod: Object) -> str:
    """What makes such a pod again after it was refused: its LWS, else its PodGroup, its controller, or itself.

    An LWS may give a replaced TP group a PodGroup of another name.
    """
    meta = pod["metadata"]
    namespace = meta.get("namespace", "")
    if lws := (meta.get("labels") or {}).get(names.LWS_NAME):
        return f"{namespace}/lws/{lws}"
    if group := group_of(pod):
        return group
    owner = next((owner for owner in meta.get("ownerReferences") or () if owner.get("controller")), None)
    return f"{namespace}/{meta['name']}" if owner is None else str(owner["uid"])


def read_node(raw: Object, levels: tuple[str, ...] = LEVELS) -> Node:
    """A node, with its place at each level; its own name is the innermost."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    labels: dict[str, str] = meta.get("labels") or {}
    taints = tuple(_taint(taint) for taint in spec.get("taints") or ())
    conditions = {item["type"]: item.get("status") for item in status.get("conditions") or ()}
    leaving = "deletionTimestamp" in meta or any(taint.key == CORDON_TAINT for taint in taints)
    place = tuple(labels.get(level, "") for level in levels if level != names.HOSTNAME)
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


def read_pod(raw: Object, scheduler_name: str) -> Pod:
    """A pod that is not finished."""
    meta, spec = raw["metadata"], raw["spec"]
    labels: dict[str, str] = meta.get("labels") or {}
    namespace = meta.get("namespace", "")
    key = f"{namespace}/{meta['name']}"
    group = group_of(raw)
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
        group=group,
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
    owned = any(owner.get("controller") for owner in meta.get("ownerReferences") or ())
    return owned and status.get("phase") == "Pending" and not _has_started(status)


def _has_started(status: Object) -> bool:
    containers = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return any(_has_run(container) for container in containers)


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


def group_key(raw: Object) -> str:
    """The key of a PodGroup, namespace/name, or of a CompositePodGroup, which may have the same name."""
    kind = "composite/" if _is_composite(raw) else ""
    return f"{raw['metadata'].get('namespace', '')}/{kind}{raw['metadata']['name']}"


def read_group(raw: Object) -> Group:
    """A PodGroup or a CompositePodGroup."""
    meta, spec = raw["metadata"], raw.get("spec") or {}
    labels: dict[str, str] = meta.get("labels") or {}
    annotations: dict[str, str] = meta.get("annotations") or {}
    composite, priority = _is_composite(raw), spec.get("priority")
    parent = spec.get("parentCompositePodGroupName")
    topology: Object = next(iter(_get(spec, "schedulingConstraints").get("topology") or ()), {})
    gang = _get(spec, "schedulingPolicy", "gang")
    return Group(
        key=group_key(raw),
        uid=meta.get("uid", ""),
        service=labels.get(names.LABEL_SERVICE, ""),
        role=labels.get(names.LABEL_ROLE, ""),
        min_count=int(gang.get("minGroupCount" if composite else "minCount") or 0),
        priority=None if priority is None else int(priority),
        created_s=_seconds(meta),
        pods_per_group=_positive(annotations.get(names.ANNOTATION_PODS_PER_GROUP)),
        gpus_per_pod=_positive(annotations.get(names.ANNOTATION_GPUS_PER_POD)),
        composite=composite,
        parent=f"{meta.get('namespace', '')}/composite/{parent}" if parent else "",
        required_level=topology.get("key", ""),
        preferred_level=annotations.get(names.ANNOTATION_PREFERRED_TOPOLOGY, ""),
        each_required_level=annotations.get(names.ANNOTATION_GROUP_TOPOLOGY, ""),
        each_preferred_level=annotations.get(names.ANNOTATION_GROUP_PREFERRED_TOPOLOGY, ""),
    )


def _is_composite(raw: Object) -> bool:
    return raw.get("kind") == "CompositePodGroup"


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
