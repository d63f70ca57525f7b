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

Shape = tuple[Callable[[Any], bool], str]

_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
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


def default(served: Served, obj: Object) -> None:
    """Fill in defaults, in place."""
    _fill(obj, _DEFAULTS.get(served.kind.kind, {}))
    specs = [at(obj, path) for path in ("spec", "spec.template.spec")]
    for ports in [container.get("ports") for spec in specs for container in _dicts(at(spec, "containers"))]:
        for port in _dicts(ports):
            port.setdefault("protocol", "TCP")
    for port in _dicts(at(obj, "spec.ports")):
        port.setdefault("protocol", "TCP")


def _dicts(value: Any) -> list[Object]:
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

    def refuse(field: str, why: str) -> Refusal:
        return invalid(served.kind.kind, str(at(obj, "metadata.name")), field, why)

    for field, (fits, expected) in (_COMMON | _RULES.get(kind, {})).items():
        value = at(obj, field.rstrip("!"))
        if value is None and field.endswith("!"):
            raise refuse(field[:-1], f"Required value: must be {expected}")
        if value is not None and not fits(value):
            raise refuse(field.rstrip("!"), f"Invalid value: {json.dumps(value)[:80]}: must be {expected}")
    wanted = (at(obj, "spec.selector.matchLabels") or {}).items()
    if kind in ("Deployment", "ReplicaSet") and not wanted <= (at(obj, _LABELS) or {}).items():
        raise refuse(_LABELS, "Invalid value: must match spec.selector")
    if old is not None and _fixed(kind, obj) != _fixed(kind, old):
        raise refuse("spec", f"Forbidden: field is immutable; only {_MUTABLE[kind]} may change")


def _fixed(kind: str, obj: Object) -> Any:
    """The part of a spec that can never change."""
    if kind == "Pod":
        spec = {key: value for key, value in obj["spec"].items() if key not in _POD_MUTABLE}
        return spec | {"containers": [item | {"image": ""} for item in spec["containers"]]}
    if kind == "PodGroup":
        return obj["spec"] | {"schedulingPolicy": sorted(obj["spec"]["schedulingPolicy"])}
    return at(obj, "spec.selector") if kind in _MUTABLE else None


def _at_least(minimum: int) -> Shape:
    return lambda value: type(value) is int and value >= minimum, f"greater than or equal to {minimum}"


def _objects(*keys: str) -> Shape:
    def fits(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(at(item, key), str) for item in value for key in keys)

    return fits, f"a list of objects with {' and '.join(keys)}"


def _containers(*keys: str) -> Shape:
    def fits(value: Any) -> bool:
        named = _objects(*keys)[0](value) and all(re.fullmatch(_LABEL, item["name"]) for item in value)
        lists = [item.get(key) or [] for item in value for key in ("ports", "env")] if named else []
        return bool(value) and named and all(len(_dicts(items)) == len(items) for items in lists)

    return fits, f"a list of containers with {' and '.join(keys)}, the name a lowercase RFC 1123 label"


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 253 and bool(re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", value))


def _is_policy(value: Any) -> bool:
    return isinstance(value, dict) and ("basic" in value) != (at(value, "gang.minCount") is not None)


_LABELS = "spec.template.metadata.labels"
_POD_MUTABLE = ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds")
_MUTABLE = {
    "Pod": ", ".join(("containers[*].image", *_POD_MUTABLE)),
    "PodGroup": "schedulingPolicy.gang.minCount",
    **dict.fromkeys(("Deployment", "ReplicaSet"), "fields other than spec.selector"),
}
_OBJECT: Shape = (lambda value: isinstance(value, dict), "an object")
_COMMON: dict[str, Shape] = {
    "metadata.name!": (_is_name, "a lowercase RFC 1123 subdomain"),
    **dict.fromkeys(("metadata.labels", "metadata.annotations"), (_is_texts, "an object of strings")),
    "metadata.ownerReferences": _objects("apiVersion", "kind", "name", "uid"),
    **dict.fromkeys(("spec", "status"), _OBJECT),
    "status.conditions": _objects("type", "status"),
    "status.containerStatuses": _objects("name"),
    "status.addresses": _objects("type", "address"),
}
_WORKLOAD = {"spec.replicas": _at_least(0), "spec.selector!": _OBJECT, _LABELS: _COMMON["metadata.labels"]}
_WORKLOAD |= {"spec.template.spec.containers!": _containers("name", "image")}
_GROUPS = {"spec.replicas": _at_least(0), "spec.leaderWorkerTemplate.size": _at_least(1)}
_GROUPS |= {"spec.leaderWorkerTemplate.workerTemplate.spec.containers!": _containers("name")}
_GROUPS |= {"spec.leaderWorkerTemplate.leaderTemplate.spec.containers": _containers("name")}
_POLICY: Shape = (_is_policy, "either `basic` or `gang` with minCount")
_RULES: dict[str, dict[str, Shape]] = {
    "Pod": {"spec.terminationGracePeriodSeconds": _at_least(0), "spec.containers!": _containers("name", "image")},
    "ReplicaSet": _WORKLOAD,
    "Deployment": _WORKLOAD,
    "LeaderWorkerSet": _GROUPS,
    "PodGroup": {"spec.schedulingPolicy.gang.minCount": _at_least(1), "spec.schedulingPolicy!": _POLICY},
    "Lease": {"spec.leaseDurationSeconds": _at_least(1)},
    "Event": {"involvedObject!": _OBJECT},
    "RoleRatioAutoscaler": {"spec!": _OBJECT},
}
