"""Rows about composite pod groups: what of them must be there, what never changes, and what a status is made of."""

from __future__ import annotations

from kubeapi.kinds import COMPOSITE_PODGROUP
from tests.apiserver.habits.play import Call
from tests.apiserver.habits.things import PODGROUPS, Object, named, podgroup

COMPOSITES = COMPOSITE_PODGROUP.path("$ns")
_REF = {"workloadName": "w", "templateName": "service"}
_GANG = {"schedulingPolicy": {"gang": {"minGroupCount": 2}}}
_LEAF = {"schedulingPolicy": {"gang": {"minCount": 2}}}


def composite(name: str, spec: Object | None = None) -> Object:
    """A composite pod group of a workload."""
    return named(COMPOSITE_PODGROUP, name, {"workloadRef": _REF} | (_GANG if spec is None else spec))


def _bad(name: str, spec: Object) -> Call:
    return Call(name, "POST", COMPOSITES, composite("bad", spec))


def _topology(*keys: str) -> Object:
    return {"schedulingConstraints": {"topology": [{"key": key} for key in keys]}}


GANGS = (
    Call("root", "POST", COMPOSITES, composite("root")),
    Call("again", "POST", COMPOSITES, composite("root")),
    Call("role", "POST", COMPOSITES, composite("role", _GANG | {"parentCompositePodGroupName": "root"})),
    Call("basic", "POST", COMPOSITES, composite("basic", {"schedulingPolicy": {"basic": {}}})),
    Call("racks", "POST", COMPOSITES, composite("racks", _GANG | _topology("topology.kubernetes.io/rack"))),
    Call("get", "GET", f"{COMPOSITES}/role"),
    _bad("no-policy", {"schedulingPolicy": {}}),
    _bad("both-policies", {"schedulingPolicy": {"basic": {}, "gang": {"minGroupCount": 1}}}),
    _bad("no-group", {"schedulingPolicy": {"gang": {"minGroupCount": 0}}}),
    _bad("no-workload", _GANG | {"workloadRef": None}),
    _bad("no-template", _GANG | {"workloadRef": {"workloadName": "w"}}),
    _bad("two-keys", _GANG | _topology("a", "b")),
    Call(
        "minimum-changed",
        "MERGE",
        f"{COMPOSITES}/root",
        {"spec": {"schedulingPolicy": {"gang": {"minGroupCount": 1}}}},
    ),
    Call(
        "leaf",
        "POST",
        PODGROUPS,
        podgroup("leaf", _LEAF | {"parentCompositePodGroupName": "role", "workloadRef": _REF}),
    ),
    Call("leaf-alone", "POST", PODGROUPS, podgroup("alone", _LEAF | {"parentCompositePodGroupName": "role"})),
    Call("leaf-racks", "POST", PODGROUPS, podgroup("racks", _LEAF | _topology("topology.kubernetes.io/rack"))),
    Call("leaf-two-keys", "POST", PODGROUPS, podgroup("bad", _LEAF | _topology("a", "b"))),
    Call("delete", "DELETE", f"{COMPOSITES}/basic"),
)

SCENARIOS = {"gangs": GANGS}
