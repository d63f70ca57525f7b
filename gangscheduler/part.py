"""A gang as a tree of parts, while one decision is made: what each needs, what it has, where that is.

Rules:
1. A leaf is made of pods, an inner part of parts; it is met when `done` reaches `minimum`.
2. `done` of a leaf counts pods, of an inner part children that are met; `add` and `remove` keep both true to the top.
3. A depth names a level: 0 = no wish, UNKNOWN = a level that the cluster does not have, which nothing can satisfy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from gangscheduler.cluster import Cluster, Ints, tightness
from gangscheduler.model import Pod, PodShape

UNKNOWN = -1


class Kin:
    """Where relatives run: how many of them in every domain."""

    def __init__(self, cluster: Cluster, rows: Iterable[int] = ()) -> None:
        self._cluster = cluster
        at = np.fromiter(rows, np.int64)
        self.counts: list[Ints] = [
            np.bincount(cluster.of[depth][at], minlength=len(cluster.starts[depth])).astype(np.int64)
            for depth in range(cluster.depth + 1)
        ]

    def add(self, row: int, sign: int) -> None:
        """One more (1) or less (-1) runs on the row."""
        for depth, counts in enumerate(self.counts):
            counts[self._cluster.of[depth][row]] += sign

    @property
    def any(self) -> bool:
        """Whether there is one at all."""
        return bool(self.counts and len(self.counts[0]) and self.counts[0][0])


@dataclass(eq=False)
class Part:
    """A node of the tree. `group` is the key of the group that it is or is a TP group of."""

    key: str
    group: str
    minimum: int
    pending: tuple[Pod, ...] = ()
    children: list[Part] = field(default_factory=list)
    done: int = 0
    required: int = 0
    preferred: int = 0
    rows: list[int] = field(default_factory=list)
    kin: Kin | None = None
    parent: Part | None = None
    placed: dict[str, int] = field(default_factory=dict)
    _needs: Counter[PodShape] | None = None
    _likeness: Hashable = None
    _mixed: bool | None = None

    def adopt(self, child: Part) -> None:
        """Take a child that has its own members already."""
        child.parent = self
        self.children.append(child)
        self.rows.extend(child.rows)
        self.done += child.met

    @property
    def is_leaf(self) -> bool:
        """Whether it is made of pods."""
        return not self.children

    @property
    def met(self) -> bool:
        """Whether it has its minimum."""
        return self.done >= self.minimum

    @property
    def missing(self) -> int:
        """How much its minimum lacks."""
        return max(0, self.minimum - self.done)

    @property
    def left(self) -> list[Pod]:
        """Pods of a leaf without a place, the most urgent first."""
        return [pod for pod in self.pending if pod.key not in self.placed] if self.placed else list(self.pending)

    @property
    def ready(self) -> list[Part]:
        """Children that are not met and have all that it takes, the most urgent first."""
        return [child for child in self.children if not child.met and not child.is_short()]

    def add(self, pod: Pod, row: int) -> None:
        """The pod of this leaf goes to the row."""
        self.placed[pod.key] = row
        self._count(1)
        for part in self.up():
            part.rows.append(row)
            part._needs = part._likeness = None
        if self.kin is not None:
            self.kin.add(row, 1)

    def remove(self, pod: Pod) -> None:
        """The last pod added to this leaf comes back."""
        row = self.placed.pop(pod.key)
        self._count(-1)
        for part in self.up():
            part.rows.pop()
            part._needs = part._likeness = None
        if self.kin is not None:
            self.kin.add(row, -1)

    def _count(self, sign: int) -> None:
        before = self.met
        self.done += sign
        if self.parent is not None and before != self.met:
            self.parent._count(sign)

    def up(self) -> Iterator[Part]:
        """Itself and everything above it."""
        part: Part | None = self
        while part is not None:
            yield part
            part = part.parent

    def leaves(self) -> Iterator[Part]:
        """Every leaf below it."""
        if self.is_leaf:
            yield self
        for child in self.children:
            yield from child.leaves()

    @property
    def wanted(self) -> list[Part]:
        """The most urgent children that would meet the minimum."""
        return self.ready[: self.missing]

    @property
    def has_choice(self) -> bool:
        """Whether it is a leaf that may meet its minimum with pods of one shape or another."""
        if self._mixed is None:
            self._mixed = len({pod.shape for pod in self.pending}) > 1
        return self._mixed and len(self.left) > self.missing

    def needs(self) -> Counter[PodShape]:
        """The shapes that its minimum still takes, if the most urgent ones are taken. Not to be written to."""
        if self._needs is None:
            if self.is_leaf:
                self._needs = Counter(pod.shape for pod in self.left[: self.missing])
            else:
                self._needs = Counter()
                for child in self.wanted:
                    self._needs.update(child.needs())
        return self._needs

    def wishes(self) -> Counter[PodShape]:
        """The shapes of everything that waits below it."""
        return Counter(pod.shape for leaf in self.leaves() for pod in leaf.left)

    @property
    def is_alike(self) -> bool:
        """Whether its members are several equal ones of one shape: a group's pods, or leaves without members yet."""
        if self.is_leaf:
            return self.key == self.group and len(self.left) > 1 and len({pod.shape for pod in self.left}) == 1
        children = self.ready
        first = children[0] if children else None
        if first is None or not first.is_leaf or len(first.needs()) != 1 or first.has_choice:
            return False
        likeness = first.likeness()
        return len(children) > 1 and all(child.likeness() == likeness for child in children)

    def is_short(self) -> bool:
        """Whether too few pods exist to meet its minimum."""
        if self.is_leaf:
            return len(self.left) < self.missing
        return len(self.ready) < self.missing

    @property
    def tightest(self) -> int:
        """The deepest level that it or something below it requires."""
        return max((self.required, *(child.tightest for child in self.children)))

    def weight(self) -> tuple[int, tuple[int, int, int], int]:
        """The order among siblings: the one that asks for the narrowest domain first, then the largest."""
        needs = self.needs()
        total: Counter[str] = Counter()
        for shape, count in needs.items():
            for resource, amount in shape.requests:
                total[resource] += amount * count
        return self.tightest, tightness(total), sum(needs.values())

    def likeness(self) -> Hashable:
        """Equal for siblings that can stand for each other; a part with members is like no other."""
        if self.rows:
            return id(self)
        if self._likeness is None:
            if self.is_leaf:
                pods = frozenset(Counter(pod.shape for pod in self.left).items())
                self._likeness = (self.missing, pods, self.required, self.preferred)
            else:
                below = frozenset(Counter(child.likeness() for child in self.ready).items())
                self._likeness = (self.missing, below, self.required, self.preferred)
        return self._likeness
