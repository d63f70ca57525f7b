"""The embedded cluster: seconds to ready, memory, API calls, watch delay.

How: the cluster is started `starts` times as a process; ready = the kubeconfig is there, and all nodes are Ready when
asked. On the last one, a Lease is read and patched over kept-alive connections, one call after the other. A watch event
is timed from just before a PATCH is sent until a second client, with its own connection, has the event in hand. The
official client reads the same object in the same way, for comparison. Memory is read at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster import expect_nodes, open_client, start_cluster
from benchmarks.figure import Figure, figure
from benchmarks.processes import BenchmarkError, Processes
from benchmarks.stopwatch import repeat, repeat_async
from kubeapi import kinds
from kubeapi.client import KubeClient, Object

NAMESPACE = "default"
LEASE = "benchmark"
EVENT_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How often each thing is done."""

    starts: int = 5
    calls: int = 500
    events: int = 300


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of the local cluster."""
    return asyncio.run(_measure(sizes))


async def _measure(sizes: Sizes) -> list[Figure]:
    async with Processes() as processes:
        starts_s = []
        for index in range(sizes.starts):
            cluster, kubeconfig, ready_s = await start_cluster(processes, f"localcluster-{index}")
            starts_s.append(ready_s)
            async with open_client(kubeconfig, "check") as client:
                await expect_nodes(client)
            if index < sizes.starts - 1:
                await processes.stop(cluster)
        async with open_client(kubeconfig, "writer") as writer, open_client(kubeconfig, "watcher") as watcher:
            lease = await writer.create(kinds.LEASE, {"metadata": {"name": LEASE}, "spec": {}}, NAMESPACE)
            gets_ms = await _times_ms(lambda: writer.get(kinds.LEASE, LEASE, NAMESPACE), sizes.calls)
            patches_ms = await _times_ms(_patches(writer), sizes.calls)
            delays_ms = await _watch_delays_ms(writer, watcher, lease, sizes.events)
        official_ms = await asyncio.to_thread(_official_gets_ms, kubeconfig, sizes.calls)
        return [
            figure("process start to ready", "s", starts_s, max=2),
            figure("memory (RSS)", "MB", [cluster.rss_mb()], max=150),
            figure("GET, kubeapi", "ms", gets_ms, median=3),
            figure("PATCH, kubeapi", "ms", patches_ms, median=3),
            figure("GET, official client", "ms", official_ms),
            figure("watch event after a PATCH", "ms", delays_ms, median=10, p95=10),
        ]


async def _times_ms(call: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """Each call's duration, after one that opens the connection."""
    await call()
    return await repeat_async(call, times)


def _patches(client: KubeClient) -> Callable[[], Awaitable[Object]]:
    """Patches that each change the object."""
    numbers = iter(range(1, 1_000_000_000))
    return lambda: _patch(client, next(numbers))


async def _patch(client: KubeClient, number: int) -> Object:
    return await client.patch(kinds.LEASE, LEASE, NAMESPACE, {"spec": {"leaseTransitions": number}})


async def _watch_delays_ms(writer: KubeClient, watcher: KubeClient, lease: Object, times: int) -> list[float]:
    """From the start of a write until another client sees it."""
    seen: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    async def watch() -> None:
        version = (await watcher.list(kinds.LEASE, NAMESPACE)).resource_version
        seen.put_nowait((0, 0.0))
        async for event in watcher.watch(kinds.LEASE, NAMESPACE, resource_version=version):
            at_s = time.perf_counter()
            if event.type == "MODIFIED" and event.object["metadata"]["uid"] == lease["metadata"]["uid"]:
                seen.put_nowait((int(event.object["spec"]["leaseTransitions"]), at_s))

    watching = asyncio.create_task(watch())
    try:
        await _next(seen, watching)
        return [await _delay_ms(writer, seen, watching, number) for number in range(1, times + 1)]
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _delay_ms(
    writer: KubeClient, seen: asyncio.Queue[tuple[int, float]], watching: asyncio.Task[None], number: int
) -> float:
    began_s = time.perf_counter()
    await _patch(writer, number)
    found, at_s = await _next(seen, watching)
    if found != number:
        raise BenchmarkError(f"the watch showed write {found} where write {number} was next")
    return (at_s - began_s) * 1e3


async def _next(seen: asyncio.Queue[tuple[int, float]], watching: asyncio.Task[None]) -> tuple[int, float]:
    """The next thing that the watch shows. Raises what ended the watch, or BenchmarkError when nothing comes."""
    getting = asyncio.ensure_future(seen.get())
    done, _ = await asyncio.wait({getting, watching}, timeout=EVENT_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
    if getting in done:
        return getting.result()
    getting.cancel()
    if watching in done:
        watching.result()
    raise BenchmarkError(f"no watch event within {EVENT_LIMIT_S:g} s of a write")


def _official_gets_ms(kubeconfig: Path, times: int) -> list[float]:
    """The official client reads the same object over its own kept-alive connection."""
    from kubernetes import client, config

    connect: Any = config.new_client_from_config
    with connect(str(kubeconfig)) as api_client:
        leases = client.CoordinationV1Api(api_client)
        leases.read_namespaced_lease(LEASE, NAMESPACE)
        return repeat(lambda: leases.read_namespaced_lease(LEASE, NAMESPACE), times)[1]
