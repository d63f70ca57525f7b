"""Rows that delete: grace, preconditions, finalizers, owners, collections, namespaces."""

from __future__ import annotations

from kubeapi.kinds import LEASE, NAMESPACE, NODE
from tests.apiserver.habits.play import Call
from tests.apiserver.habits.things import (
    DEPLOYMENTS,
    LEASES,
    LWSES,
    NODES,
    PODGROUPS,
    PODS,
    SERVICES,
    deployment,
    lease,
    lws,
    named,
    owned_by,
    pod,
    podgroup,
)

_NOW = {"gracePeriodSeconds": "0"}


def _expecting(**preconditions: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}


DELETE = (
    Call("node", "POST", NODES, named(NODE, "$ns")),
    Call("unbound", "POST", PODS, pod("a")),
    Call("delete-unbound", "DELETE", f"{PODS}/a"),
    Call("gone", "GET", f"{PODS}/a"),
    Call("delete-gone", "DELETE", f"{PODS}/a"),
    Call("bound", "POST", PODS, pod("b", {"nodeName": "$ns"})),
    Call("dry", "DELETE", f"{PODS}/b", query={"dryRun": "All"}),
    Call("undried", "GET", f"{PODS}/b"),
    Call("delete-bound", "DELETE", f"{PODS}/b"),
    Call("leaving", "GET", f"{PODS}/b"),
    Call("delete-again", "DELETE", f"{PODS}/b"),
    Call("sooner", "DELETE", f"{PODS}/b", {"gracePeriodSeconds": 5}),
    Call("later", "DELETE", f"{PODS}/b", {"gracePeriodSeconds": 50}),
    Call("other-uid", "DELETE", f"{PODS}/b", _expecting(uid="other")),
    Call("other-version", "DELETE", f"{PODS}/b", _expecting(resourceVersion="1")),
    Call("end", "DELETE", f"{PODS}/b", {"gracePeriodSeconds": 0, "preconditions": {"uid": "$(bound.metadata.uid)"}}),
    Call("ended", "GET", f"{PODS}/b"),
    Call("grace-text", "DELETE", f"{PODS}/b", query={"gracePeriodSeconds": "x"}),
    Call("finished", "POST", PODS, pod("f", {"nodeName": "$ns"})),
    Call("finish", "MERGE", f"{PODS}/f/status", {"status": {"phase": "Succeeded"}}),
    Call("delete-finished", "DELETE", f"{PODS}/f"),
    Call("finished-gone", "GET", f"{PODS}/f"),
    Call("lease", "POST", LEASES, lease("a")),
    Call("delete-lease", "DELETE", f"{LEASES}/a"),
    Call("lease-gone", "GET", f"{LEASES}/a"),
    Call("deployment", "POST", DEPLOYMENTS, deployment("d")),
    Call("delete-deployment", "DELETE", f"{DEPLOYMENTS}/d"),
    Call("lws", "POST", LWSES, lws("l")),
    Call("delete-lws", "DELETE", f"{LWSES}/l"),
    Call("podgroup", "POST", PODGROUPS, podgroup("g")),
    Call("delete-podgroup", "DELETE", f"{PODGROUPS}/g"),
    Call("podgroup-gone", "GET", f"{PODGROUPS}/g", until=404),
    Call(
        "service", "POST", SERVICES, {"metadata": {"name": "s"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}}
    ),
    Call("delete-service", "DELETE", f"{SERVICES}/s"),
    Call("delete-node", "DELETE", f"{NODES}/$ns"),
    Call("never", "DELETE", f"{PODS}/b", query={"propagationPolicy": "Never"}),
    *(Call(f"{name}-made", "POST", LEASES, lease(name, labels={"l": label})) for name, label in ("xx", "yx", "zy")),
    Call("collection", "DELETE", LEASES, query={"labelSelector": "l=x"}),
    Call("left", "GET", LEASES),
)

