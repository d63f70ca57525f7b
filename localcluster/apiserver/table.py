"""Tables: what `kubectl get` prints. Pure; `now` is an argument.

Rules:
1. The columns are those of the real server; a heading with a star is one that `-o wide` adds.
2. A cell never raises on an object that passed validation: what is absent prints as `<none>` or 0.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.refusal import Object
from localcluster.apiserver.selectors import at, selector_text

Cell = Callable[[Object, datetime], Any]


def table(served: Served, objects: list[Object], now: datetime, meta: Object, include: str) -> Object:
    """A meta.k8s.io/v1 Table. `include` is the request's includeObject: None, Metadata or Object."""
    columns = [column.partition("=")[::2] for column in _COLUMNS[served.kind.kind].split(", ")]
    cells = [_CELLS.get(source or name) or _path(source) for name, source in columns]
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    rows: list[Object] = []
    for obj in objects:
        kept = {"None": None, "Object": obj}.get(include, partial | {"metadata": obj["metadata"]})
        rows.append({"cells": [cell(obj, now) for cell in cells], "object": kept})
    definitions = [
        {"name": name.strip("*"), "type": "string", "format": "name" if name == "Name" else "", "description": ""}
        | {"priority": int(name.startswith("*"))}
        for name, _ in columns
    ]
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return head | {"columnDefinitions": definitions, "rows": rows}


