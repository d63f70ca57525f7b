"""Which domains could hold a part, and in which order they are tried.

Rules:
1. A bound never says no to a domain that could hold the part; for equal pods it is exact.
2. The order is lexicographic: holds everything that waits, nearest to relatives, leaves whole domains whole, then the
   choice of the snapshot, then the same of the domains around it, then the path.
3. Only the rows of the domain at hand are looked at: a question about a rack costs what the rack costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gangscheduler.cluster import Cluster, Domain, Ints, size_of, total_of
from gangscheduler.model import Choice, PodShape
from gangscheduler.part import UNKNOWN, Kin, Part

PLENTY = 1 << 40


def copies(cluster: Cluster, part: Part, depth: int, inside: Domain) -> Ints:
    """An upper bound, for every domain of a depth within `inside`, of how often the part's minimum fits into it."""
    unit = max(part.required, depth)
    low, high = cluster.inside(inside, depth)
    if part.required == UNKNOWN:
        return np.zeros(high - low, np.int64)
    found = _of_leaf(cluster, part, unit, inside) if part.is_leaf else _of_inner(cluster, part, unit, inside)
    first, last = cluster.inside(inside, unit)
    if part.required == unit:
        found = np.where(cluster.named[unit][first:last], found, 0)
    if unit == depth or not len(found):
        return found
    starts = cluster.of[unit][cluster.starts[depth][low:high]] - first
    return np.add.reduceat(np.minimum(found, PLENTY), starts)


def room_in(cluster: Cluster, shape: PodShape, depth: int, inside: Domain) -> Ints:
    """How many pods of a shape every domain of a depth within `inside` can still take."""
    return cluster.sums(cluster.room(shape)[inside.start : inside.end], depth, inside)


