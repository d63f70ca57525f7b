"""What a kubelet would report about a pod.

Rule: pure; containers in, `status` out. Times of conditions move only when the conditions do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kubeapi.client import Object
from localcluster.nodes import NODE_IP
from localcluster.objects import Condition, is_terminating, merge_conditions

REFUSED_REASON = "NodeAdmission"


def waiting(reason: str, message: str = "") -> Object:
    """The state of a container that does not run yet, or not now."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def terminated(exit_code: int, reason: str, started_at: str, finished_at: str, message: str = "") -> Object:
    """The state of a container that ended."""
    ended = {"exitCode": exit_code, "reason": reason, "startedAt": started_at, "finishedAt": finished_at}
    return {"terminated": ended | ({"message": message} if message else {})}


@dataclass(slots=True)
class ContainerState:
    """What is known about one container now."""

    name: str
    image: str
    state: Object = field(default_factory=lambda: waiting("ContainerCreating"))
    last_state: Object = field(default_factory=dict)
    restarts: int = 0
    started: bool = False
    ready: bool = False
    container_id: str = ""


def pod_status(
    pod: Object, containers: Sequence[ContainerState], ip: str | None, start_time: str, old: Object, now: str
) -> Object:
    """The whole status; `old` is the last one, for the times of its conditions."""
    phase = _phase(containers)
    unready = [c.name for c in containers if not c.ready]
    ready = not unready and phase == "Running" and not is_terminating(pod)
    reason, message = _why_not_ready(pod, phase, unready)
    if ready:
        reason = message = ""
    conditions = [
        Condition("PodScheduled", True),
        Condition("Initialized", True),
        Condition("ContainersReady", ready, reason, message),
        Condition("Ready", ready, reason, message),
    ]
    address: Object = {"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {}
    return {
        "observedGeneration": pod["metadata"].get("generation", 1),
        "phase": phase,
        "conditions": merge_conditions(old, conditions, now),
        "hostIP": NODE_IP,
        "hostIPs": [{"ip": NODE_IP}],
        "startTime": start_time,
        "containerStatuses": [_container(c) for c in containers],
    } | address


def refused_status(pod: Object, why: str, start_time: str) -> Object:
    """The status of a pod that this node does not run."""
    return {
        "observedGeneration": pod["metadata"].get("generation", 1),
        "phase": "Failed",
        "reason": REFUSED_REASON,
        "message": f"Pod was rejected: {why}",
        "startTime": start_time,
    }


def status_patch(status: Object) -> Object:
    """A strategic merge patch that makes this the status: it merges conditions by type, so old texts have to go."""
    conditions = [{"reason": None, "message": None} | entry for entry in status.get("conditions", [])]
    return status | {"conditions": conditions}


def _phase(containers: Sequence[ContainerState]) -> str:
    if all("terminated" in c.state for c in containers):
        codes = [c.state["terminated"]["exitCode"] for c in containers]
        return "Failed" if any(codes) else "Succeeded"
    begun = any("waiting" not in c.state or c.last_state for c in containers)
    return "Running" if begun else "Pending"


def _why_not_ready(pod: Object, phase: str, unready: Sequence[str]) -> tuple[str, str]:
    if is_terminating(pod):
        return "PodTerminating", "the pod is being deleted"
    if phase == "Succeeded":
        return "PodCompleted", ""
    return "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"


def _container(c: ContainerState) -> Object:
    status: Object = {
        "name": c.name,
        "image": c.image,
        "imageID": f"localcluster://{c.image}",
        "state": c.state,
        "lastState": c.last_state,
        "restartCount": c.restarts,
        "started": c.started,
        "ready": c.ready,
    }
    return status | ({"containerID": c.container_id} if c.container_id else {})
