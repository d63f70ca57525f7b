"""Rows that create, replace and patch: names, versions, validation, immutable fields, patches."""

from __future__ import annotations

from kubeapi.kinds import LEASE, NODE, SERVICE
from tests.apiserver.habits.play import Call, Edited
from tests.apiserver.habits.things import (
    CONTAINERS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    LWSES,
    NODES,
    PODGROUPS,
    PODS,
    REPLICASETS,
    SERVICES,
    Object,
    deployment,
    lease,
    lws,
    named,
    pod,
    podgroup,
    replicaset,
)

_EVENT = {"reason": "R", "message": "m", "type": "Normal", "count": 1, "source": {"component": "x"}}
_POD = {"kind": "Pod", "name": "a", "namespace": "$ns"}
_SERVICE = {"selector": {"a": "b"}, "clusterIP": "None", "ports": [{"port": 8000}]}
_DRY = {"dryRun": "All"}


def _with_container(**fields: object) -> Object:
    return {"containers": [CONTAINERS[0] | fields]}


def _bad(name: str, spec: Object | None = None, **meta: object) -> Call:
    """A pod with one fault."""
    return Call(name, "POST", PODS, pod(name, spec, **meta))


CREATE = (
    Call("pod", "POST", PODS, pod("a", labels={"x": "y"}), {"fieldManager": "creator"}),
    Call("again", "POST", PODS, pod("a")),
    Call("get", "GET", f"{PODS}/a"),
    Call("generated", "POST", PODS, pod("", generateName="w-")),
    Call("both-names", "POST", PODS, pod("chosen", generateName="w-")),
    Call("server-meta", "POST", PODS, pod("m", uid="mine", generation=7, creationTimestamp="2020-01-01T00:00:00Z")),
    Call("with-version", "POST", PODS, pod("v", resourceVersion="7")),
    Call("with-status", "POST", PODS, pod("s") | {"status": {"phase": "Running"}}),
    Call("deployment", "POST", DEPLOYMENTS, deployment("d")),
    Call("deployment-again", "POST", DEPLOYMENTS, deployment("d")),
    Call("replicaset", "POST", REPLICASETS, replicaset("r")),
    Call("lws", "POST", LWSES, lws("l")),
    Call("podgroup", "POST", PODGROUPS, podgroup("g")),
    Call("podgroup-basic", "POST", PODGROUPS, podgroup("basic", {"schedulingPolicy": {"basic": {}}})),
    Call("lease", "POST", LEASES, lease("a", {"leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"})),
    Call("service", "POST", SERVICES, named(SERVICE, "s", _SERVICE)),
    Call("node", "POST", NODES, named(NODE, "$ns", labels={"x": "y"})),
    Call("node-status", "POST", NODES, named(NODE, "$ns-s") | {"status": {"capacity": {"cpu": "4"}}}),
    Call("event", "POST", EVENTS, _EVENT | {"metadata": {"name": "e"}, "involvedObject": _POD}),
    Call("event-elsewhere", "POST", EVENTS, _EVENT | {"metadata": {"name": "f"}, "involvedObject": {"kind": "Pod"}}),
    Call("no-namespace", "POST", PODS.replace("$ns", "$ns-none"), pod("a")),
    Call("other-namespace", "POST", PODS, pod("o", namespace="default")),
    Call("all-namespaces", "POST", PODS.replace("/namespaces/$ns", ""), pod("o")),
    Call("other-kind", "POST", PODS, named(LEASE, "a")),
    Call("other-version", "POST", PODS, pod("o") | {"apiVersion": "v2"}),
    Call("dry", "POST", PODS, pod("dry"), _DRY),
    Call("dry-gone", "GET", f"{PODS}/dry"),
    Call("dry-again", "POST", PODS, pod("a"), _DRY),
    Call("dry-some", "POST", PODS, pod("dry"), {"dryRun": "Some"}),
    Call("not-json", "POST", PODS, "{"),
    Call("a-list", "POST", PODS, "[]"),
    Call("text", "POST", PODS, "{}", headers={"Content-Type": "text/plain"}),
    Call("to-a-name", "POST", f"{PODS}/a", pod("a")),
    Call("unknown-kind", "POST", "/apis/apps/v1/namespaces/$ns/nonesuch", {}),
    Call("unknown-sub", "POST", f"{PODS}/a/nonesuch", {}),
    Call("delete-node", "DELETE", f"{NODES}/$ns"),
    Call("delete-node-status", "DELETE", f"{NODES}/$ns-s"),
)

