"""One scheduling decision: `place` a snapshot's pods, or ask `how_many_fit`.

Rules:
1. First the minimums of all PodGroups, each whole or not at all; then room is held back for the minimums
   that are not met; then everything else: pods alone and TP groups above the minimums, one at a time.
2. A TP group is placed whole or not at all, and so is the rest of one that runs in part.
3. Ties are broken by priority, a broken gang before one that runs nothing, age, name; never by input order.
4. A floor whose shape nobody knows yet makes its siblings' extras wait, at most UNKNOWN_FLOOR_WAIT_S.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gangscheduler.diagnosis import Cause, blocked_nodes, why_not
from gangscheduler.gangs import Gang, TpGroup, alone, gangs_of
from gangscheduler.ledger import Ledger, prefixes
from gangscheduler.model import (
    EXPLAINED,
    Binding,
    Fit,
    Path,
    PodShape,
    Reason,
    Snapshot,
    Template,
    Verdict,
    Verdicts,
    Waiting,
)
from gangscheduler.packing import place_group, place_jointly

UNKNOWN_FLOOR_WAIT_S = 30.0

FITS: Cause = (Reason.FITS, "")

# Sorted by priority, repairs first, TP groups above the floor, age, name; the rest says whose turn it is.
_Turn = tuple[int, int, int, float, str, Gang | None, tuple[TpGroup, ...]]


def place(snapshot: Snapshot) -> Verdicts:
    """Decide what is bound now, and say why the rest waits.

    A TP group costs O(domains + nodes of the domains tried); a cycle that much for every waiting one.
    """
    cycle = _Cycle(snapshot)
    cycle.run()
    return cycle.verdicts()


def how_many_fit(
    snapshot: Snapshot,
    template: Template,
    limit: int,
    *,
    podgroup: str = "",
    reserve: Iterable[Template] = (),
) -> Fit:
    """How many more whole TP groups of this shape would fit now, up to `limit`.

    Pods that wait already, floors that are not met and the TP groups in `reserve` take their room first.
    `podgroup` (namespace/name) is the PodGroup that would get the new TP groups: the part of its own floor
    that has no pods yet is not held against it.
    """
    cycle = _Cycle(snapshot)
    cycle.run()
    ledger = cycle.ledger
    cycle.release(podgroup)
    for group in reserve:
        place_group(ledger, group)
    mark = ledger.mark()
    fitting = 0
    while fitting < limit and place_group(ledger, template) is not None:
        fitting += 1
    ledger.rollback(mark)
    while fitting < limit and place_jointly(ledger, [template] * (fitting + 1)) is not None:
        fitting += 1
        ledger.rollback(mark)
    blocked = blocked_nodes(ledger, template)
    if fitting >= limit:
        return Fit(fitting, "", blocked, Reason.FITS)
    reason, resource = why_not(ledger, template * (fitting + 1))
    return Fit(fitting, resource, blocked, reason)


@dataclass(frozen=True)
class _Hold:
    """Room kept for one TP group of an unmet minimum; `waiting` = its pods exist."""

    gang: Gang
    waiting: bool
    places: tuple[tuple[str, PodShape], ...]


@dataclass
class _Standing:
    """What a cycle has found out about one gang."""

    placed: list[TpGroup] = field(default_factory=list)
    held: int = 0
    cause: Cause | None = None
    satisfied: bool = False


class _Cycle:
    """The state of one decision. Gangs are kept in the order of their urgency."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._now_s = snapshot.now_s
        self._pods = snapshot.pods
        self._gangs = gangs_of(snapshot)
        self._alone = alone(snapshot)
        self.ledger = Ledger(snapshot)
        self._standing = {gang.group.key: _Standing(satisfied=not gang.missing_pods) for gang in self._gangs}
        self._holds: list[_Hold] = []
        self._bindings: dict[str, Binding] = {}
        self._causes: dict[str, Cause] = {}
        self._hopeless: set[Template] = set()
        self._near: dict[str, set[Path]] = defaultdict(set)
        for gang in self._gangs:
            for tp_group in gang.tp_groups:
                self._near[_kin(gang)].update(self._domains(pod.node for pod in tp_group.bound))

    def run(self) -> None:
        """The passes, in order."""
        for gang in self._gangs:
            if gang.missing_pods:
                self._place_minimum(gang)
        unmet = [gang for gang in self._gangs if not self._standing[gang.group.key].satisfied]
        for gang in unmet:
            self._hold(gang)
        self._place_the_rest({gang.service for gang in unmet if self._is_unknown(gang)})

    def release(self, podgroup: str) -> None:
        """Give back what is held for pods of this PodGroup that do not exist."""
        for hold in self._holds:
            if hold.gang.group.key == podgroup and not hold.waiting:
                for name, shape in hold.places:
                    self.ledger.give(name, shape)

    def _place_minimum(self, gang: Gang) -> None:
        """The TP groups that the minimum needs, all of them or none."""
        found = self._one_by_one(gang) or self._jointly(gang)
        if found is None:
            self._standing[gang.group.key].cause = self._why_short(gang)
            return
        for tp_group, nodes in found:
            self._admit(gang, tp_group, nodes)
        self._standing[gang.group.key].satisfied = True

    def _one_by_one(self, gang: Gang) -> list[tuple[TpGroup, list[str]]] | None:
        """The most urgent, largest first, each at its best place; the next in turn for one that fits nowhere."""
        missing, near = gang.missing_pods, set(self._near[_kin(gang)])
        found: list[tuple[TpGroup, list[str]]] = []
        needed = sorted(_enough(gang), key=lambda tp_group: tp_group.need, reverse=True)
        if not needed:
            return None
        mark = self.ledger.mark()
        for tp_group in (*needed, *gang.waiting[len(needed) :]):
            nodes = self._seat(tp_group, near, committed=not found)
            if nodes is None:
                continue
            found.append((tp_group, nodes))
            near.update(self._domains(nodes))
            missing -= len(nodes)
            if missing <= 0:
                return found
        self.ledger.rollback(mark)
        return None

    def _jointly(self, gang: Gang) -> list[tuple[TpGroup, list[str]]] | None:
        """The most urgent TP groups packed as one, when their best places stand in each other's way."""
        needed = _enough(gang)
        if not needed or any(tp_group.template in self._hopeless for tp_group in needed):
            return None
        nodes = place_jointly(self.ledger, [tp_group.template for tp_group in needed])
        return None if nodes is None else list(zip(needed, nodes, strict=True))

    def _seat(self, tp_group: TpGroup, near: set[Path], *, committed: bool) -> list[str] | None:
        """Place one TP group. Room only shrinks, so a template that failed once is not tried again."""
        if tp_group.template in self._hopeless:
            return None
        own = [self.ledger.nodes[pod.node].path for pod in tp_group.bound if pod.node in self.ledger.nodes]
        nodes = place_group(self.ledger, tp_group.template, own, near)
        if nodes is None and committed:
            self._hopeless.add(tp_group.template)
        return nodes

    def _admit(self, gang: Gang | None, tp_group: TpGroup, nodes: Sequence[str]) -> None:
        for pod, node in zip(tp_group.pending, nodes, strict=True):
            self._bindings[pod.key] = Binding(pod.key, pod.uid, node)
        if gang is not None:
            self._near[_kin(gang)].update(self._domains(nodes))
            self._standing[gang.group.key].placed.append(tp_group)

    def _why_short(self, gang: Gang) -> Cause:
        needed = _enough(gang)
        if needed:
            return why_not(self.ledger, tuple(shape for tp_group in needed for shape in tp_group.template))
        return self._why_idle(gang) or (Reason.MINIMUM_NOT_MET, "")

    def _hold(self, gang: Gang) -> None:
        """Keep room for as many TP groups of an unmet minimum as fit, those with pods first."""
        missing, near = gang.missing_pods, self._near[_kin(gang)]
        standing = self._standing[gang.group.key]
        for tp_group in gang.waiting:
            if missing <= 0:
                return
            missing -= len(tp_group.pending)
            nodes = self._seat(tp_group, near, committed=True)
            if nodes is not None:
                standing.held += 1
                self._holds.append(_Hold(gang, True, tuple(zip(nodes, tp_group.template, strict=True))))
        shape = gang.shape
        while shape and missing > 0:
            nodes = place_group(self.ledger, shape, near=near)
            if nodes is None:
                return
            self._holds.append(_Hold(gang, False, tuple(zip(nodes, shape, strict=True))))
            missing -= len(shape)

    def _is_unknown(self, gang: Gang) -> bool:
        young = self._now_s - gang.group.created_s < UNKNOWN_FLOOR_WAIT_S
        return bool(gang.service) and gang.shape is None and young

    def _place_the_rest(self, closed_services: set[str]) -> None:
        """Repairs and pods alone first, then the role with the fewest TP groups above its floor."""
        turns: list[_Turn] = [
            (-one.pods[0].priority, 0, 0, one.pods[0].created_s, f"pod {one.key}", None, (one,)) for one in self._alone
        ]
        for gang in self._gangs:
            standing = self._standing[gang.group.key]
            left = tuple(one for one in gang.waiting if one not in standing.placed)
            if not left or not standing.satisfied:
                continue
            if gang.service and gang.service in closed_services:
                standing.cause = (Reason.SIBLING_FLOOR_FIRST, "")
            else:
                turns.append(self._turn(gang, left))
        heapq.heapify(turns)
        while turns:
            *_, owner, left = heapq.heappop(turns)
            self._place_extra(owner, left[0])
            if owner is not None and left[1:]:
                heapq.heappush(turns, self._turn(owner, left[1:]))

    def _turn(self, gang: Gang, left: tuple[TpGroup, ...]) -> _Turn:
        above = gang.running + len(self._standing[gang.group.key].placed) - gang.floor
        repair = 0 if left[0].bound else 1
        return -gang.priority, repair, above, gang.group.created_s, f"gang {gang.group.key}", gang, left

    def _place_extra(self, gang: Gang | None, tp_group: TpGroup) -> None:
        near = self._near[_kin(gang)] if gang else set[Path]()
        nodes = self._seat(tp_group, near, committed=True)
        if nodes is not None:
            self._admit(gang, tp_group, nodes)
            return
        cause = self._why_no_extra(tp_group.template)
        for pod in tp_group.pending:
            self._causes[pod.key] = cause
        if gang is not None and self._standing[gang.group.key].cause is None:
            self._standing[gang.group.key].cause = cause

    def _why_no_extra(self, template: Template) -> Cause:
        """Whether it would fit into the room that is held for floors, else what it lacks."""
        if not self._holds:
            return why_not(self.ledger, template)
        mark = self.ledger.mark()
        for hold in self._holds:
            for name, shape in hold.places:
                self.ledger.give(name, shape)
        fits = place_group(self.ledger, template) is not None
        self.ledger.rollback(mark)
        return (Reason.SIBLING_FLOOR_FIRST, "") if fits else why_not(self.ledger, template)

    def _why_idle(self, gang: Gang) -> Cause | None:
        """Why pods of the gang wait that are not ready to be placed."""
        if gang.unsupported:
            return Reason.UNSUPPORTED_CONSTRAINT, ""
        if any(not one.running and not one.waiting and one.pods for one in gang.tp_groups):
            return Reason.INCOMPLETE_GROUP, ""
        return None

    def _domains(self, nodes: Iterable[str]) -> set[Path]:
        known = (self.ledger.nodes[name].path for name in nodes if name in self.ledger.nodes)
        return {domain for path in known for domain in prefixes(path)}

    def verdicts(self) -> Verdicts:
        """What this cycle says."""
        groups = {gang.group.key: self._verdict(gang) for gang in self._gangs}
        waiting = [
            self._waiting(pod.key, pod.uid, pod.unsupported, groups.get(pod.group), bool(pod.group))
            for pod in self._pods
            if pod.ours and not pod.node and not pod.terminating and not pod.gated
            if pod.key not in self._bindings
        ]
        bindings = tuple(self._bindings[key] for key in sorted(self._bindings))
        return Verdicts(tuple(groups[key] for key in sorted(groups)), bindings, tuple(waiting))

    def _verdict(self, gang: Gang) -> Verdict:
        standing = self._standing[gang.group.key]
        reason, resource = standing.cause or self._why_idle(gang) or FITS
        admitted = gang.running + len(standing.placed)
        return Verdict(
            name=gang.group.key,
            service=gang.service,
            role=gang.role,
            desired=gang.desired,
            admitted=admitted,
            placeable_now=admitted + standing.held,
            limiting_resource=resource,
            reason=reason,
            floor=gang.floor,
            uid=gang.group.uid,
        )

    def _waiting(self, key: str, uid: str, unsupported: str, verdict: Verdict | None, grouped: bool) -> Waiting:
        if unsupported:
            reason = Reason.UNSUPPORTED_CONSTRAINT
            return Waiting(key, uid, reason, f"{EXPLAINED[reason]}: {unsupported}")
        if verdict is not None:
            return Waiting(key, uid, verdict.reason, verdict.message)
        if grouped:
            return Waiting(key, uid, Reason.POD_GROUP_MISSING, EXPLAINED[Reason.POD_GROUP_MISSING])
        reason, resource = self._causes[key]
        limit = f" ({resource})" if resource else ""
        return Waiting(key, uid, reason, f"{EXPLAINED[reason]}{limit}")


def _kin(gang: Gang) -> str:
    """TP groups are placed near those of the same service, else of the same PodGroup."""
    return f"service {gang.service}" if gang.service else gang.group.key


def _enough(gang: Gang) -> list[TpGroup]:
    """The most urgent TP groups that would meet the minimum; empty when too few can be placed."""
    needed, missing = [], gang.missing_pods
    for tp_group in gang.waiting:
        if missing <= 0:
            break
        needed.append(tp_group)
        missing -= len(tp_group.pending)
    return needed if missing <= 0 else []
