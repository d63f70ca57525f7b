"""What the scheduler reads of an object: the rest (commands, environment, volumes, images, managed fields) is dropped.

Rule: pure; whatever snapshot.py and report.py read is kept as the server sent it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]

_META = (
    "namespace",
    "name",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
)
_POD_SPEC = (
    "nodeName",
    "schedulerName",
    "schedulingGroup",
    "schedulingGates",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "resourceClaims",
    "overhead",
    "priority",
    "restartPolicy",
)
_CONTAINER = ("resources", "restartPolicy")
_CONTAINERS = ("containers", "initContainers")
_STATUSES = ("containerStatuses", "initContainerStatuses")
_STATUS = ("restartCount", "state", "lastState")


def slim_pod(raw: Object) -> Object:
    """A pod without what nobody here reads."""
    spec, status = raw["spec"], raw.get("status") or {}
    meta = _some(raw["metadata"], _META)
    owners = [owner for owner in raw["metadata"].get("ownerReferences") or () if owner.get("controller")]
    kept = _some(spec, _POD_SPEC) | _lists(spec, _CONTAINERS, _CONTAINER)
    said = _some(status, ("phase", "reason", "message", "nominatedNodeName")) | _lists(status, _STATUSES, _STATUS)
    said["conditions"] = [one for one in status.get("conditions") or () if one["type"] == "PodScheduled"]
    return _head(raw) | {"metadata": meta | {"ownerReferences": owners}, "spec": kept, "status": said}


def slim_node(raw: Object) -> Object:
    """A node without what nobody here reads."""
    status = raw.get("status") or {}
    ready = [one for one in status.get("conditions") or () if one["type"] == "Ready"]
    kept = {"allocatable": status.get("allocatable") or {}, "conditions": ready}
    spec = _some(raw.get("spec") or {}, ("taints", "unschedulable"))
    return _head(raw) | {"metadata": _some(raw["metadata"], _META), "spec": spec, "status": kept}


def _head(raw: Object) -> Object:
    return _some(raw, ("apiVersion", "kind"))


def _some(raw: Object, keys: Iterable[str]) -> Object:
    return {key: raw[key] for key in keys if key in raw}


def _lists(raw: Object, lists: Iterable[str], keys: Iterable[str]) -> Object:
    return {name: [_some(item, keys) for item in raw[name]] for name in lists if raw.get(name)}