INVALID = (
    Call("no-name", "POST", PODS, {"spec": {"containers": CONTAINERS}}),
    Call("name", "POST", PODS, pod("Upper")),
    Call("node-name", "POST", NODES, named(NODE, "Upper")),
    Call("service-name", "POST", SERVICES, named(SERVICE, "1s", _SERVICE)),
    _bad("no-containers", {"containers": []}),
    _bad("containers-null", {"containers": None}),
    _bad("container-name", {"containers": [{"image": "i"}]}),
    _bad("container-name-form", {"containers": [{"name": "A_b", "image": "i"}]}),
    _bad("container-image", {"containers": [{"name": "c"}]}),
    _bad("container-twice", {"containers": CONTAINERS * 2}),
    _bad("containers-form", {"containers": {"name": "c"}}),
    _bad("env-name", _with_container(env=[{"value": "v"}])),
    _bad("env-form", _with_container(env={"A": "v"})),
    _bad("env-value", _with_container(env=[{"name": "A", "value": 1}])),
    _bad("env-from-nothing", _with_container(env=[{"name": "A", "valueFrom": {}}])),
    _bad("command-form", _with_container(command="sleep")),
    _bad("port", _with_container(ports=[{"containerPort": 0}])),
    _bad("port-missing", _with_container(ports=[{"name": "http"}])),
    _bad("quantity", _with_container(resources={"requests": {"cpu": "lots"}})),
    _bad("quantity-limit", _with_container(resources={"limits": {"nvidia.com/gpu": "1 GPU"}})),
    _bad("quantity-form", _with_container(resources={"requests": {"cpu": ["1"]}})),
    _bad("quantity-negative", _with_container(resources={"requests": {"cpu": "-1"}})),
    _bad("grace-form", {"terminationGracePeriodSeconds": "x"}),
    _bad("restart-policy", {"restartPolicy": "Sometimes"}),
    _bad("label-form", labels={"a": 1}),
    _bad("label-value", labels={"a": "b c"}),
    _bad("label-key", labels={"a b": "c"}),
    _bad("annotation-form", annotations=["a"]),
    _bad("owner-uid", ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "x"}]),
    _bad("finalizer", finalizers=["nodomain"]),
    Call("no-selector", "POST", DEPLOYMENTS, deployment("bad", {"selector": None})),
    Call("selector-misses", "POST", DEPLOYMENTS, deployment("bad", {"selector": {"matchLabels": {"a": "b"}}})),
    Call("replicas-negative", "POST", DEPLOYMENTS, deployment("bad", {"replicas": -1})),
    Call("replicas-text", "POST", DEPLOYMENTS, deployment("bad", {"replicas": "two"})),
    Call("replicaset-misses", "POST", REPLICASETS, replicaset("bad", {"selector": {"matchLabels": {"a": "b"}}})),
    Call("lws-size", "POST", LWSES, lws("bad", {"leaderWorkerTemplate": {"size": 0, "workerTemplate": {}}})),
    Call("lws-no-template", "POST", LWSES, lws("bad", {"leaderWorkerTemplate": {"size": 1}})),
    Call("lws-replicas", "POST", LWSES, lws("bad", {"replicas": "two"})),
    Call("gang-zero", "POST", PODGROUPS, podgroup("bad", {"schedulingPolicy": {"gang": {"minCount": 0}}})),
    Call("gang-no-count", "POST", PODGROUPS, podgroup("bad", {"schedulingPolicy": {"gang": {}}})),
    Call(
        "gang-and-basic",
        "POST",
        PODGROUPS,
        podgroup("bad", {"schedulingPolicy": {"gang": {"minCount": 1}, "basic": {}}}),
    ),
    Call("no-policy", "POST", PODGROUPS, podgroup("bad", {"schedulingPolicy": {}})),
    Call("lease-duration", "POST", LEASES, lease("bad", {"leaseDurationSeconds": 0})),
    Call("lease-time", "POST", LEASES, lease("bad", {"renewTime": "yesterday"})),
    Call("dry", "POST", PODS, pod("bad", {"containers": []}), _DRY),
    Call("strict", "POST", PODS, pod("bad", {"colour": "red"}), {"fieldValidation": "Strict"}),
    Call("lenient", "POST", PODS, pod("lenient", {"colour": "red"})),
)

