"""Deployment: one ReplicaSet per pod template, and how their sizes move during a rollout.

Rules:
1. Pure. Old and new ReplicaSets move in steps that keep the pods between replicas - maxUnavailable and
   replicas + maxSurge.
2. A ReplicaSet is found by its owner, its template by the `pod-template-hash` label.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kubeapi.client import Object
from kubeapi.kinds import DEPLOYMENT, REPLICASET
from localcluster.controllers.actions import Action, Create, Delete, Patch
from localcluster.objects import (
    Condition,
    annotations_of,
    content_hash,
    is_terminating,
    is_within,
    labels_of,
    merge_conditions,
    owner_reference,
)

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far pods may go above and below the wanted number."""

    replicas: int
    surge: int
    unavailable: int
    recreate: bool


def plan_deployment(deployment: Object, replicasets: Sequence[Object], now: str) -> list[Action]:
    """The next actions for one Deployment; `replicasets` are those that it owns."""
    if is_terminating(deployment):
        return []
    rollout = rollout_of(deployment["spec"])
    wanted_hash = content_hash(deployment["spec"]["template"])
    current = next((rs for rs in replicasets if labels_of(rs).get(HASH_LABEL) == wanted_hash), None)
    old = [rs for rs in replicasets if rs is not current]
    actions: list[Action] = list(_status(deployment, rollout, current, old, now))
    if deployment["spec"].get("paused"):
        return actions
    if current is None:
        first = rollout.replicas if not any(map(_size, old)) else 0
        return [Create(REPLICASET, _replicaset(deployment, wanted_hash, first, old)), *actions]
    return [*_resize(rollout, current, old), *_forget(deployment, old), *actions]


def rollout_of(spec: Object) -> Rollout:
    """The strategy with its defaults; percentages round as in the real controller: surge up, unavailable down."""
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    replicas = int(spec.get("replicas", 1))
    surge = _share(rolling.get("maxSurge", "25%"), replicas, math.ceil)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), replicas, math.floor)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Rollout(replicas, surge, unavailable, strategy.get("type") == "Recreate")


def _share(value: int | str, whole: int, rounding: Callable[[float], int]) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return rounding(int(value[:-1]) * whole / 100)
    return int(value)


def _size(replicaset: Object) -> int:
    return int(replicaset["spec"].get("replicas", 0))


def _available(replicaset: Object) -> int:
    return int(replicaset.get("status", {}).get("availableReplicas") or 0)


def _resize(rollout: Rollout, current: Object, old: Sequence[Object]) -> Iterator[Action]:
    old_total = sum(map(_size, old))
    existing = sum(int(rs.get("status", {}).get("replicas") or 0) for rs in old)
    if rollout.recreate:
        room = 0 if max(old_total, existing) else rollout.replicas
        surplus = old_total
    else:
        room = rollout.replicas + (rollout.surge if old_total else 0) - old_total
        starting = max(0, _size(current) - _available(current))
        surplus = old_total + _size(current) - (rollout.replicas - rollout.unavailable) - starting
    target = min(rollout.replicas, max(_size(current), room))
    if target != _size(current):
        yield Patch(REPLICASET, current, {"spec": {"replicas": target}})
    surplus = max(0, min(surplus, old_total))
    for replicaset in sorted(old, key=lambda rs: (_available(rs), _revision(rs))):
        cut = min(surplus, _size(replicaset))
        surplus -= cut
        if cut:
            yield Patch(REPLICASET, replicaset, {"spec": {"replicas": _size(replicaset) - cut}})


def _forget(deployment: Object, old: Sequence[Object]) -> Iterator[Action]:
    limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
    empty = [rs for rs in old if not _size(rs) and not rs.get("status", {}).get("replicas")]
    empty = [rs for rs in empty if not is_terminating(rs)]
    for replicaset in sorted(empty, key=_revision)[: max(0, len(empty) - limit)]:
        yield Delete(REPLICASET, replicaset)


def _revision(replicaset: Object) -> int:
    return int(annotations_of(replicaset).get(REVISION, 0))


def _replicaset(deployment: Object, template_hash: str, replicas: int, old: Sequence[Object]) -> Object:
    meta, spec = deployment["metadata"], deployment["spec"]
    template = copy.deepcopy(spec["template"])
    template_meta = template.setdefault("metadata", {})
    template_meta["labels"] = (template_meta.get("labels") or {}) | {HASH_LABEL: template_hash}
    selector = copy.deepcopy(spec["selector"])
    selector["matchLabels"] = (selector.get("matchLabels") or {}) | {HASH_LABEL: template_hash}
    return {
        "metadata": {
            "name": f"{meta['name']}-{template_hash}",
            "namespace": meta["namespace"],
            "labels": template_meta["labels"],
            "annotations": {REVISION: str(max(map(_revision, old), default=0) + 1)},
            "ownerReferences": [owner_reference(DEPLOYMENT, deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }


def _status(
    deployment: Object, rollout: Rollout, current: Object | None, old: Sequence[Object], now: str
) -> Iterator[Patch]:
    every = [*old, current] if current else list(old)
    counts = {
        key: sum(int(rs.get("status", {}).get(key) or 0) for rs in every)
        for key in ("replicas", "readyReplicas", "availableReplicas")
    }
    updated = int(current.get("status", {}).get("replicas") or 0) if current else 0
    available = counts["availableReplicas"]
    complete = updated == available == counts["replicas"] == rollout.replicas
    enough = available >= rollout.replicas - rollout.unavailable
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    text = f"{available} of {rollout.replicas} replicas are available"
    conditions = [
        Condition("Available", enough, reason, text),
        Condition("Progressing", True, "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated", text),
    ]
    old_status = deployment.get("status") or {}
    status = counts | {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        "updatedReplicas": updated,
        "unavailableReplicas": max(0, rollout.replicas - available),
        "conditions": merge_conditions(old_status, conditions, now),
    }
    if not is_within(status, old_status):
        yield Patch(DEPLOYMENT, deployment, {"status": status}, "status")
