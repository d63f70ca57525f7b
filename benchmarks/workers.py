"""24 worker processes at once: time until all are ready, memory of each, CPU while idle.

How: a local cluster and the scheduler run as processes; the demo's own manifests ask for `groups_per_role` TP groups of
each role without a cold start, so the pods are what the node agent of a demo starts: leaders and ranks of prefill and
decode, and a router. Memory is read when all are Ready, CPU over `idle_s` without requests, readiness probes included.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.cluster import open_client, start_cluster
from benchmarks.figure import Figure, figure
from benchmarks.processes import BenchmarkError, Processes, Running, cpu_s, rss_mb
from kubeapi import kinds, names
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object
from kubeapi.errors import AlreadyExists
from localcluster.objects import is_ready, labels_of
from roleratio.demo import manifests

READY_LIMIT_S = 90.0
ROUTERS = 1
RSS_LIMIT_MB = 60


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many workers, and how long they are watched."""

    groups_per_role: int = 6
    idle_s: float = 10.0

    @property
    def workers(self) -> int:
        """Processes of both roles."""
        return 2 * self.groups_per_role * manifests.PODS_PER_GROUP


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of the workers."""
    return asyncio.run(_measure(sizes))


async def _measure(sizes: Sizes) -> list[Figure]:
    async with Processes() as processes:
        cluster, kubeconfig, _ = await start_cluster(processes)
        scheduler = processes.start("scheduler", "roleratio", "scheduler", "--kubeconfig", str(kubeconfig))
        async with open_client(kubeconfig, "workers") as client:
            began_s = time.perf_counter()
            await _apply(client, manifests.Shape(sizes.groups_per_role, sizes.groups_per_role, cold_start_s=0.0))
            pods = await _all_ready(processes, client, sizes.workers + ROUTERS)
            ready_s = time.perf_counter() - began_s
        return [
            figure(f"{sizes.workers} workers: applied to all Ready", "s", [ready_s]),
            *_memory(pods),
            *await _idle(pods, {"localcluster": cluster, "scheduler": scheduler}, sizes.idle_s),
        ]


async def _apply(client: KubeClient, shape: manifests.Shape) -> None:
    """Create everything; a namespace that is there already will do."""
    for kind, body in manifests.objects(shape):
        with suppress(*([AlreadyExists] if kind is kinds.NAMESPACE else [])):
            await client.create(kind, body, manifests.NAMESPACE if kind.namespaced else None)


async def _all_ready(processes: Processes, client: KubeClient, expected: int) -> list[Object]:
    """The pods of the service once all are Ready, seen through a watch."""
    cache = Cache(client, kinds.POD, manifests.NAMESPACE)
    watching = asyncio.create_task(cache.run())

    async def ready() -> bool:
        return sum(map(is_ready, cache.items.values())) == expected

    try:
        await processes.until(f"{expected} pods Ready", READY_LIMIT_S, ready)
        return [*cache.items.values()]
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _memory(pods: list[Object]) -> list[Figure]:
    """RSS of each process, by what it is; a pod with nothing of a kind is an error."""
    by_kind: dict[str, list[float]] = {}
    for pod in pods:
        by_kind.setdefault(_kind(pod), []).append(rss_mb(_pid(pod)))
    return [
        figure(f"memory (RSS) of each {kind}", "MB", by_kind[kind], max=RSS_LIMIT_MB)
        if kind != names.ROLE_ROUTER
        else figure("memory (RSS) of the router", "MB", by_kind[kind])
        for kind in sorted(by_kind)
    ]


async def _idle(pods: list[Object], others: dict[str, Running], idle_s: float) -> list[Figure]:
    """CPU use in percent of one core, over a stretch without requests."""
    pids = {pod["metadata"]["name"]: _pid(pod) for pod in pods}
    pids |= {name: process.child.pid for name, process in others.items()}
    before_s = {name: cpu_s(pid) for name, pid in pids.items()}
    began_s = time.perf_counter()
    await asyncio.sleep(idle_s)
    spent_s = time.perf_counter() - began_s
    percent = {name: (cpu_s(pid) - before_s[name]) / spent_s * 100 for name, pid in pids.items()}
    workers = [percent[pod["metadata"]["name"]] for pod in pods if _kind(pod) != names.ROLE_ROUTER]
    return [
        figure("idle CPU of each worker", "% of a core", workers),
        figure("idle CPU of all workers together", "% of a core", [sum(workers)]),
        *(figure(f"idle CPU of the {name}", "% of a core", [percent[name]]) for name in others),
    ]


def _kind(pod: Object) -> str:
    labels = labels_of(pod)
    role = labels[names.LABEL_ROLE]
    if role == names.ROLE_ROUTER:
        return role
    return f"{role} leader" if labels[names.LWS_WORKER_INDEX] == "0" else "rank"


def _pid(pod: Object) -> int:
    """The process that the node agent names in the pod's status. Raises BenchmarkError when it names none."""
    container_id = str(pod["status"]["containerStatuses"][0].get("containerID", ""))
    scheme, _, number = container_id.partition("://")
    if scheme != "localcluster" or not number.isdecimal():
        raise BenchmarkError(f"pod {pod['metadata']['name']}: containerID {container_id!r} names no process")
    return int(number)
