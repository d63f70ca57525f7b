"""Rows about our own kind: what its CRD fills in, drops and refuses, its status, patches, Table and discovery."""

from __future__ import annotations

from kubeapi.kinds import RRA
from tests.apiserver.habits.calls_read import TABLE_ACCEPTED
from tests.apiserver.habits.play import Call, Edited
from tests.apiserver.habits.things import RRAS, rra

_READY = {
    "type": "Ready",
    "status": "True",
    "reason": "AT_TARGET",
    "message": "m",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
_ROLE = {"name": "prefill", "groups": "1/2", "current": 1, "ready": 1, "desired": 2}
_LAST = {"time": "2026-01-01T00:00:00Z", "summary": "prefill GROW", "reasons": ["a", "b"], "step": "up"}
_STATUS = {
    "mode": "Active",
    "observedGeneration": 1,
    "ratio": "1:2",
    "bottleneck": "none",
    "roles": [_ROLE, _ROLE | {"name": "decode"}],
    "conditions": [_READY, _READY | {"type": "ScalingActive"}],
    "lastDecision": _LAST,
}

OBJECT = (
    Call("made", "POST", RRAS, rra("a"), {"fieldManager": "one"}),
    Call("again", "POST", RRAS, rra("a")),
    Call("get", "GET", f"{RRAS}/a"),
    Call("list", "GET", RRAS),
    Call("dry", "POST", RRAS, rra("b"), {"dryRun": "All"}),
    Call("undried", "GET", f"{RRAS}/b"),
    Call("with-status", "POST", RRAS, rra("s") | {"status": {"ratio": "9:1"}}),
    Call("partly", "POST", RRAS, rra("p", {"decode": {"maxGroups": 3}, "slo": {"itl": {"targetMs": 30}}})),
    Call("unknown-key", "POST", RRAS, rra("u", {"colour": "red", "decode": {"gpus": 3}})),
    Call("put", "PUT", f"{RRAS}/a", Edited("made", {"spec": {"gpuBudget": 5}})),
    Call("put-stale", "PUT", f"{RRAS}/a", Edited("made", {"spec": {"gpuBudget": 6}})),
    Call("put-unlocked", "PUT", f"{RRAS}/a", Edited("made", {"metadata": {"resourceVersion": None}})),
    Call("merge", "MERGE", f"{RRAS}/a", {"spec": {"mode": "Active"}}),
    Call("merge-same", "MERGE", f"{RRAS}/a", {"spec": {"mode": "Active"}}),
    Call("merge-to-default", "MERGE", f"{RRAS}/a", {"spec": {"mode": None}}),
    Call("merge-key", "MERGE", f"{RRAS}/a", {"spec": {"colour": "red"}}),
    Call("json", "JSON", f"{RRAS}/a", [{"op": "replace", "path": "/spec/gpuBudget", "value": 7}]),
    Call("json-test", "JSON", f"{RRAS}/a", [{"op": "test", "path": "/spec/gpuBudget", "value": 8}]),
    Call("strategic", "STRATEGIC", f"{RRAS}/a", {"spec": {"gpuBudget": 9}}),
    Call("label", "MERGE", f"{RRAS}/a", {"metadata": {"labels": {"x": "y"}}}),
    Call("selected", "GET", RRAS, query={"labelSelector": "x=y"}),
    Call("by-field", "GET", RRAS, query={"fieldSelector": "metadata.name=a"}),
    Call("no-scale", "GET", f"{RRAS}/a/scale"),
    Call("watch", "WATCH", RRAS, query={"fieldSelector": "metadata.name=a"}, events=1),
    Call("delete-stale", "DELETE", f"{RRAS}/a", {"preconditions": {"resourceVersion": "1"}}),
    Call("delete", "DELETE", f"{RRAS}/a"),
    Call("gone", "GET", f"{RRAS}/a"),
)


def _bad(name: str, spec: dict[str, object]) -> Call:
    return Call(name, "POST", RRAS, rra("bad", spec))


REFUSED = (
    _bad("type", {"gpuBudget": "all"}),
    _bad("number-as-text", {"gpuBudget": "16"}),
    _bad("fraction", {"gpuBudget": 1.5}),
    _bad("minimum", {"gpuBudget": 0}),
    _bad("exclusive", {"forecastQuantile": 0.5}),
    _bad("maximum", {"slo": {"ttft": {"percentile": 100, "targetMs": 1}}}),
    _bad("mode", {"mode": "live"}),
    _bad("pattern", {"service": "-chat"}),
    _bad("url", {"metrics": {"prometheusUrl": "prom"}}),
    _bad("empty", {"profile": ""}),
    _bad("not-an-object", {"decode": [1]}),
    _bad("no-target", {"slo": {"ttft": {"percentile": 90}}}),
    _bad("no-service", {"service": None}),
    _bad("bounds", {"prefill": {"minGroups": 5, "maxGroups": 3}}),
    _bad("band", {"ratioBand": {"min": 2.5, "max": 1}}),
    _bad("scrape", {"syncPeriodS": 1}),
    _bad("budget", {"gpuBudget": 1}),
    Call("no-spec", "POST", RRAS, {"metadata": {"name": "bad"}}),
    Call("name", "POST", RRAS, rra("Upper")),
    Call("dry", "POST", RRAS, rra("bad", {"mode": "live"}), {"dryRun": "All"}),
    Call("strict", "POST", RRAS, rra("bad", {"colour": "red"}), {"fieldValidation": "Strict"}),
    Call("made", "POST", RRAS, rra("a")),
    Call("update-bounds", "MERGE", f"{RRAS}/a", {"spec": {"decode": {"minGroups": 9}}}),
    Call("update-mode", "MERGE", f"{RRAS}/a", {"spec": {"mode": "live"}}),
    Call("update-kept", "GET", f"{RRAS}/a"),
)

STATUS = (
    Call("made", "POST", RRAS, rra("a")),
    Call("main-door", "MERGE", f"{RRAS}/a", {"status": {"ratio": "9:1"}}),
    Call("get", "GET", f"{RRAS}/a/status"),
    Call("told", "JSON", f"{RRAS}/a/status", [{"op": "add", "path": "/status", "value": _STATUS}]),
    Call("told-same", "JSON", f"{RRAS}/a/status", [{"op": "add", "path": "/status", "value": _STATUS}]),
    Call("merge", "MERGE", f"{RRAS}/a/status", {"status": {"ratio": "1:3"}}),
    Call("spec-ignored", "MERGE", f"{RRAS}/a/status", {"spec": {"gpuBudget": 2}, "status": {"ratio": "1:4"}}),
    Call("unknown-key", "MERGE", f"{RRAS}/a/status", {"status": {"colour": "red"}}),
    Call("mode", "MERGE", f"{RRAS}/a/status", {"status": {"mode": "live"}}),
    Call("number", "MERGE", f"{RRAS}/a/status", {"status": {"observedGeneration": "one"}}),
    Call("negative", "MERGE", f"{RRAS}/a/status", {"status": {"roles": [_ROLE | {"ready": -1}]}}),
    Call("condition", "MERGE", f"{RRAS}/a/status", {"status": {"conditions": [{"type": "Ready"}]}}),
    Call("stale", "MERGE", f"{RRAS}/a/status", {"metadata": {"resourceVersion": "1"}, "status": {"ratio": "1:5"}}),
    Call("put", "PUT", f"{RRAS}/a/status", Edited("get", {"metadata": {"resourceVersion": None}, "status": _STATUS})),
    Call("strategic", "STRATEGIC", f"{RRAS}/a/status", {"status": {"ratio": "1:6"}}),
    Call("dry", "MERGE", f"{RRAS}/a/status", {"status": {"ratio": "1:7"}}, {"dryRun": "All"}),
    Call("spec-later", "MERGE", f"{RRAS}/a", {"spec": {"gpuBudget": 5}}),
    Call("seen", "GET", f"{RRAS}/a"),
    Call("none", "MERGE", f"{RRAS}/none/status", {"status": {"ratio": "1:2"}}),
)

TABLE = (
    Call("made", "POST", RRAS, rra("a")),
    Call("new", "GET", RRAS, headers=TABLE_ACCEPTED),
    Call("told", "MERGE", f"{RRAS}/a/status", {"status": _STATUS}),
    Call("one", "GET", f"{RRAS}/a", headers=TABLE_ACCEPTED),
    Call("list", "GET", RRAS, headers=TABLE_ACCEPTED),
    Call("watch", "WATCH", RRAS, headers=TABLE_ACCEPTED, events=1),
)

DISCOVERY = (
    Call("group", "GET", f"/apis/{RRA.group}"),
    Call("version", "GET", f"/apis/{RRA.api_version}"),
)

SCENARIOS = {"rra": OBJECT, "rra-refused": REFUSED, "rra-status": STATUS, "rra-table": TABLE, "rra-found": DISCOVERY}
