"""The nouns of the scheduler: what a cycle sees (Snapshot) and what it says (Verdicts).

Rules:
1. Everything is frozen and made of plain values; equal snapshots give equal verdicts.
2. Amounts are integers: milli-cpu, bytes, or counts. A resource that a node does not name has no room.
3. A verdict counts in what the group is made of: TP groups, pods without a group key, or child groups.
4. Groups form trees by `parent`: a composite is made of groups, a PodGroup of pods. A composite of minimum 0 binds its
   children to nothing: each is a gang of its own. A parent that is missing or goes round in a circle makes a group
   invalid: nothing of its tree is bound.
5. A level is one of `Snapshot.levels`; a domain is known by its full path, and a node without a name at a level lies in
   no domain of it. All pods below a group with a required level are in one domain of that level.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from kubeapi import names

Amounts = tuple[tuple[str, int], ...]
Path = tuple[str, ...]

ALL = -1  # as the minimum of a composite: every child

# The parts of a node's path, outermost first, as the node labels that name them.
LEVELS = (names.TOPOLOGY_ZONE, names.TOPOLOGY_BLOCK, names.TOPOLOGY_RACK, names.HOSTNAME)


class Reason(StrEnum):
    """Why a PodGroup or a pod stands where it stands; the codes are stable."""

    FITS = "Fits"
    INSUFFICIENT_RESOURCE = "InsufficientResource"
    FRAGMENTED = "Fragmented"
    POD_TOO_LARGE = "PodTooLarge"
    NODES_UNSCHEDULABLE = "NodesUnschedulable"
    SELECTOR_MISMATCH = "SelectorMismatch"
    MINIMUM_NOT_MET = "MinimumNotMet"
    SIBLING_FLOOR_FIRST = "SiblingFloorFirst"
    INCOMPLETE_GROUP = "IncompleteGroup"
    POD_GROUP_MISSING = "PodGroupMissing"
    UNSUPPORTED_CONSTRAINT = "UnsupportedConstraint"
    INVALID_GROUP = "InvalidGroup"
    OVER_QUOTA = "OverQuota"
    CONFLICTING_PLACED_SIBLINGS = "ConflictingPlacedSiblings"
    NO_CAPACITY_NEAR_SIBLINGS = "NoCapacityNearSiblings"
    NOMINATED = "Nominated"
    BINDING_REFUSED = "BindingRefused"


class Choice(StrEnum):
    """Which of the domains that hold a group it goes to, after the levels that it prefers and its siblings' places."""

    PACK = "pack"  # best fit, and no domain that is still whole is begun while another one will do
    BEST_FIT = "best-fit"  # the one with the least room
    MOST_ALLOCATED = "most-allocated"  # the one with the largest used share
    SPREAD = "spread"  # the one with the most room


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint; only NoSchedule and NoExecute keep pods away."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """A pod's toleration; an empty key or effect matches every one."""

    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One matchExpression of a node selector term."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodShape:
    """All that decides where a pod may run. `affinity` is an OR of ANDs; empty = anywhere."""

    requests: Amounts
    selector: tuple[tuple[str, str], ...] = ()
    affinity: tuple[tuple[Requirement, ...], ...] = ()
    tolerations: tuple[Toleration, ...] = ()