def _of_leaf(cluster: Cluster, part: Part, unit: int, inside: Domain) -> Ints:
    low, high = cluster.inside(inside, unit)
    found = np.full(high - low, PLENTY, np.int64)
    if part.has_choice:
        return found
    for shape, count in part.needs().items():
        np.minimum(found, room_in(cluster, shape, unit, inside) // count, out=found)
    return found


def _of_inner(cluster: Cluster, part: Part, unit: int, inside: Domain) -> Ints:
    low, high = cluster.inside(inside, unit)
    alike: dict[Hashable, list[Part]] = {}
    for child in part.ready:
        alike.setdefault(child.likeness(), []).append(child)
    each = [(copies(cluster, children[0], unit, inside), len(children)) for children in alike.values()]
    if sum(count for _, count in each) > part.missing:
        total = np.zeros(high - low, np.int64)
        for fits, _ in each:
            total += np.minimum(fits, PLENTY)
        return total // max(1, part.missing)
    found = np.full(high - low, PLENTY, np.int64)
    for fits, count in each:
        np.minimum(found, fits // count, out=found)
    return found


def holding(cluster: Cluster, needs: Mapping[PodShape, int], depth: int, inside: Domain) -> Ints:
    """Numbers of the domains of a depth within `inside` whose sums suffice; exact for one shape."""
    low, high = cluster.inside(inside, depth)
    enough = np.ones(high - low, np.bool_)
    for shape, count in needs.items():
        enough &= room_in(cluster, shape, depth, inside) >= count
    if len(needs) > 1 and enough.any():
        for resource, amount in total_of(needs).items():
            free = cluster.free_of(resource)[inside.start : inside.end]
            enough &= cluster.sums(free, depth, inside) >= amount
    return np.flatnonzero(enough) + low


def spread(cluster: Cluster, room: Ints, count: int, domain: Domain, first: int) -> list[tuple[int, int]]:
    """(row, pods) for `count` equal pods in a domain that holds them: few domains of every level, the last best fit.

    `first` is the depth of the domains that are to be few, if it is deeper than the next one. `room` is of all rows.
    """
    if domain.end - domain.start == 1:
        return [(domain.start, count)]
    depth = max(first, domain.depth + 1)
    low, _ = cluster.inside(domain, depth)
    here = room[domain.start : domain.end]
    sums = cluster.sums(here, depth, domain).copy()
    rows: list[tuple[int, int]] = []
    if int(sums.sum()) == count:
        used = np.flatnonzero(here)
        return list(zip((used + domain.start).tolist(), here[used].tolist(), strict=True))
    while count > 0:
        fits = np.flatnonzero(sums >= count)
        pick = int(fits[sums[fits].argmin()]) if len(fits) else int(sums.argmax())
        some = min(count, int(sums[pick]))
        rows += spread(cluster, room, some, cluster.domain(depth, low + pick), first)
        sums[pick] = 0
        count -= some
    return rows


class Order:
    """The order of domains for one part: rule 2."""

    def __init__(self, cluster: Cluster, choice: Choice) -> None:
        self._cluster = cluster
        self._choice = choice

    def ranked(
        self, found: Ints, depth: int, inside: Domain, part: Part, needs: Counter[PodShape], wish: Counter[PodShape]
    ) -> Iterator[Domain]:
        """The domains (by number), best first; the best one is found without sorting the others."""
        if not len(found):
            return
        best = np.arange(len(found))
        for key in self._keys(found, depth, inside, part, needs, wish) if len(found) > 1 else ():
            values = key[best]
            best = best[values == values.min()]
            if len(best) == 1:
                break
        first = int(best[0])
        yield self._cluster.domain(depth, int(found[first]))
        if len(found) > 1:
            keys = list(self._keys(found, depth, inside, part, needs, wish))
            for at in np.lexsort(keys[::-1]).tolist():
                if at != first:
                    yield self._cluster.domain(depth, int(found[at]))

    def _keys(
        self, found: Ints, depth: int, inside: Domain, part: Part, needs: Counter[PodShape], wish: Counter[PodShape]
    ) -> Iterator[NDArray[np.int64] | NDArray[np.float64]]:
        low, _ = self._cluster.inside(inside, depth)
        if len(wish) == 1 and wish.total() > needs.total():
            sums = room_in(self._cluster, next(iter(wish)), depth, inside)
            yield (sums[found - low] < wish.total()).astype(np.int64)
        yield from self._far(found, depth, part)
        around = range(depth - 1, inside.depth, -1)
        starts = self._cluster.starts[depth][found]
        if self._choice is Choice.PACK and around:
            yield self._whole(starts, around, inside)
        main = max(needs, key=size_of, default=None) if len(needs) > 1 else next(iter(needs), None)
        devices = self._cluster.free_devices(inside)
        for level in (depth, *around):
            yield from self._fit(self._cluster.of[level][starts], level, inside, main, devices)

    def _far(self, found: Ints, depth: int, part: Part) -> Iterator[Ints]:
        """Minus the number of levels that a domain shares with the part's own members, then with relatives."""
        own = Kin(self._cluster, part.rows) if part.rows else None
        starts = self._cluster.starts[depth][found]
        for kin in (own, part.kin):
            if kin is None or not kin.any:
                continue
            close = np.zeros(len(found), np.int64)
            for level in range(1, depth + 1):
                close[kin.counts[level][self._cluster.of[level][starts]] > 0] = -level
            yield close

    def _whole(self, starts: Ints, around: Sequence[int], inside: Domain) -> Ints:
        """In how many domains around it nothing runs yet."""
        busy, begun = self._cluster.busy(inside), np.zeros(len(starts), np.int64)
        for level in around:
            low, _ = self._cluster.inside(inside, level)
            idle = self._cluster.sums(busy, level, inside) == 0
            begun += idle[self._cluster.of[level][starts] - low]
        return begun

    def _fit(
        self, found: Ints, level: int, inside: Domain, main: PodShape | None, devices: Ints
    ) -> Iterator[NDArray[np.int64] | NDArray[np.float64]]:
        cluster, (low, _) = self._cluster, self._cluster.inside(inside, level)
        if self._choice is Choice.MOST_ALLOCATED and main is not None:
            yield -self._used_share(level, inside, main)[found - low]
            return
        sign = -1 if self._choice is Choice.SPREAD else 1
        yield sign * cluster.sums(devices, level, inside)[found - low]
        if main is not None:
            yield sign * room_in(cluster, main, level, inside)[found - low]

    def _used_share(self, level: int, inside: Domain, main: PodShape) -> NDArray[np.float64]:
        resource, rows = main.requests[0][0], slice(inside.start, inside.end)
        free = self._cluster.sums(self._cluster.free_of(resource)[rows], level, inside)
        whole = self._cluster.sums(self._cluster.whole_of(resource)[rows], level, inside)
        return np.asarray(1.0 - free / np.maximum(whole, 1))
