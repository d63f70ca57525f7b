"""Half-bound TP groups, gangs and trees of gangs: those that hold places and cannot run.

Rules:
1. Pure; a snapshot and its verdicts in, pods out. How long it may last is the loop's business.
2. Something waits that this cycle did not place, and something sits on nodes for it: repair was tried first.
3. All or nothing: where a single bound pod has started, or nobody would make it again, all of them stay.
4. The largest unit that is short goes as one: a tree below its minimums, else a group of it, else a TP group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from gangscheduler.gangs import Gang, TpGroup, gangs_of
from gangscheduler.model import ALL, Group, Pod, Snapshot, Verdicts

Stuck = tuple[str, tuple[Pod, ...]]


def stuck(snapshot: Snapshot, verdicts: Verdicts) -> dict[str, tuple[Pod, ...]]:
    """The bound pods of every half-bound unit, by a name for people. Linear, plus the sorting."""
    if not verdicts.waiting or not any(pod.undoable and pod.node for pod in snapshot.pods):
        return {}
    trees = _Trees(snapshot, {binding.uid for binding in verdicts.bindings})
    return {name: pods for root in trees.roots() for name, pods in trees.stuck(root)}


class _Trees:
    def __init__(self, snapshot: Snapshot, placed: set[str]) -> None:
        self._placed = placed
        self._groups = {group.key: group for group in snapshot.groups}
        self._gangs = {gang.group.key: gang for gang in gangs_of(snapshot) if not gang.group.composite}
        self._children: dict[str, list[str]] = defaultdict(list)
        for group in snapshot.groups:
            self._children[self._above(group)].append(group.key)

    def _above(self, group: Group) -> str:
        """The parent that binds it to its siblings; a composite without a minimum binds nobody."""
        parent = self._groups.get(group.parent)
        return parent.key if parent is not None and parent.min_count and not group.problem else ""

    def roots(self) -> list[str]:
        """What is bound to nothing above it."""
        return self._children[""]

    def stuck(self, key: str) -> Iterator[Stuck]:
        """What of this tree is stuck, the largest units."""
        pods = tuple(pod for tp_group in self._tp_groups(key) for pod in tp_group.bound)
        waits = any(self._waits(tp_group) for tp_group in self._tp_groups(key))
        if not pods or not waits:
            return
        if self._is_short(key) and _may_go(pods):
            yield f"gang {key}", pods
        elif key in self._gangs:
            yield from self._of_gang(self._gangs[key])
        else:
            for child in self._children[key]:
                yield from self.stuck(child)

    def _of_gang(self, gang: Gang) -> Iterator[Stuck]:
        for tp_group in gang.tp_groups:
            if not tp_group.running and self._waits(tp_group) and _may_go(tp_group.bound):
                yield f"TP group {tp_group.key} of {gang.group.key}", tp_group.bound

    def _is_short(self, key: str) -> bool:
        """Whether its minimum is not met, this cycle's bindings included."""
        if key in self._gangs:
            gang = self._gangs[key]
            coming = sum(1 for one in gang.tp_groups for pod in one.pending if pod.uid in self._placed)
            return gang.missing_pods > coming
        children, minimum = self._children[key], self._groups[key].min_count
        return sum(not self._is_short(child) for child in children) < (len(children) if minimum == ALL else minimum)

    def _tp_groups(self, key: str) -> Iterator[TpGroup]:
        if key in self._gangs:
            yield from self._gangs[key].tp_groups
        for child in self._children[key] if key else ():
            yield from self._tp_groups(child)

    def _waits(self, tp_group: TpGroup) -> bool:
        return any(pod.uid not in self._placed for pod in tp_group.wanting)


def _may_go(bound: Iterable[Pod]) -> bool:
    pods = tuple(bound)
    return bool(pods) and all(pod.ours and pod.undoable for pod in pods)
