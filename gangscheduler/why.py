"""Why pods find no place, as a reason code and the resource that limits them.

Rule: the most lasting cause is named first: no node matches, none is large enough, the matching ones are closed, too
little is free, free but in pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gangscheduler.cluster import Cluster, Flags, Ints, size_of, total_of
from gangscheduler.model import PodShape, Reason


class Cause(NamedTuple):
    """Why, what limits it, at which level, and what else there is to say."""

    reason: Reason
    resource: str = ""
    level: str = ""
    detail: str = ""


def why_not(cluster: Cluster, needs: Counter[PodShape]) -> Cause:
    """The cause, given that these pods do not fit together now. A pass over all nodes for each distinct shape."""
    kinds = sorted(needs, key=size_of, reverse=True)
    for shape in kinds:
        cause = _never(cluster, shape)
        if cause is not None:
            return cause
    for shape in kinds:
        cause = _not_now(cluster, shape, needs[shape])
        if cause is not None:
            return cause
    return _all_together(cluster, kinds, needs)


def blocked_nodes(cluster: Cluster, shapes: Iterable[PodShape]) -> int:
    """Nodes that match a pod of these shapes but are cordoned or not ready."""
    found = np.zeros(len(cluster.nodes), np.bool_)
    for shape in shapes:
        found |= cluster.eligible(shape) & ~cluster.open
    return int(found.sum())


def _never(cluster: Cluster, shape: PodShape) -> Cause | None:
    """A cause that no pod's leaving would lift."""
    mask = cluster.eligible(shape)
    if not mask.any():
        return Cause(Reason.SELECTOR_MISMATCH)
    whole = {resource: cluster.whole_of(resource) for resource, _ in shape.requests}
    large = mask.copy()
    for resource, amount in shape.requests:
        large &= whole[resource] >= amount
    if not large.any():
        return Cause(Reason.POD_TOO_LARGE, _scarcest(shape, whole, mask))
    return None if (mask & cluster.open).any() else Cause(Reason.NODES_UNSCHEDULABLE)


def _not_now(cluster: Cluster, shape: PodShape, count: int) -> Cause | None:
    here = int(cluster.room(shape).sum())
    if here >= count:
        return None
    mask = cluster.eligible(shape)
    opened = mask & cluster.open
    free = {resource: cluster.free_of(resource) for resource, _ in shape.requests}
    scarcest = _scarcest(shape, free, opened)
    detail = f"room for {here} of {count} pods"
    if here + int(_pods(shape, free)[mask & ~cluster.open].sum()) >= count:
        return Cause(Reason.NODES_UNSCHEDULABLE, scarcest, detail=detail)
    if all(int(free[resource][opened].sum()) >= amount * count for resource, amount in shape.requests):
        return Cause(Reason.FRAGMENTED, scarcest, detail=detail)
    return Cause(Reason.INSUFFICIENT_RESOURCE, scarcest, detail=detail)


def _all_together(cluster: Cluster, kinds: list[PodShape], needs: Counter[PodShape]) -> Cause:
    """Every shape finds room alone: either the sum is short, or the room is in the wrong places."""
    mask = np.zeros(len(cluster.nodes), np.bool_)
    for shape in kinds:
        mask |= cluster.eligible(shape) & cluster.open
    total = total_of(needs)
    free = {resource: int(cluster.free_of(resource)[mask].sum()) for resource in total}
    short = [resource for resource, amount in total.items() if free[resource] < amount]
    if short:
        resource = min(short, key=_device_first)
        return Cause(Reason.INSUFFICIENT_RESOURCE, resource, detail=f"{free[resource]} of {total[resource]} free")
    if not kinds:
        return Cause(Reason.FRAGMENTED)
    return Cause(Reason.FRAGMENTED, min((resource for resource, _ in kinds[0].requests), key=_device_first))


def _pods(shape: PodShape, free: dict[str, Ints]) -> Ints:
    found: Ints = np.min([free[resource] // amount for resource, amount in shape.requests], axis=0)
    return found


def _scarcest(shape: PodShape, free: dict[str, Ints], mask: Flags) -> str:
    """The resource for which the fewest pods of the shape find a node."""

    def places(item: tuple[str, int]) -> tuple[int, bool, str]:
        resource, amount = item
        return int((free[resource][mask] // amount).sum()), *_device_first(resource)

    return min(shape.requests, key=places)[0]


def _device_first(resource: str) -> tuple[bool, str]:
    return "/" not in resource, resource
