"""What runs and what it looks like: the virtual nodes, a whole local cluster, or nodes for somebody else's cluster.

Rule: a wrong value is one line that names the option, the value, what is expected and the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_AT_LEAST_ONE = ("nodes", "nodes_per_rack", "racks_per_block", "blocks_per_zone", "cpu_per_node")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """The virtual nodes. Raises ValueError with one clear line."""

    nodes: int = 8
    gpus_per_node: int = 4
    nodes_per_rack: int = 2
    racks_per_block: int = 2
    blocks_per_zone: int = 2
    cpu_per_node: int = 32
    memory_gib_per_node: int = 256

    def __post_init__(self) -> None:
        for key in _AT_LEAST_ONE:
            _require(key, getattr(self, key), 1)
        _require("gpus_per_node", self.gpus_per_node, 0)
        _require("memory_gib_per_node", self.memory_gib_per_node, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClusterOptions(NodeOptions):
    """Options of `localcluster.run.local_cluster`. Raises ValueError with one clear line.

    `state_dir` holds the logs of the pods; `kubeconfig_out` is written last, so that a file there means ready.
    """

    state_dir: Path
    kubeconfig_out: Path
    port: int = 0

    def __post_init__(self) -> None:
        NodeOptions.__post_init__(self)
        if not 0 <= self.port <= 65535:
            raise ValueError(f"localcluster option port: {self.port} is no port; give 1 to 65535, or 0 for a free one")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestOptions(NodeOptions):
    """Options of `localcluster.run.agent_for`: nodes on an API server that others run too.

    The nodes are named after `namespace`, and run our own pods of that namespace alone; `kubeconfig` is what these
    pods get. `lws_controller`: whether that cluster needs ours, for this namespace.
    """

    state_dir: Path
    kubeconfig: Path
    namespace: str
    lws_controller: bool = True


def _require(key: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"localcluster option {key}: {value} is too small; give a whole number of at least {least}")