UPDATE = (
    Call("made", "POST", LEASES, lease("a"), {"fieldManager": "one"}),
    Call("put", "PUT", f"{LEASES}/a", Edited("made", {"spec": {"holderIdentity": "b"}})),
    Call("put-stale", "PUT", f"{LEASES}/a", Edited("made", {"spec": {"holderIdentity": "c"}})),
    Call("put-unlocked", "PUT", f"{LEASES}/a", Edited("made", {"metadata": {"resourceVersion": None}})),
    Call("put-same", "PUT", f"{LEASES}/a", Edited("put", {})),
    Call("get-same", "GET", f"{LEASES}/a"),
    Call("put-other-uid", "PUT", f"{LEASES}/a", Edited("put-same", {"metadata": {"uid": "other"}})),
    Call("put-other-name", "PUT", f"{LEASES}/a", Edited("put-same", {"metadata": {"name": "b"}})),
    Call("put-other-kind", "PUT", f"{LEASES}/a", Edited("put-same", {"kind": "Pod", "apiVersion": "v1"})),
    Call("put-missing", "PUT", f"{PODS}/none", pod("none")),
    Call("put-dry", "PUT", f"{LEASES}/a", Edited("put-same", {"spec": {"holderIdentity": "d"}}), {"dryRun": "All"}),
    Call("get-undried", "GET", f"{LEASES}/a"),
    Call("put-no-name", "PUT", f"{LEASES}/a", {"spec": {"holderIdentity": "e"}}),
    Call(
        "put-server-meta",
        "PUT",
        f"{LEASES}/a",
        Edited("put-same", {"metadata": {"labels": {"k": "v"}, "generation": 9}}),
    ),
    Call("put-collection", "PUT", LEASES, lease("a")),
    Call("pod", "POST", PODS, pod("p")),
    Call("no-containers", "PUT", f"{PODS}/p", Edited("pod", {"spec": {"containers": None}})),
    Call(
        "pod-unlocked", "PUT", f"{PODS}/p", Edited("pod", {"metadata": {"resourceVersion": None, "labels": {"a": "b"}}})
    ),
    Call("pod-label-form", "PUT", f"{PODS}/p", Edited("pod-unlocked", {"metadata": {"labels": {"a": 1}}})),
    Call("podgroup", "POST", PODGROUPS, podgroup("g")),
    Call("podgroup-unlocked", "PUT", f"{PODGROUPS}/g", Edited("podgroup", {"metadata": {"resourceVersion": None}})),
    Call("deployment", "POST", DEPLOYMENTS, deployment("d")),
    Call(
        "deployment-unlocked", "PUT", f"{DEPLOYMENTS}/d", Edited("deployment", {"metadata": {"resourceVersion": None}})
    ),
    Call("node", "POST", NODES, named(NODE, "$ns")),
    Call("node-unlocked", "PUT", f"{NODES}/$ns", Edited("node", {"metadata": {"resourceVersion": None}})),
    Call("delete-node", "DELETE", f"{NODES}/$ns"),
    Call("lws", "POST", LWSES, lws("l")),
    Call("lws-put", "PUT", f"{LWSES}/l", Edited("lws", {"spec": {"replicas": 3}})),
    Call("lws-stale", "PUT", f"{LWSES}/l", Edited("lws", {"spec": {"replicas": 4}})),
    Call("lws-unlocked", "PUT", f"{LWSES}/l", Edited("lws", {"metadata": {"resourceVersion": None}})),
)

