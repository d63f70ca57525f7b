"""Exact packing: rows of one domain for pods of several shapes.

Rules:
1. A pack is checked row by row, never against sums. One shape is exact at once.
2. Several shapes: the larger ones first, each on few domains; where that fails, bounded backtracking over rows, in
   which equal rows and equal pods are tried once and the smallest shape is filled in exactly.
3. What was found is left to the caller to take; the cluster is as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gangscheduler.cluster import Cluster, Domain, size_of
from gangscheduler.domains import spread
from gangscheduler.model import Amounts, PodShape

SEARCH_LIMIT_ROWS = 4_000
# Each pod that is searched for is a level of recursion.
SEARCHED_PODS = 200

Rows = dict[PodShape, list[int]]


@dataclass(frozen=True, slots=True)
class Demand:
    """So many equal pods, all of them within a domain."""

    shape: PodShape
    count: int
    domain: Domain


def pack(cluster: Cluster, domain: Domain, needs: Counter[PodShape], first: int = 0) -> Rows | None:
    """Rows for each shape, in the order of their places; None when they do not fit (or the search ran out)."""
    kinds = sorted(needs, key=size_of, reverse=True)
    mark = cluster.mark()
    found: Rows = {}
    for shape in kinds:
        room = cluster.room(shape)
        if int(room[domain.start : domain.end].sum()) < needs[shape]:
            break
        places = sorted(spread(cluster, room, needs[shape], domain, first))
        found[shape] = [row for row, count in places for _ in range(count)]
        if len(kinds) > 1:
            for row, count in places:
                cluster.take(row, shape, count)
    cluster.rollback(mark)
    if len(found) == len(kinds):
        return found
    if not found or len(kinds) == 1:
        return None
    search = Search(cluster)
    rows = search.run([Demand(shape, needs[shape], domain) for shape in kinds])
    return None if rows is None else dict(zip(kinds, rows, strict=True))


class Search:
    """Depth-first over demands; the cluster carries the partial answer. `left` rows may still be looked at."""

    def __init__(self, cluster: Cluster) -> None:
        self.left = SEARCH_LIMIT_ROWS
        self._cluster = cluster
        self._demands: list[Demand] = []
        self._rows: list[list[int]] = []
        self._found: list[list[int]] = []

    def run(self, demands: Sequence[Demand]) -> list[list[int]] | None:
        """The rows of each demand, or None."""
        order = sorted(range(len(demands)), key=lambda at: _hardness(demands[at]), reverse=True)
        if sum(demands[at].count for at in order[:-1]) > SEARCHED_PODS:
            return None
        self._demands = [demands[at] for at in order]
        self._rows = [self._open(demand) for demand in self._demands]
        self._found = [[] for _ in demands]
        mark = self._cluster.mark()
        found = self._place(0)
        self._cluster.rollback(mark)
        return [sorted(self._found[order.index(at)]) for at in range(len(demands))] if found else None

    def _open(self, demand: Demand) -> list[int]:
        """Rows with room for it, those with the fewest free devices first."""
        domain = demand.domain
        room = self._cluster.room(demand.shape)[domain.start : domain.end]
        devices = self._cluster.free_devices(domain)
        rows = np.flatnonzero(room)
        found: list[int] = (rows[devices[rows].argsort(kind="stable")] + domain.start).tolist()
        return found

    def _place(self, index: int) -> bool:
        if index == len(self._demands):
            return True
        if not all(self._holds(at) for at in range(index, len(self._demands))):
            return False
        if index == len(self._demands) - 1:
            self._fill(index)
            return True
        return self._choose(index, self._demands[index].count, 0)

    def _holds(self, index: int) -> bool:
        demand = self._demands[index]
        return int(self._cluster.room(demand.shape)[self._rows[index]].sum()) >= demand.count

    def _fill(self, index: int) -> None:
        left, room = self._demands[index].count, self._cluster.room(self._demands[index].shape)
        for row in self._rows[index]:
            some = min(left, int(room[row]))
            self._found[index] += [row] * some
            left -= some

    def _choose(self, index: int, left: int, start: int) -> bool:
        """Place `left` equal pods on rows from `start` on, never going back: equal pods have no order."""
        if left == 0:
            return self._place(index + 1)
        shape, tried = self._demands[index].shape, set()
        for position in range(start, len(self._rows[index])):
            self.left -= 1
            if self.left <= 0:
                return False
            row = self._rows[index][position]
            if self._cluster.room(shape)[row] <= 0:
                continue
            state = self._state(row, index)
            if state in tried:
                continue
            tried.add(state)
            mark = self._cluster.mark()
            self._cluster.take(row, shape)
            self._found[index].append(row)
            if self._choose(index, left - 1, position):
                return True
            self._found[index].pop()
            self._cluster.rollback(mark)
        return False

    def _state(self, row: int, index: int) -> tuple[object, ...]:
        """Rows in the same state are interchangeable for what is left to place."""
        later = tuple(
            demand.domain.start <= row < demand.domain.end and bool(self._cluster.eligible(demand.shape)[row])
            for demand in self._demands[index:]
        )
        return (*later, *self._cluster.free[:, row].tolist())


def _hardness(demand: Demand) -> tuple[int, tuple[tuple[int, int, int], Amounts]]:
    """What may go to the fewest rows first, then the largest; the last one is filled in exactly."""
    return demand.domain.start - demand.domain.end, size_of(demand.shape)
