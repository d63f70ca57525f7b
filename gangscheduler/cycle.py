"""One decision over a cluster and its gangs.

Rules:
1. First the minimums of all units, each whole or not at all; one that fits only onto what terminating pods still hold
   is nominated there. Then room is held back for the minimums that are not met; then everything else: pods alone and TP
   groups above the minimums, one at a time, the role that has the smallest share of what it wants first.
2. A TP group is placed whole or not at all, and so is the rest of one that runs in part. Nothing is evicted.
3. Ties are broken by priority, a broken gang before one that runs nothing, age, name; never by input order.
4. A floor whose shape nobody knows yet makes its siblings' extras wait, at most UNKNOWN_FLOOR_WAIT_S.
5. The cluster is left as it was found.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gangscheduler.cluster import Cluster
from gangscheduler.forest import Forest, Unit, conflict_of, leaf_of
from gangscheduler.gangs import Gang, TpGroup
from gangscheduler.model import Amounts, Binding, Choice, Pod, Reason, Template
from gangscheduler.part import Part
from gangscheduler.solver import Place, Solver
from gangscheduler.why import Cause, why_not

UNKNOWN_FLOOR_WAIT_S = 30.0

FITS = Cause(Reason.FITS)
# What no room would help, or what has its room already.
HOLDING_NOTHING = (
    Reason.INVALID_GROUP,
    Reason.CONFLICTING_PLACED_SIBLINGS,
    Reason.UNSUPPORTED_CONSTRAINT,
    Reason.BINDING_REFUSED,
    Reason.OVER_QUOTA,
    Reason.NOMINATED,
)


@dataclass
class Outcome:
    """What a cycle has found out; `causes` by group, `alone` by pod."""

    bindings: dict[str, Binding] = field(default_factory=dict)
    nominations: dict[str, Binding] = field(default_factory=dict)
    causes: dict[str, Cause] = field(default_factory=dict)
    alone: dict[str, Cause] = field(default_factory=dict)
    admitted: dict[str, int] = field(default_factory=dict)
    placeable: dict[str, int] = field(default_factory=dict)


@dataclass
class _Source:
    """A part with members beyond its minimum to place; `likes` that failed are not tried again."""

    part: Part
    above: tuple[Part, ...]
    unit: Unit | None
    failed: set[Hashable] = field(default_factory=set)
    todo: deque[Part | Pod] | None = None


@dataclass(frozen=True)
class _Hold:
    """Room kept for a TP group of a minimum that is not met, whose pods do not exist."""

    group: str
    places: tuple[Place, ...]


class Cycle:
    """The state of one decision."""

    def __init__(
        self,
        cluster: Cluster,
        forest: Forest,
        alone: Sequence[TpGroup],
        *,
        now_s: float,
        levels: Sequence[str],
        choice: Choice = Choice.PACK,
        quotas: Mapping[str, Amounts] | None = None,
    ) -> None:
        self.cluster = cluster
        self.forest = forest
        self.solver = Solver(cluster, choice)
        self.units = forest.waiting()
        self.out = Outcome()
        self._levels = ("", *levels)
        self._gangs = forest.gangs
        self._alone = alone
        self._now_s = now_s
        self._blocked: set[int] = set()
        self._holds: list[_Hold] = []
        self._held_from = self._held_to = 0
        self._quota = {queue: Counter(dict(amounts)) for queue, amounts in (quotas or {}).items()}
        for gang in forest.gangs.values() if self._quota else ():
            self._charge_quota(gang)

    def run(self) -> Outcome:
        """The passes, in order."""
        units, parts = self.units, {key: self.forest.parts[key] for key in self.forest.keys_of(self.units)}
        for unit in units:
            self._look(unit)
        for unit in units:
            if not unit.part.met and id(unit) not in self._blocked:
                self._minimum(unit)
        self._tell(self.out.bindings, 0)
        self.out.admitted = {key: part.done for key, part in parts.items()}
        unmet = [unit for unit in units if not unit.part.met]
        self._held_from = self.solver.mark()
        for unit in unmet:
            if self.out.causes.get(unit.group.key, FITS).reason not in HOLDING_NOTHING:
                self._hold(unit)
        self._held_to = self.solver.mark()
        self.out.placeable = {key: self.solver.reached(part) for key, part in parts.items()}
        before = {key: part.done for key, part in parts.items()}
        self._rest({unit.service for unit in unmet if self._is_unknown(unit)})
        self._tell(self.out.bindings, self._held_to)
        for key, part in parts.items():
            extra = part.done - before[key]
            self.out.admitted[key] += extra
            self.out.placeable[key] += extra
        return self.out

    def clear(self) -> None:
        """Leave the cluster as it was."""
        self.solver.clear()
        for hold in self._holds:
            self._give(hold)
        self._holds.clear()
        self.cluster.forget_journal()

    def release(self, podgroup: str) -> None:
        """Give back what is held for pods of this PodGroup that do not exist."""
        for hold in [hold for hold in self._holds if hold.group == podgroup]:
            self._give(hold)
            self._holds.remove(hold)

    def path_of(self, podgroup: str) -> tuple[Part, ...]:
        """A group's part with those above it, outermost first; nothing for one that does not exist."""
        part = self.forest.parts.get(podgroup)
        return () if part is None else tuple(part.up())[::-1]

    def new_tp_group(self, podgroup: str, shape: Template) -> Part:
        """A TP group of this shape that does not exist yet, with the wishes of this PodGroup's TP groups."""
        found, part = phantom(shape), self.forest.parts.get(podgroup)
        if part is not None:
            group = self._gangs[podgroup].group
            found.kin = part.kin
            found.required, found.preferred = self.forest.depths(group)
        return found

    def _give(self, hold: _Hold) -> None:
        for row, shape, count in hold.places:
            self.cluster.give(row, shape, count)

    # the state of a unit before anything is placed

    def _look(self, unit: Unit) -> None:
        """Whether something keeps the whole unit from being placed at all."""
        conflict = next((one for part in unit.path if (one := conflict_of(part, self.cluster))), None)
        if unit.problem:
            self._block(unit, Cause(Reason.INVALID_GROUP, detail=unit.problem))
        elif conflict is not None:
            self._block(unit, Cause(Reason.CONFLICTING_PLACED_SIBLINGS, level=self._levels[conflict.required]))
        elif not unit.part.met and unit.part.is_short():
            self._block(unit, self._why_short(unit.part))

    def _block(self, unit: Unit, cause: Cause) -> None:
        self._blocked.add(id(unit))
        self._blame(unit, cause)

    def _blame(self, unit: Unit, cause: Cause) -> None:
        """The cause of every group of the unit that is not complete and has none of its own; also of those above."""
        for one in (unit.part, *unit.above):
            self.out.causes.setdefault(one.key, cause)
        for one in _groups(unit.part):
            if not _complete(one):
                self.out.causes.setdefault(one.key, self._why_idle(one) or cause)

    def _why_short(self, part: Part) -> Cause:
        short = next((one for one in _groups(part) if one.is_short() and not _short_child(one)), part)
        return self._why_idle(short) or Cause(
            Reason.MINIMUM_NOT_MET, detail=f"{short.key} lacks {short.missing}" if short is not part else ""
        )

    def _why_idle(self, part: Part) -> Cause | None:
        reason = self._gangs[part.key].idle
        return None if reason is None else Cause(reason)

    # minimums

    def _minimum(self, unit: Unit) -> None:
        mark = self.solver.mark()
        if self.solver.place(unit.part, unit.above):
            if self._within_quota(unit, mark):
                return
            self.solver.undo(mark)
            self._blame(unit, Cause(Reason.OVER_QUOTA, detail=f"queue {unit.group.queue}"))
        elif self._nominate(unit):
            self._blame(unit, Cause(Reason.NOMINATED))
        else:
            self._blame(unit, self._why(unit.part, unit.above))

    def _nominate(self, unit: Unit) -> bool:
        """Whether the minimum fits once terminating pods are gone; its places are kept for it then."""
        mark = self.solver.mark()
        if not self.cluster.freed(1):
            return False
        found = self.solver.place(unit.part, unit.above)
        self.cluster.freed(-1)
        if found and not self._within_quota(unit, mark):
            self.solver.undo(mark)
            return False
        if found:
            self._tell(self.out.nominations, mark)
            self._keep(unit.group.key, mark)
        return found

    def _keep(self, group: str, mark: int) -> None:
        """Turn what was placed since the checkpoint into room that is only held."""
        places = tuple((row, pod.shape, 1) for _, pod, row in self.solver.places[mark:])
        self.solver.undo(mark)
        for row, shape, count in places:
            self.cluster.take(row, shape, count)
        self._holds.append(_Hold(group, places))

    def _within_quota(self, unit: Unit, mark: int) -> bool:
        left = self._quota.get(unit.group.queue) if not unit.group.preemptible else None
        if left is None:
            return True
        asked: Counter[str] = Counter()
        for _, pod, _ in self.solver.places[mark:]:
            asked.update(dict(pod.shape.requests))
        if any(asked[resource] > room for resource, room in left.items()):
            return False
        left.subtract({resource: asked[resource] for resource in left})
        return True

    def _charge_quota(self, gang: Gang) -> None:
        left = self._quota.get(gang.group.queue) if not gang.group.preemptible else None
        if left is None:
            return
        for tp_group in gang.tp_groups:
            for pod in tp_group.bound:
                amounts = dict(pod.shape.requests)
                left.subtract({resource: amounts.get(resource, 0) for resource in left})

    def _why(self, part: Part, above: Sequence[Part]) -> Cause:
        cause = why_not(self.cluster, part.needs())
        lasting = (Reason.SELECTOR_MISMATCH, Reason.POD_TOO_LARGE, Reason.NODES_UNSCHEDULABLE)
        if cause.reason in lasting:
            return cause
        level = self._levels[max(0, *(one.required for one in (*above, *_unmet(part))))]
        if self._would_fit_elsewhere(part, above):
            return Cause(Reason.NO_CAPACITY_NEAR_SIBLINGS, cause.resource, level)
        return cause._replace(level=level)

    def _would_fit_elsewhere(self, part: Part, above: Sequence[Part]) -> bool:
        if not any(one.required > 0 and one.rows for one in (*above, *_unmet(part))):
            return False
        mark, self.solver.pinned = self.solver.mark(), False
        found = self.solver.place(part, above)
        self.solver.pinned = True
        self.solver.undo(mark)
        return found

    # holds

    def _hold(self, unit: Unit) -> None:
        """Keep room for as much of an unmet minimum as fits, what has pods first."""
        self.solver.most(unit.part, unit.above)
        gang = self._gangs[unit.group.key]
        known = sum(len(one.pending) for one in gang.waiting)
        shape, missing = gang.shape, gang.missing_pods - known
        while shape and missing > 0 and not unit.group.composite:
            mark = self.solver.mark()
            if not self.solver.place(self.new_tp_group(unit.group.key, shape), unit.path):
                return
            self._keep(unit.group.key, mark)
            missing -= len(shape)

    def _is_unknown(self, unit: Unit) -> bool:
        young = self._now_s - unit.group.created_s < UNKNOWN_FLOOR_WAIT_S
        return bool(unit.service) and self._gangs[unit.group.key].shape is None and young

    # everything else

    def _rest(self, closed_services: set[str]) -> None:
        turns: list[tuple[tuple[object, ...], int, _Source]] = []
        for tp_group in self._alone:
            leaf = leaf_of(tp_group, self.cluster)
            self._queue(turns, _Source(leaf, (), None))
        for unit in self.units:
            if not unit.part.met or id(unit) in self._blocked:
                continue
            closed = unit.service and unit.service in closed_services
            for source in _sources(unit, unit.part, unit.above):
                if closed and _waits(source):
                    self.out.causes.setdefault(source.part.key, Cause(Reason.SIBLING_FLOOR_FIRST))
                elif not closed:
                    self._queue(turns, source)
        while turns:
            *_, source = heapq.heappop(turns)
            for new in self._extra(source):
                self._queue(turns, new)

    def _queue(self, turns: list[tuple[tuple[object, ...], int, _Source]], source: _Source) -> None:
        if source.unit is None:
            pod = source.part.pending[0]
            turn: tuple[object, ...] = (-pod.priority, 0, 0.0, 0, pod.created_s, f"pod {pod.key}")
        else:
            first = _next(source)
            if first is None:
                return
            part, unit = source.part, source.unit
            wanted = len(part.children) or part.done + len(part.left)
            repair = isinstance(first, Part) and bool(first.rows)
            alone = part.parent is not None and not isinstance(first, Part)
            share = part.done / max(1, wanted)
            turn = (-unit.priority, not repair, alone, share, unit.group.created_s, f"gang {part.key}")
        heapq.heappush(turns, (turn, len(turns), source))

    def _extra(self, source: _Source) -> Iterator[_Source]:
        """Place the next one of a source; what can be placed after it."""
        if source.unit is None:
            if not self.solver.place(source.part):
                cause = self._why_no_extra(source.part, ())
                self.out.alone |= {pod.key: cause for pod in source.part.pending}
            return
        one = _next(source)
        if one is None:
            return
        mark = self.solver.mark()
        if isinstance(one, Part):
            placed, likeness = self.solver.place(one, (*source.above, source.part)), one.likeness()
        else:
            placed, likeness = self.solver.place_pod(source.part, one, source.above), one.shape
        if placed and not self._within_quota(source.unit, mark):
            self.solver.undo(mark)
            self.out.causes.setdefault(
                source.part.key, Cause(Reason.OVER_QUOTA, detail=f"queue {source.unit.group.queue}")
            )
            placed = False
        elif not placed:
            self._explain(source, one)
        if not placed:
            source.failed.add(likeness)
        elif isinstance(one, Part):
            yield from _sources(source.unit, one, (*source.above, source.part))
        yield source

    def _explain(self, source: _Source, one: Part | Pod) -> None:
        groups = (source.part, source.unit.part) if source.unit else (source.part,)
        known = [part for part in groups if part.key not in self.out.causes]
        if not known:
            return
        part = one if isinstance(one, Part) else Part(one.key, "", 1, (one,), parent=source.part)
        above = (*source.above, source.part) if isinstance(one, Part) else source.above
        cause = self._why_no_extra(part, above)
        for group in known:
            self.out.causes[group.key] = cause

    def _why_no_extra(self, part: Part, above: Sequence[Part]) -> Cause:
        """Whether it would fit into the room that is held for floors, else what it lacks."""
        held = [(row, pod.shape, 1) for _, pod, row in self.solver.places[self._held_from : self._held_to]]
        held += [place for hold in self._holds for place in hold.places]
        held += [place for _, _, places in self.solver.promises for place in places]
        if held:
            for row, shape, count in held:
                self.cluster.give(row, shape, count)
            mark = self.solver.mark()
            fits = self.solver.place(part, above)
            self.solver.undo(mark)
            for row, shape, count in held:
                self.cluster.take(row, shape, count)
            if fits:
                return Cause(Reason.SIBLING_FLOOR_FIRST)
        return self._why(part, above)

    def _tell(self, book: dict[str, Binding], mark: int) -> None:
        for _, pod, row in self.solver.places[mark:]:
            book[pod.key] = Binding(pod.key, pod.uid, self.cluster.nodes[row].name)