PATCH = (
    Call("pod", "POST", PODS, pod("a", labels={"x": "1", "y": "2"}), {"fieldManager": "one"}),
    Call("merge", "MERGE", f"{PODS}/a", {"metadata": {"labels": {"x": None, "z": "3"}}}),
    Call("merge-nothing", "MERGE", f"{PODS}/a", {}),
    Call("merge-same", "MERGE", f"{PODS}/a", {"metadata": {"labels": {"z": "3"}}}),
    Call("merge-status", "MERGE", f"{PODS}/a", {"status": {"phase": "Running"}}),
    Call("merge-stale", "MERGE", f"{PODS}/a", {"metadata": {"resourceVersion": "1", "labels": {"z": "4"}}}),
    Call("merge-locked", "MERGE", f"{PODS}/a", {"metadata": {"resourceVersion": "$(merge.metadata.resourceVersion)"}}),
    Call("merge-own-uid", "MERGE", f"{PODS}/a", {"metadata": {"uid": "$(pod.metadata.uid)", "labels": {"u": "1"}}}),
    Call("merge-other-uid", "MERGE", f"{PODS}/a", {"metadata": {"uid": "other", "labels": {"z": "4"}}}),
    Call("merge-name", "MERGE", f"{PODS}/a", {"metadata": {"name": "b"}}),
    Call("merge-namespace", "MERGE", f"{PODS}/a", {"metadata": {"namespace": "default"}}),
    Call("merge-kind", "MERGE", f"{PODS}/a", {"kind": "Node"}),
    Call("merge-server", "MERGE", f"{PODS}/a", {"metadata": {"creationTimestamp": None, "generation": 9}}),
    Call("merge-missing", "MERGE", f"{PODS}/none", {}),
    Call("merge-list", "MERGE", f"{PODS}/a", "[]"),
    Call("merge-not-json", "MERGE", f"{PODS}/a", "{"),
    Call("merge-node", "MERGE", f"{PODS}/a", {"spec": {"nodeName": "n"}}),
    Call("merge-dry", "MERGE", f"{PODS}/a", {"metadata": {"labels": {"dry": "1"}}}, {"dryRun": "All"}),
    Call("merge-dry-bad", "MERGE", f"{PODS}/a", {"metadata": {"labels": {"dry": 1}}}, {"dryRun": "All"}),
    Call("after-dry", "GET", f"{PODS}/a"),
    Call("strategic", "STRATEGIC", f"{PODS}/a", {"spec": {"containers": [{"name": "c", "image": "k"}]}}),
    Call("strategic-key", "STRATEGIC", f"{PODS}/a", {"spec": {"containers": [{"image": "l"}]}}),
    Call("strategic-label", "STRATEGIC", f"{PODS}/a", {"metadata": {"labels": {"z": None}}}),
    Call("strategic-replace", "STRATEGIC", f"{PODS}/a", {"metadata": {"labels": {"$patch": "replace", "only": "1"}}}),
    Call("strategic-directive", "STRATEGIC", f"{PODS}/a", {"metadata": {"labels": {"$patch": "colour"}}}),
    Call("strategic-finalizer", "STRATEGIC", f"{PODS}/a", {"metadata": {"finalizers": ["x.io/a"]}}),
    Call("strategic-more", "STRATEGIC", f"{PODS}/a", {"metadata": {"finalizers": ["x.io/b"]}}),
    Call("strategic-less", "STRATEGIC", f"{PODS}/a", {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x.io/a"]}}),
    Call("merge-finalizers", "MERGE", f"{PODS}/a", {"metadata": {"finalizers": None}}),
    Call("json", "JSON", f"{PODS}/a", [{"op": "add", "path": "/metadata/labels/j", "value": "1"}]),
    Call("json-test", "JSON", f"{PODS}/a", [{"op": "test", "path": "/metadata/labels/j", "value": "1"}]),
    Call("json-test-fails", "JSON", f"{PODS}/a", [{"op": "test", "path": "/metadata/labels/j", "value": "2"}]),
    Call("json-test-absent", "JSON", f"{PODS}/a", [{"op": "test", "path": "/metadata/labels/none", "value": "2"}]),
    Call("json-test-null", "JSON", f"{PODS}/a", [{"op": "test", "path": "/metadata/labels/none", "value": None}]),
    Call("json-replace", "JSON", f"{PODS}/a", [{"op": "replace", "path": "/metadata/labels/j", "value": "2"}]),
    Call(
        "json-replace-absent", "JSON", f"{PODS}/a", [{"op": "replace", "path": "/metadata/labels/none", "value": "2"}]
    ),
    Call("json-remove-absent", "JSON", f"{PODS}/a", [{"op": "remove", "path": "/metadata/labels/none"}]),
    Call(
        "json-move", "JSON", f"{PODS}/a", [{"op": "move", "from": "/metadata/labels/j", "path": "/metadata/labels/k"}]
    ),
    Call(
        "json-copy", "JSON", f"{PODS}/a", [{"op": "copy", "from": "/metadata/labels/k", "path": "/metadata/labels/j"}]
    ),
    Call("json-remove", "JSON", f"{PODS}/a", [{"op": "remove", "path": "/metadata/labels/j"}]),
    Call("json-escape", "JSON", f"{PODS}/a", [{"op": "add", "path": "/metadata/labels/x.io~1a", "value": "1"}]),
    Call("json-no-parent", "JSON", f"{PODS}/a", [{"op": "add", "path": "/metadata/annotations/a", "value": "1"}]),
    Call("json-op", "JSON", f"{PODS}/a", [{"op": "colour", "path": "/metadata"}]),
    Call("json-object", "JSON", f"{PODS}/a", {"op": "add"}),
    Call("json-uid", "JSON", f"{PODS}/a", [{"op": "test", "path": "/metadata/uid", "value": "$(pod.metadata.uid)"}]),
    Call("json-other-uid", "JSON", f"{PODS}/a", [{"op": "test", "path": "/metadata/uid", "value": "other"}]),
    Call("plain", "PATCH", f"{PODS}/a", {"metadata": {"labels": {"z": "5"}}}),
    Call("lws", "POST", LWSES, lws("l")),
    Call("lws-merge", "MERGE", f"{LWSES}/l", {"spec": {"replicas": 3}}),
    Call("lws-json", "JSON", f"{LWSES}/l", [{"op": "replace", "path": "/spec/replicas", "value": 4}]),
    Call("lws-strategic", "STRATEGIC", f"{LWSES}/l", {"spec": {"replicas": 5}}),
    Call("lws-other-uid", "MERGE", f"{LWSES}/l", {"metadata": {"uid": "other"}, "spec": {"replicas": 5}}),
    Call("lws-null", "MERGE", f"{LWSES}/l", {"spec": {"replicas": None}}),
    Call("lws-bad", "MERGE", f"{LWSES}/l", {"spec": {"replicas": "two"}}),
    Call("collection", "MERGE", PODS, {}),
)

IMMUTABLE = (
    Call("pod", "POST", PODS, pod("a")),
    Call("pod-command", "STRATEGIC", f"{PODS}/a", {"spec": {"containers": [{"name": "c", "command": ["x"]}]}}),
    Call("pod-grace", "MERGE", f"{PODS}/a", {"spec": {"terminationGracePeriodSeconds": 5}}),
    Call("pod-scheduler", "MERGE", f"{PODS}/a", {"spec": {"schedulerName": "other"}}),
    Call("pod-toleration", "STRATEGIC", f"{PODS}/a", {"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}}),
    Call("gated", "POST", PODS, pod("gated", {"schedulingGates": [{"name": "x.io/g"}]})),
    Call(
        "gate-more", "MERGE", f"{PODS}/gated", {"spec": {"schedulingGates": [{"name": "x.io/g"}, {"name": "x.io/h"}]}}
    ),
    Call("gate-selector", "MERGE", f"{PODS}/gated", {"spec": {"nodeSelector": {"a": "b"}}}),
    Call("gate-off", "MERGE", f"{PODS}/gated", {"spec": {"schedulingGates": []}}),
    Call("gate-on", "MERGE", f"{PODS}/gated", {"spec": {"schedulingGates": [{"name": "x.io/g"}]}}),
    Call("deployment", "POST", DEPLOYMENTS, deployment("d")),
    Call("selector", "MERGE", f"{DEPLOYMENTS}/d", {"spec": {"selector": {"matchLabels": {"app": "e"}}}}),
    Call(
        "selector-add",
        "MERGE",
        f"{DEPLOYMENTS}/d",
        {
            "spec": {
                "selector": {"matchLabels": {"b": "c"}},
                "template": {"metadata": {"labels": {"b": "c"}}},
            }
        },
    ),
    Call("podgroup", "POST", PODGROUPS, podgroup("g")),
    Call(
        "minimum",
        "MERGE",
        f"{PODGROUPS}/g",
        {"spec": {"schedulingPolicy": {"gang": {"minCount": 4}}}},
        {"fieldManager": "two"},
    ),
    Call("minimum-zero", "MERGE", f"{PODGROUPS}/g", {"spec": {"schedulingPolicy": {"gang": {"minCount": 0}}}}),
    Call(
        "minimum-json",
        "JSON",
        f"{PODGROUPS}/g",
        [
            {"op": "test", "path": "/spec/schedulingPolicy/gang/minCount", "value": 4},
            {"op": "replace", "path": "/spec/schedulingPolicy/gang/minCount", "value": 6},
        ],
    ),
    Call("policy", "MERGE", f"{PODGROUPS}/g", {"spec": {"schedulingPolicy": {"gang": None, "basic": {}}}}),
    Call("podgroup-priority", "MERGE", f"{PODGROUPS}/g", {"spec": {"priority": 7}}),
)

SCENARIOS = {"create": CREATE, "invalid": INVALID, "update": UPDATE, "patch": PATCH, "immutable": IMMUTABLE}
