"""Tables: what `kubectl get` prints, with the real server's columns. Pure; `now` is an argument.

A cell never raises on an object that passed validation: what is absent prints as `<none>` or 0.
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
    name = "" if served.kind.kind == "Event" else "Name=metadata.name, "
    columns = [column.partition("=")[::2] for column in f"{name}{_COLUMNS[served.kind.kind]}".split(", ")]
    cells = [_CELLS.get(source or name) or _path(source) for name, source in columns]
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    rows: list[Object] = []
    for obj in objects:
        kept = {"None": None, "Object": obj}.get(include, partial | {"metadata": obj["metadata"]})
        rows.append({"cells": [cell(obj, now) for cell in cells], "object": kept})
    common = {"type": "string", "format": "", "description": ""}
    names = [common | {"name": name.strip("*"), "priority": int(name.startswith("*"))} for name, _ in columns]
    names[0]["format"] = "name" if names[0]["name"] == "Name" else ""
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": names, "rows": rows}


def human_duration(seconds: float) -> str:
    """An age as kubectl writes it: `42s`, `3m10s`, `27m`, `5h2m`, `3d4h`, `12d`."""
    total = max(int(seconds), 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    parts = [(total, "s"), (minutes, "m"), (hours, "h"), (days, "d"), (days // 365, "y")]
    # Up to this many seconds: the unit, and whether the next smaller one is shown too.
    steps = [(120, 0, 0), (600, 1, 60), (10800, 1, 0), (28800, 2, 60), (172800, 2, 0), (691200, 3, 24)]
    unit, small = next((row[1:] for row in steps if total < row[0]), (3 if days < 730 else 4, 0))
    text, rest = "{}{}".format(*parts[unit]), parts[unit - 1][0] % small if small else 0
    return f"{text}{rest}{parts[unit - 1][1]}" if rest else text


def _age(*fields: str) -> Cell:
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


def _of_type(items: str, kind: str, field: str) -> Cell:
    return lambda obj, now: next((x.get(field) for x in at(obj, items) or [] if x["type"] == kind), "<none>")


def _each(field: str, form: str) -> Cell:
    return lambda obj, now: ",".join(form.format_map(item) for item in at(obj, field) or []) or "<none>"


def _node_status(obj: Object, now: datetime) -> str:
    ready = "Ready" if _of_type("status.conditions", "Ready", "status")(obj, now) == "True" else "NotReady"
    return f"{ready},SchedulingDisabled" if at(obj, "spec.unschedulable") else ready


def _statuses(pod: Object) -> list[Object]:
    return at(pod, "status.containerStatuses") or []


def _pod_status(obj: Object, now: datetime) -> str:
    reason = at(obj, "status.reason") or at(obj, "status.phase")
    for status in _statuses(obj):
        ended = at(status, "state.terminated") or {}
        exit_code = f"ExitCode:{ended['exitCode']}" if "exitCode" in ended else reason
        reason = at(status, "state.waiting.reason") or ended.get("reason") or exit_code
    return "Terminating" if at(obj, "metadata.deletionTimestamp") else str(reason)


def _pod_restarts(obj: Object, now: datetime) -> str:
    count = sum(int(status.get("restartCount") or 0) for status in _statuses(obj))
    ended = max((str(at(status, "lastState.terminated.finishedAt") or "") for status in _statuses(obj)), default="")
    return f"{count} ({_age('ended')({'ended': ended}, now)} ago)" if count and ended else str(count)


_CELLS: dict[str, Cell] = {
    "Age": _age("metadata.creationTimestamp"),
    "node status": _node_status,
    "node address": _of_type("status.addresses", "InternalIP", "address"),
    "pod ready": lambda obj, now: (
        f"{sum(bool(s.get('ready')) for s in _statuses(obj))}/{len(obj['spec']['containers'])}"
    ),
    "pod status": _pod_status,
    "pod restarts": _pod_restarts,
    "ports": _each("spec.ports", "{port}/{protocol}"),
    "selector": lambda obj, now: selector_text(at(obj, "spec.selector") or {}) or "<none>",
    "labels": lambda obj, now: selector_text({"matchLabels": at(obj, "spec.selector")}) or "<none>",
    "last seen": _age("lastTimestamp", "eventTime", "metadata.creationTimestamp"),
    "target": lambda obj, now: "{kind}/{name}".format_map(obj["involvedObject"]).lower(),
    "containers": _each("spec.template.spec.containers", "{name}"),
    "images": _each("spec.template.spec.containers", "{image}"),
    "deployment ready": lambda obj, now: f"{at(obj, 'status.readyReplicas') or 0}/{at(obj, 'spec.replicas')}",
    "gang scheduled": _of_type("status.conditions", "PodGroupInitiallyScheduled", "status"),
    "ready": _of_type("status.conditions", "Ready", "status"),
}
_WIDE = ", Age, *Containers=containers, *Images=images, *Selector=selector"
_COLUMNS = {
    "Namespace": "Status=status.phase, Age",
    "Node": "Status=node status, Roles=roles, Age, Version=status.nodeInfo.kubeletVersion, "
    "*Internal-IP=node address, *OS-Image=status.nodeInfo.osImage, *Kernel-Version=status.nodeInfo.kernelVersion, "
    "*Container-Runtime=status.nodeInfo.containerRuntimeVersion",
    "Pod": "Ready=pod ready, Status=pod status, Restarts=pod restarts, Age, *IP=status.podIP, *Node=spec.nodeName, "
    "*Nominated Node=status.nominatedNodeName, *Readiness Gates=spec.readinessGates",
    "Service": "Type=spec.type, Cluster-IP=spec.clusterIP, External-IP=spec.externalName, Port(s)=ports, Age, "
    "*Selector=labels",
    "Event": "Last Seen=last seen, Type=type, Reason=reason, Object=target, *Source=source.component, "
    "Message=message, *Count=count, *Name=metadata.name",
    "Lease": "Holder=spec.holderIdentity, Age",
    "ReplicaSet": f"Desired=spec.replicas, Current=status.replicas, Ready=status.readyReplicas{_WIDE}",
    "Deployment": "Ready=deployment ready, Up-to-date=status.updatedReplicas, "
    f"Available=status.availableReplicas{_WIDE}",
    "LeaderWorkerSet": "Ready=status.readyReplicas, Desired=spec.replicas, Up-to-date=status.updatedReplicas, Age",
    "PodGroup": "Min-Count=spec.schedulingPolicy.gang.minCount, Workload=spec.workloadRef.workloadName, "
    "Scheduled=gang scheduled, Age",
    "RoleRatioAutoscaler": "Mode=spec.mode, Ready=ready, Age",
}
