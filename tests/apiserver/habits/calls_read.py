"""Rows that only look: lists, selectors, pages, watches, Tables, discovery; and what they look at."""

from __future__ import annotations

from kubeapi.kinds import LWS, NODE, PODGROUP
from tests.apiserver.habits.play import Call
from tests.apiserver.habits.things import (
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    LWSES,
    NODES,
    PODGROUPS,
    PODS,
    deployment,
    lease,
    lws,
    named,
    pod,
    podgroup,
)

TABLE_ACCEPTED = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


def _select(name: str, **query: str) -> Call:
    keys = {"labels": "labelSelector", "fields": "fieldSelector"}
    return Call(name, "GET", PODS, query={keys.get(key, key): value for key, value in query.items()})


LIST = (
    Call("empty", "GET", PODS),
    Call("node", "POST", NODES, named(NODE, "$ns")),
    *(Call(f"p{n}", "POST", PODS, pod(f"p{n}", labels={"odd": str(n % 2), f"only{n}": ""})) for n in range(5)),
    Call("bound", "POST", PODS, pod("bound", {"nodeName": "$ns"}, labels={"odd": "b"})),
    Call("all", "GET", PODS),
    Call("lws", "POST", LWSES, lws("l")),
    Call("all-lws", "GET", LWSES),
    _select("equal", labels="odd=1"),
    _select("double-equal", labels="odd==1"),
    _select("unequal", labels="odd!=1"),
    _select("set", labels="odd in (0, b)"),
    _select("not-in-set", labels="odd notin (0,1)"),
    _select("key", labels="only3"),
    _select("not-key", labels="!only3"),
    _select("several", labels="odd=1,!only3"),
    _select("empty-value", labels="only3="),
    _select("label-form", labels="odd==="),
    _select("label-set-form", labels="odd in 0"),
    _select("by-node", fields="spec.nodeName=$ns"),
    _select("by-no-node", fields="spec.nodeName="),
    _select("not-by-node", fields="spec.nodeName!=$ns"),
    _select("by-name", fields="metadata.name=p1"),
    _select("by-phase", fields="status.phase=Pending,metadata.name!=p1"),
    _select("by-scheduler", fields="spec.schedulerName=nobody"),
    _select("by-colour", fields="spec.colour=red"),
    _select("field-form", fields="metadata.name"),
    _select("both", fields="metadata.name!=p1", labels="odd=1"),
    Call("lws-by-name", "GET", LWSES, query={"fieldSelector": "metadata.name=l"}),
    Call("lws-by-spec", "GET", LWSES, query={"fieldSelector": "spec.replicas=1"}),
    Call("nodes", "GET", NODES, query={"fieldSelector": "metadata.name=$ns"}),
    _select("page-1", limit="2"),
    _select("page-2", limit="2", **{"continue": "$(page-1.metadata.continue)"}),
    _select("page-3", limit="2", **{"continue": "$(page-2.metadata.continue)"}),
    _select("page-selected", limit="1", labels="odd=1"),
    _select("page-exact", limit="6"),
    _select("limit-form", limit="x"),
    _select("token-form", **{"continue": "x"}),
    _select("exact-version", resourceVersion="$(all.metadata.resourceVersion)", resourceVersionMatch="NotOlderThan"),
    _select("any-version", resourceVersion="0"),
    Call("other-namespace", "GET", PODS.replace("$ns", "$ns-none")),
    Call("no-kind", "GET", "/apis/batch/v9/jobs"),
    Call("no-group", "GET", "/apis/none.example/v1/things"),
    Call("no-path", "GET", "/nonesuch"),
    Call("one-none", "GET", f"{DEPLOYMENTS}/none"),
    Call("one-none-lws", "GET", f"{LWSES}/none"),
    Call("post-none", "GET", f"{PODS}/p0/nonesuch"),
    _select("snapshot-1", limit="4"),
    Call("between", "DELETE", f"{PODS}/p4"),
    _select("snapshot-2", limit="4", **{"continue": "$(snapshot-1.metadata.continue)"}),
    Call("protobuf", "GET", f"{PODS}/p0", headers={"Accept": "application/vnd.kubernetes.protobuf"}),
    Call("end", "DELETE", f"{PODS}/bound", query={"gracePeriodSeconds": "0"}),
    Call("delete-node", "DELETE", f"{NODES}/$ns"),
)

