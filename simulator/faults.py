"""What goes wrong, and when. A fault that finds nothing to hit does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from policies.model import ROLES, Role
from simulator.flight import Cause
from simulator.groups import Group, Phase
from simulator.scenario import EngineHangs, Fault, GroupDies, NodeLost, ScrapeFails

if TYPE_CHECKING:
    from simulator.world import World

NO_ANSWER = "no answer within {:g} s"


class Faults:
    """The faults of one run."""

    def __init__(self, world: World, faults: Sequence[Fault]) -> None:
        self._world = world
        self._faults = faults

    def begin(self) -> None:
        """Enter all of them."""
        for fault in self._faults:
            self._world.clock.at(fault.at_s, partial(self._strike, fault))

    def _strike(self, fault: Fault, now_s: float) -> None:
        if isinstance(fault, GroupDies):
            for group in self._one(fault.role, fault.index, ready=False):
                self._world.kill(group, Cause.FAULT)
        elif isinstance(fault, NodeLost):
            self._lose(fault, now_s)
        elif isinstance(fault, EngineHangs):
            for group in self._one(fault.role, fault.index):
                group.engine.hang()
                self._world.clock.at(now_s + fault.for_s, partial(self._restart, group))
        else:
            self._blind(fault, now_s)

    def _restart(self, group: Group, now_s: float) -> None:
        self._world.kill(group, Cause.FAULT)

    def _lose(self, fault: NodeLost, now_s: float) -> None:
        nodes = list(self._world.cluster.nodes)
        if fault.node >= len(nodes):
            return
        name = nodes[fault.node]
        for group in self._world.cluster.fail(name):
            self._world.kill(group, Cause.FAULT)
        self._world.clock.at(now_s + fault.for_s, lambda _: self._world.cluster.heal(name))

    def _blind(self, fault: ScrapeFails, now_s: float) -> None:
        why = NO_ANSWER.format(self._world.scenario.autoscaler.metrics.scrape_timeout_s)
        if fault.role == "router":
            self._world.eyes.router_unread = why
        else:
            for group in self._chosen(Role(fault.role), fault.index):
                group.unread = why
        self._world.clock.at(now_s + fault.for_s, lambda _: self._see_again(fault))

    def _see_again(self, fault: ScrapeFails) -> None:
        if fault.role == "router":
            self._world.eyes.router_unread = ""
        for role in ROLES:
            if role.value == fault.role:
                for group in self._world.workloads[role].groups.values():
                    group.unread = ""

    def _chosen(self, role: Role, index: int | None) -> list[Group]:
        return self._by_age(role, ready=True) if index is None else self._one(role, index)

    def _one(self, role: Role, index: int, *, ready: bool = True) -> list[Group]:
        return self._by_age(role, ready=ready)[index : index + 1]

    def _by_age(self, role: Role, *, ready: bool) -> list[Group]:
        groups = self._world.workloads[role].groups.values()
        chosen = [group for group in groups if group.phase is Phase.READY or not (ready or group.leaving)]
        return sorted(chosen, key=lambda group: (group.created_s, group.index))
