"""A small service in a cluster without nodes and without an LWS controller, which are played here.

Rules:
1. Prefill is an LWS, decode a Deployment, the router a pod; each role has one group and should have two.
2. Bound pods become ready, and a LeaderWorkerSet gets its pods: what a kubelet and the LWS controller would do.
3. Router and workers are pages of the serving room's own metrics: one request more at every reading while used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from kubeapi import kinds, names
from kubeapi.client import KubeClient, Object
from kubeapi.errors import NotFound
from kubeapi.kinds import Kind
from serving.flight import RouterMetrics
from serving.metrics import WorkerMetrics, page

SERVICE = "chat"
NODE = "install-node"
GPU = {names.GPU: "1"}


def labels(role: str) -> dict[str, str]:
    return {names.LABEL_SERVICE: SERVICE, names.LABEL_ROLE: role}


def pod_spec(role: str, port: int) -> Object:
    container = {"name": "main", "image": "worker", "ports": [{"name": "http", "containerPort": port}]}
    if role == names.ROLE_ROUTER:
        return {"containers": [container], "nodeName": NODE}
    return {
        "schedulerName": names.SCHEDULER_NAME,
        "schedulingGroup": {"podGroupName": role},
        "containers": [container | {"resources": {"limits": GPU}}],
    }


def prefill_pod(group: int, port: int) -> Object:
    """What a LeaderWorkerSet controller makes of a group of one."""
    lws = {
        names.LWS_NAME: "prefill",
        names.LWS_GROUP_INDEX: str(group),
        names.LWS_GROUP_KEY: f"prefill-{group}",
        names.LWS_WORKER_INDEX: "0",
    }
    meta = {"name": f"prefill-{group}", "labels": labels("prefill") | lws, "annotations": {names.LWS_SIZE: "1"}}
    return {"metadata": meta, "spec": pod_spec("prefill", port)}


class Service:
    """A small service whose two roles have one group each and should have two: prefill an LWS, decode a Deployment."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client, self.namespace = client, namespace
        self._router = RouterMetrics(f"{namespace}/{SERVICE}")
        self._worker = WorkerMetrics("m")
        self.port = self.router_port = 0
        self.is_used = True
        self.binds = False

    @asynccontextmanager
    async def pages(self) -> AsyncIterator[None]:
        """The router's page and that of all workers, each on a port of its own."""
        async with serving(self._router_page) as self.router_port, serving(self._worker_page) as self.port:
            yield

    async def _router_page(self, _: web.Request) -> web.Response:
        if self.is_used:
            self._router.requests += 1
            self._router.prompt_tokens += 500
            self._router.generation_tokens += 100
            self._router.finished["ok"] += 1
        return web.Response(body=page(self._router.families()))

    async def _worker_page(self, _: web.Request) -> web.Response:
        families = self._worker.families(running=1, capacity=0, deferred=0, kv_usage=0.1, blocks=100, block_tokens=16)
        return web.Response(body=page(families))

    async def create(self, podgroups: bool = True) -> None:
        """Its objects; on a server that has no PodGroups without them."""
        template = {"metadata": {"labels": labels("prefill")}, "spec": pod_spec("prefill", self.port)}
        await self._create(kinds.LWS, "prefill", {"leaderWorkerTemplate": {"size": 1, "workerTemplate": template}})
        template = {"metadata": {"labels": labels("decode")}, "spec": pod_spec("decode", self.port)}
        selector = {"matchLabels": labels("decode")}
        await self._create(kinds.DEPLOYMENT, "decode", {"replicas": 1, "selector": selector, "template": template})
        for role in ("prefill", "decode") if podgroups else ():
            await self._create(kinds.PODGROUP, role, {"schedulingPolicy": {"gang": {"minCount": 1}}})
        await self._create(kinds.POD, "router", pod_spec("router", self.router_port))
        await self.client.create(kinds.POD, prefill_pod(0, self.port), self.namespace)

    async def _create(self, kind: Kind, name: str, spec: Object) -> None:
        body = {"metadata": {"name": name, "labels": labels(name)}, "spec": spec}
        await self.client.create(kind, body, self.namespace)

    async def ask(self, mode: str = "Active", groups: int = 2) -> None:
        """The rra that a user would write: at least so many groups of each role."""
        role = {"minGroups": groups, "coldStartS": 1}
        spec = {
            "service": SERVICE,
            "mode": mode,
            "profile": "qwen3-32b-a100-tp2",
            "gpuBudget": 8,
            "prefill": role,
            "decode": role,
            "syncPeriodS": 1,
            "minimumSettleS": 0,
            "metrics": {"windowS": 2, "scrapeTimeoutS": 0.5},
        }
        await self.client.create(kinds.RRA, {"metadata": {"name": SERVICE}, "spec": spec}, self.namespace)

    async def live(self) -> None:
        """What nodes and the LWS controller do, until cancelled; with `binds` also what a scheduler does."""
        while True:
            for pod in (await self.client.list(kinds.POD, self.namespace)).items:
                if self.binds and not pod["spec"].get("nodeName"):
                    name = pod["metadata"]["name"]
                    target = {"metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}}
                    await self.client.create_sub(kinds.POD, name, self.namespace, "binding", target)
                if pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending":
                    await self._start(pod)
            replicas = await self.replicas("prefill")
            for group in range(replicas):
                if not await self._has_pod(f"prefill-{group}"):
                    await self.client.create(kinds.POD, prefill_pod(group, self.port), self.namespace)
            await asyncio.sleep(0.2)

    async def _has_pod(self, name: str) -> bool:
        try:
            await self.client.get(kinds.POD, name, self.namespace)
        except NotFound:
            return False
        return True

    async def _start(self, pod: Object) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
        status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": [ready]}
        name = pod["metadata"]["name"]
        await self.client.patch(
            kinds.POD, name, self.namespace, {"status": status}, patch_type="strategic", subresource="status"
        )

    async def replicas(self, role: str) -> int:
        kind = kinds.LWS if role == "prefill" else kinds.DEPLOYMENT
        return int((await self.client.get(kind, role, self.namespace))["spec"]["replicas"])

    async def message(self, condition: str, status: str) -> str:
        """What the rra says in a condition that has this status."""
        conditions = (await self.client.get(kinds.RRA, SERVICE, self.namespace)).get("status", {}).get("conditions", ())
        found = [one["message"] for one in conditions if (one["type"], one["status"]) == (condition, status)]
        return found[0] if found else ""

    async def sizes(self) -> dict[str, int]:
        """Replicas and minimums, as they are."""
        found = {role: await self.replicas(role) for role in ("prefill", "decode")}
        for role in tuple(found):
            group = await self.client.get(kinds.PODGROUP, role, self.namespace)
            found[f"{role} minimum"] = group["spec"]["schedulingPolicy"]["gang"]["minCount"]
        return found

    async def writers(self) -> set[str]:
        """Who has written to workloads and PodGroups, their status aside."""
        objects = [await self.client.get(kinds.PODGROUP, role, self.namespace) for role in ("prefill", "decode")]
        objects.append(await self.client.get(kinds.LWS, "prefill", self.namespace))
        objects.append(await self.client.get(kinds.DEPLOYMENT, "decode", self.namespace))
        fields = [entry for obj in objects for entry in obj["metadata"]["managedFields"]]
        return {entry["manager"] for entry in fields if entry.get("subresource") != "status"}


@asynccontextmanager
async def service_in(client: KubeClient, namespace: str, podgroups: bool = True) -> AsyncIterator[Service]:
    """The service on one node, alive."""
    async with node_in(client), service_on_node(client, namespace, podgroups) as made:
        yield made


@asynccontextmanager
async def service_on_node(client: KubeClient, namespace: str, podgroups: bool = True) -> AsyncIterator[Service]:
    """The service, alive, where the node is there."""
    made = Service(client, namespace)
    async with made.pages():
        await made.create(podgroups)
        alive = asyncio.create_task(made.live())
        try:
            yield made
        finally:
            alive.cancel()
            await asyncio.gather(alive, return_exceptions=True)
            for pod in (await client.list(kinds.POD, namespace)).items:
                await client.delete(kinds.POD, pod["metadata"]["name"], namespace, grace_period_s=0)


@asynccontextmanager
async def serving(page_of: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
    """A metrics page, as its port."""
    app = web.Application()
    app.router.add_get("/metrics", page_of)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def node_in(client: KubeClient, gpus: int = 8) -> AsyncIterator[None]:
    """One node with room for two groups of each role of two services."""
    await client.create(kinds.NODE, {"metadata": {"name": NODE, "labels": {names.HOSTNAME: NODE}}})
    room = {"cpu": "16", "memory": "64Gi", "pods": "110", names.GPU: str(gpus)}
    status = {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]}
    await client.patch(kinds.NODE, NODE, None, {"status": status}, patch_type="strategic", subresource="status")
    await client.patch(kinds.NODE, NODE, None, {"spec": {"taints": None}})
    try:
        yield
    finally:
        await client.delete(kinds.NODE, NODE)