_SINCE = {"resourceVersion": "$(listed.metadata.resourceVersion)"}
WATCH = (
    Call("first", "POST", LEASES, lease("a")),
    Call("listed", "GET", LEASES),
    Call("second", "POST", LEASES, lease("b", labels={"seen": "yes"})),
    Call("change", "MERGE", f"{LEASES}/b", {"spec": {"holderIdentity": "z"}}),
    Call("hide", "MERGE", f"{LEASES}/b", {"metadata": {"labels": {"seen": None}}}),
    Call("show", "MERGE", f"{LEASES}/a", {"metadata": {"labels": {"seen": "yes"}}}),
    Call("delete", "DELETE", f"{LEASES}/a"),
    Call("from-list", "WATCH", LEASES, query=_SINCE, events=5),
    Call("selected", "WATCH", LEASES, query=_SINCE | {"labelSelector": "seen=yes"}, events=5),
    Call("by-name", "WATCH", LEASES, query=_SINCE | {"fieldSelector": "metadata.name=b"}, events=3),
    Call("of-one", "GET", f"{LEASES}/b", query={"watch": "true"}),
    Call("from-nothing", "WATCH", LEASES, query={}, events=1),
    Call("from-zero", "WATCH", LEASES, query={"resourceVersion": "0"}, events=1),
    Call(
        "initial",
        "WATCH",
        LEASES,
        query={"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"},
        events=2,
    ),
    Call("initial-without-match", "WATCH", LEASES, query={"sendInitialEvents": "true"}, events=1),
    Call("version-form", "WATCH", LEASES, query={"resourceVersion": "x"}, events=1),
    Call("selector-form", "WATCH", LEASES, query={"labelSelector": "a==="}, events=1),
    Call("table", "WATCH", LEASES, query=_SINCE, headers=TABLE_ACCEPTED, events=2),
    Call("lws", "POST", LWSES, lws("l")),
    Call("watch-lws", "WATCH", LWSES, query={}, events=1),
)


def _printed(name: str, path: str, **query: str) -> Call:
    return Call(name, "GET", path, query=query, headers=TABLE_ACCEPTED)


def _gang(status: str) -> tuple[Call, ...]:
    """A gang's condition and how it prints."""
    condition = {"type": "PodGroupInitiallyScheduled", "status": status, "reason": "R", "message": "m"}
    timed = condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    patch = {"status": {"conditions": [timed]}}
    return (
        Call(f"podgroup-{status}", "MERGE", f"{PODGROUPS}/g/status", patch),
        _printed(f"podgroups-{status}", PODGROUPS),
    )


