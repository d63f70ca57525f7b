"""Defaults and validation: what clients rely on, and no more. Pure.

Rules:
1. A default is what the real server fills in and a client of ours reads.
2. A refusal is a 422 that names one field, what was found and what was expected.
3. A field that must not change is compared with the stored one.
"""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.refusal import Object, Refusal, invalid
from localcluster.apiserver.selectors import at

Refuse = Callable[[str, str], Refusal]

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
_MINIMUMS = {
    **{"spec.replicas": 0, "spec.terminationGracePeriodSeconds": 0, "spec.leaderWorkerTemplate.size": 1},
    **{"spec.schedulingPolicy.gang.minCount": 1, "spec.leaseDurationSeconds": 1},
}
_POD_SPECS: dict[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    **dict.fromkeys(("ReplicaSet", "Deployment"), ("spec.template.spec",)),
    "LeaderWorkerSet": tuple(f"spec.leaderWorkerTemplate.{who}Template.spec" for who in ("worker", "leader")),
}
_POD_MUTABLE = ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds")


def default(served: Served, obj: Object) -> None:
    """Fill in defaults, in place."""
    _fill(obj, _DEFAULTS.get(served.kind.kind, {}))


def _fill(obj: Object, defaults: Object) -> None:
    # Another `type` than the default's means another shape beside it.
    for key, value in defaults.items() if obj.get("type", defaults.get("type")) == defaults.get("type") else ():
        if obj.get(key) is None:
            obj[key] = deepcopy(value)
        elif isinstance(value, dict) and isinstance(obj[key], dict):
            _fill(obj[key], value)


def validate(served: Served, obj: Object, old: Object | None) -> None:
    """Refuse an object that the real server would refuse, or a change of what must not change."""
    name, kind = obj["metadata"].get("name"), served.kind.kind

    def refuse(field: str, why: str) -> Refusal:
        return invalid(served.qualified, str(name), field, why)

    if not isinstance(name, str) or len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise refuse("metadata.name", f"Invalid value: {name!r}: must be a lowercase RFC 1123 subdomain")
    for field, (fits, expected) in _SHAPES.items():
        if (value := at(obj, field)) is not None and not fits(value):
            raise refuse(field, f"Invalid value: {json.dumps(value)[:80]}: must be {expected}")
    if kind in _REQUIRED and not isinstance(at(obj, _REQUIRED[kind]), dict):
        raise refuse(_REQUIRED[kind], "Required value: must be an object")
    for field in _POD_SPECS.get(kind, ()):
        if at(obj, field) is not None or "leaderTemplate" not in field:
            _validate_containers(at(obj, field), field, refuse, needs_image=kind != "LeaderWorkerSet")
    if kind in ("Deployment", "ReplicaSet"):
        labels = at(obj, "spec.template.metadata.labels") or {}
        if not (at(obj, "spec.selector.matchLabels") or {}).items() <= labels.items():
            raise refuse("spec.template.metadata.labels", f"Invalid value: {labels}: must match spec.selector")
    if kind == "PodGroup":
        policy = obj["spec"]["schedulingPolicy"]
        if ("basic" in policy) == (at(policy, "gang.minCount") is not None):
            raise refuse("spec.schedulingPolicy.gang.minCount", "Required value: either this or `basic`")
    if old is not None and _fixed(kind, obj) != _fixed(kind, old):
        raise refuse("spec", f"Forbidden: field is immutable; only {_MUTABLE[kind]} may change")


def _validate_containers(spec: Any, field: str, refuse: Refuse, needs_image: bool) -> None:
    containers = at(spec, "containers")
    if not isinstance(containers, list) or not containers:
        raise refuse(f"{field}.containers", "Required value: must be a list of at least one container")
    for index, container in enumerate(containers):
        here, name = f"{field}.containers[{index}]", at(container, "name")
        if not isinstance(name, str) or not re.fullmatch(_LABEL, name):
            raise refuse(f"{here}.name", f"Invalid value: {name!r}: must be a lowercase RFC 1123 label")
        if needs_image and not container.get("image"):
            raise refuse(f"{here}.image", "Required value")


def _fixed(kind: str, obj: Object) -> Any:
    """The part of a spec that can never change."""
    if kind == "Pod":
        spec = {key: value for key, value in obj["spec"].items() if key not in _POD_MUTABLE}
        return spec | {"containers": [item | {"image": ""} for item in spec["containers"]]}
    if kind == "PodGroup":
        policy = {key: value for key, value in obj["spec"]["schedulingPolicy"].items() if key != "gang"}
        return obj["spec"] | {"schedulingPolicy": policy}
    return at(obj, "spec.selector") if kind in _MUTABLE else None


_MUTABLE = {
    "Pod": ", ".join(("containers[*].image", *_POD_MUTABLE)),
    "PodGroup": "schedulingPolicy.gang.minCount",
    **dict.fromkeys(("Deployment", "ReplicaSet"), "fields other than spec.selector"),
}

Shape = tuple[Callable[[Any], bool], str]


def _at_least(minimum: int) -> Shape:
    return lambda value: type(value) is int and value >= minimum, f"greater than or equal to {minimum}"


def _objects(*keys: str) -> Shape:
    def fits(value: Any) -> bool:
        items = value if isinstance(value, list) else [None]
        return all(isinstance(at(item, key), str) for item in items for key in keys)

    return fits, f"a list of objects with {', '.join(keys)}"


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


_SHAPES: dict[str, Shape] = {
    **dict.fromkeys(("metadata.labels", "metadata.annotations"), (_is_texts, "an object of strings")),
    "metadata.ownerReferences": _objects("apiVersion", "kind", "name", "uid"),
    **dict.fromkeys(("spec", "status"), ((lambda value: isinstance(value, dict)), "an object")),
    "status.conditions": _objects("type", "status"),
    "status.containerStatuses": _objects("name"),
    "status.addresses": _objects("type", "address"),
    **{field: _at_least(minimum) for field, minimum in _MINIMUMS.items()},
}
