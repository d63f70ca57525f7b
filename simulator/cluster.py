"""Nodes, and where the pods of TP groups go: the answers are those of our gang scheduler's core.

Rules:
1. A cycle runs only when something has changed since the last one: equal snapshots give equal verdicts. What fits is
   kept for as long as nothing changes.
2. A node may be provided when pods wait for room: it takes its time to come, and goes again when it has been empty for
   a while. Nodes of the beginning stay.
3. Pods of a group that drains keep their room until they are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

from gangscheduler.core import Core
from gangscheduler.model import Fit, Node, Pod, PodShape, Snapshot
from gangscheduler.model import Group as PodGroup
from kubeapi import names
from policies.model import ROLES, Role
from simulator.clock import Clock
from simulator.groups import Group, Phase

NAMESPACE, SERVICE = "simulated", "simulated"
FIT_LIMIT = 64
PODS = "pods"
MAX_PODS = 110


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of one kind, in racks of `per_rack`. `most`: up to how many are provided when pods wait for room."""

    count: int
    gpus: int
    per_rack: int = 8
    most: int = 0
    idle_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Shape:
    """One TP group: so many pods of so many GPUs each."""

    pods: int
    gpus_per_pod: int

    @property
    def gpus(self) -> int:
        """What a group costs."""
        return self.pods * self.gpus_per_pod

    @property
    def template(self) -> tuple[PodShape, ...]:
        """For the scheduler."""
        return (PodShape(((names.GPU, self.gpus_per_pod), (PODS, 1))),) * self.pods


