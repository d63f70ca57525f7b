"""What one cycle knows: what the watches have shown, what was decided since, and who has refused what.

Rules:
1. Pure; an object is read once a change, and a snapshot is what all of them say now, in an order of its own.
2. A change is what a decision could depend on: a heartbeat is none, nor is the watch showing what was assumed.
3. A pod that was assumed counts on its node until the watch shows it there, elsewhere or gone, or it is forgotten.
4. A node that refused a pod before any of its containers ran is kept from that pod's gang for a while, longer each
   time; a gang whose binding the server refused is not placed for a while.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from gangscheduler.layout import Layout
from gangscheduler.model import LEVELS, Choice, Group, Node, Pod, PodShape, Requirement, Snapshot
from gangscheduler.snapshot import (
    family_of,
    group_key,
    group_of,
    is_finished,
    read_group,
    read_node,
    read_pod,
    refused_by,
)
from kubeapi import names

Object = dict[str, Any]
T = TypeVar("T")

ANY_NODE = ""
# What the server refuses it may allow in a moment; what a kubelet lacks comes back with a restart of something.
FIRST_REST_S, LONGEST_REST_S = 0.2, 30.0
FIRST_AWAY_S, LONGEST_AWAY_S = 10.0, 300.0


class View:
    """Nodes, pods and groups as model values. `scheduler_name`: whose pods are ours."""

    def __init__(
        self,
        scheduler_name: str = names.SCHEDULER_NAME,
        levels: tuple[str, ...] = LEVELS,
        choice: Choice = Choice.PACK,
    ) -> None:
        self.assumed: dict[str, str] = {}
        self._scheduler_name = scheduler_name
        self._levels = levels
        self._choice = choice
        self._nodes, self._pods, self._groups = _Table[Node](), _Table[Pod](), _Table[Group]()
        self._layout = Layout()
        self._families: dict[str, str] = {}
        # By PodGroup; a succeeded pod counts towards the minimum and holds nothing.
        self._succeeded: dict[str, set[str]] = {}
        self._refusals: dict[str, dict[str, _Rest]] = {}

    def node(self, raw: Object, *, gone: bool = False) -> bool:
        """Take over a node; whether that changes anything."""
        name = raw["metadata"]["name"]
        return self._nodes.drop(name) if gone else self._nodes.put(name, read_node(raw, self._levels))

    def group(self, raw: Object, *, gone: bool = False) -> bool:
        """Take over a PodGroup or CompositePodGroup; whether that changes anything."""
        key = group_key(raw)
        return self._groups.drop(key) if gone else self._groups.put(key, read_group(raw))

    def forget_groups(self, *, composite: bool) -> None:
        """The server serves none of that kind any more."""
        for group in [group for group in self._groups.all() if group.composite is composite]:
            self._groups.drop(group.key)

    def pod(self, raw: Object, now_s: float, *, gone: bool = False) -> bool:
        """Take over a pod; whether that changes anything. One that has failed may tell of a node's refusal."""
        meta = raw["metadata"]
        key = f"{meta.get('namespace', '')}/{meta['name']}"
        changed = self._count_success(raw, key, gone=gone)
        if gone or is_finished(raw):
            if node := refused_by(raw, self._scheduler_name):
                self.refused(family_of(raw), node, now_s)
            self.assumed.pop(meta.get("uid", ""), None)
            self._families.pop(key, None)
            return self._show(key, None) or changed
        pod = read_pod(raw, self._scheduler_name)
        if pod.node:
            self.assumed.pop(pod.uid, None)
        elif assumed := self.assumed.get(pod.uid):
            pod = replace(pod, node=assumed)
        if pod.ours:
            self._families[key] = family_of(raw)
        return self._show(key, pod)

    def _show(self, key: str, pod: Pod | None) -> bool:
        """Whether the pod is another than before."""
        before = self._pods.get(key)
        changed = self._pods.drop(key) if pod is None else self._pods.put(key, pod)
        if changed:
            self._layout.put(before, pod)
        return changed

    def _count_success(self, raw: Object, key: str, *, gone: bool) -> bool:
        group = group_of(raw)
        succeeded = bool(group) and not gone and raw.get("status", {}).get("phase") == "Succeeded"
        known = key in self._succeeded.get(group, ())
        if succeeded and not known:
            self._succeeded.setdefault(group, set()).add(key)
        elif known and not succeeded:
            self._succeeded[group].discard(key)
            if not self._succeeded[group]:
                del self._succeeded[group]
        return succeeded is not known

    def assume(self, key: str, uid: str, node: str) -> None:
        """Count the pod on that node from now on, unless it has gone since the snapshot."""
        known = self._pods.get(key)
        if known is not None and known.uid == uid and not known.node:
            self.assumed[uid] = node
            self._show(key, replace(known, node=node))

    def forget(self, key: str, uid: str) -> None:
        """The pod was not bound after all."""
        known = self._pods.get(key)
        if self.assumed.pop(uid, None) is not None and known is not None and known.uid == uid:
            self._show(key, replace(known, node=""))

    def forget_all(self) -> None:
        """Another process decides: nothing that this one assumed or was refused is known to hold."""
        for pod in [pod for pod in self._pods.all() if pod.uid in self.assumed]:
            self.forget(pod.key, pod.uid)
        self.assumed.clear()
        self._refusals.clear()

    def family(self, key: str) -> str:
        """What shares a pod's refusals: its PodGroup, else what owns it, else itself."""
        return self._families.get(key, key)

    def refused(self, family: str, node: str, now_s: float) -> float:
        """Keep that node (ANY_NODE: every one) from the family; for how long."""
        first_s, longest_s = (FIRST_AWAY_S, LONGEST_AWAY_S) if node else (FIRST_REST_S, LONGEST_REST_S)
        rests = self._refusals.setdefault(family, {})
        rest = rests.get(node)
        if rest is None or now_s >= rest.until_s + rest.length_s:
            rest = _Rest(now_s + first_s, first_s)
        elif now_s >= rest.until_s:
            # What happens again soon after its rest is not over.
            length_s = min(longest_s, 2 * rest.length_s)
            rest = _Rest(now_s + length_s, length_s)
        rests[node] = rest
        return rest.length_s

    def with_ancestors(self, keys: Iterable[str]) -> set[str]:
        """These groups and all above them, whatever is wrong with their tree."""
        found: set[str] = set()
        for key in keys:
            while key and key not in found:
                found.add(key)
                group = self._groups.get(key)
                key = group.parent if group is not None else ""
        return found

    def is_kept_away(self, family: str, now_s: float) -> bool:
        """Whether a node has refused one of this family lately."""
        return any(node and now_s < rest.until_s for node, rest in self._refusals.get(family, {}).items())

    def due_s(self, now_s: float) -> float | None:
        """When the next rest ends, None if there is none."""
        ends = (rest.until_s for rests in self._refusals.values() for rest in rests.values())
        return min((end for end in ends if end > now_s), default=None)

    def snapshot(self, now_s: float) -> Snapshot:
        """All of it at this moment. Linear only in what has changed since, unless something rests."""
        self._drop_old_refusals(now_s)
        pods = self._pods.all()
        if self._refusals:
            pods = tuple(self._kept(pods, now_s))
        groups = self._groups.all()
        if self._succeeded:
            groups = tuple(replace(one, fulfilled=len(self._succeeded.get(one.key, ()))) for one in groups)
        return self._layout.checked(Snapshot(now_s, self._nodes.all(), pods, groups, self._levels, self._choice))

    def _kept(self, pods: tuple[Pod, ...], now_s: float) -> Iterator[Pod]:
        for pod in pods:
            rests = self._refusals.get(self.family(pod.key)) if pod.ours and not pod.node else None
            resting = sorted(node for node, rest in (rests or {}).items() if now_s < rest.until_s)
            if not resting:
                yield pod
            elif ANY_NODE in resting:
                yield replace(pod, resting=True)
            else:
                yield replace(pod, shape=without(pod.shape, tuple(resting)))

    def _drop_old_refusals(self, now_s: float) -> None:
        for family, rests in list(self._refusals.items()):
            kept = {node: rest for node, rest in rests.items() if now_s < rest.until_s + rest.length_s}
            if kept:
                self._refusals[family] = kept
            else:
                del self._refusals[family]


