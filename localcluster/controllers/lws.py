"""LeaderWorkerSet: which pods of which groups should exist, compared with those that do.

Rules:
1. Pure. Everything is derived from the objects seen now; names and labels are those of the real controller.
2. A group is created whole, and only when no pod of its index is left.
3. Workers belong to their leader: deleting a leader is how a group is deleted, and its workers go when the
   leader object is gone, not before, because a draining leader still needs its ranks.
4. A group that lost a pod or had a container restart is recreated whole; an outdated one is replaced when all
   others are ready, the highest index first. `maxSurge` is not followed.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kubeapi import names
from kubeapi.client import Object
from kubeapi.kinds import LWS, POD
from localcluster.controllers.actions import Action, Create, Delete, Note, Patch
from localcluster.objects import (
    ENV_LEADER_ADDRESS,
    Condition,
    annotations_of,
    content_hash,
    is_bound,
    is_ready,
    is_terminating,
    is_within,
    labels_of,
    merge_conditions,
    owner_reference,
)

LEADER_NAME = "leaderworkerset.sigs.k8s.io/leader-name"


@dataclass(slots=True)
class Group:
    """The pods of one index that exist, on their way out or not."""

    index: int
    leader: Object | None = None
    workers: dict[int, Object] = field(default_factory=dict)

    @property
    def revision(self) -> str:
        """The template that its leader was made from."""
        return labels_of(self.leader).get(names.LWS_REVISION, "") if self.leader else ""

    @property
    def size(self) -> int:
        """The number of pods that it was made with."""
        return int(annotations_of(self.leader).get(names.LWS_SIZE, 1)) if self.leader else 0

    @property
    def ready(self) -> bool:
        """All its pods are ready."""
        pods = [self.leader, *self.workers.values()]
        return len(pods) == self.size and all(pod is not None and is_ready(pod) for pod in pods)

    @property
    def missing(self) -> list[int]:
        """Worker indices without a pod."""
        return [index for index in range(1, self.size) if index not in self.workers]


class Wanted:
    """The spec of one LeaderWorkerSet, with its defaults."""

    def __init__(self, lws: Object) -> None:
        spec = lws["spec"]
        template = spec["leaderWorkerTemplate"]
        rollout = (spec.get("rolloutStrategy") or {}).get("rollingUpdateConfiguration") or {}
        self.lws = lws
        self.name: str = lws["metadata"]["name"]
        self.namespace: str = lws["metadata"]["namespace"]
        self.replicas = int(spec.get("replicas", 1))
        self.size = int(template.get("size", 1))
        self.revision = content_hash(template)
        self.worker_template: Object = template["workerTemplate"]
        self.leader_template: Object = template.get("leaderTemplate") or self.worker_template
        self.recreates = template.get("restartPolicy", "RecreateGroupOnPodRestart") != "None"
        self.waits_for_leader = spec.get("startupPolicy") == "LeaderReady"
        self.partition = int(rollout.get("partition") or 0)


def plan_lws(lws: Object, pods: Iterable[Object], now: str) -> list[Action]:
    """The next actions for one LeaderWorkerSet; `pods` are those that carry its name label."""
    if is_terminating(lws):
        return []
    wanted = Wanted(lws)
    groups = groups_of(pods)
    actions: list[Action] = []
    for index in sorted({*groups, *range(wanted.replicas)}, reverse=True):
        group = groups.get(index, Group(index))
        actions += _remove(group) if index >= wanted.replicas else _keep(wanted, group)
    if not any(isinstance(action, Create | Delete) for action in actions):
        actions += _roll(wanted, groups)
    return [*actions, *_status(wanted, groups, now)]


def groups_of(pods: Iterable[Object]) -> dict[int, Group]:
    """Pods by the indices in their labels."""
    groups: dict[int, Group] = {}
    for pod in pods:
        index, worker = labels_of(pod).get(names.LWS_GROUP_INDEX), labels_of(pod).get(names.LWS_WORKER_INDEX)
        if index is None or worker is None:
            continue
        group = groups.setdefault(int(index), Group(int(index)))
        if worker == "0":
            group.leader = pod
        else:
            group.workers[int(worker)] = pod
    return groups


def _remove(group: Group) -> list[Action]:
    if group.leader is None:
        return [Delete(POD, pod) for pod in group.workers.values() if not is_terminating(pod)]
    return [] if is_terminating(group.leader) else [Delete(POD, group.leader)]


def _keep(wanted: Wanted, group: Group) -> list[Action]:
    leader = group.leader
    if leader is None and not group.workers:
        return [_create_group(wanted, group.index)]
    if leader is None or is_terminating(leader):
        return _remove(group)
    if wanted.recreates and (reason := _broken(wanted, group)):
        note = f"group {group.index} is recreated: {reason}"
        return [Note(LWS, wanted.lws, "RecreateGroupOnPodRestart", note, warning=True), Delete(POD, leader)]
    if group.missing and group.revision == wanted.revision and _may_start_workers(wanted, leader):
        return [Create(POD, _owned(_worker(wanted, group.index, i), leader)) for i in group.missing]
    return []


def _may_start_workers(wanted: Wanted, leader: Object) -> bool:
    return is_ready(leader) if wanted.waits_for_leader else True


def _broken(wanted: Wanted, group: Group) -> str | None:
    """Why the group cannot go on, or None."""
    for pod in [group.leader, *group.workers.values()]:
        if pod is not None and (reason := _lost(pod)):
            return f"pod {pod['metadata']['name']} {reason}"
    if group.missing and group.leader and is_bound(group.leader) and not wanted.waits_for_leader:
        return f"pod {wanted.name}-{group.index}-{group.missing[0]} is gone"
    return None


def _lost(pod: Object) -> str | None:
    if is_terminating(pod):
        return "is being deleted"
    status = pod.get("status", {})
    if status.get("phase") == "Failed":
        return f"failed: {status.get('message') or status.get('reason') or 'no message'}"
    for container in status.get("containerStatuses") or []:
        if container.get("restartCount"):
            code = ((container.get("lastState") or {}).get("terminated") or {}).get("exitCode", "unknown")
            return f"had a container restart ({container['name']}, exit code {code})"
    return None


def _roll(wanted: Wanted, groups: dict[int, Group]) -> list[Action]:
    current = [groups[index] for index in range(wanted.replicas) if index in groups]
    outdated = [g for g in current if g.revision != wanted.revision and g.index >= wanted.partition]
    settled = all(g.ready for g in current if g not in outdated) and len(current) == wanted.replicas
    if not outdated or not settled or any(g.leader is None or is_terminating(g.leader) for g in outdated):
        return []
    # A group that does not serve costs nothing to replace, so it goes before those that do.
    victim = max(outdated, key=lambda group: (not group.ready, group.index))
    assert victim.leader is not None
    note = f"group {victim.index} is replaced: its template changed"
    return [Note(LWS, wanted.lws, "GroupsUpdating", note), Delete(POD, victim.leader)]


def _create_group(wanted: Wanted, index: int) -> Create:
    workers = () if wanted.waits_for_leader else range(1, wanted.size)
    leader = _pod(wanted, wanted.leader_template, index, 0)
    leader["metadata"]["ownerReferences"] = [owner_reference(LWS, wanted.lws)]
    return Create(POD, leader, tuple(_worker(wanted, index, worker) for worker in workers))


def _worker(wanted: Wanted, index: int, worker: int) -> Object:
    pod = _pod(wanted, wanted.worker_template, index, worker)
    pod["metadata"]["annotations"][LEADER_NAME] = f"{wanted.name}-{index}"
    return pod


def _owned(pod: Object, leader: Object) -> Object:
    pod["metadata"]["ownerReferences"] = [owner_reference(POD, leader)]
    return pod


def _pod(wanted: Wanted, template: Object, index: int, worker: int) -> Object:
    leader_name = f"{wanted.name}-{index}"
    name = f"{leader_name}-{worker}" if worker else leader_name
    meta = template.get("metadata") or {}
    key = f"{wanted.namespace}/{leader_name}/{wanted.revision}"
    spec = copy.deepcopy(template["spec"])
    spec |= {"hostname": name, "subdomain": wanted.name}
    injected = {
        ENV_LEADER_ADDRESS: f"{leader_name}.{wanted.name}.{wanted.namespace}",
        "LWS_GROUP_SIZE": str(wanted.size),
        "LWS_WORKER_INDEX": str(worker),
    }
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        _inject(container, injected)
    lws_labels = {
        names.LWS_NAME: wanted.name,
        names.LWS_GROUP_INDEX: str(index),
        names.LWS_WORKER_INDEX: str(worker),
        names.LWS_GROUP_KEY: hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest(),
        names.LWS_REVISION: wanted.revision,
    }
    return {
        "metadata": {
            "name": name,
            "namespace": wanted.namespace,
            "labels": (meta.get("labels") or {}) | lws_labels,
            "annotations": (meta.get("annotations") or {}) | {names.LWS_SIZE: str(wanted.size)},
        },
        "spec": spec,
    }


def _inject(container: Object, injected: dict[str, str]) -> None:
    own = [entry for entry in container.get("env") or [] if entry["name"] not in injected]
    # First, so that the template's own variables can refer to them.
    container["env"] = [{"name": name, "value": value} for name, value in injected.items()] + own


def _status(wanted: Wanted, groups: dict[int, Group], now: str) -> Iterator[Patch]:
    old = wanted.lws.get("status") or {}
    existing = [group for group in groups.values() if group.leader is not None]
    ready = sum(group.ready for group in existing)
    updated = [group for group in existing if group.revision == wanted.revision]
    served = sum(group.ready for group in updated if group.index < wanted.replicas)
    rolling = len(updated) < len(existing)
    complete = served == wanted.replicas == len(existing)
    text = f"{served} of {wanted.replicas} groups are ready"
    moved = f"{len(updated)} of {len(existing)} groups have the newest template"
    conditions = [
        Condition("Available", complete, "AllGroupsReady" if complete else "GroupsNotReady", text),
        Condition("Progressing", not complete, "Settled" if complete else "GroupsProgressing", text),
        Condition("UpdateInProgress", rolling, "GroupsUpdating" if rolling else "AllGroupsUpdated", moved),
    ]
    status: Object = {
        "observedGeneration": wanted.lws["metadata"].get("generation", 1),
        "replicas": len(existing),
        "readyReplicas": ready,
        "updatedReplicas": len(updated),
        "hpaPodSelector": f"{names.LWS_NAME}={wanted.name},{names.LWS_WORKER_INDEX}=0",
        "conditions": merge_conditions(old, conditions, now),
    }
    if not is_within(status, old):
        yield Patch(LWS, wanted.lws, {"status": status}, "status")
