"""The raw objects of a running cluster, as its API server would show them: the demo's manifests, made into pods by the
real LWS planner, on the local cluster's nodes; pure.

Rules:
1. What the objects look like is decided elsewhere (`roleratio.demo.manifests`, `localcluster`); here they are only
   multiplied, named and given the status that they would have.
2. Equal arguments give equal objects.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

from autoscaler.adapters.fleet import World
from kubeapi import kinds
from kubeapi.client import Object
from kubeapi.kinds import Kind
from localcluster.controllers.actions import Create
from localcluster.controllers.lws import plan_lws
from localcluster.nodes import node_status, nodes_of
from localcluster.objects import timestamp
from localcluster.options import LocalClusterOptions
from roleratio.demo import manifests

CREATED_S = 1_750_000_000.0
COLD_START_S = 8.0


def nodes(count: int, gpus_per_node: int) -> list[Object]:
    """Ready nodes, in racks, blocks and zones."""
    options = LocalClusterOptions(
        state_dir=Path(), kubeconfig_out=Path(), nodes=count, gpus_per_node=gpus_per_node, nodes_per_rack=10
    )
    now = timestamp(CREATED_S)
    return [node | {"status": node_status(options, node, now)} for node in nodes_of(options)]


def service(namespace: str, prefill_groups: int, decode_groups: int) -> tuple[list[Object], list[Object], list[Object]]:
    """The workloads, PodGroups and pending pods of one service in its own namespace."""
    shape = manifests.Shape(prefill_groups, decode_groups, COLD_START_S)
    objects = [_stored(kind, body, namespace) for kind, body in manifests.objects(shape)]
    workloads = [one for one in objects if one["kind"] in (kinds.LWS.kind, kinds.DEPLOYMENT.kind)]
    podgroups = [one for one in objects if one["kind"] == kinds.PODGROUP.kind]
    pods = [pod for workload in workloads for pod in _pods(workload)]
    return workloads, podgroups, pods


def bound(pods: Sequence[Object], hosts: Iterable[str]) -> list[Object]:
    """The same pods, running and Ready on nodes, in the order given."""
    return [
        _running(pod, host, f"10.0.{index // 250}.{index % 250 + 1}") for index, (pod, host) in _places(pods, hosts)
    ]


def running_world(node_list: list[Object], gpus_per_node: int, namespaces: Sequence[str], groups: int) -> World:
    """Services with `groups` + `groups` TP groups each, all running and all within their PodGroup's minimum."""
    services = [service(namespace, groups, groups) for namespace in namespaces]
    hosts = (node["metadata"]["name"] for node in node_list for _ in range(gpus_per_node))
    pods = [pod for _, _, pending in services for pod in pending]
    workers = [pod for pod in pods if "schedulingGroup" in pod["spec"]]
    others = [pod for pod in pods if "schedulingGroup" not in pod["spec"]]
    names = cycle([node["metadata"]["name"] for node in node_list])
    return World(
        workloads=[workload for workloads, _, _ in services for workload in workloads],
        pods=[*bound(workers, hosts), *bound(others, names)],
        podgroups=[_with_minimum(podgroup, groups) for _, podgroups, _ in services for podgroup in podgroups],
        nodes=node_list,
    )


def _places(pods: Sequence[Object], hosts: Iterable[str]) -> Iterator[tuple[int, tuple[Object, str]]]:
    pairs = list(zip(pods, hosts, strict=False))
    if len(pairs) < len(pods):
        raise ValueError(f"{len(pods)} pods need as many places; {len(pairs)} were given")
    return enumerate(pairs)


def _stored(kind: Kind, body: Object, namespace: str) -> Object:
    stored: Object = {"apiVersion": kind.api_version, "kind": kind.kind, **copy.deepcopy(body)}
    stored["metadata"] |= {
        "uid": f"{namespace}.{kind.plural}.{stored['metadata']['name']}",
        "creationTimestamp": timestamp(CREATED_S),
        "resourceVersion": "1",
        "generation": 1,
    }
    if kind.namespaced:
        stored["metadata"]["namespace"] = namespace
    return stored


def _pods(workload: Object) -> list[Object]:
    if workload["kind"] == kinds.DEPLOYMENT.kind:
        template = workload["spec"]["template"]
        meta = {"name": f"{workload['metadata']['name']}-0", "labels": template["metadata"]["labels"]}
        return [_stored(kinds.POD, {"metadata": meta, "spec": template["spec"]}, workload["metadata"]["namespace"])]
    creates = [action for action in plan_lws(workload, [], timestamp(CREATED_S)) if isinstance(action, Create)]
    bodies = [body for create in reversed(creates) for body in (create.body, *create.dependents)]
    return [_stored(kinds.POD, body, workload["metadata"]["namespace"]) for body in bodies]


def _with_minimum(podgroup: Object, groups: int) -> Object:
    gang = {"gang": {"minCount": groups * manifests.PODS_PER_GROUP}}
    return podgroup | {"spec": podgroup["spec"] | {"schedulingPolicy": gang}}


def _running(pod: Object, host: str, ip: str) -> Object:
    ready_at = timestamp(CREATED_S + COLD_START_S)
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": ready_at}
        for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]
    containers = [
        {"name": container["name"], "ready": True, "restartCount": 0, "state": {"running": {"startedAt": ready_at}}}
        for container in pod["spec"]["containers"]
    ]
    status = {"phase": "Running", "podIP": ip, "conditions": conditions, "containerStatuses": containers}
    return pod | {"spec": pod["spec"] | {"nodeName": host}, "status": status}
