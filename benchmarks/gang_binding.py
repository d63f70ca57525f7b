"""Gangs bound end to end on a real control plane, by our scheduler and by kube-scheduler in turn.

How: 1,000 nodes of 8 GPUs and 500 gangs of 4 pods, all of which exist before a scheduler starts; the time is from the
start of its process to the last binding, its own start included. The schedulers alternate on one control plane; the
pods and PodGroups of a round are gone before the next. No client is throttled: kube-scheduler's QPS limit is raised,
ours has none, and the API server's priority and fairness is off. etcd does not fsync. CPU seconds and memory are the
scheduler's own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figure import Figure, figure
from benchmarks.processes import BenchmarkError, cpu_s, rss_mb
from kubeapi import kinds, names
from kubeapi.client import KubeClient, Object
from kubeapi.config import load_config
from tests.controlplane import start
from tests.controlplane.plane import Absent, ControlPlane
from tests.controlplane.process import Process

OURS, KUBE = names.SCHEDULER_NAME, "default-scheduler"
SERVES = (
    start.GATES,
    start.APIS,
    # Nobody would take the taint `not-ready` off nodes without a kubelet.
    "--disable-admission-plugins=TaintNodesByCondition",
    "--enable-priority-and-fairness=false",
)
UNTHROTTLED = ("--kube-api-qps=10000", "--kube-api-burst=20000")
LIMIT_S = 180.0
POLL_S = 0.03
AT_ONCE = 32
NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The cluster, the gangs, and how often each scheduler binds them."""

    nodes: int = 1000
    nodes_per_rack: int = 10
    gpus_per_node: int = 8
    gangs: int = 500
    pods: int = 4
    gpus_per_pod: int = 4
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Round:
    """What one scheduler took for all gangs."""

    seconds: float
    cpu_s: float
    rss_mb: float


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of both schedulers, and how they compare. Raises BenchmarkError without a control plane."""
    return asyncio.run(_measure(sizes))


async def _measure(sizes: Sizes) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="roleratio-benchmark-") as folder:
        try:
            # Its own controllers would only compete for the processors.
            available = {name: argv for name, argv in start.programs().items() if name != start.CONTROLLER_MANAGER}
            if start.SCHEDULER not in available:
                raise BenchmarkError(f"there is no {start.SCHEDULER} to compare with; run `make controlplane`")
            with start.control_plane(available, Path(folder), SERVES) as plane:
                found = await _rounds(plane, available, sizes)
        except (Absent, start.StartError) as error:
            raise BenchmarkError(str(error)) from error
    return _figures(sizes, found)


async def _rounds(plane: ControlPlane, available: start.Programs, sizes: Sizes) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {OURS: [], KUBE: []}
    async with KubeClient(load_config(plane.kubeconfig), field_manager="benchmark") as client:
        await _each(client.create(kinds.NODE, node) for node in _nodes(sizes))
        for number in range(sizes.rounds):
            order = (OURS, KUBE) if number % 2 == 0 else (KUBE, OURS)
            for scheduler in order:
                await _create_gangs(client, sizes, scheduler)
                runs = _ours(plane) if scheduler == OURS else start.kube_scheduler(plane, available, UNTHROTTLED)
                began_s = time.perf_counter()
                with runs as process:
                    found[scheduler].append(await _bound(client, process, began_s))
                await _clear(client)
    return found


@contextmanager
def _ours(plane: ControlPlane) -> Iterator[Process]:
    words = ["-m", "roleratio", "scheduler", "--kubeconfig", str(plane.kubeconfig)]
    process = Process("roleratio scheduler", [sys.executable, *words], plane.folder / "ours.log")
    try:
        yield process
    finally:
        process.terminate()
        process.wait(start.STOP_S)


async def _bound(client: KubeClient, process: Process, began_s: float) -> Round:
    """Wait until no pod is without a node: one cheap question at a time, so that asking is no load."""
    while await client.some(kinds.POD, NAMESPACE, field_selector="spec.nodeName="):
        if not process.running() or time.perf_counter() - began_s > LIMIT_S:
            state = "is not done" if process.running() else "ended"
            raise BenchmarkError(
                f"{process.name} {state} after {time.perf_counter() - began_s:.0f} s: {process.tail()}"
            )
        await asyncio.sleep(POLL_S)
    return Round(time.perf_counter() - began_s, cpu_s(process.pid), rss_mb(process.pid))


async def _create_gangs(client: KubeClient, sizes: Sizes, scheduler: str) -> None:
    gangs = [f"{scheduler}-{index}" for index in range(sizes.gangs)]
    await _each(client.create(kinds.PODGROUP, _podgroup(gang, sizes.pods), NAMESPACE) for gang in gangs)
    pods = (_pod(gang, index, sizes, scheduler) for gang in gangs for index in range(sizes.pods))
    await _each(client.create(kinds.POD, pod, NAMESPACE) for pod in pods)


async def _clear(client: KubeClient) -> None:
    """Pods at once, as there is no kubelet; then the PodGroups, whose protection no controller takes off."""
    pods = [one["metadata"]["name"] for one in (await client.list(kinds.POD, NAMESPACE)).items]
    await _each(client.delete(kinds.POD, name, NAMESPACE, grace_period_s=0) for name in pods)
    gangs = [one["metadata"]["name"] for one in (await client.list(kinds.PODGROUP, NAMESPACE)).items]
    unprotected = {"metadata": {"finalizers": None}}
    await _each(client.patch(kinds.PODGROUP, name, NAMESPACE, unprotected) for name in gangs)
    await _each(client.delete(kinds.PODGROUP, name, NAMESPACE) for name in gangs)


async def _each(requests: Iterable[Coroutine[Any, Any, object]]) -> None:
    """All of them, a few at a time: one that waits for a connection would time out."""
    left = iter(requests)

    async def some() -> None:
        for request in left:
            await request

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(some())


def _nodes(sizes: Sizes) -> Iterator[Object]:
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", names.GPU: str(sizes.gpus_per_node)}
    ready = [{"type": "Ready", "status": "True", "reason": "Benchmark", "message": "always"}]
    for index in range(sizes.nodes):
        name = f"node-{index:04}"
        labels = {names.HOSTNAME: name, names.TOPOLOGY_RACK: f"rack-{index // sizes.nodes_per_rack:03}"}
        status = {"capacity": room, "allocatable": room, "conditions": ready}
        yield {"metadata": {"name": name, "labels": labels}, "status": status}


def _podgroup(name: str, pods: int) -> Object:
    return {"metadata": {"name": name}, "spec": {"schedulingPolicy": {"gang": {"minCount": pods}}}}


def _pod(gang: str, index: int, sizes: Sizes, scheduler: str) -> Object:
    resources = {"limits": {names.GPU: str(sizes.gpus_per_pod), "cpu": "8", "memory": "64Gi"}}
    return {
        "metadata": {"name": f"{gang}-{index}"},
        "spec": {
            "schedulerName": scheduler,
            "schedulingGroup": {"podGroupName": gang},
            "containers": [{"name": "main", "image": "worker", "resources": resources}],
        },
    }


def _figures(sizes: Sizes, found: dict[str, list[Round]]) -> list[Figure]:
    pods, ours, kube = sizes.gangs * sizes.pods, found[OURS], found[KUBE]
    named = {"ours": ours, start.SCHEDULER: kube}
    size = f"{sizes.gangs} gangs of {sizes.pods} on {sizes.nodes} nodes"
    return [
        *(
            figure(f"{size}: {name}", "pods/s", [pods / one.seconds for one in rounds])
            for name, rounds in named.items()
        ),
        figure("time of ours in kube-scheduler's", "x", [_ratio(ours, kube, "seconds")], median=1 / 1.5),
        *(figure(f"CPU of {name}", "s", [one.cpu_s for one in rounds]) for name, rounds in named.items()),
        figure("CPU of ours in kube-scheduler's", "x", [_ratio(ours, kube, "cpu_s")], median=1.0),
        *(figure(f"memory of {name}", "MB", [one.rss_mb for one in rounds]) for name, rounds in named.items()),
    ]


def _ratio(ours: list[Round], kube: list[Round], what: str) -> float:
    """Of the medians: a round that something else disturbed does not count twice."""
    mine, theirs = (median(getattr(one, what) for one in rounds) for rounds in (ours, kube))
    return float(mine / theirs)
