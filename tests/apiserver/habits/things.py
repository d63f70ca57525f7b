"""The objects that the table's rows send: each as small as a real API server accepts it."""

from __future__ import annotations

from typing import Any

from kubeapi.kinds import DEPLOYMENT, EVENT, LEASE, LWS, NAMESPACE, NODE, POD, PODGROUP, REPLICASET, RRA, SERVICE, Kind
from tests.apiserver.habits.play import Call

Object = dict[str, Any]

PODS = POD.path("$ns")
LEASES = LEASE.path("$ns")
DEPLOYMENTS = DEPLOYMENT.path("$ns")
REPLICASETS = REPLICASET.path("$ns")
LWSES = LWS.path("$ns")
PODGROUPS = PODGROUP.path("$ns")
SERVICES = SERVICE.path("$ns")
RRAS = RRA.path("$ns")
EVENTS = EVENT.path("$ns")
NODES = NODE.path()

CONTAINERS = [{"name": "c", "image": "i"}]

BEGIN = (Call("namespace", "POST", NAMESPACE.path(), {"metadata": {"name": "$ns"}}),)
END = (Call("clean", "DELETE", NAMESPACE.path(None, "$ns")),)


def named(kind: Kind, name: str, spec: Object | None = None, **meta: Any) -> Object:
    """An object with its kind, as clients send it."""
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name} | meta}
    return head if spec is None else head | {"spec": spec}


def pod(name: str, spec: Object | None = None, **meta: Any) -> Object:
    """A pod that no scheduler of the cluster takes up."""
    return named(POD, name, {"containers": CONTAINERS, "schedulerName": "nobody"} | (spec or {}), **meta)


def deployment(name: str, spec: Object | None = None, **meta: Any) -> Object:
    """A paused Deployment: its controller makes no pods."""
    return named(DEPLOYMENT, name, {"paused": True} | _workload(name) | (spec or {}), **meta)


def replicaset(name: str, spec: Object | None = None, **meta: Any) -> Object:
    """A ReplicaSet without pods."""
    return named(REPLICASET, name, {"replicas": 0} | _workload(name) | (spec or {}), **meta)


def _workload(name: str) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": CONTAINERS}}
    return {"selector": {"matchLabels": labels}, "template": template}


def lws(name: str, spec: Object | None = None, **meta: Any) -> Object:
    """A LeaderWorkerSet of two pods a group."""
    template = {"size": 2, "workerTemplate": {"spec": {"containers": CONTAINERS}}}
    return named(LWS, name, {"leaderWorkerTemplate": template} | (spec or {}), **meta)


def podgroup(name: str, spec: Object | None = None, **meta: Any) -> Object:
    """A gang of two."""
    return named(PODGROUP, name, {"schedulingPolicy": {"gang": {"minCount": 2}}} | (spec or {}), **meta)


def rra(name: str, spec: Object | None = None, **meta: Any) -> Object:
    """A service to scale; all else by default."""
    return named(RRA, name, {"service": "chat", "profile": "p", "gpuBudget": 4} | (spec or {}), **meta)


def lease(name: str, spec: Object | None = None, **meta: Any) -> Object:
    """A Lease: the simplest object that nobody else writes to."""
    return named(LEASE, name, {"holderIdentity": "a"} | (spec or {}), **meta)


def owned_by(row: str, kind: Kind, name: str, **more: Any) -> Object:
    """metadata.ownerReferences that name the answer to an earlier row."""
    owner = {"apiVersion": kind.api_version, "kind": kind.kind, "name": name, "uid": f"$({row}.metadata.uid)"}
    return {"ownerReferences": [owner | more]}


def binding(name: str, node: str = "$ns", **meta: Any) -> Object:
    """A Binding of a pod to a node."""
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name} | meta,
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
