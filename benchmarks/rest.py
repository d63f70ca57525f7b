"""Controller and scheduler at rest: memory and processor time, with a service that wants nothing.

How: the demo's service on a local cluster, declared by an rra in Active mode, without load. Once all its groups are
ready, both processes are left alone for `settle_s`, then sampled once a second for `rest_s`. What they ask the API
server for meanwhile is counted by a test, on a real one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from benchmarks.cluster import open_client, start_cluster
from benchmarks.figure import Figure, figure
from benchmarks.processes import Processes, Running
from kubeapi import kinds
from kubeapi.client import KubeClient
from roleratio.demo import manifests
from roleratio.demo.plan import GPUS_PER_NODE, NODES
from roleratio.demo.status import free_ports

READY_LIMIT_S = 90.0
RSS_MAX_MB = 120.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long is waited and looked."""

    settle_s: float = 10.0
    rest_s: float = 20.0


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of the two processes at rest."""
    return asyncio.run(_measure(sizes))


async def _measure(sizes: Sizes) -> list[Figure]:
    async with Processes() as processes:
        _, kubeconfig, _ = await start_cluster(processes)
        started = [
            processes.start(name, "roleratio", name, "--kubeconfig", str(kubeconfig), "--port", str(free_ports(1)[0]))
            for name in ("controller", "scheduler")
        ]
        async with open_client(kubeconfig, "rest") as client:
            rra = await _declare(client)

            async def ready() -> bool:
                seen = await client.get(kinds.RRA, rra["metadata"]["name"], rra["metadata"]["namespace"])
                roles = seen.get("status", {}).get("roles", ())
                return bool(roles) and all(role.get("ready") == role.get("desired") for role in roles)

            await processes.until("a service whose groups are all ready", READY_LIMIT_S, ready)
        await asyncio.sleep(sizes.settle_s)
        return [one for process in started for one in await _at_rest(process, sizes.rest_s)]


async def _declare(client: KubeClient) -> manifests.Object:
    shape = manifests.Shape()
    for kind, body in manifests.objects(shape):
        await client.create(kind, body, body["metadata"].get("namespace"))
    rra = manifests.settings(shape, NODES * GPUS_PER_NODE)
    return await client.create(kinds.RRA, rra, rra["metadata"]["namespace"])


async def _at_rest(process: Running, rest_s: float) -> list[Figure]:
    spent_s, rss_mb = process.cpu_s(), []
    for _ in range(max(1, round(rest_s))):
        await asyncio.sleep(1)
        rss_mb.append(process.rss_mb())
    share = 100 * (process.cpu_s() - spent_s) / len(rss_mb)
    return [
        figure(f"{process.name}: memory (RSS)", "MB", rss_mb, max=RSS_MAX_MB),
        figure(f"{process.name}: processor time", "% of a core", [share]),
    ]
