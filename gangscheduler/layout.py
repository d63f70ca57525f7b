"""Groups and pods that contradict each other: found before anything is placed, so that nothing of it is half bound.

Rules:
1. Pure; a snapshot in, the same snapshot out with `Group.problem` and `Pod.unsupported` where something is wrong.
2. What is wrong with one group is wrong with its whole tree: the problem names the group at fault, and the tree is
   taken apart, so that nobody after this meets a circle.
3. What may still come is no problem: a minimum above the members that exist waits, and so does a pod without its group.
4. Pods are looked at only where one of ours waits: nothing is placed elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from gangscheduler.model import Group, Pod, Snapshot

DEEPEST = 4  # Kubernetes 1.37 allows no deeper tree.


def unit_of(pod: Pod, groups: Mapping[str, Group]) -> str:
    """What is bound all or nothing with this pod: the top of its tree, below composites without a minimum."""
    if pod.group not in groups:
        return pod.key
    unit = groups[pod.group]
    while unit.parent in groups and groups[unit.parent].min_count:
        unit = groups[unit.parent]
    return unit.key


class Layout:
    """The pods of every PodGroup, and what is wrong with the groups; kept up to date pod by pod."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Pod]] = {}
        self._waiting: dict[str, int] = {}
        self._levels: tuple[str, ...] = ()
        self._groups: tuple[Group, ...] = ()
        self._roots: dict[str, str] = {}
        self._flaws: dict[str, str] = {}

    def put(self, before: Pod | None, after: Pod | None) -> None:
        """A pod was this and is that."""
        for pod, sign in ((before, -1), (after, 1)):
            if pod is None or not pod.group:
                continue
            own = self._members.setdefault(pod.group, {})
            if sign > 0:
                own[pod.key] = pod
            else:
                own.pop(pod.key, None)
            if not own:
                del self._members[pod.group]
            if pod.ours and not pod.node:
                count = self._waiting.get(pod.group, 0) + sign
                self._waiting[pod.group] = count
                if not count:
                    del self._waiting[pod.group]

    def checked(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of these pods with its contradictions named; the same object when there are none.

        Linear in the groups when they have changed, in the pods beside those that wait, and in all of what is wrong.
        """
        if snapshot.groups is not self._groups or snapshot.levels != self._levels:
            self._see(snapshot)
        found = dict(self._flaws)
        units = {self._roots[key] for key in self._waiting if key in self._roots}
        beside = [key for key, root in self._roots.items() if root in units and key in self._members]
        for root, ours in self._schedulers(beside).items():
            if len(ours) > 1:
                problem = f"pods below {root} name different schedulers; give all of them the same schedulerName"
                found.setdefault(root, problem)
        surplus = _surplus(pod for key in beside for pod in self._members[key].values())
        if not found and not surplus:
            return snapshot
        return replace(snapshot, groups=self._flawed(snapshot, found), pods=_refused(snapshot.pods, surplus))

    def _see(self, snapshot: Snapshot) -> None:
        groups = {group.key: group for group in snapshot.groups}
        self._groups, self._levels = snapshot.groups, snapshot.levels
        self._roots = {key: _root(group, groups) for key, group in groups.items()}
        self._flaws = {}
        for group in snapshot.groups:
            for problem in _of_group(group, groups, snapshot.levels):
                self._flaws.setdefault(self._roots[group.key], problem)

    def _schedulers(self, groups: Iterable[str]) -> dict[str, set[bool]]:
        """Of every tree: whether its pods are ours, theirs or both."""
        found: dict[str, set[bool]] = defaultdict(set)
        for key in groups:
            found[self._roots[key]] |= {pod.ours for pod in self._members[key].values() if not pod.terminating}
        return found

    def _flawed(self, snapshot: Snapshot, found: Mapping[str, str]) -> tuple[Group, ...]:
        return tuple(
            replace(group, problem=found[self._roots[group.key]], parent="")
            if self._roots[group.key] in found
            else group
            for group in snapshot.groups
        )


def checked(snapshot: Snapshot) -> Snapshot:
    """The same of a snapshot that stands alone. Linear in pods and groups."""
    layout = Layout()
    for pod in snapshot.pods:
        layout.put(None, pod)
    return layout.checked(snapshot)


def _refused(pods: tuple[Pod, ...], surplus: Mapping[str, str]) -> tuple[Pod, ...]:
    if not surplus:
        return pods
    return tuple(replace(pod, unsupported=surplus[pod.key]) if pod.key in surplus else pod for pod in pods)


def _of_group(group: Group, groups: dict[str, Group], levels: tuple[str, ...]) -> Iterator[str]:
    named = (group.required_level, group.preferred_level, group.each_required_level, group.each_preferred_level)
    for level in named:
        if level and level not in levels:
            yield f"{group.key} names the topology key {level}; this scheduler knows {', '.join(levels)}"
    above = _ancestors(group, groups)
    if above and above[-1] == group.key:
        yield f"{group.key} is its own ancestor: {' in '.join((group.key, *above))}"
    elif len(above) >= DEEPEST:
        yield f"{group.key} is {len(above) + 1} levels deep; at most {DEEPEST} are allowed"
    elif missing := next((key for key in above if key not in groups), None):
        yield f"the parent {missing} of {group.key} does not exist"


def _ancestors(group: Group, groups: dict[str, Group]) -> list[str]:
    """Its parent, grandparent, ...; ends with the first that does not exist or came before."""
    above: list[str] = []
    key = group.parent
    while key:
        above.append(key)
        if key == group.key or key in above[:-1] or key not in groups:
            return above
        key = groups[key].parent
    return above


def _root(group: Group, groups: dict[str, Group]) -> str:
    """What stands for its tree: the topmost group, of a circle its smallest key."""
    above = _ancestors(group, groups)
    if not above:
        return group.key
    last = above[-1]
    circle = above[above.index(last) :] if above.count(last) > 1 else [last]
    return min(circle if last != group.key else [group.key, *above])


def _surplus(pods: Iterable[Pod]) -> dict[str, str]:
    """Pods beyond the size of their TP group, by key: those that are bound count first, then the first of the order."""
    members: dict[tuple[str, str], list[Pod]] = defaultdict(list)
    for pod in pods:
        if pod.size > 1 and not pod.terminating:
            members[pod.group, pod.tp_group].append(pod)
    found: dict[str, str] = {}
    for (_, tp_group), own in members.items():
        size = max(pod.size for pod in own)
        if len(own) > size:
            own.sort(key=lambda pod: (not pod.node, pod.order, pod.created_s, pod.key))
            found |= {
                pod.key: f"TP group {tp_group} has {len(own)} pods and a size of {size}"
                for pod in own[size:]
                if not pod.node
            }
    return found
