"""ReplicaSet: as many pods as asked for, and which of them go first.

Rule: pure. A pod on its way out does not count; a finished one is replaced.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from kubeapi.client import Object
from kubeapi.kinds import POD, REPLICASET
from localcluster.controllers.actions import Action, Create, Delete, Patch
from localcluster.objects import (
    annotations_of,
    is_bound,
    is_finished,
    is_ready,
    is_terminating,
    is_within,
    owner_reference,
    seconds,
)

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def plan_replicaset(replicaset: Object, pods: Sequence[Object]) -> list[Action]:
    """The next actions for one ReplicaSet; `pods` are those that it owns."""
    if is_terminating(replicaset):
        return []
    active = [pod for pod in pods if not is_terminating(pod) and not is_finished(pod)]
    missing = int(replicaset["spec"].get("replicas", 1)) - len(active)
    actions: list[Action] = [Create(POD, _pod(replicaset)) for _ in range(missing)]
    actions += [Delete(POD, pod) for pod in sorted(active, key=_last_to_go)[: max(0, -missing)]]
    return [*actions, *_status(replicaset, active)]


def _last_to_go(pod: Object) -> tuple[bool, bool, int, float]:
    """Victims first: without a node, not ready, cheap to delete, new."""
    try:
        cost = int(annotations_of(pod).get(DELETION_COST, 0))
    except ValueError:
        cost = 0
    return is_bound(pod), is_ready(pod), cost, -seconds(pod["metadata"]["creationTimestamp"])


def _pod(replicaset: Object) -> Object:
    meta, template = replicaset["metadata"], replicaset["spec"]["template"]
    template_meta = template.get("metadata") or {}
    return {
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": dict(template_meta.get("labels") or {}),
            "annotations": dict(template_meta.get("annotations") or {}),
            "ownerReferences": [owner_reference(REPLICASET, replicaset)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }


def _status(replicaset: Object, active: Sequence[Object]) -> Iterator[Patch]:
    ready = sum(map(is_ready, active))
    status = {
        "observedGeneration": replicaset["metadata"].get("generation", 1),
        "replicas": len(active),
        "fullyLabeledReplicas": len(active),
        "readyReplicas": ready,
        "availableReplicas": ready,
    }
    if not is_within(status, replicaset.get("status") or {}):
        yield Patch(REPLICASET, replicaset, {"status": status}, "status")
