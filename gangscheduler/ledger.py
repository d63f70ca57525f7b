"""What is free on every node and in every topology domain, with checkpoint and rollback.

Rules:
1. Every pod that sits on a node is charged to it, terminating ones included; `free` may be negative then.
2. Only schedulable nodes (ready, not cordoned) are offered. Which of them a shape may use is asked once a shape.
3. `take` needs room on the node (the caller asked `fits`); `rollback` undoes in reverse order.
4. A domain is known by its full path: (), (zone,), (zone, block), ... down to the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from gangscheduler.model import Node, Path, PodShape, Requirement, Snapshot, Taint, Toleration

CPU, MEMORY = "cpu", "memory"
UNBOUNDED = 1 << 62
KEEPING_AWAY = ("NoSchedule", "NoExecute")


class Ledger:
    """Free amounts of one snapshot. Building it is linear in nodes and pods; take and undo are constant."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.nodes = {node.name: node for node in snapshot.nodes}
        self.free = {node.name: dict(node.allocatable) for node in snapshot.nodes}
        for pod in snapshot.pods:
            if pod.node in self.free:
                _add(self.free[pod.node], pod.shape, -1)
        self._open = [node.name for node in snapshot.nodes if node.ready and not node.cordoned]
        self._closed = [node.name for node in snapshot.nodes if not node.ready or node.cordoned]
        self._eligible: dict[PodShape, frozenset[str]] = {}
        self._prefixes = {name: prefixes(self.nodes[name].path) for name in self._open}
        self._journal: list[tuple[str, PodShape, int]] = []
        self._sum_domains()

    def _sum_domains(self) -> None:
        """Sums of what is free (never below 0 a node) and the nodes of every domain."""
        self.members: dict[Path, list[str]] = {(): []}
        self.sums: dict[Path, dict[str, int]] = {(): {}}
        for name in self._open:
            for domain in self._prefixes[name]:
                self.members.setdefault(domain, []).append(name)
                total = self.sums.setdefault(domain, {})
                for resource, amount in self.free[name].items():
                    total[resource] = total.get(resource, 0) + max(0, amount)
        self.domains: dict[int, list[Path]] = {}
        for domain in self.members:
            self.domains.setdefault(len(domain), []).append(domain)

    def eligible(self, shape: PodShape) -> frozenset[str]:
        """Schedulable nodes that the shape's selector, affinity and tolerations admit, room or not."""
        found = self._eligible.get(shape)
        if found is None:
            found = frozenset(name for name in self._open if admits(self.nodes[name], shape))
            self._eligible[shape] = found
        return found

    def blocked(self, shape: PodShape) -> tuple[str, ...]:
        """Nodes that would be eligible if they were ready and not cordoned."""
        return tuple(name for name in self._closed if admits(self.nodes[name], shape))

    def room(self, name: str, shape: PodShape) -> int:
        """How many pods of this shape the node can still take."""
        free, room = self.free[name], UNBOUNDED
        for resource, amount in shape.requests:
            room = min(room, free.get(resource, 0) // amount)
            if room <= 0:
                return 0
        return room

    def fits(self, name: str, shape: PodShape) -> bool:
        """Whether the node can take one more pod of this shape."""
        return self.room(name, shape) > 0

    def take(self, name: str, shape: PodShape) -> None:
        """Charge a pod of this shape to the node."""
        self._charge(name, shape, -1)
        self._journal.append((name, shape, 1))

    def give(self, name: str, shape: PodShape) -> None:
        """Credit a pod that was taken before."""
        self._charge(name, shape, 1)
        self._journal.append((name, shape, -1))

    def mark(self) -> int:
        """A checkpoint for `rollback`."""
        return len(self._journal)

    def rollback(self, mark: int) -> None:
        """Undo every take and give since the checkpoint."""
        while len(self._journal) > mark:
            self._charge(*self._journal.pop())

    def taken_since(self, mark: int) -> list[tuple[str, PodShape]]:
        """Node and shape of every take since the checkpoint."""
        return [(name, shape) for name, shape, undo in self._journal[mark:] if undo > 0]

    def _charge(self, name: str, shape: PodShape, sign: int) -> None:
        _add(self.free[name], shape, sign)
        for domain in self._prefixes[name]:
            _add(self.sums[domain], shape, sign)

    def tightness(self, domain: Path) -> tuple[int, int, int]:
        """Best fit takes the smallest: free devices first, so that GPU nodes stay whole, then cpu, memory."""
        return tightness(self.sums[domain])


def tightness(free: dict[str, int]) -> tuple[int, int, int]:
    """Free devices (extended resources), cpu and memory, as a key to sort by."""
    devices = sum(amount for resource, amount in free.items() if "/" in resource)
    return devices, free.get(CPU, 0), free.get(MEMORY, 0)


def prefixes(path: Path) -> list[Path]:
    """Every domain that a full path lies in, the whole cluster first."""
    return [(), *accumulate(((part,) for part in path), lambda done, part: done + part)]


def total_of(shapes: Iterable[PodShape]) -> dict[str, int]:
    """The summed requests."""
    total: dict[str, int] = {}
    for shape in shapes:
        _add(total, shape, 1)
    return total


def admits(node: Node, shape: PodShape) -> bool:
    """Whether labels, affinity and taints let the shape onto the node, room and readiness aside."""
    labels = dict(node.labels)
    if any(labels.get(key) != value for key, value in shape.selector):
        return False
    if not all(_tolerated(taint, shape.tolerations) for taint in node.taints):
        return False
    fields = labels | {"metadata.name": node.name}
    return not shape.affinity or any(
        bool(term) and all(_meets(fields, requirement) for requirement in term) for term in shape.affinity
    )


def _tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return taint.effect not in KEEPING_AWAY or any(_tolerates(item, taint) for item in tolerations)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
        return False
    return toleration.operator == "Exists" or (bool(toleration.key) and toleration.value == taint.value)


def _meets(labels: dict[str, str], requirement: Requirement) -> bool:
    value, values = labels.get(requirement.key), requirement.values
    match requirement.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _compares(value, values) > 0
        case "Lt":
            return _compares(value, values) < 0
        case _:
            return False  # an operator that is not known never admits a node


def _compares(value: str | None, values: Sequence[str]) -> int:
    """Sign of value minus the one value compared with; 0 when either is no integer."""
    try:
        difference = int(value or "") - int(values[0] if values else "")
    except ValueError:
        return 0
    return (difference > 0) - (difference < 0)


def _add(amounts: dict[str, int], shape: PodShape, sign: int) -> None:
    for resource, amount in shape.requests:
        amounts[resource] = amounts.get(resource, 0) + sign * amount
