"""Defaults and validation: what clients rely on, and no more. Pure.

A shape is a number (an integer of at least that), a text (a string that matches it), a pattern (a number may match it
too), a list with the shape of its items, or an object; `!` marks what must be there and not empty, `*` any field.
"""

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from kubeapi.kinds import Kind
from localcluster import gangs
from localcluster.apiserver.kinds import Served
from localcluster.apiserver.refusal import Object, Refusal, invalid
from localcluster.apiserver.selectors import at

Models = Mapping[Kind, Callable[[Object], None]]
_POD_DEFAULTS = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"}
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
_LWS_TEMPLATE = {"size": 1, "restartPolicy": "RecreateGroupOnPodRestart"}
_REPLICASET = {"replicas": 1, "template": {"spec": _POD_DEFAULTS}}
_DEPLOYMENT = {"strategy": _ROLLING, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600} | _REPLICASET
_LWS = {"replicas": 1, "startupPolicy": "LeaderCreated"}
_DEFAULTS: dict[str, Object] = {
    "Namespace": {"status": {"phase": "Active"}},
    "Pod": {"spec": _POD_DEFAULTS, "status": {"phase": "Pending"}},
    "ReplicaSet": {"spec": _REPLICASET},
    "Deployment": {"spec": _DEPLOYMENT},
    "LeaderWorkerSet": {"spec": _LWS | {"leaderWorkerTemplate": _LWS_TEMPLATE}},
    # Nothing forwards virtual addresses here: a Service without one says so.
    "Service": {"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "None"}},
}

_ANY = r"(?s).*"
_TEXTS, _LABELS = {"*": _ANY}, {"*": r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"}
_QUANTITIES = {"*": re.compile(r"\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")}
_ENV = {"env": [{"name!": ".+", "value": _ANY}], "command": [_ANY], "args": [_ANY]}
_REQUESTS = {"resources": dict.fromkeys(("requests", "limits"), _QUANTITIES)}
_CONTAINER = {"name!": gangs.LABEL, "image": ".*", "ports": [{"containerPort!": 1}], **_ENV, **_REQUESTS}
_ENDING = {"terminationGracePeriodSeconds": 0, "restartPolicy": "Always|OnFailure|Never"}
_POD: Object = {"containers!": [_CONTAINER | {"image!": ".+"}], **_ENDING}
_TEMPLATE = {"metadata": {"labels": _LABELS}, "spec!": _POD}
_WORKLOAD = {"replicas": 0, "selector!": {"matchLabels": _TEXTS}, "template!": _TEMPLATE}
_RANKS: Object = {"spec!": {"containers!": [_CONTAINER]}}
_GROUP = {"size": 1, "workerTemplate!": _RANKS, "leaderTemplate": _RANKS}
_SPECS: dict[str, Object] = {
    "Pod": _POD,
    "ReplicaSet": _WORKLOAD,
    "Deployment": _WORKLOAD,
    "LeaderWorkerSet": {"replicas": 0, "leaderWorkerTemplate!": _GROUP},
    **gangs.SPECS,
    "Lease": {"leaseDurationSeconds": 1, "renewTime": gangs.TIME, "acquireTime": gangs.TIME},
    "RoleRatioAutoscaler": {},
}
_OWNER = dict.fromkeys(("apiVersion!", "kind!", "name!", "uid!"), ".+")
_NAMES = {"name!": gangs.DNS_NAME, "labels": _LABELS, "annotations": _TEXTS}
_METADATA = _NAMES | {"ownerReferences": [_OWNER], "finalizers": [".+/.+|foregroundDeletion|orphan"]}
_STATUS = {
    "conditions": [{"type!": ".+", "status!": ".+"}],
    "containerStatuses": [{"name!": ".+"}],
    "addresses": [{"type!": ".+", "address!": ".+"}],
    **dict.fromkeys(("capacity", "allocatable"), _QUANTITIES),
}
_TEMPLATE_LABELS = "spec.template.metadata.labels"
_POD_MUTABLE = ("tolerations", "activeDeadlineSeconds", "schedulingGates")
# Where a change of what is fixed is refused, and how.
_FIXED = {
    "Pod": ("spec", f"Forbidden: immutable except containers[*].image, {', '.join(_POD_MUTABLE)}"),
    **gangs.FIXED,
    **dict.fromkeys(("Deployment", "ReplicaSet"), ("spec.selector", "Invalid value: field is immutable")),
}


def check(served: Served, obj: Object, old: Object | None, models: Models) -> None:
    """Fill in and validate. The model of a custom kind does both for what the tables here do not know of."""
    default(served, obj)
    validate(served, obj, old)
    if model := models.get(served.kind):
        model(obj)


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
    refuse = partial(invalid, kind, str(at(obj, "metadata.name") or ""))
    spec = {"spec!": _SPECS[kind]} if kind in _SPECS else {"spec": {}}
    about = {"involvedObject!": {"kind": ".+"}} if kind == "Event" else {}
    status = gangs.STATUS if kind in gangs.SPECS else _STATUS
    _check({"metadata!": _METADATA, "status": status} | spec | about, obj, "", refuse)
    wanted = (at(obj, "spec.selector.matchLabels") or {}).items()
    if kind in ("Deployment", "ReplicaSet") and not wanted <= (at(obj, _TEMPLATE_LABELS) or {}).items():
        raise refuse(_TEMPLATE_LABELS, "Invalid value: must match spec.selector")
    gangs.check(kind, obj.get("spec", {}), refuse)
    if old is not None and _fixed(kind, obj) != _fixed(kind, old):
        raise refuse(*_FIXED[kind])


def _check(shape: Any, value: Any, path: str, refuse: Callable[[str, str], Refusal]) -> None:
    expected, fits = "a list" if isinstance(shape, list) else "an object", isinstance(value, type(shape))
    if isinstance(shape, int):
        expected, fits = f"greater than or equal to {shape}", type(value) is int and value >= shape
    elif isinstance(shape, str):
        expected, fits = f"a string like {shape}", isinstance(value, str) and re.fullmatch(shape, value) is not None
    elif isinstance(shape, re.Pattern):
        expected, fits = f"like {shape.pattern}", shape.fullmatch(str(value)) is not None
    if not fits:
        raise refuse(path, f"Invalid value: {json.dumps(value)[:80]}: must be {expected}")
    for index, item in enumerate(value) if isinstance(shape, list) else ():
        _check(shape[0], item, f"{path}[{index}]", refuse)
    for key, inner in shape.items() if isinstance(shape, dict) else ():
        for name in value if key == "*" else [key.rstrip("!")]:
            if value.get(name) not in ((None, [], "", 0) if key.endswith("!") else (None,)):
                _check(inner, value[name], f"{path}.{name}".lstrip("."), refuse)
            elif key.endswith("!"):
                raise refuse(f"{path}.{name}".lstrip("."), "Required value")


def _fixed(kind: str, obj: Object) -> Any:
    """The part of a spec that can never change."""
    if kind == "Pod":
        spec = {key: value for key, value in obj["spec"].items() if key not in _POD_MUTABLE}
        return spec | {"containers": [item | {"image": ""} for item in spec["containers"]]}
    if kind in gangs.SPECS:
        return gangs.fixed(kind, obj["spec"])
    return at(obj, "spec.selector") if kind in _FIXED else None
