"""The virtual nodes: names, places and room.

Rules:
1. Pure; equal options give equal nodes. Zone, block and rack names are full paths, so that equal names mean the
   same place.
2. A guest's nodes carry its namespace in their names and in a label, and a taint that keeps other pods away.
"""

from __future__ import annotations

from kubeapi import names
from kubeapi.client import Object
from kubeapi.kinds import NODE
from localcluster.objects import Condition, labels_of, merge_conditions, owner_reference
from localcluster.options import GuestOptions, NodeOptions

PODS_PER_NODE = 110
NODE_IP = "127.0.0.1"
LEASE_DURATION_S = 40


def nodes_of(options: NodeOptions) -> list[Object]:
    """All nodes, filled rack by rack, without status."""
    return [_node(options, index) for index in range(options.nodes)]


def _node(options: NodeOptions, index: int) -> Object:
    guest = options.namespace if isinstance(options, GuestOptions) else ""
    name = f"{guest or 'node'}-{index}"
    spec: Object = {"providerID": f"localcluster://{name}"}
    labels = _place(options, index, f"{guest}." if guest else "")
    labels |= {names.HOSTNAME: name, "kubernetes.io/os": "linux"}
    if guest:
        spec["taints"] = [{"key": names.DEMO, "effect": "NoSchedule"}]
        labels[names.DEMO] = guest
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def node_status(options: NodeOptions, node: Object, now: str) -> Object:
    """The status of a healthy node; conditions of `node` keep their transition times."""
    room = {
        "cpu": str(options.cpu_per_node),
        "memory": f"{options.memory_gib_per_node}Gi",
        "pods": str(PODS_PER_NODE),
        names.GPU: str(options.gpus_per_node),
    }
    ready = Condition("Ready", True, "KubeletReady", "the node agent runs")
    conditions = merge_conditions(node.get("status"), [ready], now)
    return {
        "capacity": room,
        "allocatable": room,
        "addresses": [
            {"type": "InternalIP", "address": NODE_IP},
            {"type": "Hostname", "address": node["metadata"]["name"]},
        ],
        "conditions": [entry | {"lastHeartbeatTime": now} for entry in conditions],
        "nodeInfo": {
            "kubeletVersion": "v1.37.0-localcluster",
            "containerRuntimeVersion": "localcluster://1",
            "operatingSystem": "linux",
            "osImage": "Local processes",
            "kernelVersion": "local",
            "architecture": "amd64",
        },
    }


def lease_of(node: Object, now: str) -> Object:
    """The Lease by which a node lives; it goes with the node."""
    name, owner = node["metadata"]["name"], owner_reference(NODE, node, controls=False)
    mark = {key: value for key, value in labels_of(node).items() if key == names.DEMO}
    return {
        "metadata": {"name": name, "labels": mark, "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": now},
    }


def _place(options: NodeOptions, index: int, prefix: str) -> dict[str, str]:
    rack_number = index // options.nodes_per_rack
    block_number = rack_number // options.racks_per_block
    zone = f"{prefix}zone-{block_number // options.blocks_per_zone}"
    block = f"{zone}.block-{block_number % options.blocks_per_zone}"
    rack = f"{block}.rack-{rack_number % options.racks_per_block}"
    return {names.TOPOLOGY_ZONE: zone, names.TOPOLOGY_BLOCK: block, names.TOPOLOGY_RACK: rack}
