"""How fragmented the free room is: the largest group of one shape that a single domain of each level still holds; pure.

Rule: pods are counted node by node, as they would be placed; free amounts are never summed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from gangscheduler.cluster import Cluster
from gangscheduler.model import Pod, PodShape

CLUSTER = "cluster"
MOST_SHAPES = 20


def shapes_of(pods: Iterable[Pod]) -> list[PodShape]:
    """The shapes that gangs of ours are made of, at most MOST_SHAPES, the most frequent first. Linear."""
    counts = Counter(pod.shape for pod in pods if pod.group and pod.ours)
    return [shape for shape, _ in sorted(counts.items(), key=lambda item: (-item[1], label(item[0])))[:MOST_SHAPES]]


def largest(cluster: Cluster, levels: tuple[str, ...], shape: PodShape) -> Iterator[tuple[str, int]]:
    """(level, pods): the most pods of the shape that one domain of the level takes now; the whole cluster first.

    Linear in nodes, for each level. The cluster must be settled.
    """
    room = cluster.room(shape)
    yield CLUSTER, int(room.sum())
    for depth, level in enumerate(levels, start=1):
        if depth > cluster.depth or not len(room):
            yield level, 0
            continue
        sums = cluster.sums(room, depth, cluster.whole)[cluster.named[depth]]
        yield level, int(sums.max(initial=0))


def label(shape: PodShape) -> str:
    """What the shape asks for, in words: `nvidia.com/gpu=8 cpu=4000`; cpu in milli, memory in bytes."""
    return " ".join(f"{resource}={amount}" for resource, amount in shape.requests if resource != "pods") or "nothing"
