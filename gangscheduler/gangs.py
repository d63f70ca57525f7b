"""Pods and PodGroups put together: gangs of TP groups.

Rules:
1. Pods of one PodGroup with equal group key are one TP group; it can be placed only when all its pods exist.
2. Terminating pods belong to nothing any more; they only hold resources (see cluster.py).
3. The shape of a TP group comes from its pods, else from the PodGroup's annotations, else it is unknown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from gangscheduler.model import Group, Pod, PodShape, Reason, Snapshot, Template, Toleration
from kubeapi import names

ANYWHERE = (Toleration("", "Exists", "", ""),)


@dataclass(frozen=True)
class TpGroup:
    """The pods of one TP group; `pods` are those that do not terminate, leader first."""

    key: str
    pods: tuple[Pod, ...]
    leaving: tuple[Pod, ...] = ()

    @cached_property
    def size(self) -> int:
        """How many pods make it whole."""
        return max(pod.size for pod in self.pods + self.leaving)

    @cached_property
    def bound(self) -> tuple[Pod, ...]:
        """Members that sit on a node."""
        return tuple(pod for pod in self.pods if pod.node)

    @cached_property
    def pending(self) -> tuple[Pod, ...]:
        """Members that we may place."""
        return tuple(pod for pod in self.wanting if not pod.unsupported and not pod.resting)

    @property
    def wanting(self) -> tuple[Pod, ...]:
        """Members without a node that are ours to place, now or later."""
        return tuple(pod for pod in self.pods if not pod.node and pod.ours and not pod.gated)

    @property
    def running(self) -> bool:
        """Whether every pod is bound."""
        return len(self.bound) >= self.size

    @property
    def waiting(self) -> bool:
        """Whether it can be placed now: there are pods to place, and with them it is whole."""
        return bool(self.pending) and len(self.bound) + len(self.pending) >= self.size

    @cached_property
    def template(self) -> Template:
        """The shapes that are still to be placed."""
        return tuple(pod.shape for pod in self.pending)

    @cached_property
    def shape(self) -> Template:
        """The shapes of all its pods; those that do not exist yet look like the last one that does."""
        known = [pod.shape for pod in (*self.pods, *self.leaving)][: self.size]
        return (*known, *[known[-1]] * (self.size - len(known)))

    @cached_property
    def urgency(self) -> tuple[object, ...]:
        """The order within a gang: repair first, then priority, then the lowest index: an LWS keeps it longest."""
        first = self.pods[0]
        priority = max(pod.priority for pod in self.pods)
        return not self.bound, -priority, first.order, first.created_s, self.key


@dataclass(frozen=True)
class Gang:
    """A PodGroup with its TP groups."""

    group: Group
    tp_groups: tuple[TpGroup, ...]

    @cached_property
    def service(self) -> str:
        """The service of the PodGroup, else of its pods."""
        return self.group.service or next((pod.service for pod in self._pods if pod.service), "")

    @cached_property
    def role(self) -> str:
        """The role of the PodGroup, else of its pods."""
        return self.group.role or next((pod.role for pod in self._pods if pod.role), "")

    @cached_property
    def priority(self) -> int:
        """The PodGroup's priority, else the highest of its pods."""
        if self.group.priority is not None:
            return self.group.priority
        return max((pod.priority for pod in self._pods), default=0)

    @cached_property
    def desired(self) -> int:
        """TP groups that have pods."""
        return sum(1 for tp_group in self.tp_groups if tp_group.pods)

    @cached_property
    def running(self) -> int:
        """TP groups that are bound whole."""
        return sum(1 for tp_group in self.tp_groups if tp_group.running)

    @cached_property
    def bound_pods(self) -> int:
        """Pods on nodes, terminating ones left out."""
        return sum(len(tp_group.bound) for tp_group in self.tp_groups)

    @property
    def missing_pods(self) -> int:
        """How many pods are bound too few for the minimum."""
        return max(0, self.group.min_count - self.group.fulfilled - self.bound_pods)

    @cached_property
    def waiting(self) -> tuple[TpGroup, ...]:
        """TP groups that can be placed now, the most urgent first."""
        found = [tp_group for tp_group in self.tp_groups if tp_group.waiting]
        return tuple(sorted(found, key=lambda tp_group: tp_group.urgency))

    @cached_property
    def by_urgency(self) -> tuple[TpGroup, ...]:
        """TP groups that have pods, the most urgent first."""
        found = [tp_group for tp_group in self.tp_groups if tp_group.pods]
        return tuple(sorted(found, key=lambda tp_group: tp_group.urgency))

    @cached_property
    def of_tp_groups(self) -> bool:
        """Whether its pods are bound together in TP groups, or by wishes of every TP group."""
        each = self.group.each_required_level or self.group.each_preferred_level
        return bool(self.tp_groups and each) or any(one.size > 1 or len(one.pods) > 1 for one in self.tp_groups)

    @cached_property
    def least(self) -> int:
        """The minimum in TP groups, as these are: those that run, and the most urgent ones for the pods it lacks."""
        missing, needed = self.missing_pods, self.running
        if not missing:
            return min(self.running, self.floor)
        for tp_group in self.waiting:
            if missing <= 0:
                return needed
            needed += 1
            missing -= len(tp_group.pending)
        size = len(self.shape) if self.shape else 1
        return needed + max(0, -(-missing // size))

    @cached_property
    def unsupported(self) -> bool:
        """Whether a pod asks for what we do not do."""
        return any(pod.unsupported and not pod.node for pod in self._pods)

    @property
    def resting(self) -> bool:
        """Whether a binding of it was refused just now."""
        return any(pod.resting and not pod.node for pod in self._pods)

    @property
    def idle(self) -> Reason | None:
        """Why pods of it wait that are not ready to be placed."""
        if self.unsupported:
            return Reason.UNSUPPORTED_CONSTRAINT
        if self.resting:
            return Reason.BINDING_REFUSED
        if any(not one.running and not one.waiting and one.pods for one in self.tp_groups):
            return Reason.INCOMPLETE_GROUP
        return None

    @cached_property
    def shape(self) -> Template | None:
        """The shape of one of its TP groups; None when neither pods nor annotations tell it."""
        if self.tp_groups:
            known = min(self.tp_groups, key=lambda one: (len(one.pods) < one.size, one.key))
            return known.shape
        pods, gpus = self.group.pods_per_group, self.group.gpus_per_pod
        if pods is None or gpus is None:
            return None
        return (PodShape(((names.GPU, gpus), ("pods", 1)), tolerations=ANYWHERE),) * pods

    @cached_property
    def floor(self) -> int:
        """The minimum in TP groups, as far as the shape is known."""
        size = len(self.shape) if self.shape else 1
        return -(-self.group.min_count // size)

    @cached_property
    def urgency(self) -> tuple[object, ...]:
        """The order among minimums: priority, then broken gangs before those that run nothing, then age."""
        broken = self.missing_pods > 0 and self.bound_pods > 0
        return -self.priority, not broken, self.group.created_s, self.group.key

    @property
    def _pods(self) -> Iterable[Pod]:
        return (pod for tp_group in self.tp_groups for pod in (*tp_group.pods, *tp_group.leaving))


def gangs_of(snapshot: Snapshot) -> tuple[Gang, ...]:
    """Every PodGroup with its pods, the most urgent minimum first. Linear, plus the sorting."""
    members: dict[str, list[Pod]] = defaultdict(list)
    for pod in snapshot.pods:
        members[pod.group].append(pod)
    gangs = [gang_of(group, members.get(group.key, ())) for group in snapshot.groups]
    return tuple(sorted(gangs, key=lambda gang: gang.urgency))


def gang_of(group: Group, pods: Iterable[Pod]) -> Gang:
    """A group with its pods."""
    members: dict[str, list[Pod]] = defaultdict(list)
    for pod in pods:
        members[pod.tp_group].append(pod)
    return Gang(group, tuple(tp_group_of(key, members[key]) for key in sorted(members)))


def tp_group_of(key: str, pods: Iterable[Pod]) -> TpGroup:
    """The TP group of these pods."""
    pods = sorted(pods, key=lambda pod: (pod.order, pod.key))
    return TpGroup(
        key,
        tuple(pod for pod in pods if not pod.terminating),
        tuple(pod for pod in pods if pod.terminating),
    )