def without(shape: PodShape, nodes: tuple[str, ...]) -> PodShape:
    """The shape that these nodes do not admit: in every term of its affinity, as a user would write it."""
    elsewhere = Requirement("metadata.name", "NotIn", nodes)
    return replace(shape, affinity=tuple((*term, elsewhere) for term in shape.affinity if term) or ((elsewhere,),))


@dataclass(frozen=True, slots=True)
class _Rest:
    until_s: float
    length_s: float


class _Table(Generic[T]):
    """Values in the order of their keys; the tuple of all is made again only after a change."""

    def __init__(self) -> None:
        self._values: dict[str, T] = {}
        self._keys: list[str] = []
        self._sorted: list[T] = []
        self._all: tuple[T, ...] | None = ()

    def get(self, key: str) -> T | None:
        return self._values.get(key)

    def put(self, key: str, value: T) -> bool:
        """Whether it is another value than before."""
        before = self._values.get(key)
        if before == value:
            return False
        place = bisect_left(self._keys, key)
        if before is None:
            self._keys.insert(place, key)
            self._sorted.insert(place, value)
        else:
            self._sorted[place] = value
        self._values[key], self._all = value, None
        return True

    def drop(self, key: str) -> bool:
        """Whether it was there."""
        if self._values.pop(key, None) is None:
            return False
        place = bisect_left(self._keys, key)
        del self._keys[place], self._sorted[place]
        self._all = None
        return True

    def all(self) -> tuple[T, ...]:
        if self._all is None:
            self._all = tuple(self._sorted)
        return self._all
