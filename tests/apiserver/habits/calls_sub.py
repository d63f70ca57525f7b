"""Rows that go through an object's other doors: `/status`, `/scale`, `/binding`, `/eviction`."""

from __future__ import annotations

from kubeapi.kinds import NODE
from tests.apiserver.habits.play import Call, Edited
from tests.apiserver.habits.things import (
    DEPLOYMENTS,
    LEASES,
    LWSES,
    NODES,
    PODGROUPS,
    PODS,
    REPLICASETS,
    binding,
    deployment,
    lease,
    lws,
    named,
    pod,
    podgroup,
    replicaset,
)

_READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
_BEAT = _READY | {"lastHeartbeatTime": "2026-01-01T00:00:00Z", "reason": "KubeletReady", "message": "m"}
_SCHEDULED = {"type": "PodGroupInitiallyScheduled", "status": "True", "reason": "Scheduled", "message": "m"}
_CONTAINER = {"name": "c", "ready": True, "restartCount": 0, "image": "i", "imageID": "", "state": {}, "lastState": {}}

STATUS = (
    Call("pod", "POST", PODS, pod("a")),
    Call("main-door", "MERGE", f"{PODS}/a", {"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}}),
    Call("pod-status", "MERGE", f"{PODS}/a/status", {"status": {"phase": "Running", "podIP": "127.0.0.9"}}),
    Call("spec-ignored", "MERGE", f"{PODS}/a/status", {"spec": {"containers": []}, "status": {"message": "m"}}),
    Call("conditions", "STRATEGIC", f"{PODS}/a/status", {"status": {"conditions": [_READY]}}),
    Call("conditions-more", "STRATEGIC", f"{PODS}/a/status", {"status": {"conditions": [_READY | {"type": "Other"}]}}),
    Call(
        "conditions-merge", "STRATEGIC", f"{PODS}/a/status", {"status": {"conditions": [_READY | {"status": "False"}]}}
    ),
    Call("containers", "STRATEGIC", f"{PODS}/a/status", {"status": {"containerStatuses": [_CONTAINER]}}),
    Call("get-status", "GET", f"{PODS}/a/status"),
    Call("put-status", "PUT", f"{PODS}/a/status", Edited("get-status", {"status": {"phase": "Succeeded"}})),
    Call("stale-status", "PUT", f"{PODS}/a/status", Edited("get-status", {"status": {"phase": "Failed"}})),
    Call(
        "labels-by-status", "MERGE", f"{PODS}/a/status", {"metadata": {"labels": {"c": "d"}}, "status": {"reason": "r"}}
    ),
    Call("uid-by-status", "MERGE", f"{PODS}/a/status", {"metadata": {"uid": "other"}, "status": {"reason": "s"}}),
    Call("json-status", "JSON", f"{PODS}/a/status", [{"op": "replace", "path": "/status/reason", "value": "t"}]),
    Call("dry-status", "MERGE", f"{PODS}/a/status", {"status": {"reason": "u"}}, {"dryRun": "All"}),
    Call("condition-form", "MERGE", f"{PODS}/a/status", {"status": {"conditions": {"type": "Ready"}}}),
    Call("none", "MERGE", f"{PODS}/none/status", {"status": {"reason": "u"}}),
    Call("node", "POST", NODES, named(NODE, "$ns")),
    Call("node-status", "STRATEGIC", f"{NODES}/$ns/status", {"status": {"conditions": [_BEAT]}}),
    Call(
        "node-capacity",
        "MERGE",
        f"{NODES}/$ns/status",
        {"status": {"allocatable": {"nvidia.com/gpu": "4", "cpu": "8"}}},
    ),
    Call("node-quantity", "MERGE", f"{NODES}/$ns/status", {"status": {"allocatable": {"cpu": "many"}}}),
    Call("node-label", "MERGE", f"{NODES}/$ns", {"metadata": {"labels": {"a": "b"}}, "spec": {"unschedulable": True}}),
    Call("node-taint", "MERGE", f"{NODES}/$ns", {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
    Call("lws", "POST", LWSES, lws("l")),
    Call(
        "lws-status",
        "MERGE",
        f"{LWSES}/l/status",
        {"status": {"replicas": 1, "readyReplicas": 1, "hpaPodSelector": "a=b"}},
    ),
    Call("lws-main-door", "MERGE", f"{LWSES}/l", {"status": {"replicas": 7}}),
    Call("lws-spec-ignored", "MERGE", f"{LWSES}/l/status", {"spec": {"replicas": 7}, "status": {"replicas": 2}}),
    Call("podgroup", "POST", PODGROUPS, podgroup("g")),
    Call("podgroup-status", "MERGE", f"{PODGROUPS}/g/status", {"status": {"conditions": [_SCHEDULED]}}),
    Call(
        "podgroup-timed",
        "MERGE",
        f"{PODGROUPS}/g/status",
        {"status": {"conditions": [_SCHEDULED | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}},
    ),
    Call("lease", "POST", LEASES, lease("a")),
    Call("lease-status", "MERGE", f"{LEASES}/a/status", {}),
    Call("delete-node", "DELETE", f"{NODES}/$ns"),
)


def _scale(collection: str, name: str) -> tuple[Call, ...]:
    """The same rows for every kind that scales."""
    path = f"{collection}/{name}/scale"
    return (
        Call(f"{name}-get", "GET", path),
        Call(f"{name}-patch", "MERGE", path, {"spec": {"replicas": 3}}, {"fieldManager": "kubectl-scale"}),
        Call(f"{name}-owner", "GET", f"{collection}/{name}"),
        Call(
            f"{name}-put",
            "PUT",
            path,
            Edited(f"{name}-patch", {"spec": {"replicas": 4}, "metadata": {"resourceVersion": None}}),
            {"fieldManager": "roleratio-controller"},
        ),
        Call(f"{name}-owner-two", "GET", f"{collection}/{name}"),
        Call(f"{name}-put-stale", "PUT", path, Edited(f"{name}-get", {"spec": {"replicas": 9}})),
        Call(f"{name}-stale", "MERGE", path, {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}}),
        Call(
            f"{name}-other-uid",
            "MERGE",
            path,
            {"metadata": {"uid": "other"}, "spec": {"replicas": 9}},
            {"dryRun": "All"},
        ),
        Call(f"{name}-negative", "MERGE", path, {"spec": {"replicas": -1}}),
        Call(f"{name}-text", "MERGE", path, {"spec": {"replicas": "two"}}),
        Call(f"{name}-null", "MERGE", path, {"spec": {"replicas": None}}, {"dryRun": "All"}),
        Call(f"{name}-dry", "MERGE", path, {"spec": {"replicas": 8}}, {"dryRun": "All"}),
        Call(
            f"{name}-json",
            "JSON",
            path,
            [
                {"op": "test", "path": "/spec/replicas", "value": 4},
                {"op": "replace", "path": "/spec/replicas", "value": 2},
            ],
        ),
        Call(f"{name}-json-fails", "JSON", path, [{"op": "test", "path": "/spec/replicas", "value": 4}]),
        Call(f"{name}-to-zero", "JSON", path, [{"op": "replace", "path": "/spec/replicas", "value": 0}]),
        Call(f"{name}-zero", "GET", path),
        Call(
            f"{name}-from-zero",
            "JSON",
            path,
            [
                {"op": "test", "path": "/spec/replicas", "value": 0},
                {"op": "replace", "path": "/spec/replicas", "value": 1},
            ],
        ),
        Call(
            f"{name}-from-nothing",
            "JSON",
            path,
            [
                {"op": "test", "path": "/spec/replicas", "value": None},
                {"op": "add", "path": "/spec/replicas", "value": 2},
            ],
        ),
        Call(f"{name}-strategic", "STRATEGIC", path, {"spec": {"replicas": 1}}),
        Call(f"{name}-same", "MERGE", path, {"spec": {"replicas": 1}}, {"fieldManager": "late"}),
        Call(f"{name}-owner-three", "GET", f"{collection}/{name}"),
        Call(
            f"{name}-by-main-door", "MERGE", f"{collection}/{name}", {"spec": {"replicas": 0}}, {"fieldManager": "edit"}
        ),
    )


SCALE = (
    Call("deployment", "POST", DEPLOYMENTS, deployment("d", {"replicas": 1}), {"fieldManager": "creator"}),
    *_scale(DEPLOYMENTS, "d"),
    Call("lws", "POST", LWSES, lws("l", {"replicas": 1}), {"fieldManager": "creator"}),
    Call("lws-status", "MERGE", f"{LWSES}/l/status", {"status": {"replicas": 1, "hpaPodSelector": "a=b"}}),
    *_scale(LWSES, "l"),
    Call("replicaset", "POST", REPLICASETS, replicaset("r")),
    Call("r-get", "GET", f"{REPLICASETS}/r/scale"),
    Call("r-patch", "MERGE", f"{REPLICASETS}/r/scale", {"spec": {"replicas": 0}}),
    Call("none", "MERGE", f"{DEPLOYMENTS}/none/scale", {"spec": {"replicas": 1}}),
    Call("no-scale", "GET", f"{PODS}/a/scale"),
)

BINDING = (
    Call("node", "POST", NODES, named(NODE, "$ns")),
    Call("pod", "POST", PODS, pod("a")),
    Call("bind", "POST", f"{PODS}/a/binding", binding("a"), {"fieldManager": "scheduler"}),
    Call("bound", "GET", f"{PODS}/a"),
    Call("again", "POST", f"{PODS}/a/binding", binding("a")),
    Call("elsewhere", "POST", f"{PODS}/a/binding", binding("a", "other")),
    Call("none", "POST", f"{PODS}/none/binding", binding("none")),
    Call("second", "POST", PODS, pod("b")),
    Call("other-uid", "POST", f"{PODS}/b/binding", binding("b", uid="other")),
    Call("own-uid", "POST", f"{PODS}/b/binding", binding("b", uid="$(second.metadata.uid)")),
    Call("third", "POST", PODS, pod("c")),
    Call("no-target", "POST", f"{PODS}/c/binding", binding("c", "")),
    Call("no-such-node", "POST", f"{PODS}/c/binding", binding("c", "nowhere")),
    Call("fourth", "POST", PODS, pod("d")),
    Call("other-name", "POST", f"{PODS}/d/binding", binding("x")),
    Call("annotated", "POST", f"{PODS}/d/binding", binding("d", annotations={"a": "b"})),
    Call("annotated-pod", "GET", f"{PODS}/d"),
    Call("gated", "POST", PODS, pod("gated", {"schedulingGates": [{"name": "x.io/g"}]})),
    Call("bind-gated", "POST", f"{PODS}/gated/binding", binding("gated")),
    Call("dry-pod", "POST", PODS, pod("e")),
    Call("dry", "POST", f"{PODS}/e/binding", binding("e"), {"dryRun": "All"}),
    Call("undried", "GET", f"{PODS}/e"),
    Call("get", "GET", f"{PODS}/a/binding"),
    Call("leaving", "DELETE", f"{PODS}/a"),
    Call("bind-leaving", "POST", f"{PODS}/a/binding", binding("a")),
    *(Call(f"end-{name}", "DELETE", f"{PODS}/{name}", query={"gracePeriodSeconds": "0"}) for name in "abcd"),
    Call("delete-node", "DELETE", f"{NODES}/$ns"),
)


def _eviction(name: str, **options: object) -> dict[str, object]:
    head: dict[str, object] = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    return head | ({"deleteOptions": options} if options else {})


EVICTION = (
    Call("node", "POST", NODES, named(NODE, "$ns")),
    Call("pod", "POST", PODS, pod("a", {"nodeName": "$ns"})),
    Call("other-name", "POST", f"{PODS}/a/eviction", _eviction("x")),
    Call("dry", "POST", f"{PODS}/a/eviction", _eviction("a", dryRun=["All"])),
    Call("still-there", "GET", f"{PODS}/a"),
    Call("other-uid", "POST", f"{PODS}/a/eviction", _eviction("a", preconditions={"uid": "other"})),
    Call("evict", "POST", f"{PODS}/a/eviction", _eviction("a", gracePeriodSeconds=3)),
    Call("leaving", "GET", f"{PODS}/a"),
    Call("again", "POST", f"{PODS}/a/eviction", _eviction("a")),
    Call("end", "DELETE", f"{PODS}/a", query={"gracePeriodSeconds": "0"}),
    Call("none", "POST", f"{PODS}/a/eviction", _eviction("a")),
    Call("unbound", "POST", PODS, pod("b")),
    Call("evict-unbound", "POST", f"{PODS}/b/eviction", _eviction("b")),
    Call("gone", "GET", f"{PODS}/b"),
    Call("delete-node", "DELETE", f"{NODES}/$ns"),
)

SCENARIOS = {"status": STATUS, "scale": SCALE, "binding": BINDING, "eviction": EVICTION}
