"""PodGroups and CompositePodGroups as Kubernetes 1.37 has them: shapes, and what shapes cannot say. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Object = dict[str, Any]

LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
DNS_NAME = rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*"
_LABEL_KEY = r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"

_IN_TREE: Object = {
    "parentCompositePodGroupName": DNS_NAME,
    "workloadRef": {"workloadName!": DNS_NAME, "templateName!": LABEL},
    "schedulingConstraints": {"topology": [{"key!": _LABEL_KEY}]},
}
SPECS: dict[str, Object] = {
    "PodGroup": _IN_TREE | {"schedulingPolicy!": {"gang": {"minCount!": 1}}},
    "CompositePodGroup": _IN_TREE | {"workloadRef!": {}, "schedulingPolicy!": {"gang": {"minGroupCount!": 1}}},
}
STATUS: Object = {"conditions": [{"type!": ".+", "status!": ".+", "reason!": ".+", "lastTransitionTime!": TIME}]}
# Where a change of what is fixed is refused, and how.
FIXED = {
    "PodGroup": ("spec", "Invalid value: field is immutable; only schedulingPolicy.gang.minCount may change"),
    "CompositePodGroup": ("spec.schedulingPolicy", "Invalid value: field is immutable"),
}


def check(kind: str, spec: Object, refuse: Callable[[str, str], Exception]) -> None:
    """Raises what `refuse(field, why)` returns; other kinds pass."""
    if kind not in SPECS:
        return
    if len(spec["schedulingPolicy"].keys() & {"basic", "gang"}) != 1:
        raise refuse("spec.schedulingPolicy", "Invalid value: must have either `basic` or `gang`")
    if spec.get("parentCompositePodGroupName") and not spec.get("workloadRef"):
        raise refuse("spec.workloadRef", "Required value: must be set when parentCompositePodGroupName is set")
    if len((spec.get("schedulingConstraints") or {}).get("topology") or ()) > 1:
        raise refuse("spec.schedulingConstraints.topology", "Too many: must have at most 1 item")


def fixed(kind: str, spec: Object) -> Object:
    """The part of a spec that can never change."""
    if kind == "CompositePodGroup":
        return spec
    return spec | {"schedulingPolicy": sorted(spec["schedulingPolicy"])}