Template = tuple[PodShape, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `path` is its full place (zone, block, rack, host)."""

    name: str
    allocatable: Amounts
    path: Path
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    cordoned: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that is not finished. `group` is its PodGroup's key, `tp_group` its TP group's key within it.

    `size` is the number of pods of its TP group. `ours` = we schedule it; `gated` = it must not be placed
    yet; `unsupported` names a constraint that this scheduler does not honour, so it must not place the pod;
    `resting` = the server has just refused a binding of its gang; `undoable` = it has never started, and a controller
    makes it again when it is gone.
    """

    key: str
    uid: str
    shape: PodShape
    node: str = ""
    terminating: bool = False
    ours: bool = True
    gated: bool = False
    unsupported: str = ""
    resting: bool = False
    undoable: bool = False
    group: str = ""
    tp_group: str = ""
    size: int = 1
    order: tuple[int, int] = (0, 0)
    service: str = ""
    role: str = ""
    priority: int = 0
    created_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """A PodGroup, or a composite of groups. `priority` None = that of its pods; a tree has its root's.

    `min_count` is in pods, of a composite in children that reach their own minimum; ALL = every one, 0 = no
    minimum. `each_...` are the levels of every TP group within a PodGroup. `fulfilled` pods have succeeded: they
    count and hold nothing. `problem` says why the group must not be placed. A gang that is not preemptible stays
    within the quota of its queue.
    """

    key: str
    uid: str
    service: str = ""
    role: str = ""
    min_count: int = 0
    priority: int | None = None
    created_s: float = 0.0
    pods_per_group: int | None = None
    gpus_per_pod: int | None = None
    composite: bool = False
    parent: str = ""
    required_level: str = ""
    preferred_level: str = ""
    each_required_level: str = ""
    each_preferred_level: str = ""
    fulfilled: int = 0
    problem: str = ""
    queue: str = ""
    preemptible: bool = True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one cycle knows. `quotas` are what a queue's gangs that are not preemptible may hold together."""

    now_s: float
    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    groups: tuple[Group, ...]
    levels: tuple[str, ...] = LEVELS
    choice: Choice = Choice.PACK
    quotas: tuple[tuple[str, Amounts], ...] = ()


class Binding(NamedTuple):
    """Pod `pod` (namespace/name) of this uid goes to `node`."""

    pod: str
    uid: str
    node: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pod of ours that stays pending, and why."""

    pod: str
    uid: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One group after a cycle, in TP groups, pods or child groups: what it is made of.

    `desired` exist; `admitted` of them are bound, this cycle's bindings included; `placeable_now` would
    be bound if the minimum did not ask for all or nothing (admitted plus the waiting ones that find room).
    """

    name: str
    service: str
    role: str
    desired: int
    admitted: int
    placeable_now: int
    limiting_resource: str
    reason: Reason
    floor: int = 0
    uid: str = ""
    limiting_level: str = ""
    detail: str = ""

    @property
    def message(self) -> str:
        """One line with the numbers."""
        limits = ", ".join(part for part in (self.limiting_resource, self.limiting_level, self.detail) if part)
        limit = f" ({limits})" if limits else ""
        numbers = (
            f"{self.admitted} of {self.desired} TP groups admitted, {self.placeable_now} placeable now, "
            f"floor {self.floor}"
        )
        return f"{numbers}: {EXPLAINED[self.reason]}{limit}"


EXPLAINED: dict[Reason, str] = {
    Reason.FITS: "nothing waits",
    Reason.INSUFFICIENT_RESOURCE: "too little free on the nodes that match",
    Reason.FRAGMENTED: "enough free in sum, but not where one TP group could use it",
    Reason.POD_TOO_LARGE: "no node is large enough for one pod",
    Reason.NODES_UNSCHEDULABLE: "the room is on nodes that are cordoned or not ready",
    Reason.SELECTOR_MISMATCH: "no node matches selector, affinity and tolerations",
    Reason.MINIMUM_NOT_MET: "fewer pods exist than the minimum asks for",
    Reason.SIBLING_FLOOR_FIRST: "the free room is kept for a floor that is not met",
    Reason.INCOMPLETE_GROUP: "a TP group waits for the rest of its pods",
    Reason.POD_GROUP_MISSING: "the PodGroup that the pod names does not exist",
    Reason.UNSUPPORTED_CONSTRAINT: "the pod asks for what this scheduler does not do",
    Reason.INVALID_GROUP: "the group cannot be understood",
    Reason.OVER_QUOTA: "more than the queue's quota, and not preemptible",
    Reason.CONFLICTING_PLACED_SIBLINGS: "members run in different domains of a level that asks for one",
    Reason.NO_CAPACITY_NEAR_SIBLINGS: "there is room, but not in the domain where its members run",
    Reason.NOMINATED: "its places are being freed by pods that terminate",
    Reason.BINDING_REFUSED: "a binding was refused, and is tried again after a rest",
}


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The outcome of a cycle: every group, what to bind, which pods wait, and which of them have a place promised."""

    groups: tuple[Verdict, ...] = ()
    bindings: tuple[Binding, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    nominations: tuple[Binding, ...] = ()


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer to a what-if: `groups` more TP groups fit; the rest says what stops the next one.

    `blocked_nodes` match the template but are cordoned or not ready.
    """

    groups: int
    limiting_resource: str
    blocked_nodes: int
    reason: Reason
