"""Find nodes for pods that must run together: exact packing, and the nearest domain that holds it.

Rules:
1. A pack is checked node by node, never against sums; sums only rule domains out early.
2. A TP group goes to the deepest topology level that holds it whole; among the domains of that level to the
   one nearest to its siblings, then best fit (the fullest that still holds it), then by name.
3. Backtracking is bounded by the number of nodes looked at: a search that runs out has found nothing.
4. What was found is taken from the ledger; what was not found leaves the ledger as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from gangscheduler.ledger import Ledger, tightness, total_of
from gangscheduler.model import Path, PodShape, Template

SEARCH_LIMIT_NODES = 20_000


def place_group(
    ledger: Ledger, shapes: Template, own: Sequence[Path] = (), near: Set[Path] = frozenset()
) -> list[str] | None:
    """A node for each pod of one TP group, in their order.

    `own` are the places of members that run already, `near` the domains that hold siblings. Costs one look
    at every domain, plus a pack in each domain whose sums suffice until one holds the group.
    """
    everywhere = ledger.members[()]
    if _kinds(ledger, everywhere, shapes) is None:
        return None
    for domain in _domains(ledger, total_of(shapes), own, near):
        nodes = ledger.members[domain]
        nodes = sorted(nodes, key=lambda name: _node_order(ledger, name, near)) if len(nodes) > 1 else nodes
        found = pack(ledger, nodes, shapes)
        if found is not None:
            return found
    return None


def place_jointly(ledger: Ledger, groups: Sequence[Template]) -> list[list[str]] | None:
    """Nodes for several TP groups at once, wherever they fit: the last resort of a minimum.

    Equal pods are interchangeable, so the nodes found are dealt out in the order of their places.
    """
    shapes = [shape for group in groups for shape in group]
    nodes = sorted(ledger.members[()], key=lambda name: _node_order(ledger, name, frozenset()))
    mark = ledger.mark()
    if pack(ledger, nodes, shapes) is None:
        return None
    return _deal(ledger, ledger.taken_since(mark), groups)


def pack(ledger: Ledger, nodes: Sequence[str], shapes: Sequence[PodShape]) -> list[str] | None:
    """A node for every shape, in their order, tried in the order of `nodes`.

    With one distinct shape the answer is exact and costs one look at every node; with more, the larger ones
    are placed by backtracking (equal nodes and equal pods are tried once), the smallest one exactly.
    """
    kinds = _kinds(ledger, nodes, shapes)
    if kinds is None:
        return None
    mark = ledger.mark()
    if not _Search(ledger, kinds).found(0):
        ledger.rollback(mark)
        return None
    return _deal(ledger, ledger.taken_since(mark), [tuple(shapes)])[0]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Equal pods, how many, and the nodes that admit them, in the order to try."""

    shape: PodShape
    count: int
    nodes: tuple[str, ...]


def _kinds(ledger: Ledger, nodes: Sequence[str], shapes: Sequence[PodShape]) -> list[_Kind] | None:
    """The distinct shapes, largest first; None when one of them alone does not fit."""
    kinds = []
    for shape, count in Counter(shapes).items():
        eligible = ledger.eligible(shape)
        kind = _Kind(shape, count, tuple(name for name in nodes if name in eligible))
        if not _holds(ledger, kind):
            return None
        kinds.append(kind)
    return sorted(kinds, key=lambda kind: (tightness(dict(kind.shape.requests)), kind.shape.requests))[::-1]


def _holds(ledger: Ledger, kind: _Kind) -> bool:
    left = kind.count
    for name in kind.nodes:
        left -= ledger.room(name, kind.shape)
        if left <= 0:
            return True
    return False


class _Search:
    """Depth-first over the kinds; the ledger carries the partial answer."""

    def __init__(self, ledger: Ledger, kinds: Sequence[_Kind]) -> None:
        self._ledger = ledger
        self._kinds = kinds
        self._left = SEARCH_LIMIT_NODES

    def found(self, index: int) -> bool:
        """Place kinds[index:]; True when all of them sit."""
        if not all(_holds(self._ledger, kind) for kind in self._kinds[index:]):
            return False
        if index == len(self._kinds) - 1:
            self._fill(self._kinds[index])
            return True
        return self._choose(index, self._kinds[index].count, 0)

    def _fill(self, kind: _Kind) -> None:
        left = kind.count
        for name in kind.nodes:
            for _ in range(min(left, self._ledger.room(name, kind.shape))):
                self._ledger.take(name, kind.shape)
                left -= 1

    def _choose(self, index: int, left: int, start: int) -> bool:
        """Place `left` equal pods on nodes from `start` on, never going back: equal pods have no order."""
        if left == 0:
            return self.found(index + 1)
        kind, tried = self._kinds[index], set()
        for position in range(start, len(kind.nodes)):
            self._left -= 1
            if self._left <= 0:
                return False
            name = kind.nodes[position]
            state = self._state(name, index)
            if state in tried or not self._ledger.fits(name, kind.shape):
                continue
            tried.add(state)
            mark = self._ledger.mark()
            self._ledger.take(name, kind.shape)
            if self._choose(index, left - 1, position):
                return True
            self._ledger.rollback(mark)
        return False

    def _state(self, name: str, index: int) -> tuple[object, ...]:
        """Nodes in the same state are interchangeable for what is left to place."""
        later = (name in self._ledger.eligible(kind.shape) for kind in self._kinds[index + 1 :])
        return tuple(later), tuple(sorted(self._ledger.free[name].items()))


def _deal(ledger: Ledger, taken: Sequence[tuple[str, PodShape]], groups: Sequence[Template]) -> list[list[str]]:
    places: dict[PodShape, list[str]] = {}
    for name, shape in sorted(taken, key=lambda item: ledger.nodes[item[0]].path, reverse=True):
        places.setdefault(shape, []).append(name)
    return [[places[shape].pop() for shape in group] for group in groups]


def _domains(ledger: Ledger, total: dict[str, int], own: Sequence[Path], near: Set[Path]) -> Iterator[Path]:
    """Domains whose sums suffice, best first. With members that run, only the domains around them."""
    if own:
        shared = _shared(own)
        around = (shared[:depth] for depth in range(len(shared), -1, -1))
        yield from (domain for domain in around if domain in ledger.members)
        return
    for depth in sorted(ledger.domains, reverse=True):
        wide = [domain for domain in ledger.domains[depth] if _covers(ledger.sums[domain], total)]
        yield from sorted(wide, key=lambda domain: (-_closeness(domain, near), ledger.tightness(domain), domain))


def _covers(free: dict[str, int], total: dict[str, int]) -> bool:
    return all(free.get(resource, 0) >= amount for resource, amount in total.items())


def _node_order(ledger: Ledger, name: str, near: Set[Path]) -> tuple[int, tuple[int, int, int], Path]:
    path = ledger.nodes[name].path
    return -_closeness(path, near), tightness(ledger.free[name]), path


def _closeness(domain: Path, near: Set[Path]) -> int:
    """How many levels the domain shares with its nearest sibling."""
    depth = len(domain) if near else 0
    while depth and domain[:depth] not in near:
        depth -= 1
    return depth


def _shared(paths: Sequence[Path]) -> Path:
    low, high = min(paths), max(paths)
    depth = 0
    while depth < min(len(low), len(high)) and low[depth] == high[depth]:
        depth += 1
    return low[:depth]
