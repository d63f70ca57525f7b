"""Tables: what `kubectl get` prints. Pure; `now` is an argument.

Rules:
1. The columns are those of the real server; a heading with a star is one that `-o wide` adds.
2. A cell never raises on an object that passed validation: what is absent prints as `<none>` or 0.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.selectors import at, selector_text

Object = dict[str, Any]
Cell = Callable[[Object, datetime], Any]


def table(served: Served, objects: list[Object], now: datetime, meta: Object, include: str) -> Object:
    """A meta.k8s.io/v1 Table. `include` is the request's includeObject: None, Metadata or Object."""
    columns = _COLUMNS[served.kind.kind]
    if served.kind.kind != "Event":
        columns = [("Name", "metadata.name"), *columns]
    cells = [_path(source) if isinstance(source, str) else source for _, source in columns]
    definitions = [
        {"name": name.strip("*"), "type": "string", "format": "name" * (name == "Name"), "description": ""}
        | {"priority": int(name.startswith("*"))}
        for name, _ in columns
    ]
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    rows: list[Object] = []
    for obj in objects:
        kept = {"None": None, "Object": obj}.get(include, partial | {"metadata": obj["metadata"]})
        rows.append({"cells": [cell(obj, now) for cell in cells], "object": kept})
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return head | {"columnDefinitions": definitions, "rows": rows}


