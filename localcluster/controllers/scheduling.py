"""The default scheduler: one pod at a time, to the node with most free room that fits.

Rules: pure; pods of other schedulers only take room; cpu, memory, GPUs, the number of pods, nodeSelector and taints
count, nothing else (no affinity).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kubeapi import names
from kubeapi.client import Object
from kubeapi.kinds import POD
from localcluster.controllers.actions import Action, Bind, Note, Patch
from localcluster.objects import Condition, has_condition, is_bound, is_finished, is_terminating, labels_of

DEFAULT_SCHEDULER = "default-scheduler"
_SUFFIXES = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
_RESOURCES = ("cpu", "memory", names.GPU, "pods")

Amounts = dict[str, float]


def plan_bindings(pods: Sequence[Object], nodes: Sequence[Object], now: str) -> list[Action]:
    """Bindings for the pods that wait for the default scheduler, and why the others still wait."""
    usable = [node for node in nodes if has_condition(node, "Ready") and not node["spec"].get("unschedulable")]
    free = {node["metadata"]["name"]: _free(node, pods) for node in usable}
    by_name = {node["metadata"]["name"]: node for node in usable}
    actions: list[Action] = []
    for pod in sorted(filter(_waits, pods), key=lambda pod: pod["metadata"]["creationTimestamp"]):
        asked = requests_of(pod)
        fitting = [name for name, room in free.items() if _fits(pod, asked, room, by_name[name])]
        if not fitting:
            actions += _report(pod, asked, len(usable), now)
            continue
        node = max(fitting, key=lambda name: (free[name][names.GPU], free[name]["cpu"]))
        free[node] = {key: room - asked[key] for key, room in free[node].items()}
        where = f"assigned {pod['metadata']['namespace']}/{pod['metadata']['name']} to {node}"
        actions += [Bind(pod, node), Note(POD, pod, "Scheduled", f"Successfully {where}")]
    return actions


def quantity(value: int | float | str) -> float:
    """A Kubernetes quantity as a number."""
    text = str(value)
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix):
            return float(text[: -len(suffix)]) * _SUFFIXES[suffix]
    return float(text)


def requests_of(pod: Object) -> Amounts:
    """What a pod takes from its node; limits stand in for requests that are not given."""
    total = dict.fromkeys(_RESOURCES, 0.0) | {"pods": 1.0}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        asked = (resources.get("limits") or {}) | (resources.get("requests") or {})
        for key in set(asked) & set(_RESOURCES):
            total[key] += quantity(asked[key])
    return total


def _waits(pod: Object) -> bool:
    spec = pod["spec"]
    ours = spec.get("schedulerName", DEFAULT_SCHEDULER) == DEFAULT_SCHEDULER
    return ours and not is_bound(pod) and not is_terminating(pod) and not spec.get("schedulingGates")


def _free(node: Object, pods: Iterable[Object]) -> Amounts:
    room = {key: quantity(node["status"]["allocatable"].get(key, 0)) for key in _RESOURCES}
    for pod in pods:
        if pod["spec"].get("nodeName") == node["metadata"]["name"] and not is_finished(pod):
            asked = requests_of(pod)
            room = {key: value - asked[key] for key, value in room.items()}
    return room


def _fits(pod: Object, asked: Amounts, room: Amounts, node: Object) -> bool:
    selector = pod["spec"].get("nodeSelector") or {}
    enough = all(asked[key] <= room[key] for key in _RESOURCES)
    return enough and selector.items() <= labels_of(node).items() and _tolerates(pod, node)


def _tolerates(pod: Object, node: Object) -> bool:
    """Whether the pod tolerates every taint that keeps pods away; a toleration without key or effect is for all."""
    taints = [taint for taint in node["spec"].get("taints") or [] if taint["effect"] != "PreferNoSchedule"]
    return all(
        any(
            one.get("key") in (None, "", taint["key"])
            and one.get("effect") in (None, "", taint["effect"])
            and (one.get("operator") == "Exists" or one.get("value", "") == taint.get("value", ""))
            for one in pod["spec"].get("tolerations") or []
        )
        for taint in taints
    )


def _report(pod: Object, asked: Amounts, nodes: int, now: str) -> Iterator[Action]:
    needs = ", ".join(f"{key} {value:g}" for key, value in asked.items() if value and key != "pods")
    text = f"0 of {nodes} nodes fit: the pod needs {needs or 'a free place'}"
    old = pod.get("status", {}).get("conditions") or []
    if any(entry["type"] == "PodScheduled" and entry.get("message") == text for entry in old):
        return
    others = [entry for entry in old if entry["type"] != "PodScheduled"]
    wanted = Condition("PodScheduled", False, "Unschedulable", text)
    entry = {"type": wanted.type, "status": "False", "reason": wanted.reason, "message": text}
    conditions = [*others, entry | {"lastTransitionTime": now}]
    yield Patch(POD, pod, {"status": {"conditions": conditions}}, "status")
    yield Note(POD, pod, "FailedScheduling", text, warning=True)
