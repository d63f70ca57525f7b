"""The groups of a cluster as trees of parts, and the units that are placed as one.

Rules:
1. A PodGroup whose pods carry TP-group keys is a part of TP groups; one without is a leaf of pods.
2. A composite of minimum 0 is no unit: its children are, each within its levels. Everything else is a unit at its root.
3. A unit whose tree has a problem, or whose parent does not exist, is never placed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gangscheduler.cluster import Cluster
from gangscheduler.gangs import Gang, TpGroup
from gangscheduler.model import ALL, Group
from gangscheduler.part import UNKNOWN, Kin, Part


@dataclass(eq=False)
class Unit:
    """What is placed as one, and the parts above it that only bind it to their domains."""

    part: Part
    above: tuple[Part, ...]
    group: Group
    priority: int
    service: str
    problem: str = ""

    @property
    def path(self) -> tuple[Part, ...]:
        """The unit's part with what is above it, outermost first."""
        return (*self.above, self.part)

    @property
    def family(self) -> str:
        """What its relatives share: the service, else the tree."""
        return f"service {self.service}" if self.service else f"tree {self.path[0].key}"

    @cached_property
    def waits(self) -> bool:
        """Whether something of it is still to be placed, outside of a decision."""
        return not self.part.met or any(leaf.pending for leaf in self.part.leaves())

    @property
    def urgency(self) -> tuple[object, ...]:
        """The order among minimums: priority, then broken gangs before those that run nothing, then age."""
        broken = not self.part.met and bool(self.part.rows)
        return -self.priority, not broken, self.group.created_s, self.group.key


@dataclass(frozen=True)
class _Tree:
    units: tuple[Unit, ...]
    keys: tuple[str, ...]