def human_duration(seconds: float) -> str:
    """An age as kubectl writes it: `42s`, `3m10s`, `27m`, `5h2m`, `3d4h`, `12d`."""
    total = max(int(seconds), 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    steps = [
        (total < 120, f"{total}s"),
        (minutes < 10, f"{minutes}m" + f"{total % 60}s" * (total % 60 > 0)),
        (hours < 3, f"{minutes}m"),
        (hours < 8, f"{hours}h" + f"{minutes % 60}m" * (minutes % 60 > 0)),
        (hours < 48, f"{hours}h"),
        (days < 8, f"{days}d" + f"{hours % 24}h" * (hours % 24 > 0)),
        (days < 730, f"{days}d"),
        (True, f"{days // 365}y"),
    ]
    return next(text for fits, text in steps if fits)


def _since(text: Any, now: datetime) -> str:
    try:
        return human_duration((now - datetime.fromisoformat(str(text)).astimezone(UTC)).total_seconds())
    except ValueError:
        return "<unknown>"


def _age(*fields: str) -> Cell:
    """How long ago the first time that is there was."""
    return lambda obj, now: _since(next((at(obj, field) for field in fields if at(obj, field)), None), now)


def _path(field: str) -> Cell:
    absent: Any = 0 if field.endswith(("eplicas", "count")) else "<none>"
    return lambda obj, now: at(obj, field) or absent


def _condition(obj: Object, kind: str) -> str:
    items = at(obj, "status.conditions") or []
    return next((str(item.get("status")) for item in items if item.get("type") == kind), "<none>")


def _joined(items: Any, form: str) -> str:
    return ",".join(form.format_map(_Absent(item)) for item in items or []) or "<none>"


class _Absent(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ""


def _node_status(obj: Object, now: datetime) -> str:
    ready = "Ready" if _condition(obj, "Ready") == "True" else "NotReady"
    return f"{ready},SchedulingDisabled" if at(obj, "spec.unschedulable") else ready


def _node_roles(obj: Object, now: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = at(obj, "metadata.labels") or {}
    return ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or "<none>"


def _node_address(kind: str) -> Cell:
    def cell(obj: Object, now: datetime) -> str:
        return _joined([item for item in at(obj, "status.addresses") or [] if item.get("type") == kind], "{address}")

    return cell


def _pod_ready(obj: Object, now: datetime) -> str:
    ready = [status for status in at(obj, "status.containerStatuses") or [] if status.get("ready")]
    return f"{len(ready)}/{len(obj['spec']['containers'])}"


def _pod_status(obj: Object, now: datetime) -> str:
    reason = at(obj, "status.reason") or at(obj, "status.phase") or "Unknown"
    for status in at(obj, "status.containerStatuses") or []:
        ended = at(status, "state.terminated")
        if waiting := at(status, "state.waiting.reason"):
            reason = waiting
        elif isinstance(ended, dict):
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
    return "Terminating" if at(obj, "metadata.deletionTimestamp") else str(reason)


def _pod_restarts(obj: Object, now: datetime) -> str:
    statuses = at(obj, "status.containerStatuses") or []
    count = sum(int(status.get("restartCount") or 0) for status in statuses)
    last = max((str(at(status, "lastState.terminated.finishedAt") or "") for status in statuses), default="")
    return f"{count} ({_since(last, now)} ago)" if count and last else str(count)


def _deployment_ready(obj: Object, now: datetime) -> str:
    return f"{at(obj, 'status.readyReplicas') or 0}/{at(obj, 'spec.replicas') or 0}"


def _gang(obj: Object, now: datetime) -> str:
    minimum = at(obj, "spec.schedulingPolicy.gang.minCount")
    return "Basic" if minimum is None else f"Gang(minCount={minimum})"


_AGE: tuple[str, str | Cell] = ("Age", _age("metadata.creationTimestamp"))
_TEMPLATE: list[tuple[str, str | Cell]] = [
    ("*Containers", lambda obj, now: _joined(at(obj, "spec.template.spec.containers"), "{name}")),
    ("*Images", lambda obj, now: _joined(at(obj, "spec.template.spec.containers"), "{image}")),
    ("*Selector", lambda obj, now: selector_text(at(obj, "spec.selector") or {})),
]
_COLUMNS: dict[str, list[tuple[str, str | Cell]]] = {
    "Namespace": [("Status", "status.phase"), _AGE],
    "Node": [
        *(("Status", _node_status), ("Roles", _node_roles), _AGE, ("Version", "status.nodeInfo.kubeletVersion")),
        *(("*Internal-IP", _node_address("InternalIP")), ("*External-IP", _node_address("ExternalIP"))),
        *(("*OS-Image", "status.nodeInfo.osImage"), ("*Kernel-Version", "status.nodeInfo.kernelVersion")),
        ("*Container-Runtime", "status.nodeInfo.containerRuntimeVersion"),
    ],
    "Pod": [
        *(("Ready", _pod_ready), ("Status", _pod_status), ("Restarts", _pod_restarts), _AGE),
        *(("*IP", "status.podIP"), ("*Node", "spec.nodeName"), ("*Nominated Node", "status.nominatedNodeName")),
        ("*Readiness Gates", lambda obj, now: _joined(at(obj, "spec.readinessGates"), "{conditionType}")),
    ],
    "Service": [
        *(("Type", "spec.type"), ("Cluster-IP", "spec.clusterIP"), ("External-IP", "spec.externalName")),
        *(("Port(s)", lambda obj, now: _joined(at(obj, "spec.ports"), "{port}/TCP")), _AGE),
        ("*Selector", lambda obj, now: selector_text({"matchLabels": at(obj, "spec.selector")}) or "<none>"),
    ],
    "Event": [
        ("Last Seen", _age("series.lastObservedTime", "lastTimestamp", "eventTime", "metadata.creationTimestamp")),
        *(("Type", "type"), ("Reason", "reason")),
        ("Object", lambda obj, now: _joined([obj["involvedObject"]], "{kind}/{name}").lower()),
        *(("*Subobject", "involvedObject.fieldPath"), ("*Source", "source.component"), ("Message", "message")),
        ("*First Seen", _age("firstTimestamp", "eventTime", "metadata.creationTimestamp")),
        *(("*Count", "count"), ("*Name", "metadata.name")),
    ],
    "Lease": [("Holder", "spec.holderIdentity"), _AGE],
    "ReplicaSet": [
        *(("Desired", "spec.replicas"), ("Current", "status.replicas"), ("Ready", "status.readyReplicas")),
        *(_AGE, *_TEMPLATE),
    ],
    "Deployment": [
        *(("Ready", _deployment_ready), ("Up-to-date", "status.updatedReplicas")),
        *(("Available", "status.availableReplicas"), _AGE, *_TEMPLATE),
    ],
    "LeaderWorkerSet": [
        *(("Ready", "status.readyReplicas"), ("Desired", "spec.replicas")),
        *(("Up-to-date", "status.updatedReplicas"), _AGE),
    ],
    "PodGroup": [
        *(("Policy", _gang), ("Workload", "spec.workloadRef.workloadName")),
        *(("Scheduled", lambda obj, now: _condition(obj, "PodGroupInitiallyScheduled")), _AGE),
    ],
    "RoleRatioAutoscaler": [("Mode", "spec.mode"), ("Ready", lambda obj, now: _condition(obj, "Ready")), _AGE],
}