FINALIZERS = (
    Call("made", "POST", LEASES, lease("a", finalizers=["x.io/y"])),
    Call("delete", "DELETE", f"{LEASES}/a"),
    Call("waits", "GET", f"{LEASES}/a"),
    Call("delete-again", "DELETE", f"{LEASES}/a"),
    Call("same-name", "POST", LEASES, lease("a")),
    Call("add-another", "MERGE", f"{LEASES}/a", {"metadata": {"finalizers": ["x.io/y", "x.io/z"]}}),
    Call("let-go", "MERGE", f"{LEASES}/a", {"metadata": {"finalizers": None}}),
    Call("gone", "GET", f"{LEASES}/a"),
)

OWNERS = (
    Call("owner", "POST", LEASES, lease("o")),
    Call("child", "POST", LEASES, lease("c", **owned_by("owner", LEASE, "o"))),
    Call("grandchild", "POST", PODS, pod("g", **owned_by("child", LEASE, "c"))),
    Call("delete", "DELETE", f"{LEASES}/o"),
    Call("child-gone", "GET", f"{LEASES}/c", until=404),
    Call("grandchild-gone", "GET", f"{PODS}/g", until=404),
    Call("late", "POST", LEASES, lease("late", **owned_by("owner", LEASE, "o"))),
    Call("late-gone", "GET", f"{LEASES}/late", until=404),
    Call("parent", "POST", LEASES, lease("p")),
    Call(
        "held",
        "POST",
        LEASES,
        lease("h", finalizers=["x.io/y"], **owned_by("parent", LEASE, "p", blockOwnerDeletion=True)),
    ),
    Call("foreground", "DELETE", f"{LEASES}/p", query={"propagationPolicy": "Foreground"}),
    Call("parent-waits", "GET", f"{LEASES}/p"),
    Call("held-leaving", "GET", f"{LEASES}/h", where=("metadata.deletionGracePeriodSeconds", 0)),
    Call("parent-still", "GET", f"{LEASES}/p"),
    Call("release", "MERGE", f"{LEASES}/h", {"metadata": {"finalizers": None}}),
    Call("parent-gone", "GET", f"{LEASES}/p", until=404),
    Call("guardian", "POST", LEASES, lease("q")),
    Call("orphan", "POST", LEASES, lease("r", **owned_by("guardian", LEASE, "q"))),
    Call("leave", "DELETE", f"{LEASES}/q", query={"propagationPolicy": "Orphan"}),
    Call("guardian-gone", "GET", f"{LEASES}/q", until=404),
    Call("orphan-lives", "GET", f"{LEASES}/r"),
    Call("one", "POST", LEASES, lease("one")),
    Call("two", "POST", LEASES, lease("two")),
    Call(
        "both",
        "POST",
        LEASES,
        lease(
            "both",
            ownerReferences=[
                *owned_by("one", LEASE, "one")["ownerReferences"],
                *owned_by("two", LEASE, "two")["ownerReferences"],
            ],
        ),
    ),
    Call("delete-one", "DELETE", f"{LEASES}/one"),
    Call("one-owner-left", "GET", f"{LEASES}/both", where=("metadata.ownerReferences.1", None)),
)

_OTHER = NAMESPACE.path(None, "$ns-other")
NAMESPACES = (
    Call("made", "POST", NAMESPACE.path(), {"metadata": {"name": "$ns-other", "labels": {"a": "b"}}}),
    Call("again", "POST", NAMESPACE.path(), {"metadata": {"name": "$ns-other"}}),
    Call("inside", "POST", LEASES.replace("$ns", "$ns-other"), lease("a", finalizers=["x.io/y"])),
    Call("delete", "DELETE", _OTHER),
    Call("terminating", "GET", _OTHER),
    Call("late", "POST", LEASES.replace("$ns", "$ns-other"), lease("late")),
    Call(
        "inside-leaving",
        "GET",
        LEASES.replace("$ns", "$ns-other") + "/a",
        where=("metadata.deletionGracePeriodSeconds", 0),
    ),
    Call("let-go", "MERGE", LEASES.replace("$ns", "$ns-other") + "/a", {"metadata": {"finalizers": None}}),
    Call("gone", "GET", _OTHER, until=404),
)

SCENARIOS = {"delete": DELETE, "finalizers": FINALIZERS, "owners": OWNERS, "namespaces": NAMESPACES}
