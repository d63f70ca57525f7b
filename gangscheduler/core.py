"""What the scheduler keeps between decisions: the cluster, the gangs, and what was said of them.

Rules:
1. A snapshot is compared with the one before: only what has changed is read, so that a decision costs what is new and
   what waits, not what runs. Equal snapshots give equal verdicts, whatever came before.
2. A decision leaves the cluster as it was; what it binds counts once a snapshot shows it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from gangscheduler.cluster import KEPT_SHAPES, Cluster
from gangscheduler.cycle import Cycle, Outcome, phantom
from gangscheduler.forest import Forest
from gangscheduler.gangs import Gang, TpGroup, gang_of, tp_group_of
from gangscheduler.model import (
    Choice,
    Fit,
    Group,
    Node,
    Pod,
    PodShape,
    Reason,
    Snapshot,
    Template,
    Verdict,
    Verdicts,
    Waiting,
)
from gangscheduler.why import blocked_nodes, why_not
from gangscheduler.words import verdict_of, waiting_of

T = TypeVar("T", Node, Pod, Group)

CHUNK = 256
NOTHING_FOUND = Outcome()


class Core:
    """One cluster's decisions, one after another. `cluster` is what the last snapshot showed; it is for reading."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self._reset((), Choice.PACK)

    def _reset(self, levels: tuple[str, ...], choice: Choice) -> None:
        self._levels, self._choice = levels, choice
        self._nodes: tuple[Node, ...] = ()
        self._pods: tuple[Pod, ...] = ()
        self._groups: tuple[Group, ...] = ()
        self.cluster = Cluster()
        self._forest = Forest(self.cluster, levels)
        self._group_of: dict[str, Group] = {}
        self._members: dict[str, dict[str, Pod]] = defaultdict(dict)
        self._unbound: dict[str, Pod] = {}
        self._alone: dict[str, TpGroup] = {}
        self._said: dict[str, Verdict] = {}
        self._shapes: dict[PodShape, PodShape] = {}

    def decide(self, snapshot: Snapshot) -> Verdicts:
        """Decide what is bound now, and say why the rest waits.

        Costs what has changed since the last snapshot, a pass over the nodes for every shape that waits, and for every
        waiting TP group a look at the domains of each level.
        """
        self._see(snapshot)
        cycle = self._cycle(snapshot)
        out = cycle.run()
        cycle.clear()
        forest = self._forest
        said = {key: verdict_of(forest.gangs[key], forest.parts[key], out) for key in forest.keys_of(cycle.units)}
        groups = self._said | said
        waiting = [pod for pod in self._unbound.values() if pod.key not in out.bindings]
        waiting.sort(key=lambda pod: pod.key)
        return Verdicts(
            tuple(groups[key] for key in sorted(groups)),
            tuple(out.bindings[key] for key in sorted(out.bindings)),
            _waiting(waiting, groups, out),
            tuple(out.nominations[key] for key in sorted(out.nominations)),
        )

    def how_many_fit(
        self,
        snapshot: Snapshot,
        template: Template,
        limit: int,
        *,
        podgroup: str = "",
        reserve: Iterable[Template] = (),
    ) -> Fit:
        """How many more whole TP groups of this shape would fit now, up to `limit`.

        Pods that wait already, floors that are not met and the TP groups in `reserve` take their room first.
        `podgroup` (namespace/name) is the PodGroup that would get the new TP groups: its levels and those above it hold
        for them, and the part of its own floor that has no pods yet is not held against it.
        """
        self._see(snapshot)
        cycle = self._cycle(snapshot)
        cycle.run()
        cycle.release(podgroup)
        for shape in reserve:
            cycle.solver.place(phantom(shape))
        fit = _fit(cycle, template, limit, podgroup)
        cycle.clear()
        return fit

    def _cycle(self, snapshot: Snapshot) -> Cycle:
        return Cycle(
            self.cluster,
            self._forest,
            sorted((one for one in self._alone.values() if one.waiting), key=lambda one: one.urgency),
            now_s=snapshot.now_s,
            levels=snapshot.levels,
            choice=snapshot.choice,
            quotas=dict(snapshot.quotas),
        )

    def _see(self, snapshot: Snapshot) -> None:
        """Take over what has changed."""
        if (snapshot.levels, snapshot.choice) != (self._levels, self._choice):
            self._reset(snapshot.levels, snapshot.choice)
        changed: set[str] = set()
        for _, before, node in _changes(self._nodes, snapshot.nodes, "name"):
            if node is not None:
                self.cluster.put(node)
            elif before is not None:
                self.cluster.drop(before.name)
        for _, was, pod in _changes(self._pods, snapshot.pods, "key"):
            changed |= self._see_pod(was, pod)
        for key, _, group in _changes(self._groups, snapshot.groups, "key"):
            changed.add(key)
            self._group_of.pop(key, None)
            if group is not None:
                self._group_of[key] = group
        self._nodes, self._pods, self._groups = snapshot.nodes, snapshot.pods, snapshot.groups
        moved = self.cluster.settle()
        gangs: dict[str, Gang | None] = {key: self._gang(key) for key in changed if key}
        forest = self._forest
        for key in forest.update(gangs, everything=moved):
            self._said.pop(key, None)
            if key in forest.gangs:
                self._said[key] = verdict_of(forest.gangs[key], forest.parts[key], NOTHING_FOUND)

    def _gang(self, key: str) -> Gang | None:
        group = self._group_of.get(key)
        return None if group is None else gang_of(group, self._members.get(key, {}).values())

    def _see_pod(self, before: Pod | None, pod: Pod | None) -> set[str]:
        """The groups that a pod's change concerns."""
        concerned = set()
        for one, sign in ((before, -1), (pod, 1)):
            if one is None:
                continue
            if one.node:
                self.cluster.charge(one.node, one.shape, sign, leaving=one.terminating)
            concerned.add(one.group)
            self._index(one, sign)
        return concerned

    def _index(self, pod: Pod, sign: int) -> None:
        waits = pod.ours and not pod.node and not pod.terminating and not pod.gated
        if sign < 0:
            self._members[pod.group].pop(pod.key, None)
            if not self._members[pod.group]:
                del self._members[pod.group]
            self._unbound.pop(pod.key, None)
            self._alone.pop(pod.key, None)
            return
        if waits:
            pod = self._shared(pod)
            self._unbound[pod.key] = pod
            if not pod.group:
                self._alone[pod.key] = tp_group_of(pod.key, [pod])
        if pod.group:
            self._members[pod.group][pod.key] = pod

    def _shared(self, pod: Pod) -> Pod:
        """The pod with the one object that stands for its shape: equal shapes are then found by identity."""
        if len(self._shapes) >= KEPT_SHAPES:
            self._shapes.clear()
        shape = self._shapes.setdefault(pod.shape, pod.shape)
        return pod if shape is pod.shape else replace(pod, shape=shape)


