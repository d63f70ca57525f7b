"""Why something finds no place, as a reason code and the resource that limits it.

Rule: the most lasting cause is named first: no node matches, none is large enough, the matching ones are
closed, too little is free, free but in pieces.
"""

from __future__ import annotations

from collections import Counter

from gangscheduler.ledger import Ledger, tightness, total_of
from gangscheduler.model import Node, PodShape, Reason, Template

Cause = tuple[Reason, str]


def why_not(ledger: Ledger, shapes: Template) -> Cause:
    """The cause, given that these pods do not fit together now. Linear in nodes, for each distinct shape."""
    counts = Counter(shapes)
    kinds = sorted(counts, key=lambda shape: (tightness(dict(shape.requests)), shape.requests), reverse=True)
    for shape in kinds:
        cause = _never(ledger, shape)
        if cause is not None:
            return cause
    for shape in kinds:
        cause = _not_now(ledger, shape, counts[shape])
        if cause is not None:
            return cause
    return _all_together(ledger, kinds, total_of(shapes))


def blocked_nodes(ledger: Ledger, template: Template) -> int:
    """Nodes that match a pod of the template but are cordoned or not ready."""
    return len({name for shape in set(template) for name in ledger.blocked(shape)})


def _never(ledger: Ledger, shape: PodShape) -> Cause | None:
    """A cause that no pod's leaving would lift."""
    opened, closed = ledger.eligible(shape), ledger.blocked(shape)
    if not opened and not closed:
        return Reason.SELECTOR_MISMATCH, ""
    nodes = [ledger.nodes[name] for name in (*opened, *closed)]
    if not any(_large_enough(node, shape) for node in nodes):
        return Reason.POD_TOO_LARGE, _scarcest(shape, [dict(node.allocatable) for node in nodes])
    return None if opened else (Reason.NODES_UNSCHEDULABLE, "")


def _not_now(ledger: Ledger, shape: PodShape, count: int) -> Cause | None:
    opened = ledger.eligible(shape)
    here = sum(ledger.room(name, shape) for name in opened)
    if here >= count:
        return None
    free = [ledger.free[name] for name in opened]
    scarcest = _scarcest(shape, free)
    if here + sum(ledger.room(name, shape) for name in ledger.blocked(shape)) >= count:
        return Reason.NODES_UNSCHEDULABLE, scarcest
    if all(_sum(free, resource) >= amount * count for resource, amount in shape.requests):
        return Reason.FRAGMENTED, scarcest
    return Reason.INSUFFICIENT_RESOURCE, scarcest


def _all_together(ledger: Ledger, kinds: list[PodShape], total: dict[str, int]) -> Cause:
    """Every shape finds room alone: either the sum is short, or the room is in the wrong places."""
    nodes = frozenset[str]().union(*(ledger.eligible(shape) for shape in kinds))
    free = [ledger.free[name] for name in nodes]
    short = [resource for resource, amount in total.items() if _sum(free, resource) < amount]
    if short:
        return Reason.INSUFFICIENT_RESOURCE, min(short, key=_device_first)
    return Reason.FRAGMENTED, min((resource for resource, _ in kinds[0].requests), key=_device_first)


def _large_enough(node: Node, shape: PodShape) -> bool:
    whole = dict(node.allocatable)
    return all(whole.get(resource, 0) >= amount for resource, amount in shape.requests)


def _scarcest(shape: PodShape, free: list[dict[str, int]]) -> str:
    """The resource for which the fewest pods of the shape find a node."""

    def places(item: tuple[str, int]) -> tuple[int, bool, str]:
        resource, amount = item
        return sum(max(0, one.get(resource, 0)) // amount for one in free), *_device_first(resource)

    return min(shape.requests, key=places)[0]


def _device_first(resource: str) -> tuple[bool, str]:
    return "/" not in resource, resource


def _sum(free: list[dict[str, int]], resource: str) -> int:
    return sum(max(0, one.get(resource, 0)) for one in free)