def human_duration(seconds: float) -> str:
    """An age as kubectl writes it: `42s`, `3m10s`, `27m`, `5h2m`, `3d4h`, `12d`."""
    total = max(int(seconds), 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    steps = {
        120: f"{total}s",
        600: f"{minutes}m" + f"{total % 60}s" * (total % 60 > 0),
        3 * 3600: f"{minutes}m",
        8 * 3600: f"{hours}h" + f"{minutes % 60}m" * (minutes % 60 > 0),
        48 * 3600: f"{hours}h",
        8 * 86400: f"{days}d" + f"{hours % 24}h" * (hours % 24 > 0),
        730 * 86400: f"{days}d",
    }
    return next((text for limit_s, text in steps.items() if total < limit_s), f"{days // 365}y")


def _age(*fields: str) -> Cell:
    """How long ago the first time that is there was."""

    def cell(obj: Object, now: datetime) -> str:
        text = next((str(at(obj, field)) for field in fields if at(obj, field)), "")
        try:
            return human_duration((now - datetime.fromisoformat(text).astimezone(UTC)).total_seconds())
        except ValueError:
            return "<unknown>"

    return cell


def _path(field: str) -> Cell:
    absent: Any = 0 if field.endswith(("eplicas", "count")) else "<none>"
    return lambda obj, now: at(obj, field) or absent


def _condition(kind: str) -> Cell:
    def cell(obj: Object, now: datetime) -> str:
        items = at(obj, "status.conditions") or []
        return next((str(item["status"]) for item in items if item["type"] == kind), "<none>")

    return cell


def _each(field: str, form: str) -> Cell:
    """A list's items, formatted, with commas between."""
    return lambda obj, now: ",".join(form.format_map(item) for item in at(obj, field) or []) or "<none>"


def _selector(obj: Object, now: datetime) -> str:
    selector = at(obj, "spec.selector") or {}
    return selector_text({"matchLabels": selector} if obj["kind"] == "Service" else selector) or "<none>"


def _node_status(obj: Object, now: datetime) -> str:
    ready = "Ready" if _condition("Ready")(obj, now) == "True" else "NotReady"
    return f"{ready},SchedulingDisabled" if at(obj, "spec.unschedulable") else ready


def _node_roles(obj: Object, now: datetime) -> str:
    keys = [key.partition("node-role.kubernetes.io/") for key in at(obj, "metadata.labels") or {}]
    return ",".join(sorted(role for before, slash, role in keys if slash and not before)) or "<none>"


def _node_ip(obj: Object, now: datetime) -> str:
    addresses = at(obj, "status.addresses") or []
    return next((item["address"] for item in addresses if item["type"] == "InternalIP"), "<none>")


def _pod_ready(obj: Object, now: datetime) -> str:
    ready = [status for status in at(obj, "status.containerStatuses") or [] if status.get("ready")]
    return f"{len(ready)}/{len(obj['spec']['containers'])}"


def _pod_status(obj: Object, now: datetime) -> str:
    reason = at(obj, "status.reason") or at(obj, "status.phase")
    for status in at(obj, "status.containerStatuses") or []:
        ended = at(status, "state.terminated") or {}
        exit_code = f"ExitCode:{ended['exitCode']}" if "exitCode" in ended else reason
        reason = at(status, "state.waiting.reason") or ended.get("reason") or exit_code
    return "Terminating" if at(obj, "metadata.deletionTimestamp") else str(reason)


def _pod_restarts(obj: Object, now: datetime) -> str:
    statuses = at(obj, "status.containerStatuses") or []
    count = sum(int(status.get("restartCount") or 0) for status in statuses)
    ended = max((str(at(status, "lastState.terminated.finishedAt") or "") for status in statuses), default="")
    return f"{count} ({_age('ended')({'ended': ended}, now)} ago)" if count and ended else str(count)


_CELLS: dict[str, Cell] = {
    "Age": _age("metadata.creationTimestamp"),
    "node status": _node_status,
    "node roles": _node_roles,
    "node address": _node_ip,
    "pod ready": _pod_ready,
    "pod status": _pod_status,
    "pod restarts": _pod_restarts,
    "readiness gates": _each("spec.readinessGates", "{conditionType}"),
    "ports": _each("spec.ports", "{port}/TCP"),
    "selector": _selector,
    "last seen": _age("lastTimestamp", "eventTime", "metadata.creationTimestamp"),
    "target": lambda obj, now: "{kind}/{name}".format_map(obj["involvedObject"]).lower(),
    "containers": _each("spec.template.spec.containers", "{name}"),
    "images": _each("spec.template.spec.containers", "{image}"),
    "deployment ready": lambda obj, now: f"{at(obj, 'status.readyReplicas') or 0}/{at(obj, 'spec.replicas')}",
    "gang scheduled": _condition("PodGroupInitiallyScheduled"),
    "ready": _condition("Ready"),
}
_WIDE = ", *Containers=containers, *Images=images, *Selector=selector"
_COLUMNS = {
    "Namespace": "Name=metadata.name, Status=status.phase, Age",
    "Node": "Name=metadata.name, Status=node status, Roles=node roles, Age, "
    "Version=status.nodeInfo.kubeletVersion, *Internal-IP=node address, *OS-Image=status.nodeInfo.osImage, "
    "*Kernel-Version=status.nodeInfo.kernelVersion, *Container-Runtime=status.nodeInfo.containerRuntimeVersion",
    "Pod": "Name=metadata.name, Ready=pod ready, Status=pod status, Restarts=pod restarts, Age, *IP=status.podIP, "
    "*Node=spec.nodeName, *Nominated Node=status.nominatedNodeName, *Readiness Gates=readiness gates",
    "Service": "Name=metadata.name, Type=spec.type, Cluster-IP=spec.clusterIP, External-IP=spec.externalName, "
    "Port(s)=ports, Age, *Selector=selector",
    "Event": "Last Seen=last seen, Type=type, Reason=reason, Object=target, *Source=source.component, "
    "Message=message, *Count=count, *Name=metadata.name",
    "Lease": "Name=metadata.name, Holder=spec.holderIdentity, Age",
    "ReplicaSet": "Name=metadata.name, Desired=spec.replicas, Current=status.replicas, "
    f"Ready=status.readyReplicas, Age{_WIDE}",
    "Deployment": "Name=metadata.name, Ready=deployment ready, Up-to-date=status.updatedReplicas, "
    f"Available=status.availableReplicas, Age{_WIDE}",
    "LeaderWorkerSet": "Name=metadata.name, Ready=status.readyReplicas, Desired=spec.replicas, "
    "Up-to-date=status.updatedReplicas, Age",
    "PodGroup": "Name=metadata.name, Min-Count=spec.schedulingPolicy.gang.minCount, "
    "Workload=spec.workloadRef.workloadName, Scheduled=gang scheduled, Age",
    "RoleRatioAutoscaler": "Name=metadata.name, Mode=spec.mode, Ready=ready, Age",
}