def phantom(shape: Template) -> Part:
    """A TP group of this shape that does not exist."""
    pods = tuple(Pod(f"{number}", "", one) for number, one in enumerate(shape))
    return Part("", "", len(shape), pods)


def _groups(part: Part) -> Iterator[Part]:
    """The groups below a part, itself first; TP groups are none."""
    if part.key == part.group:
        yield part
    for child in part.children:
        yield from _groups(child)


def _unmet(part: Part) -> Iterator[Part]:
    if not part.met:
        yield part
        for child in part.children:
            yield from _unmet(child)


def _short_child(part: Part) -> bool:
    return any(child.key == child.group and child.is_short() for child in part.children)


def _complete(part: Part) -> bool:
    """Whether nothing of it waits."""
    return part.met and all(child.met and _complete(child) for child in part.children) and not part.left


def _sources(unit: Unit, part: Part, above: tuple[Part, ...]) -> Iterator[_Source]:
    """The parts of a met part that may take more: it, and those below it that are met."""
    if part.is_leaf and part.key != part.group:
        return
    yield _Source(part, above, unit)
    for child in part.children:
        if child.met:
            yield from _sources(unit, child, (*above, part))


def _next(source: _Source) -> Part | Pod | None:
    """The most urgent thing of a source that is not placed and has not failed yet."""
    part = source.part
    if source.todo is None:
        source.todo = deque(part.left if part.is_leaf else part.ready)
    while source.todo:
        one = source.todo[0]
        done = one.met if isinstance(one, Part) else one.key in part.placed
        likeness = one.likeness() if isinstance(one, Part) else one.shape
        if not done and likeness not in source.failed:
            return one
        source.todo.popleft()
    return None


def _waits(source: _Source) -> bool:
    return _next(source) is not None
