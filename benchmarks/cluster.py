"""A local cluster as a process of its own, ready to be asked: what several benchmarks start with."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.processes import BenchmarkError, Processes, Running
from kubeapi import kinds
from kubeapi.client import KubeClient
from kubeapi.config import load_config
from roleratio.demo.plan import GPUS_PER_NODE, NODES

READY_LIMIT_S = 30.0


async def start_cluster(processes: Processes, name: str = "localcluster") -> tuple[Running, Path, float]:
    """The process, its kubeconfig, and the seconds from its start until it was ready (the kubeconfig is there)."""
    kubeconfig = processes.folder / f"{name}.kubeconfig"
    arguments = ["--state-dir", str(processes.folder / f"{name}.state"), "--kubeconfig-out", str(kubeconfig)]
    arguments += ["--nodes", str(NODES), "--gpus-per-node", str(GPUS_PER_NODE)]
    process = processes.start(name, "roleratio", "localcluster", *arguments)

    async def ready() -> bool:
        return kubeconfig.is_file()

    await processes.until(name, READY_LIMIT_S, ready)
    return process, kubeconfig, time.perf_counter() - process.began_s


async def expect_nodes(client: KubeClient) -> None:
    """Ready must mean ready. Raises BenchmarkError when nodes are missing or not ready."""
    nodes = (await client.list(kinds.NODE)).items
    ready = [
        node
        for node in nodes
        if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
    ]
    if len(ready) != NODES:
        raise BenchmarkError(f"the cluster said it was ready with {len(ready)} of {NODES} nodes ready")


def open_client(kubeconfig: Path, name: str) -> KubeClient:
    """A client of its own connections, as another process would have."""
    return KubeClient(load_config(kubeconfig), field_manager=f"benchmark-{name}")
