"""Defaults and validation: what clients rely on, and no more. Pure.

A shape is a number (an integer of at least that), a text (a string that matches it), a list with the shape of its
items, or an object of fields; `!` marks what must be there and not empty, `*` stands for every field.
"""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.refusal import Object, Refusal, invalid
from localcluster.apiserver.selectors import at

_POD_DEFAULTS = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"}
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
_LWS_ROLLING = {"type": "RollingUpdate", "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 0}}
_LWS_TEMPLATE = {"size": 1, "restartPolicy": "RecreateGroupOnPodRestart"}
_REPLICASET = {"replicas": 1, "template": {"spec": _POD_DEFAULTS}}
_DEPLOYMENT = {"strategy": _ROLLING, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600} | _REPLICASET
_LWS = {"replicas": 1, "startupPolicy": "LeaderCreated", "rolloutStrategy": _LWS_ROLLING}
_DEFAULTS: dict[str, Object] = {
    "Namespace": {"status": {"phase": "Active"}},
    "Pod": {"spec": _POD_DEFAULTS, "status": {"phase": "Pending"}},
    "ReplicaSet": {"spec": _REPLICASET},
    "Deployment": {"spec": _DEPLOYMENT},
    "LeaderWorkerSet": {"spec": _LWS | {"leaderWorkerTemplate": _LWS_TEMPLATE}},
    # Nothing forwards virtual addresses here: a Service without one says so.
    "Service": {"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "None"}},
}

_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_TEXTS = {"*": r"(?s).*"}
_CONTAINER = {"name!": _LABEL, "image": ".*", "ports": [{}], "env": [{}]}
_POD: Object = {"containers!": [_CONTAINER | {"image!": ".+"}], "terminationGracePeriodSeconds": 0}
_TEMPLATE = {"metadata": {"labels": _TEXTS}, "spec!": _POD}
_WORKLOAD = {"replicas": 0, "selector!": {"matchLabels": _TEXTS}, "template!": _TEMPLATE}
_RANKS: Object = {"spec!": {"containers!": [_CONTAINER]}}
_GROUP = {"size": 1, "workerTemplate!": _RANKS, "leaderTemplate": _RANKS}
_SPECS: dict[str, Object] = {
    "Pod": _POD,
    "ReplicaSet": _WORKLOAD,
    "Deployment": _WORKLOAD,
    "LeaderWorkerSet": {"replicas": 0, "leaderWorkerTemplate!": _GROUP},
    "PodGroup": {"schedulingPolicy!": {"gang": {"minCount!": 1}}},
    "Lease": {"leaseDurationSeconds": 1},
    "RoleRatioAutoscaler": {},
}
_OWNER = dict.fromkeys(("apiVersion!", "kind!", "name!", "uid!"), ".+")
_NAMES = {"name!": rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", "labels": _TEXTS, "annotations": _TEXTS}
_METADATA = _NAMES | {"ownerReferences": [_OWNER], "finalizers": [".+"]}
_STATUS = {
    "conditions": [{"type!": ".+", "status!": ".+"}],
    "containerStatuses": [{"name!": ".+"}],
    "addresses": [{"type!": ".+", "address!": ".+"}],
}
_LABELS = "spec.template.metadata.labels"
_POD_MUTABLE = ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds")
_MUTABLE = {
    "Pod": ", ".join(("containers[*].image", *_POD_MUTABLE)),
    "PodGroup": "schedulingPolicy.gang.minCount",
    **dict.fromkeys(("Deployment", "ReplicaSet"), "fields other than spec.selector"),
}


def default(served: Served, obj: Object) -> None:
    _fill(obj, _DEFAULTS.get(served.kind.kind, {}))
    specs = [at(obj, path) for path in ("spec", "spec.template.spec")]
    containers = [item for spec in specs for item in _objects(at(spec, "containers"))]
    for port in [port for owner in [specs[0], *containers] for port in _objects(at(owner, "ports"))]:
        port.setdefault("protocol", "TCP")


def _objects(value: Any) -> list[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _fill(obj: Object, defaults: Object) -> None:
    # Another `type` than the default's means another shape beside it.
    for key, value in defaults.items() if obj.get("type", defaults.get("type")) == defaults.get("type") else ():
        if obj.get(key) is None:
            obj[key] = deepcopy(value)
        elif isinstance(value, dict) and isinstance(obj[key], dict):
            _fill(obj[key], value)


def validate(served: Served, obj: Object, old: Object | None) -> None:
    """Refuse an object that the real server would refuse, or a change of what must not change."""
    kind = served.kind.kind
    refuse = partial(invalid, kind, str(at(obj, "metadata.name")))
    spec = {"spec!": _SPECS[kind]} if kind in _SPECS else {"spec": {}}
    about = {"involvedObject!": {"kind": ".+"}} if kind == "Event" else {}
    _check({"metadata!": _METADATA, "status": _STATUS} | spec | about, obj, "", refuse)
    wanted = (at(obj, "spec.selector.matchLabels") or {}).items()
    if kind in ("Deployment", "ReplicaSet") and not wanted <= (at(obj, _LABELS) or {}).items():
        raise refuse(_LABELS, "Invalid value: must match spec.selector")
    if kind == "PodGroup" and len(obj["spec"]["schedulingPolicy"].keys() & {"basic", "gang"}) != 1:
        raise refuse("spec.schedulingPolicy", "Invalid value: must have either `basic` or `gang`")
    if old is not None and _fixed(kind, obj) != _fixed(kind, old):
        raise refuse("spec", f"Forbidden: field is immutable; only {_MUTABLE[kind]} may change")


def _check(shape: Any, value: Any, path: str, refuse: Callable[[str, str], Refusal]) -> None:
    expected, fits = "a list" if isinstance(shape, list) else "an object", isinstance(value, type(shape))
    if isinstance(shape, int):
        expected, fits = f"greater than or equal to {shape}", type(value) is int and value >= shape
    elif isinstance(shape, str):
        expected, fits = f"a string like {shape}", isinstance(value, str) and re.fullmatch(shape, value) is not None
    if not fits:
        raise refuse(path, f"Invalid value: {json.dumps(value)[:80]}: must be {expected}")
    for index, item in enumerate(value) if isinstance(shape, list) else ():
        _check(shape[0], item, f"{path}[{index}]", refuse)
    for key, inner in shape.items() if isinstance(shape, dict) else ():
        for name in value if key == "*" else [key.rstrip("!")]:
            if value.get(name) not in (None, []):
                _check(inner, value[name], f"{path}.{name}".lstrip("."), refuse)
            elif key.endswith("!"):
                raise refuse(f"{path}.{name}".lstrip("."), "Required value")


def _fixed(kind: str, obj: Object) -> Any:
    """The part of a spec that can never change."""
    if kind == "Pod":
        spec = {key: value for key, value in obj["spec"].items() if key not in _POD_MUTABLE}
        return spec | {"containers": [item | {"image": ""} for item in spec["containers"]]}
    if kind == "PodGroup":
        return obj["spec"] | {"schedulingPolicy": sorted(obj["spec"]["schedulingPolicy"])}
    return at(obj, "spec.selector") if kind in _MUTABLE else None
