"""The virtual nodes: names, places and room.

Rule: pure; equal options give equal nodes. Zone, block and rack names are full paths, so that equal names mean
the same place.
"""

from __future__ import annotations

from kubeapi import names
from kubeapi.client import Object
from localcluster.objects import Condition, merge_conditions
from localcluster.options import LocalClusterOptions

PODS_PER_NODE = 110
NODE_IP = "127.0.0.1"


def nodes_of(options: LocalClusterOptions) -> list[Object]:
    """All nodes, filled rack by rack, without status."""
    return [
        {
            "metadata": {"name": _name(index), "labels": _place(options, index)},
            "spec": {"providerID": f"localcluster://{_name(index)}"},
        }
        for index in range(options.nodes)
    ]


def node_status(options: LocalClusterOptions, node: Object, now: str) -> Object:
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


def _name(index: int) -> str:
    return f"node-{index}"


def _place(options: LocalClusterOptions, index: int) -> dict[str, str]:
    rack_number = index // options.nodes_per_rack
    block_number = rack_number // options.racks_per_block
    zone = f"zone-{block_number // options.blocks_per_zone}"
    block = f"{zone}.block-{block_number % options.blocks_per_zone}"
    rack = f"{block}.rack-{rack_number % options.racks_per_block}"
    return {
        names.HOSTNAME: _name(index),
        names.TOPOLOGY_ZONE: zone,
        names.TOPOLOGY_BLOCK: block,
        names.TOPOLOGY_RACK: rack,
        "kubernetes.io/os": "linux",
    }
