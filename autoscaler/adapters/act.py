"""A Step to a patch, and a Decision to Events.

Rules:
1. Replicas go through the `/scale` subresource, minimums to PodGroups that are ours to move; nothing else is written.
2. Every patch tests the old value: if the world has moved on, it fails whole, and the next tick looks again.
3. An Event tells what was done and why, in the words of the reasons.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.model import RoleFleet, Step
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.events import About
from kubeapi.kinds import Kind
from policies.model import Reason, Role, Stage

WORKLOAD_KINDS = {"LeaderWorkerSet": kinds.LWS, "Deployment": kinds.DEPLOYMENT}


@dataclass(frozen=True, slots=True)
class Patch:
    """One JSON patch, ready to send or to print."""

    kind: Kind
    namespace: str
    name: str
    subresource: str | None
    body: list[Object]

    def __str__(self) -> str:
        path = self.kind.path(self.namespace, self.name, self.subresource)
        return f"PATCH {path} {json.dumps(self.body, separators=(',', ':'))}"


def patch_for(step: Step, fleet: RoleFleet) -> Patch:
    """The patch that makes a step true."""
    if step.kind == "replicas":
        kind, name, subresource, path = WORKLOAD_KINDS[fleet.kind], fleet.name, "scale", "/spec/replicas"
    else:
        path = "/spec/schedulingPolicy/gang/minCount"
        kind, name, subresource = kinds.PODGROUP, fleet.pod_group or "", None
    # A Scale at zero has no such field: the API leaves zero out.
    before, write = (step.before, "replace") if step.before else (None, "add")
    body: list[Object] = [
        {"op": "test", "path": path, "value": before},
        {"op": write, "path": path, "value": step.after},
    ]
    return Patch(kind, fleet.namespace, name, subresource, body)


async def send(client: KubeClient, patch: Patch) -> None:
    """Send it. Raises ApiError; Conflict or Invalid mean that the old value has changed."""
    await client.patch(
        patch.kind, patch.name, patch.namespace, patch.body, patch_type="json", subresource=patch.subresource
    )


def why_text(why: Sequence[Reason], role: Role) -> str:
    """A role's reasons of the later stages in one line: what was sized, decided and planned."""
    stages = (Stage.SIZE, Stage.DECIDE, Stage.PLAN)
    return "; ".join(str(reason) for reason in why if reason.role in (role, None) and reason.stage in stages)


def about(fleet: RoleFleet) -> About:
    """A workload, for an Event."""
    return About(WORKLOAD_KINDS[fleet.kind], fleet.namespace, fleet.name, fleet.uid)