TABLE = (
    Call("node", "POST", NODES, named(NODE, "$ns", labels={"node-role.kubernetes.io/gpu": ""})),
    Call(
        "node-ready",
        "STRATEGIC",
        f"{NODES}/$ns/status",
        {
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": "m"}],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.9"}],
                "nodeInfo": {
                    "kubeletVersion": "v1.37.0",
                    "osImage": "o",
                    "kernelVersion": "k",
                    "containerRuntimeVersion": "c",
                },
            }
        },
    ),
    _printed("nodes", NODES, fieldSelector="metadata.name=$ns"),
    Call("cordon", "MERGE", f"{NODES}/$ns", {"spec": {"unschedulable": True}}),
    _printed("node-cordoned", f"{NODES}/$ns"),
    Call("pod", "POST", PODS, pod("a", {"nodeName": "$ns"})),
    Call("pod-pending", "POST", PODS, pod("b")),
    Call("pod-gated", "POST", PODS, pod("c", {"schedulingGates": [{"name": "x.io/g"}]})),
    Call(
        "pod-runs",
        "MERGE",
        f"{PODS}/a/status",
        {
            "status": {
                "phase": "Running",
                "podIP": "127.0.0.8",
                "podIPs": [{"ip": "127.0.0.8"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    {
                        "name": "c",
                        "ready": True,
                        "restartCount": 0,
                        "image": "i",
                        "imageID": "",
                        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                    }
                ],
            }
        },
    ),
    _printed("pods", PODS),
    _printed("pods-no-object", PODS, includeObject="None"),
    _printed("pods-whole", PODS, includeObject="Object", fieldSelector="metadata.name=b"),
    _printed("pods-empty", PODS, labelSelector="none=none"),
    _printed("pod-one", f"{PODS}/a"),
    _printed("pod-none", f"{PODS}/none"),
    _printed("pods-page", PODS, limit="1"),
    Call(
        "crash",
        "MERGE",
        f"{PODS}/a/status",
        {
            "status": {
                "containerStatuses": [
                    {
                        "name": "c",
                        "ready": False,
                        "restartCount": 2,
                        "image": "i",
                        "imageID": "",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    }
                ],
            }
        },
    ),
    _printed("pod-crashing", f"{PODS}/a"),
    Call(
        "exit",
        "MERGE",
        f"{PODS}/b/status",
        {
            "status": {
                "phase": "Failed",
                "containerStatuses": [
                    {
                        "name": "c",
                        "ready": False,
                        "restartCount": 0,
                        "image": "i",
                        "imageID": "",
                        "state": {"terminated": {"exitCode": 3}},
                    }
                ],
            }
        },
    ),
    _printed("pod-exited", f"{PODS}/b"),
    Call("leave", "DELETE", f"{PODS}/a"),
    _printed("pod-leaving", f"{PODS}/a"),
    Call("deployment", "POST", DEPLOYMENTS, deployment("d")),
    _printed("deployments", DEPLOYMENTS),
    Call("lws", "POST", LWSES, lws("l")),
    _printed("lws-new", LWSES),
    Call(
        "lws-status",
        "MERGE",
        f"{LWSES}/l/status",
        {"status": {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1}},
    ),
    _printed("lws-ready", LWSES),
    Call("podgroup", "POST", PODGROUPS, podgroup("g")),
    _printed("podgroups", PODGROUPS),
    *(row for status in ("False", "True") for row in _gang(status)),
    Call("lease", "POST", LEASES, lease("a")),
    _printed("leases", LEASES, fieldSelector="metadata.name=a"),
    Call(
        "event",
        "POST",
        EVENTS,
        {
            "metadata": {"name": "e"},
            "reason": "R",
            "message": "m",
            "type": "Normal",
            "count": 2,
            "involvedObject": {"kind": "Pod", "name": "a", "namespace": "$ns"},
            "source": {"component": "x"},
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:00:00Z",
        },
    ),
    _printed("events", EVENTS, fieldSelector="reason=R"),
    Call("end", "DELETE", f"{PODS}/a", query={"gracePeriodSeconds": "0"}),
    Call("delete-node", "DELETE", f"{NODES}/$ns"),
)

DISCOVERY = (
    Call("version", "GET", "/version"),
    Call("healthz", "GET", "/healthz"),
    Call("readyz", "GET", "/readyz"),
    Call("livez", "GET", "/livez"),
    Call("api", "GET", "/api"),
    Call("apis", "GET", "/apis"),
    Call("core", "GET", "/api/v1"),
    *(Call(group, "GET", f"/apis/{group}") for group in ("apps", LWS.group, PODGROUP.group, "coordination.k8s.io")),
    *(
        Call(f"{kind}-v", "GET", f"/apis/{path}")
        for kind, path in (
            ("apps", "apps/v1"),
            ("lws", LWS.api_version),
            ("podgroup", PODGROUP.api_version),
            ("lease", "coordination.k8s.io/v1"),
        )
    ),
)

SCENARIOS = {"list": LIST, "watch": WATCH, "table": TABLE, "discovery": DISCOVERY}
