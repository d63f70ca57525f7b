"""Nodes with GPUs and gangs of pods on a real API server, seen by no other test and removed afterwards.

Rule: nodes carry a label and a taint of the test's own; its pods select the one and tolerate the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from kubeapi import kinds, names
from kubeapi.client import KubeClient, Object
from kubeapi.errors import NotFound

MARK = "roleratio.dev/test"
WAIT_S = 30.0


@dataclass
class Stage:
    """Nodes and gangs of its own; several may share a namespace as long as their names and gangs differ."""

    client: KubeClient
    namespace: str
    name: str
    _nodes: list[str] = field(default_factory=list)
    _groups: list[str] = field(default_factory=list)

    async def node(self, name: str, gpus: int, *, ready: bool | None = True, taint: str = "", **spec: Any) -> str:
        """A node; `ready` None = it says nothing about that. Returns its full name."""
        full = f"{self.name}-{name}"
        room = {"cpu": "64", "memory": "256Gi", "pods": "110", names.GPU: str(gpus)}
        labels = {MARK: self.name, names.HOSTNAME: full}
        made = await self.client.create(kinds.NODE, {"metadata": {"name": full, "labels": labels}})
        self._nodes.append(full)
        said = [] if ready is None else [_condition("Ready", ready)]
        status = {"status": {"capacity": room, "allocatable": room, "conditions": said}}
        await self.client.patch(kinds.NODE, full, None, status, subresource="status")
        taints = [{"key": MARK, "value": self.name, "effect": "NoSchedule"}]
        if taint:
            taints.append({"key": taint, "effect": "NoSchedule"})
        # Nobody but a kubelet's heartbeat takes `not-ready` off again.
        assert made["spec"].get("taints"), "the API server taints new nodes"
        await self.client.patch(kinds.NODE, full, None, {"spec": {"taints": taints} | spec})
        return full

    async def podgroup(self, name: str, min_count: int) -> None:
        """A native PodGroup; 0 = no minimum."""
        policy: Object = {"gang": {"minCount": min_count}} if min_count else {"basic": {}}
        body = {"metadata": {"name": name}, "spec": {"schedulingPolicy": policy}}
        await self.client.create(kinds.PODGROUP, body, self.namespace)
        self._groups.append(name)

    async def gang(
        self, name: str, gpus: Iterable[int], *, min_count: int, scheduler: str, tp: int = 1, **spec: Any
    ) -> None:
        """A PodGroup and its pods, one for each number of GPUs; `tp` pods in turn are a TP group."""
        await self.podgroup(name, min_count)
        for index, number in enumerate(gpus):
            await self.pod(f"{name}-{index}", number, group=name, scheduler=scheduler, place=(tp, index), **spec)

    async def pod(
        self,
        name: str,
        gpus: int,
        *,
        scheduler: str = names.SCHEDULER_NAME,
        group: str = "",
        place: tuple[int, int] = (1, 0),
        **spec: Any,
    ) -> Object:
        """A pod; `place` = the size of its TP groups and its index among the pods of the gang."""
        body = {
            "metadata": {"name": name} | self._meta(group, *place),
            "spec": self._spec(gpus, scheduler, group) | spec,
        }
        return await self.client.create(kinds.POD, body, self.namespace)

    async def replicaset(self, group: str, gpus: int, *, tp: int) -> None:
        """A ReplicaSet whose pods are one TP group of that PodGroup."""
        template = {"metadata": self._meta(group, tp, 0), "spec": self._spec(gpus, names.SCHEDULER_NAME, group)}
        spec = {"replicas": tp, "selector": {"matchLabels": {MARK: self.name}}, "template": template}
        await self.client.create(kinds.REPLICASET, {"metadata": {"name": group}, "spec": spec}, self.namespace)

    def _spec(self, gpus: int, scheduler: str, group: str) -> Object:
        # CPUs are what kube-scheduler spreads by; with few of them its nodes score alike and it draws lots.
        limits = {names.GPU: str(gpus), "cpu": "8"}
        container = {"name": "main", "image": "worker", "resources": {"limits": limits}}
        spec: Object = {
            "schedulerName": scheduler,
            "nodeSelector": {MARK: self.name},
            "tolerations": [{"key": MARK, "operator": "Exists"}],
            "containers": [container],
        }
        return spec | ({"schedulingGroup": {"podGroupName": group}} if group else {})

    def _meta(self, group: str, size: int, index: int) -> Object:
        """Labels and annotations; of a TP group those that an LWS writes: which one, and where in it."""
        labels = {MARK: self.name}
        if size == 1:
            return {"labels": labels}
        labels |= {
            names.LWS_GROUP_KEY: f"{group}-{index // size}",
            names.LWS_GROUP_INDEX: str(index // size),
            names.LWS_WORKER_INDEX: str(index % size),
        }
        return {"labels": labels, "annotations": {names.LWS_SIZE: str(size)}}

    async def pods(self) -> list[Object]:
        """Its pods."""
        return (await self.client.list(kinds.POD, self.namespace, label_selector=f"{MARK}={self.name}")).items

    async def places(self) -> dict[str, str]:
        """Pod -> node without the test's prefix, empty while it waits."""
        prefix = f"{self.name}-"
        nodes = {pod["metadata"]["name"]: pod["spec"].get("nodeName") or "" for pod in await self.pods()}
        return {name: node.removeprefix(prefix) for name, node in nodes.items()}

    async def conditions(self, kind: kinds.Kind, name: str) -> dict[str, Object]:
        """The conditions of an object, by type."""
        found = await self.client.get(kind, name, self.namespace)
        return {one["type"]: one for one in found.get("status", {}).get("conditions", ())}

    async def events(self, reason: str) -> list[Object]:
        """The events of this reason."""
        return [one for one in (await self.client.list(kinds.EVENT, self.namespace)).items if one["reason"] == reason]

    async def clear(self) -> None:
        """Remove pods (nobody else does, without a kubelet), PodGroups and nodes."""
        for name in self._groups:
            with suppress(NotFound):
                await self.client.delete(kinds.REPLICASET, name, self.namespace)
        for pod in await self.pods():
            with suppress(NotFound):
                await self.client.delete(kinds.POD, pod["metadata"]["name"], self.namespace, grace_period_s=0)
        for name in self._groups:
            with suppress(NotFound):
                await self.client.delete(kinds.PODGROUP, name, self.namespace)
        for name in self._nodes:
            with suppress(NotFound):
                await self.client.delete(kinds.NODE, name)


@asynccontextmanager
async def stage(client: KubeClient, namespace: str, name: str = "") -> AsyncIterator[Stage]:
    """A stage that is cleared at the end; named after its namespace unless it shares that."""
    made = Stage(client, namespace, name or namespace)
    try:
        yield made
    finally:
        await made.clear()


async def until(found: Callable[[], Awaitable[Any]]) -> Any:
    """The first true answer."""
    async with asyncio.timeout(WAIT_S):
        while not (answer := await found()):
            await asyncio.sleep(0.1)
        return answer


def _condition(kind: str, true: bool) -> Object:
    return {"type": kind, "status": "True" if true else "False", "reason": "Test", "message": "by a test"}