class Forest:
    """The gangs of a cluster as trees that are grown again only where something has changed."""

    def __init__(self, cluster: Cluster, levels: Sequence[str]) -> None:
        self.gangs: dict[str, Gang] = {}
        self.parts: dict[str, Part] = {}
        self._cluster = cluster
        self._levels = {level: depth for depth, level in enumerate(levels, 1)}
        self._children: dict[str, set[str]] = defaultdict(set)
        self._trees: dict[str, _Tree] = {}
        self._root_of: dict[str, str] = {}
        self._families: dict[str, dict[str, tuple[Unit, ...]]] = defaultdict(dict)
        self._kin: dict[str, Kin] = {}

    def update(self, changed: Mapping[str, Gang | None], *, everything: bool = False) -> set[str]:
        """Take over gangs that are new, others than before, or gone (None); the keys of the groups grown again.

        Linear in the trees that are concerned; `everything`: the nodes have other rows than before.
        """
        stale = set(changed) | (set(self.gangs) if everything else set())
        for one in [one for key in stale for one in (key, *self._children.get(key, ()))]:
            stale |= self._fell(one)
        for key, gang in changed.items():
            self._replace(key, gang)
        pending = sorted(stale, reverse=True)
        while pending:
            key = pending.pop()
            if key in self.gangs and key not in self._root_of:
                again = self._plant(*self._top(key))
                stale |= again
                pending += sorted(again)
        return stale

    def _replace(self, key: str, gang: Gang | None) -> None:
        before = self.gangs.pop(key, None)
        if before is not None:
            self._children[before.group.parent].discard(key)
        self.parts.pop(key, None)
        if gang is not None:
            self.gangs[key] = gang
            self._children[gang.group.parent].add(key)

    def _fell(self, key: str) -> set[str]:
        """Remove the tree in which a group stands; the groups that stood there."""
        tree = self._trees.pop(self._root_of.get(key, ""), None)
        if tree is None:
            return set()
        for one in tree.keys:
            del self._root_of[one]
        for unit in tree.units:
            self._families[unit.family].pop(tree.keys[0], None)
            self._kin.pop(unit.family, None)
        return set(tree.keys)

    def _top(self, key: str) -> tuple[str, str, bool]:
        """The root of a group's tree, what is wrong with where that one hangs, and whether it stands for itself."""
        above = [key]
        while parent := self.gangs[above[-1]].group.parent:
            if parent not in self.gangs:
                return above[-1], f"its parent {parent} does not exist", False
            if parent in above:
                return key, f"its parents go round in a circle: {' in '.join((*above, parent))}", True
            above.append(parent)
        return above[-1], "", False

    def _plant(self, root: str, problem: str, alone: bool) -> set[str]:
        """Grow the tree of a root; the groups of the trees that had to go for it."""
        gang = self.gangs[root]
        keys = (root,) if alone else (root, *self._below(root))
        felled = set[str]().union(*(self._fell(key) for key in keys))
        for key in keys:
            self._root_of[key] = root
        part = self._part(gang, alone=alone)
        units = tuple(self._units(gang, part, (), problem, gang.priority if alone else self._priority(gang)))
        self._trees[root] = _Tree(units, keys)
        for unit in units:
            self._families[unit.family][root] = (*self._families[unit.family].get(root, ()), unit)
            self._kin.pop(unit.family, None)
        return felled

    def _units(self, gang: Gang, part: Part, above: tuple[Part, ...], problem: str, priority: int) -> Iterator[Unit]:
        problem = gang.group.problem or problem
        if gang.group.composite and part.children and not gang.group.min_count:
            for child in part.children:
                yield from self._units(self.gangs[child.key], child, (*above, part), problem, priority)
            return
        service = gang.service or next((self.gangs[one].service for one in self._below(gang.group.key)), "")
        yield Unit(part, above, gang.group, priority, service, problem)

    def _below(self, key: str) -> Iterator[str]:
        seen, pending = {key}, [key]
        while pending:
            below = sorted(self._children.get(pending.pop(), set()) - seen)
            seen.update(below)
            pending += below
            yield from below

    def _priority(self, gang: Gang) -> int:
        if gang.group.priority is not None or not gang.group.composite:
            return gang.priority
        below = (self.gangs[key] for key in self._children.get(gang.group.key, ()))
        return max((self._priority(child) for child in below), default=0)

    def _part(self, gang: Gang, *, alone: bool = False) -> Part:
        group = gang.group
        part = Part(
            key=group.key,
            group=group.key,
            minimum=max(0, group.min_count),
            done=group.fulfilled,
            required=self._depth(group.required_level),
            preferred=max(0, self._depth(group.preferred_level)),
        )
        self.parts[group.key] = part
        if group.composite:
            below = [] if alone else [self.gangs[key] for key in self._children.get(group.key, ())]
            below.sort(key=lambda child: (child.group.created_s, child.group.key))
            children = [self._part(child) for child in below]
            for child in sorted(children, key=lambda child: child.met or not child.rows):
                part.adopt(child)
            if group.min_count == ALL:
                part.minimum = len(children)
        elif gang.of_tp_groups:
            self._tp_groups(gang, part)
        else:
            self._pods(gang, part)
        return part

    def _tp_groups(self, gang: Gang, part: Part) -> None:
        for tp_group in gang.by_urgency:
            child = leaf_of(tp_group, self._cluster)
            child.group = gang.group.key
            child.required, child.preferred = self.depths(gang.group)
            part.adopt(child)
        part.minimum = gang.least

    def _pods(self, gang: Gang, part: Part) -> None:
        part.pending = tuple(pod for tp_group in gang.by_urgency for pod in tp_group.pending)
        bound = [pod.node for tp_group in gang.tp_groups for pod in tp_group.bound]
        part.done += len(bound)
        part.rows = [self._cluster.rows[node] for node in bound if node in self._cluster.rows]

    def depths(self, group: Group) -> tuple[int, int]:
        """The depths that every TP group of a PodGroup requires and prefers."""
        return self._depth(group.each_required_level), max(0, self._depth(group.each_preferred_level))

    def _depth(self, level: str) -> int:
        return self._levels.get(level, UNKNOWN) if level else 0

    def waiting(self) -> list[Unit]:
        """Units of which something waits, the most urgent first, with their relatives' places."""
        units = [unit for tree in self._trees.values() for unit in tree.units if unit.waits]
        for family in {unit.family for unit in units}:
            if family not in self._kin:
                self._relate(family)
        return sorted(units, key=lambda unit: unit.urgency)

    def keys_of(self, units: Iterable[Unit]) -> Iterator[str]:
        """The groups of the trees of these units."""
        for root in {unit.path[0].key for unit in units}:
            yield from self._trees[self._root_of[root]].keys

    def _relate(self, family: str) -> None:
        """Parts of one service, else of one tree, are relatives: they are placed near each other."""
        units = [unit for found in self._families[family].values() for unit in found]
        kin = Kin(self._cluster, [row for unit in units for row in unit.part.rows])
        self._kin[family] = kin
        lonely = len(units) == 1 and len(units[0].part.children) < 2
        for unit in units:
            if unit.waits and not lonely:
                _share(unit.part, kin)


def leaf_of(tp_group: TpGroup, cluster: Cluster) -> Part:
    """A TP group as a part of its own: whole or not at all."""
    return Part(
        key=tp_group.key,
        group="",
        minimum=tp_group.size,
        pending=tp_group.pending,
        done=len(tp_group.bound),
        rows=[cluster.rows[pod.node] for pod in tp_group.bound if pod.node in cluster.rows],
    )


def conflict_of(part: Part, cluster: Cluster) -> Part | None:
    """A part below this one whose members run in more than one domain of its required level."""
    if part.required > 0 and len({int(cluster.of[part.required][row]) for row in part.rows}) > 1:
        return part
    return next((found for child in part.children if (found := conflict_of(child, cluster))), None)


def _share(part: Part, kin: Kin) -> None:
    part.kin = kin
    for child in part.children:
        _share(child, kin)
