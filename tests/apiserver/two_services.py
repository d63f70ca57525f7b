"""Two small services in two namespaces, scaled by one controller of ours that runs in this process.

Rules:
1. The controller is the whole of `roleratio controller`, but for its command line: same client, watches and pages.
2. What a service should have is asked for through its rra, as a user would; what it has is read from the server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession

from autoscaler.drivers.manager import ManagerOptions, serve
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.config import Config
from tests.apiserver.small_service import SERVICE, Service, node_in, service_on_node

WAIT_S = 30.0
SPEC: Mapping[str, Any] = {
    "service": SERVICE,
    "mode": "Active",
    "profile": "qwen3-32b-a100-tp2",
    "gpuBudget": 32,
    "prefill": {"minGroups": 1, "maxGroups": 16, "coldStartS": 1},
    "decode": {"minGroups": 1, "maxGroups": 16, "coldStartS": 1},
    "ratioBand": {"min": 0.05, "max": 20},
    "syncPeriodS": 0.5,
    "minimumSettleS": 0,
    "metrics": {"windowS": 2, "scrapeTimeoutS": 0.3},
}


async def until(true: Callable[[], Awaitable[bool]], what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for something."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while not await true():
        assert asyncio.get_running_loop().time() < deadline_s, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Tenant:
    """A service with an rra, as a test sees it."""

    service: Service

    @property
    def namespace(self) -> str:
        return self.service.namespace

    async def ask(self, **groups: int) -> None:
        """Want at least so many groups: the rra is made, or changed."""
        wanted: Object = {role: {"minGroups": count} for role, count in groups.items()}
        await self.service.client.patch(kinds.RRA, SERVICE, self.namespace, {"spec": wanted})

    async def has(self, role: str, groups: int) -> bool:
        """Whether replicas and minimum are these."""
        sizes = await self.service.sizes()
        return sizes[role] == sizes[f"{role} minimum"] == groups

    async def generation(self, role: str) -> int:
        """How often the workload was changed."""
        kind = kinds.LWS if role == "prefill" else kinds.DEPLOYMENT
        return int((await self.service.client.get(kind, role, self.namespace))["metadata"]["generation"])

    async def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message."""
        rra = await self.service.client.get(kinds.RRA, SERVICE, self.namespace)
        found = [one for one in rra.get("status", {}).get("conditions", ()) if one["type"] == kind]
        return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")

    async def told(self, reason: str) -> list[int]:
        """The counts of the Events with this reason."""
        events = (await self.service.client.list(kinds.EVENT, self.namespace)).items
        return [event["count"] for event in events if event["reason"] == reason]


@asynccontextmanager
async def two_services(admin: KubeClient, first: str, second: str) -> AsyncIterator[tuple[Tenant, Tenant]]:
    """Both with one group per role, and an rra that wants no more."""
    async with (
        node_in(admin, gpus=64),
        service_on_node(admin, first) as one,
        service_on_node(admin, second) as other,
    ):
        for service in (one, other):
            service.binds = True
            await admin.create(kinds.RRA, {"metadata": {"name": SERVICE}, "spec": dict(SPEC)}, service.namespace)
        yield Tenant(one), Tenant(other)


@dataclass(frozen=True)
class Controller:
    """A controller that runs."""

    port: int

    async def page(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages."""
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.text()

    async def metric(self, name: str, *labels: str) -> str:
        """The value of the first series with this name and these labels."""
        _, text = await self.page("/metrics")
        lines = [line for line in text.splitlines() if line.startswith(f"roleratio_controller_{name}")]
        return next((line.split()[-1] for line in lines if all(label in line for label in labels)), "")


@asynccontextmanager
async def controller(config: Config, *, expect_ready: bool = True, **options: Any) -> AsyncIterator[Controller]:
    """`roleratio controller` until the end of the context, which begins when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = asyncio.Event()
    task = asyncio.create_task(serve(ManagerOptions(config, port=port, **options), stop))
    try:
        running = Controller(port)
        await until(lambda: _answers(task, running, expect_ready), "a controller that answers")
        yield running
    finally:
        stop.set()
        assert await task == 0


async def _answers(task: asyncio.Task[int], running: Controller, ready: bool) -> bool:
    if task.done():
        await task
    try:
        return (await running.page("/readyz"))[0] == 200 or not ready
    except OSError:
        return False
