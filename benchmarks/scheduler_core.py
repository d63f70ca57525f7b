"""The gang scheduler's core on clusters of 500 to 5,000 nodes: one gang, a hierarchical one, and a no with numbers.

How: hosts of 8 GPUs, ten to a rack, ten racks to a block, four zones. A core has seen the cluster before, as in the
loop; what is measured is the decision after a gang has come, the taking over of its pods included, in CPU time: the
core is one thread, and the machine may have other work. Beside it: the same in a tenth of the cluster, and beside
50,000 running pods; and the memory of these.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from benchmarks.figure import Figure, figure
from benchmarks.processes import BenchmarkError
from gangscheduler.core import Core
from gangscheduler.model import Group, Node, Pod, PodShape, Reason, Snapshot, Verdicts
from kubeapi import names

HOSTS_PER_RACK, RACKS_PER_BLOCK, ZONES = 10, 10, 4
GPUS = 8
# An NVLink domain of 72 GPUs: 18 hosts of 4.
NVLINK_HOSTS, NVLINK_GPUS = 18, 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """The clusters, and how often each thing is decided."""

    small_nodes: int = 500
    large_nodes: int = 5000
    running_pods: int = 50_000
    repeats: int = 10


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of the core."""
    small, large = hosts(sizes.small_nodes), hosts(sizes.large_nodes)
    four = gang("four", 1, 4, 8)
    running = fillers(large, sizes.running_pods)
    found = [
        figure(f"a gang of 4 in {len(large)} nodes", "ms", _one(large, four, sizes.repeats), median=1.0),
        figure(f"the same in {len(small)} nodes", "ms", _one(small, four, sizes.repeats)),
        figure(
            f"the same beside {len(running)} running pods",
            "ms",
            _one(large, gang("four", 1, 4, 1), sizes.repeats, running),
        ),
        figure("72 pods in 18 TP groups in one NVLink domain", "ms", _nvlink(sizes), median=10.0),
    ]
    for nodes, limit_ms in ((small, 50.0), (large, 500.0)):
        found.append(
            figure(
                f"no, with numbers, in {len(nodes)} nodes x {GPUS} GPUs",
                "ms",
                _no(nodes, sizes.repeats),
                median=limit_ms,
            )
        )
    return [
        *found,
        figure(f"memory of {len(large)} nodes and {len(running)} pods", "MB", _memory(sizes), max=600.0),
    ]


def hosts(count: int, per_rack: int = HOSTS_PER_RACK, gpus: int = GPUS) -> tuple[Node, ...]:
    """So many equal nodes."""
    allocatable = (("cpu", 192_000), ("memory", 2**41), (names.GPU, gpus), ("pods", 110))
    per_zone = max(1, count // ZONES)
    return tuple(
        Node(
            f"n{at:05}",
            allocatable,
            (f"z{at // per_zone}", f"b{at // per_rack // RACKS_PER_BLOCK:03}", f"r{at // per_rack:04}", f"n{at:05}"),
        )
        for at in range(count)
    )


@cache
def shape(gpus: int) -> PodShape:
    """A pod of an engine."""
    return PodShape(((names.GPU, gpus), ("cpu", 8000), ("memory", 2**33), ("pods", 1)))


def gang(name: str, groups: int, size: int, gpus: int, required_level: str = "") -> tuple[Group, tuple[Pod, ...]]:
    """A PodGroup that needs all its TP groups."""
    pods = tuple(
        Pod(
            f"{name}-{index:04}-{rank:02}",
            f"{index}.{rank}",
            shape(gpus),
            group=name,
            tp_group=f"{name}-{index:04}",
            size=size,
            order=(index, rank),
        )
        for index in range(groups)
        for rank in range(size)
    )
    return Group(name, name, min_count=len(pods), required_level=required_level), pods


def fillers(nodes: tuple[Node, ...], count: int) -> tuple[Pod, ...]:
    """Pods without a GPU that run everywhere."""
    small = PodShape((("cpu", 100), ("memory", 2**27), ("pods", 1)))
    return tuple(
        Pod(f"running-{at:06}", f"r{at}", small, node=nodes[at % len(nodes)].name, ours=False) for at in range(count)
    )


def decisions(
    nodes: tuple[Node, ...], gangs: Iterable[tuple[Group, tuple[Pod, ...]]], repeats: int, running: tuple[Pod, ...] = ()
) -> tuple[Verdicts, list[float]]:
    """The verdicts when these gangs have come to a cluster that a core knows, and what each time took, in ms of CPU."""
    core, empty = Core(), Snapshot(0.0, nodes, running, ())
    come = [(group, pods) for group, pods in gangs]
    pods = (*(pod for _, pods in come for pod in pods), *running)
    took_ms: list[float] = []
    for _ in range(repeats + 1):
        core.decide(empty)
        seen = replace(empty, pods=pods, groups=tuple(group for group, _ in come))
        began_s = time.process_time()
        verdicts = core.decide(seen)
        took_ms.append((time.process_time() - began_s) * 1000)
    return verdicts, took_ms[1:]


def _one(
    nodes: tuple[Node, ...], one: tuple[Group, tuple[Pod, ...]], repeats: int, running: tuple[Pod, ...] = ()
) -> list[float]:
    verdicts, took_ms = decisions(nodes, [one], repeats, running)
    if len(verdicts.bindings) != len(one[1]):
        raise BenchmarkError(f"{len(verdicts.bindings)} of {len(one[1])} pods were placed")
    return took_ms


def _nvlink(sizes: Sizes) -> list[float]:
    nodes = hosts(sizes.large_nodes // NVLINK_HOSTS * NVLINK_HOSTS, NVLINK_HOSTS, NVLINK_GPUS)
    wanted = gang("nvl72", 18, 4, 1, required_level=names.TOPOLOGY_RACK)
    return _one(nodes, wanted, sizes.repeats)


def _no(nodes: tuple[Node, ...], repeats: int) -> list[float]:
    """One TP group more than the cluster holds; the answer says how many fit."""
    fits = len(nodes) * GPUS // 8
    verdicts, took_ms = decisions(nodes, [gang("all", fits + 1, 8, 1)], repeats)
    said = verdicts.groups[0]
    if (said.placeable_now, said.reason) != (fits, Reason.INSUFFICIENT_RESOURCE):
        raise BenchmarkError(f"{said.placeable_now} TP groups are said to fit ({said.reason}); {fits} do")
    return took_ms


def _memory(sizes: Sizes) -> list[float]:
    """What a core and the values of its snapshot take, by the allocator; the raw objects are the loop's."""
    tracemalloc.start()
    nodes = hosts(sizes.large_nodes)
    core, snapshot = Core(), Snapshot(0.0, nodes, fillers(nodes, sizes.running_pods), ())
    core.decide(snapshot)
    taken_mb = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return [taken_mb]
