"""Tables: what `kubectl get` prints, with the real server's columns. Pure; `now` is an argument.

A cell never raises on an object that passed validation: what is absent prints as `<none>` or 0.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from localcluster.ages import human_duration
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
    blank = None if served.custom else "<none>"
    for obj in objects:
        kept = {"None": None, "Object": obj}.get(include, partial | {"metadata": obj["metadata"]})
        values = [blank if (value := cell(obj, now)) == "<none>" else value for cell in cells]
        rows.append({"cells": values, "object": kept})
    common = {"type": "string", "format": "", "description": ""}
    names = [common | {"name": name.strip("*"), "priority": int(name.startswith("*"))} for name, _ in columns]
    next(name for name in names if name["name"] == "Name")["format"] = "name"
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": names, "rows": rows}


def _age(*fields: str) -> Cell:
    def cell(obj: Object, now: datetime) -> str:
        text = next((str(at(obj, field)) for field in fields if at(obj, field)), "")
        try:
            return human_duration((now - datetime.fromisoformat(text).astimezone(UTC)).total_seconds())
        except ValueError:
            return "<unknown>"

    return cell


def _path(field: str) -> Cell:
    if "[" in field:
        return _of_type(*re.split(r"\[|\]\.", field))
    absent: Any = 0 if field.endswith(("eplicas", "count")) else "" if field.endswith("fieldPath") else "<none>"
    return lambda obj, now: at(obj, field) or absent


def _of_type(of: str, kind: str, key: str) -> Cell:
    return lambda o, _: next((x.get(key) for x in at(o, of) or () if kind in (x.get("type"), x.get("name"))), "<none>")


def _each(field: str, form: str) -> Cell:
    return lambda obj, now: ",".join(form.format_map(item) for item in at(obj, field) or []) or "<none>"


def _node_status(obj: Object, now: datetime) -> str:
    ready = "Ready" if _of_type("status.conditions", "Ready", "status")(obj, now) == "True" else "NotReady"
    return f"{ready},SchedulingDisabled" if at(obj, "spec.unschedulable") else ready


def _statuses(pod: Object) -> list[Object]:
    return at(pod, "status.containerStatuses") or []


def _pod_status(obj: Object, now: datetime) -> str:
    waits = "SchedulingGated" if at(obj, "spec.schedulingGates") else at(obj, "status.phase")
    reason = at(obj, "status.reason") or waits
    for status in _statuses(obj):
        ended = at(status, "state.terminated") or {}
        exit_code = f"ExitCode:{ended['exitCode']}" if "exitCode" in ended else reason
        reason = at(status, "state.waiting.reason") or ended.get("reason") or exit_code
    return "Terminating" if at(obj, "metadata.deletionTimestamp") else str(reason)


def _pod_restarts(obj: Object, now: datetime) -> str:
    count = sum(int(status.get("restartCount") or 0) for status in _statuses(obj))
    ended = max((str(at(status, "lastState.terminated.finishedAt") or "") for status in _statuses(obj)), default="")
    return f"{count} ({_age('ended')({'ended': ended}, now)} ago)" if count and ended else str(count)


_gang = _of_type("status.conditions", "PodGroupInitiallyScheduled", "status")
_CELLS: dict[str, Cell] = {
    "Age": _age("metadata.creationTimestamp"),
    "node status": _node_status,
    "pod ready": lambda obj, now: (
        f"{sum(bool(s.get('ready')) for s in _statuses(obj))}/{len(obj['spec']['containers'])}"
    ),
    "pod status": _pod_status,
    "pod restarts": _pod_restarts,
    "ports": _each("spec.ports", "{port}/{protocol}"),
    "selector": lambda obj, now: selector_text(at(obj, "spec.selector") or {}) or "<none>",
    "labels": lambda obj, now: selector_text({"matchLabels": at(obj, "spec.selector")}) or "<none>",
    "first seen": _age("firstTimestamp", "eventTime", "metadata.creationTimestamp"),
    "last seen": _age("lastTimestamp", "eventTime", "metadata.creationTimestamp"),
    "target": lambda obj, now: "{kind}/{name}".format_map(obj["involvedObject"]).lower(),
    "containers": _each("spec.template.spec.containers", "{name}"),
    "images": _each("spec.template.spec.containers", "{image}"),
    "deployment ready": lambda obj, now: f"{at(obj, 'status.readyReplicas') or 0}/{at(obj, 'spec.replicas')}",
    "policy": lambda obj, now: "Gang" if at(obj, "spec.schedulingPolicy.gang") else "Basic",
    "gang status": lambda obj, now: {"True": "Scheduled", "False": "Unschedulable"}.get(_gang(obj, now), "Pending"),
}
_WIDE = ", Age, *Containers=containers, *Images=images, *Selector=selector"
_COLUMNS = {
    "Namespace": "Status=status.phase, Age",
    "Node": "Status=node status, Roles=roles, Age, Version=status.nodeInfo.kubeletVersion, "
    "*Internal-IP=status.addresses[InternalIP].address, *External-IP=status.addresses[ExternalIP].address, "
    "*OS-Image=status.nodeInfo.osImage, *Kernel-Version=status.nodeInfo.kernelVersion, "
    "*Container-Runtime=status.nodeInfo.containerRuntimeVersion",
    "Pod": "Ready=pod ready, Status=pod status, Restarts=pod restarts, Age, *IP=status.podIP, *Node=spec.nodeName, "
    "*Nominated Node=status.nominatedNodeName, *Readiness Gates=spec.readinessGates",
    "Service": "Type=spec.type, Cluster-IP=spec.clusterIP, External-IP=spec.externalName, Port(s)=ports, Age, "
    "*Selector=labels",
    "Event": "Last Seen=last seen, Type=type, Reason=reason, Object=target, *Subobject=involvedObject.fieldPath, "
    "*Source=source.component, Message=message, *First Seen=first seen, *Count=count, *Name=metadata.name",
    "Lease": "Holder=spec.holderIdentity, Age",
    "ReplicaSet": f"Desired=spec.replicas, Current=status.replicas, Ready=status.readyReplicas{_WIDE}",
    "Deployment": "Ready=deployment ready, Up-to-date=status.updatedReplicas, "
    f"Available=status.availableReplicas{_WIDE}",
    "LeaderWorkerSet": "Ready=status.readyReplicas, Desired=spec.replicas, Up-to-date=status.updatedReplicas, Age",
    "PodGroup": "Policy=policy, Workload=spec.workloadRef.workloadName, Status=gang status, Age",
    "CompositePodGroup": "Policy=policy, Workload=spec.workloadRef.workloadName, Age",
    # As autoscaler/crd.py has them; a condition is named by its type, a role by its name.
    "RoleRatioAutoscaler": "Service=spec.service, Mode=status.mode, Prefill=status.roles[prefill].groups, "
    "Decode=status.roles[decode].groups, Ratio=status.ratio, Active=status.conditions[ScalingActive].status, "
    "Why=status.lastDecision.summary, Age, *Ready=status.conditions[Ready].reason, *Budget=spec.gpuBudget, "
    "*Bottleneck=status.bottleneck, *Limited=status.conditions[ScalingLimited].reason, "
    "*Blind=status.conditions[Blind].status, *Foreign=status.conditions[ForeignWriter].status, "
    "*Step=status.lastDecision.step",
}