def _waiting(pods: list[Pod], groups: dict[str, Verdict], out: Outcome) -> tuple[Waiting, ...]:
    of_groups = {
        key: Waiting("", "", groups[key].reason, groups[key].message)
        for key in {pod.group for pod in pods}
        if key in groups
    }
    return tuple(waiting_of(pod, of_groups, out) for pod in pods)


def _fit(cycle: Cycle, template: Template, limit: int, podgroup: str) -> Fit:
    solver, above = cycle.solver, cycle.path_of(podgroup)
    mark, fitting = solver.mark(), 0
    while fitting < limit and solver.place(cycle.new_tp_group(podgroup, template), above):
        fitting += 1
    if fitting < limit and len(set(template)) > 1 and not above:
        solver.undo(mark)
        while fitting < limit and solver.place(phantom(template * (fitting + 1))):
            fitting += 1
            solver.undo(mark)
    solver.undo(mark)
    blocked = blocked_nodes(cycle.cluster, set(template))
    if fitting >= limit:
        return Fit(fitting, "", blocked, Reason.FITS)
    cause = why_not(cycle.cluster, phantom(template * (fitting + 1)).needs())
    return Fit(fitting, cause.resource, blocked, cause.reason)


def _changes(old: tuple[T, ...], new: tuple[T, ...], name: str) -> list[tuple[str, T | None, T | None]]:
    """(key, before, now) of everything that is not equal in both; equal ends are skipped in long steps."""
    if old is new:
        return []
    low, high, most = 0, 0, min(len(old), len(new))
    while low + CHUNK <= most and old[low : low + CHUNK] == new[low : low + CHUNK]:
        low += CHUNK
    while low + high + CHUNK <= most:
        first, second = len(old) - high, len(new) - high
        if old[first - CHUNK : first] != new[second - CHUNK : second]:
            break
        high += CHUNK
    before: dict[str, T] = {getattr(one, name): one for one in old[low : len(old) - high]}
    now: dict[str, T] = {getattr(one, name): one for one in new[low : len(new) - high]}
    keys = [key for key in before if key not in now] + [key for key, one in now.items() if before.get(key) != one]
    return [(key, before.get(key), now.get(key)) for key in keys]
