"""Defaults and validation: what clients rely on, and no more. Pure.

Rules:
1. A default is what the real server fills in and a client of ours reads.
2. A refusal is a 422 that names one field, what was found and what was expected.
3. A field that must not change is compared with the stored one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.refusal import Refusal, invalid
from localcluster.apiserver.selectors import at

Object = dict[str, Any]

_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")

_POD_SPEC = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"}
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
_LWS_ROLLING = {"type": "RollingUpdate", "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 0}}
_LWS_TEMPLATE = {"size": 1, "restartPolicy": "RecreateGroupOnPodRestart"}
_REPLICASET = {"replicas": 1, "template": {"spec": _POD_SPEC}}
_DEPLOYMENT = {"strategy": _ROLLING, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600} | _REPLICASET
_LWS = {"replicas": 1, "startupPolicy": "LeaderCreated", "rolloutStrategy": _LWS_ROLLING}
_DEFAULTS: dict[str, Object] = {
    "Namespace": {"status": {"phase": "Active"}},
    "Pod": {"spec": _POD_SPEC, "status": {"phase": "Pending"}},
    "ReplicaSet": {"spec": _REPLICASET},
    "Deployment": {"spec": _DEPLOYMENT},
    "LeaderWorkerSet": {"spec": _LWS | {"leaderWorkerTemplate": _LWS_TEMPLATE}},
    # Nothing forwards virtual addresses here: a Service without one says so.
    "Service": {"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "None"}},
}

_REQUIRED = {
    **{"Deployment": "spec.selector", "ReplicaSet": "spec.selector", "PodGroup": "spec.schedulingPolicy"},
    **{"RoleRatioAutoscaler": "spec", "Event": "involvedObject"},
}
_MINIMUMS: dict[str, dict[str, int]] = {
    "Pod": {"spec.terminationGracePeriodSeconds": 0},
    "ReplicaSet": {"spec.replicas": 0},
    "Deployment": {"spec.replicas": 0},
    "LeaderWorkerSet": {"spec.replicas": 0, "spec.leaderWorkerTemplate.size": 1},
    "PodGroup": {"spec.schedulingPolicy.gang.minCount": 1},
    "Lease": {"spec.leaseDurationSeconds": 1},
}
_POD_SPECS: dict[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "ReplicaSet": ("spec.template.spec",),
    "Deployment": ("spec.template.spec",),
    "LeaderWorkerSet": tuple(f"spec.leaderWorkerTemplate.{who}Template.spec" for who in ("worker", "leader")),
}


def default(served: Served, obj: Object) -> None:
    """Fill in defaults, in place."""
    _fill(obj, _DEFAULTS.get(served.kind.kind, {}))


def _fill(obj: Object, defaults: Object) -> None:
    # Another `type` than the default's means another shape beside it.
    if obj.get("type", defaults.get("type")) != defaults.get("type"):
        return
    for key, value in defaults.items():
        if obj.get(key) is None:
            obj[key] = deepcopy(value)
        elif isinstance(value, dict) and isinstance(obj[key], dict):
            _fill(obj[key], value)


def validate(served: Served, obj: Object, old: Object | None) -> None:
    """Refuse an object that the real server would refuse, or a change of what must not change."""
    name = obj["metadata"].get("name")
    kind = served.kind.kind

    def refuse(field: str, why: str) -> Refusal:
        return invalid(served.qualified, str(name), field, why)

    if not isinstance(name, str) or len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise refuse("metadata.name", f"Invalid value: {name!r}: must be a lowercase RFC 1123 subdomain")
    for field, test, expected in _SHAPES:
        if (value := at(obj, field)) is not None and not test(value):
            raise refuse(field, f"Invalid value: {json.dumps(value)[:80]}: must be {expected}")
    if kind in _REQUIRED and not isinstance(at(obj, _REQUIRED[kind]), dict):
        raise refuse(_REQUIRED[kind], "Required value: must be an object")
    for field, minimum in _MINIMUMS.get(kind, {}).items():
        value = at(obj, field)
        if value is not None and (type(value) is not int or value < minimum):
            why = f"Invalid value: {json.dumps(value)[:80]}: must be an integer greater than or equal to {minimum}"
            raise refuse(field, why)
    for field in _POD_SPECS.get(kind, ()):
        if at(obj, field) is not None or "leaderTemplate" not in field:
            _validate_containers(at(obj, field), field, refuse, needs_image=kind != "LeaderWorkerSet")
    _validate_links(kind, obj, refuse)
    if old is not None and kind in _FIXED and _FIXED[kind](obj["spec"]) != _FIXED[kind](old["spec"]):
        raise refuse("spec", f"Forbidden: field is immutable; only {_MUTABLE[kind]} may change")


def _validate_containers(spec: Any, field: str, refuse: Callable[[str, str], Refusal], needs_image: bool) -> None:
    containers = at(spec, "containers")
    if not isinstance(containers, list) or not containers:
        raise refuse(f"{field}.containers", "Required value: must be a list of at least one container")
    for index, container in enumerate(containers):
        here, name = f"{field}.containers[{index}]", at(container, "name")
        if not isinstance(name, str) or not re.fullmatch(_LABEL, name):
            raise refuse(f"{here}.name", f"Invalid value: {name!r}: must be a lowercase RFC 1123 label")
        if needs_image and not container.get("image"):
            raise refuse(f"{here}.image", "Required value")


def _validate_links(kind: str, obj: Object, refuse: Callable[[str, str], Refusal]) -> None:
    """Rules between fields."""
    if kind in ("Deployment", "ReplicaSet"):
        labels = at(obj, "spec.template.metadata.labels") or {}
        wanted = at(obj, "spec.selector.matchLabels") or {}
        if any(labels.get(key) != value for key, value in wanted.items()):
            field = "spec.template.metadata.labels"
            raise refuse(field, "Invalid value: `selector` does not match template `labels`")
    if kind == "PodGroup":
        policy = obj["spec"]["schedulingPolicy"]
        if len(policy.keys() & {"basic", "gang"}) != 1:
            raise refuse("spec.schedulingPolicy", "Invalid value: exactly one of `basic`, `gang` is required")
        if "gang" in policy and at(policy, "gang.minCount") is None:
            raise refuse("spec.schedulingPolicy.gang.minCount", "Required value")


def _fixed_of_pod(spec: Object) -> Object:
    mutable = ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds")
    fixed = {key: value for key, value in spec.items() if key not in mutable}
    return fixed | {"containers": [item | {"image": ""} for item in spec["containers"]]}


def _fixed_of_podgroup(spec: Object) -> Object:
    policy = spec["schedulingPolicy"]
    return spec | {"schedulingPolicy": {key: policy[key] for key in policy if key != "gang"}}


_FIXED: dict[str, Callable[[Object], Any]] = {
    "Pod": _fixed_of_pod,
    "PodGroup": _fixed_of_podgroup,
    "Deployment": lambda spec: spec["selector"],
    "ReplicaSet": lambda spec: spec["selector"],
}
_MUTABLE = {
    "Pod": "containers[*].image, tolerations, activeDeadlineSeconds and terminationGracePeriodSeconds",
    "PodGroup": "schedulingPolicy.gang.minCount",
    **dict.fromkeys(("Deployment", "ReplicaSet"), "fields other than spec.selector"),
}


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


_SHAPES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("metadata.labels", _texts, "an object of strings"),
    ("metadata.annotations", _texts, "an object of strings"),
    ("metadata.finalizers", lambda value: isinstance(value, list), "a list"),
    ("metadata.ownerReferences", lambda value: _objects(value) and all(map(_is_owner, value)), "owners with uid"),
    ("spec", lambda value: isinstance(value, dict), "an object"),
    ("status", lambda value: isinstance(value, dict), "an object"),
    ("status.conditions", _objects, "a list of objects"),
    ("status.containerStatuses", _objects, "a list of objects"),
    ("status.addresses", _objects, "a list of objects"),
)


def _is_owner(owner: Object) -> bool:
    return all(isinstance(owner.get(key), str) for key in ("apiVersion", "kind", "name", "uid"))
