"""A gang's tree with each level's verdict, as lines for people; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from gangscheduler.model import Group, Pod, Reason, Snapshot, Verdicts

ALONE = "default"


class NoSuchGang(LookupError):
    """No group has that name; one line that says which there are."""


def explain(snapshot: Snapshot, verdicts: Verdicts, name: str) -> list[str]:
    """The tree that the group belongs to. `name`: [namespace/]name of a PodGroup or CompositePodGroup.

    Raises NoSuchGang.
    """
    groups = {group.key: group for group in snapshot.groups}
    group = _named(name, groups)
    while group.parent in groups and not group.problem:
        group = groups[group.parent]
    return list(_Tree(snapshot, verdicts, groups).lines(group, ""))


def _named(name: str, groups: dict[str, Group]) -> Group:
    namespace, _, own = name.rpartition("/")
    namespace = namespace or ALONE
    for key in (f"{namespace}/{own}", f"{namespace}/composite/{own}"):
        if key in groups:
            return groups[key]
    known = ", ".join(sorted(groups)[:10]) or "none"
    raise NoSuchGang(f"no PodGroup or CompositePodGroup {own} in namespace {namespace}; there are: {known}")


class _Tree:
    def __init__(self, snapshot: Snapshot, verdicts: Verdicts, groups: dict[str, Group]) -> None:
        self._verdicts = {verdict.name: verdict for verdict in verdicts.groups}
        self._children: dict[str, list[Group]] = defaultdict(list)
        for group in groups.values():
            self._children[group.parent].append(group)
        self._pods: dict[str, dict[str, list[Pod]]] = defaultdict(lambda: defaultdict(list))
        for pod in snapshot.pods:
            self._pods[pod.group][pod.tp_group].append(pod)
        self._now = {binding.uid: binding.node for binding in verdicts.bindings}
        self._promised = {binding.uid: binding.node for binding in verdicts.nominations}
        self._waiting = {waiting.uid: waiting.message for waiting in verdicts.waiting}

    def lines(self, group: Group, indent: str) -> Iterator[str]:
        yield f"{indent}{_head(group)}"
        verdict = self._verdicts.get(group.key)
        if group.problem:
            yield f"{indent}  {Reason.INVALID_GROUP}: {group.problem}"
        elif verdict is not None:
            yield f"{indent}  {verdict.reason}: {verdict.message}"
        if not group.problem:
            for child in self._children[group.key]:
                yield from self.lines(child, f"{indent}  ")
        for key, pods in sorted(self._pods[group.key].items()):
            yield f"{indent}  {self._tp_group(key, pods)}"

    def _tp_group(self, key: str, pods: list[Pod]) -> str:
        pods = sorted(pods, key=lambda pod: (pod.order, pod.key))
        places = [pod.node or self._now.get(pod.uid, "") for pod in pods]
        bound = sum(bool(place) for place in places)
        size = max(pod.size for pod in pods)
        where = f" on {', '.join(sorted({place for place in places if place}))}" if bound else ""
        promised = sorted({self._promised[pod.uid] for pod in pods if pod.uid in self._promised})
        waits = next((self._waiting[pod.uid] for pod in pods if pod.uid in self._waiting), "")
        more = [f"promised {', '.join(promised)}"] if promised else []
        more += [f"waits: {waits}"] if waits and bound < size else []
        return "; ".join([f"TP group {key}: {bound} of {size} pods bound{where}", *more])


def _head(group: Group) -> str:
    """What it is and what it asks for."""
    kind = "CompositePodGroup" if group.composite else "PodGroup"
    name = group.key.replace("composite/", "", 1) if group.composite else group.key
    unit = "children" if group.composite else "pods"
    minimum = f"at least {group.min_count} {unit}" if group.min_count > 0 else "no minimum"
    levels = {
        "required": group.required_level,
        "preferred": group.preferred_level,
        "each TP group required": group.each_required_level,
        "each TP group preferred": group.each_preferred_level,
    }
    asked = [f"{what} {level}" for what, level in levels.items() if level]
    return f"{kind} {name} ({'; '.join([minimum, *asked])})"
