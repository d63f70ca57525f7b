"""What a workload's controller does with its replicas: which groups it makes, and which it takes away.

Rules:
1. A LeaderWorkerSet keeps the indices below its replicas: the highest go first, whatever they do, and an index is made
   again only when nothing of it is left.
2. A Deployment counts its pods: those that are not ready go first, then the youngest; new ones come at once.
3. What goes and has never been ready is gone at once; the rest drains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from policies.model import Role
from simulator.groups import Group, Phase

Kind = Literal["LeaderWorkerSet", "Deployment"]


class Workload:
    """One role's workload. `make` makes the group of an index, `take` takes one away."""

    def __init__(
        self, role: Role, kind: Kind, make: Callable[[Role, int], Group], take: Callable[[Group], object]
    ) -> None:
        self.role = role
        self.kind = kind
        self.replicas = 0
        self.groups: dict[str, Group] = {}
        self._make = make
        self._take = take
        self._made = 0

    @property
    def present(self) -> int:
        """Groups with any pod left."""
        return len(self.groups)

    @property
    def ready(self) -> int:
        """Groups that serve, and are meant to go on."""
        return self._count(Phase.READY)

    @property
    def draining(self) -> int:
        """Groups on their way out."""
        return self._count(Phase.DRAINING)

    @property
    def paid(self) -> int:
        """Groups that cost: there, or asked for and still to be made."""
        if self.kind == "LeaderWorkerSet":
            there = {group.index for group in self.groups.values()}
            return len(there) + sum(index not in there for index in range(self.replicas))
        staying = sum(not group.leaving for group in self.groups.values())
        return self.present + max(0, self.replicas - staying)

    def scale(self, replicas: int) -> None:
        """Somebody sets the number."""
        self.replicas = replicas
        self.reconcile()

    def gone(self, group: Group) -> None:
        """Nothing of a group is left."""
        del self.groups[group.uid]
        self.reconcile()

    def reconcile(self) -> None:
        """Make what lacks, take away what is too much. Linear in the groups."""
        if self.kind == "LeaderWorkerSet":
            self._keep_indices()
        else:
            self._keep_count()

    def _keep_indices(self) -> None:
        there = {group.index: group for group in self.groups.values()}
        for index in sorted({*there, *range(self.replicas)}, reverse=True):
            group = there.get(index)
            if index >= self.replicas:
                if group is not None and not group.leaving:
                    self._take(group)
            elif group is None:
                self._add(index)

    def _keep_count(self) -> None:
        staying = [group for group in self.groups.values() if not group.leaving]
        staying.sort(key=lambda group: (group.phase is not Phase.READY, group.created_s, group.index))
        for group in staying[self.replicas :]:
            self._take(group)
        for _ in range(self.replicas - len(staying)):
            self._add(self._made)

    def _add(self, index: int) -> None:
        self._made += 1
        group = self._make(self.role, index)
        self.groups[group.uid] = group

    def _count(self, phase: Phase) -> int:
        return sum(group.phase is phase for group in self.groups.values())
