"""Place a part: every way to meet its minimum, the best first, each undone when the next is asked for.

Rules:
1. A required level is never broken: all members of the part, running ones included, lie in one domain of it.
2. A preferred level is kept while any domain of it holds the part; else the next level up is tried. Without one, pods
   of a leaf go to the deepest domain that holds them.
3. Siblings that ask for a domain come first, the largest first, each at its best domain. Where that fails, other
   domains and other siblings are tried, BUDGET times in all; then the pods of all of them are packed as one.
4. What is placed stays until `undo`; equal questions have equal answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import islice

import numpy as np

from gangscheduler.cluster import Cluster, Domain
from gangscheduler.domains import Order, copies, holding, room_in, spread
from gangscheduler.model import Choice, Pod, PodShape
from gangscheduler.pack import Demand, Search, pack
from gangscheduler.part import UNKNOWN, Part

# A row, and how many pods of a shape go there.
Place = tuple[int, PodShape, int]

BUDGET = 400
COMPARED = 8
JOINT, JOINT_LEAVES = 32, 64


class Solver:
    """The search over one cluster.

    `places` holds every pod placed so far, `promises` the room that `most` has taken for equal members at once;
    `pinned` = members that run bind what is new to their domain.
    """

    def __init__(self, cluster: Cluster, choice: Choice = Choice.PACK) -> None:
        self.cluster = cluster
        self.places: list[tuple[Part, Pod, int]] = []
        self._order = Order(cluster, choice)
        self.promises: list[tuple[Part, int, tuple[Place, ...]]] = []
        self._budget = 0
        self._backtracks = False
        self._top: Part | None = None
        self.pinned = True

    def place(self, part: Part, above: Sequence[Part] = ()) -> bool:
        """Meet the part's minimum, within what the parts above it allow. Nothing is placed when it cannot be."""
        whole = self.cluster.whole
        if part.is_short() or not whole.end or not copies(self.cluster, part, 0, whole)[0]:
            return False
        self._begin(part)
        return next(self._below([*above, part], self.cluster.whole), False)

    def place_pod(self, leaf: Part, pod: Pod, above: Sequence[Part] = ()) -> bool:
        """Place one more pod of a leaf that is met."""
        self._begin(leaf)
        for inside in self._nested([*above, leaf], self.cluster.whole):
            if next(self._spots(leaf, [pod], inside), False):
                return True
        return False

    def most(self, part: Part, above: Sequence[Part] = ()) -> None:
        """Place, or promise room for, as much of the part's minimum as fits: what can be met of it, one by one."""
        for inside in self._nested(above, self.cluster.whole):
            self._most(part, inside)
            return

    def mark(self) -> int:
        """A checkpoint for `undo`."""
        return len(self.places)

    def undo(self, mark: int) -> None:
        """Take back every placement since the checkpoint; promises stay."""
        while len(self.places) > mark:
            part, pod, row = self.places.pop()
            part.remove(pod)
            self.cluster.give(row, pod.shape)

    def clear(self) -> None:
        """Take back everything."""
        self.undo(0)
        self._break_promises(0)

    def _put(self, part: Part, pod: Pod, row: int) -> None:
        self.cluster.take(row, pod.shape)
        part.add(pod, row)
        self.places.append((part, pod, row))

    def _begin(self, part: Part) -> None:
        self._top, self._budget, self._backtracks = part, BUDGET, False

    def _spend(self) -> bool:
        """Whether another place may be tried: the first way through the siblings is free, what comes back is not."""
        if self._backtracks:
            self._budget -= 1
        return self._budget >= 0

    def _nested(self, parts: Sequence[Part], inside: Domain) -> Iterator[Domain]:
        """The domains that every one of the parts allows for something new below the last one."""
        if not parts:
            yield inside
            return
        for domain in self._within(parts[0], inside):
            yield from self._nested(parts[1:], domain)

    def _below(self, path: Sequence[Part], inside: Domain) -> Iterator[bool]:
        for domain in self._nested(path[:-1], inside):
            yield from self._ways(path[-1], domain)

    def _ways(self, part: Part, inside: Domain) -> Iterator[bool]:
        """Each turn, the minimum is met in another way."""
        if part.met:
            yield True
            return
        for domain in self._within(part, inside):
            if part is self._top:
                self._backtracks = False
            yield from self._leaf(part, domain) if part.is_leaf else self._inner(part, domain)
            if self._budget < 0:
                return

    def _within(self, part: Part, inside: Domain) -> Iterator[Domain]:
        """The domains that may hold all of the part: of its required level, those of its preferred level first."""
        if part.required == UNKNOWN:
            return
        for domain in self._required(part, inside):
            if not part.is_leaf:
                for depth in range(part.preferred, domain.depth, -1):
                    yield from self._candidates(part, depth, domain)
            yield domain

    def _required(self, part: Part, inside: Domain) -> Iterator[Domain]:
        if part.required <= inside.depth:
            yield inside
        elif part.rows and self.pinned:
            pinned = self.cluster.around(part.rows[0], part.required)
            if inside.start <= pinned.start and pinned.end <= inside.end:
                yield pinned
        else:
            yield from self._candidates(part, part.required, inside)

    def _candidates(self, part: Part, depth: int, inside: Domain) -> Iterator[Domain]:
        """Domains of a depth that could hold the part's minimum, the best first."""
        low, high = self.cluster.inside(inside, depth)
        found = (copies(self.cluster, part, depth, inside) > 0) & self.cluster.named[depth][low:high]
        numbers = found.nonzero()[0] + low
        return self._order.ranked(numbers, depth, inside, part, part.needs(), part.wishes())

    def _leaf(self, leaf: Part, domain: Domain) -> Iterator[bool]:
        left, count = leaf.left, leaf.missing
        if len(left) < count:
            return
        yield from self._spots(leaf, left[:count], domain)
        smallest = sorted(left, key=lambda pod: sorted(pod.shape.requests))
        smallest.sort(key=lambda pod: [amount for _, amount in pod.shape.requests])
        if Counter(pod.shape for pod in smallest[:count]) != Counter(pod.shape for pod in left[:count]):
            yield from self._spots(leaf, smallest[:count], domain)

    def _spots(self, leaf: Part, pods: Sequence[Pod], inside: Domain) -> Iterator[bool]:
        """Places for these pods of a leaf: rule 2."""
        needs, wish = Counter(pod.shape for pod in pods), leaf.wishes()
        top = leaf.preferred if leaf.preferred > inside.depth else self.cluster.depth
        for depth in range(top, inside.depth - 1, -1):
            found = holding(self.cluster, needs, depth, inside)
            for domain in self._order.ranked(found, depth, inside, leaf, needs, wish):
                if not self._spend():
                    return
                rows = pack(self.cluster, domain, needs, leaf.preferred)
                if rows is None:
                    continue
                mark = self.mark()
                self._deal([(leaf, pod) for pod in pods], rows)
                yield True
                self.undo(mark)

    def _deal(self, pods: Sequence[tuple[Part, Pod]], rows: dict[PodShape, list[int]]) -> None:
        """Equal pods are interchangeable: they get their rows in the order of the rows."""
        turn = {shape: iter(places) for shape, places in rows.items()}
        for leaf, pod in pods:
            self._put(leaf, pod, next(turn[pod.shape]))

    def _inner(self, part: Part, domain: Domain) -> Iterator[bool]:
        ready = part.ready
        wanted, others = ready[: part.missing], ready[part.missing :]
        if len(wanted) < part.missing:
            return
        ordered = [*sorted(wanted, key=lambda child: child.weight(), reverse=True), *others]
        yield from self._some(ordered, part.missing, domain)
        yield from self._jointly(part, domain)

    def _some(self, parts: Sequence[Part], count: int, inside: Domain) -> Iterator[bool]:
        """`count` of the parts, those in front first; one that finds no place is left out."""
        trail: list[Iterator[bool]] = []
        taken: list[bool] = []
        dead: dict[Hashable, int] = {}
        trail.append(self._or_not(parts[0], inside, 0, dead))
        while trail:
            if len(taken) == len(trail):
                taken.pop()
            got = next(trail[-1], None)
            if got is None:
                trail.pop()
                for key in [key for key, at in dead.items() if at >= len(trail)]:
                    del dead[key]
                continue
            taken.append(got)
            have = sum(taken)
            if have == count:
                yield True
            elif have + len(parts) - len(taken) >= count and self._budget >= 0:
                trail.append(self._or_not(parts[len(trail)], inside, len(trail), dead))
            else:
                self._backtracks = True

    def _or_not(self, part: Part, inside: Domain, at: int, dead: dict[Hashable, int]) -> Iterator[bool]:
        """Every way to place the part, then without it. Room only shrinks: what failed once fails for its like."""
        likeness = part.likeness()
        if likeness not in dead:
            found = False
            for _ in self._ways(part, inside):
                found = True
                yield True
            if not found:
                dead.setdefault(likeness, at)
        yield False

    def _jointly(self, part: Part, domain: Domain) -> Iterator[bool]:
        """Domains for everything that asks for one, then all pods of the minimum packed as one.

        So is found what the best places of single children stand in the way of.
        """
        search = Search(self.cluster)
        if sum(1 for _ in islice(part.leaves(), JOINT_LEAVES + 1)) > JOINT_LEAVES:
            return
        for seats in islice(self._seats(part.wanted, domain), JOINT):
            needs = [(leaf, Counter(pod.shape for pod in leaf.left[: leaf.missing]), inside) for leaf, inside in seats]
            demands: dict[tuple[PodShape, Domain], int] = {}
            for _, shapes, inside in needs:
                for shape, count in shapes.items():
                    demands[shape, inside] = demands.get((shape, inside), 0) + count
            rows = search.run([Demand(shape, count, inside) for (shape, inside), count in demands.items()])
            if rows is not None:
                mark = self.mark()
                turn = {key: iter(places) for key, places in zip(demands, rows, strict=True)}
                for leaf, inside in seats:
                    for pod in leaf.left[: leaf.missing]:
                        self._put(leaf, pod, next(turn[pod.shape, inside]))
                yield True
                self.undo(mark)
            if search.left <= 0:
                return

    def _seats(self, parts: Sequence[Part], inside: Domain) -> Iterator[list[tuple[Part, Domain]]]:
        """Every choice of domains for the leaves of these parts' minimums, each part's best domain first."""
        if not parts:
            yield []
            return
        first, rest = parts[0], parts[1:]
        for domain in self._within(first, inside):
            below = [[(first, domain)]] if first.is_leaf else self._seats(first.wanted, domain)
            for own in below:
                for others in self._seats(rest, inside):
                    yield own + others

    def _most(self, part: Part, inside: Domain) -> None:
        if self.reaches(part):
            return
        if part.is_alike:
            self._most_alike(part, inside)
        elif part.is_leaf:
            self._begin(part)
            if not next(self._ways(part, inside), False) and part.key == part.group:
                self._most_pods(part, inside)
        else:
            self._most_inner(part, inside)

    def _most_inner(self, part: Part, inside: Domain) -> None:
        best: tuple[int, Domain] | None = None
        for domain in self._loosely_within(part, inside):
            mark, promised = self.mark(), len(self.promises)
            self._most_children(part, domain)
            if self.reaches(part):
                return
            found = self.reached(part)
            if best is None or found > best[0]:
                best = found, domain
            self.undo(mark)
            self._break_promises(promised)
        if best is not None:
            self._most_children(part, best[1])

    def _most_alike(self, part: Part, inside: Domain) -> None:
        """Equal members of one shape: how many fit is known at once, and room for them is taken in one go."""
        child = part.ready[0] if part.children else None
        if child is None:
            shape, size = part.left[0].shape, 1
        else:
            shape, size = next(iter(child.needs().items()))
        domain = next(self._loosely_within(part, inside), None)
        if domain is None:
            return
        unit = max(child.required, domain.depth) if child else domain.depth
        fits = copies(self.cluster, child, unit, domain) if child else room_in(self.cluster, shape, unit, domain)
        low, _ = self.cluster.inside(domain, unit)
        left = min(part.missing, len(part.ready) if child else len(part.left))
        places: list[Place] = []
        count = 0
        for number in (-fits).argsort(kind="stable").tolist():
            some = min(left - count, int(fits[number]))
            if some <= 0:
                break
            count += some
            room = self.cluster.room(shape)
            found = spread(self.cluster, room, some * size, self.cluster.domain(unit, low + number), 0)
            for row, pods in found:
                self.cluster.take(row, shape, pods)
                places.append((row, shape, pods))
        self.promises.append((part, count, tuple(places)))

    def _break_promises(self, mark: int) -> None:
        while len(self.promises) > mark:
            for row, shape, pods in self.promises.pop()[2]:
                self.cluster.give(row, shape, pods)

    def reached(self, part: Part) -> int:
        """What of the part is placed or has room kept: its pods, or its children that have enough of it."""
        if part.is_leaf:
            have = part.done
        else:
            have = sum(1 for child in part.children if self.reaches(child)) if self.promises else part.done
        return have + sum(count for one, count, _ in self.promises if one is part)

    def reaches(self, part: Part) -> bool:
        """Whether the part has its minimum, or room for it is kept."""
        return part.met or (bool(self.promises) and self.reached(part) >= part.minimum)

    def _most_pods(self, leaf: Part, inside: Domain) -> None:
        """Pods of a PodGroup without TP groups, one by one."""
        domain, full = next(self._loosely_within(leaf, inside), None), set[PodShape]()
        if domain is None:
            return
        for pod in leaf.left:
            self._begin(leaf)
            if leaf.met:
                return
            if pod.shape not in full and not next(self._spots(leaf, [pod], domain), False):
                full.add(pod.shape)

    def _most_children(self, part: Part, domain: Domain) -> None:
        dead: set[Hashable] = set()
        for child in part.ready:
            if self.reaches(part):
                return
            likeness = child.likeness()
            if likeness in dead:
                continue
            self._most(child, domain)
            if not self.reaches(child):
                dead.add(likeness)

    def _loosely_within(self, part: Part, inside: Domain) -> Iterator[Domain]:
        """Domains of the required level, by how much of the part could be met there."""
        if part.required == UNKNOWN:
            return
        if part.required <= inside.depth or part.rows:
            yield from self._required(part, inside)
            return
        low, high = self.cluster.inside(inside, part.required)
        if part.is_leaf:
            fits = [room_in(self.cluster, shape, part.required, inside) for shape in part.needs()]
        else:
            fits = [copies(self.cluster, child, part.required, inside) for child in part.ready[:COMPARED]]
        if not fits:
            return
        total = np.sum(fits, axis=0) * self.cluster.named[part.required][low:high]
        for number in (-total).argsort(kind="stable")[:COMPARED].tolist():
            if total[number] > 0:
                yield self.cluster.domain(part.required, low + number)