class Cluster:
    """Nodes and the pods on them. `placed` is told of groups that have found nodes."""

    def __init__(
        self,
        clock: Clock,
        nodes: Nodes,
        shapes: Mapping[Role, Shape],
        provision_s: Callable[[], float],
        placed: Callable[[Group], object],
    ) -> None:
        self.min_pods = {role: shapes[role].pods for role in ROLES}
        self.shapes = shapes
        self._clock = clock
        self._config = nodes
        self._provision_s = provision_s
        self._placed = placed
        self._made = self._coming = 0
        self._nodes: dict[str, Node] = {}
        self._idle_until_s: dict[str, float] = {}
        self._groups: dict[str, Group] = {}
        self._pods: dict[str, tuple[Pod, ...]] = {}
        self._fits: dict[Role, Fit] = {}
        self._core = Core()
        self._due = False
        for _ in range(nodes.count):
            self._add_node()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All that are there, those that are not ready, too."""
        return self._nodes

    @property
    def gpus(self) -> int:
        """GPUs on ready nodes."""
        return self._config.gpus * sum(node.ready for node in self._nodes.values())

    @property
    def used_gpus(self) -> Mapping[str, int]:
        """GPUs in use, by node."""
        used = dict.fromkeys(self._nodes, 0)
        for group in self._groups.values():
            for node in group.nodes:
                used[node] = used.get(node, 0) + self.shapes[group.role].gpus_per_pod
        return used

    def add(self, group: Group) -> None:
        """A group's pods are made; those of one that has its nodes already are only booked."""
        self._groups[group.uid] = group
        self._book(group)

    def remove(self, group: Group) -> None:
        """A group's pods are gone."""
        del self._groups[group.uid]
        del self._pods[group.uid]
        self._changed()

    def changed(self, group: Group) -> None:
        """A group stands elsewhere than before."""
        self._book(group)

    def set_minimum(self, role: Role, pods: int) -> None:
        """The role's PodGroup asks for so many pods at once."""
        if pods != self.min_pods[role]:
            self.min_pods[role] = pods
            self._changed()

    def fail(self, name: str) -> list[Group]:
        """A node is lost; the groups that had pods on it. An unknown name is a node that is not there: nobody's."""
        if name not in self._nodes:
            return []
        self._nodes[name] = replace(self._nodes[name], ready=False)
        self._changed()
        return [group for group in self._groups.values() if name in group.nodes]

    def heal(self, name: str) -> None:
        """A lost node is back."""
        if name in self._nodes:
            self._nodes[name] = replace(self._nodes[name], ready=True)
            self._changed()

    def fit(self, role: Role) -> Fit:
        """How many more groups of a role would fit now, and what stops the next one."""
        if role not in self._fits:
            template = self.shapes[role].template
            self._fits[role] = self._core.how_many_fit(self.snapshot(), template, FIT_LIMIT, podgroup=_key(role))
        return self._fits[role]

    # Placing.

    def _changed(self) -> None:
        self._fits.clear()
        if not self._due:
            self._due = True
            self._clock.at(self._clock.now_s, self._cycle)

    def _cycle(self, now_s: float) -> None:
        self._due = False
        if any(group.phase is Phase.PENDING for group in self._groups.values()):
            self._place(now_s)
        self._retire(now_s)

    def _place(self, now_s: float) -> None:
        by_pod = {pod.key: group for uid, group in self._groups.items() for pod in self._pods[uid]}
        chosen: dict[str, list[str]] = {}
        for binding in self._core.decide(self.snapshot()).bindings:
            chosen.setdefault(by_pod[binding.pod].uid, []).append(binding.node)
        for uid, nodes in chosen.items():
            group = self._groups[uid]
            group.nodes, group.phase, group.waited_s = tuple(nodes), Phase.STARTING, now_s - group.created_s
            self._pods[uid] = self._pods_of(group)
            self._placed(group)
        if chosen:
            self._fits.clear()
        self._provide()

    def snapshot(self) -> Snapshot:
        """All that the scheduler would see now."""
        pods = (pod for uid in sorted(self._pods) for pod in self._pods[uid])
        groups = tuple(
            PodGroup(
                _key(role),
                f"podgroup-{role}",
                SERVICE,
                role.value,
                self.min_pods[role],
                pods_per_group=self.shapes[role].pods,
                gpus_per_pod=self.shapes[role].gpus_per_pod,
            )
            for role in ROLES
        )
        return Snapshot(self._clock.now_s, tuple(self._nodes.values()), tuple(pods), groups)

    def _book(self, group: Group) -> None:
        self._pods[group.uid] = self._pods_of(group)
        self._changed()

    def _pods_of(self, group: Group) -> tuple[Pod, ...]:
        shape = self.shapes[group.role]
        return tuple(
            Pod(
                key=f"{NAMESPACE}/{name}",
                uid=f"{group.uid}-{rank}",
                shape=shape.template[rank],
                node=group.nodes[rank] if group.nodes else "",
                terminating=group.leaving,
                group=_key(group.role),
                tp_group=group.uid,
                size=shape.pods,
                order=(group.index, rank),
                service=SERVICE,
                role=group.role.value,
                created_s=group.created_s,
            )
            for rank, name in enumerate(group.pods)
        )

    # Nodes that come and go.

    def _add_node(self) -> None:
        name = f"node-{self._made:04d}"
        path = ("zone", "block", f"rack-{self._made // self._config.per_rack:03d}", name)
        self._made += 1
        self._nodes[name] = Node(name, ((names.GPU, self._config.gpus), (PODS, MAX_PODS)), path)

    def _provide(self) -> None:
        """Ask for as many nodes as the pods that wait would fill, beside those that are coming."""
        waiting = [group for group in self._groups.values() if group.phase is Phase.PENDING]
        gpus = sum(self.shapes[group.role].gpus for group in waiting)
        wanted = ceil(gpus / self._config.gpus) - self._coming
        for _ in range(min(wanted, self._config.most - len(self._nodes) - self._coming)):
            self._coming += 1
            self._clock.at(self._clock.now_s + self._provision_s(), self._arrive)

    def _arrive(self, now_s: float) -> None:
        self._coming -= 1
        self._add_node()
        self._changed()

    def _retire(self, now_s: float) -> None:
        """Provided nodes that have been empty for long enough go."""
        used = self.used_gpus
        extra = list(self._nodes)[self._config.count :]
        for name in extra:
            if used[name]:
                self._idle_until_s.pop(name, None)
            elif name not in self._idle_until_s:
                until_s = self._idle_until_s[name] = now_s + self._config.idle_s
                self._clock.at(until_s, partial(self._look_again, name))
            elif now_s >= self._idle_until_s[name]:
                del self._nodes[name], self._idle_until_s[name]
                self._fits.clear()

    def _look_again(self, name: str, now_s: float) -> None:
        if name in self._idle_until_s:
            self._changed()


def _key(role: Role) -> str:
    return f"{NAMESPACE}/{role}"
