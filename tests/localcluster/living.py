"""A cluster that runs in this process, and how tests wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kubeapi.client import KubeClient
from kubeapi.config import Config
from kubeapi.errors import NotFound
from kubeapi.kinds import EVENT, POD
from localcluster.agent import node_agent
from localcluster.controllers import controllers
from localcluster.objects import is_ready
from localcluster.options import LocalClusterOptions

Object = dict[str, Any]
NAMESPACE = "default"
SLEEP = ["python", "-c", "import time; time.sleep(1000)"]


@asynccontextmanager
async def agent_and_controllers(url: str, kubeconfig: Path, log_dir: Path) -> AsyncIterator[None]:
    options = LocalClusterOptions(
        state_dir=log_dir.parent, kubeconfig_out=kubeconfig, nodes=2, gpus_per_node=4, cpu_per_node=64
    )
    async with node_agent(options, Config(url), kubeconfig, log_dir), controllers(Config(url)):
        yield


def pod_of(name: str, command: list[str], **container: Any) -> Object:
    spec = {"containers": [{"name": "c", "image": "i"} | container | {"command": command}]}
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def lws_of(name: str, replicas: int, size: int, command: list[str], grace_s: int = 5) -> Object:
    container = {"name": "c", "image": "i", "command": command, "ports": [{"containerPort": 8000}]}
    pod = {"spec": {"terminationGracePeriodSeconds": grace_s, "containers": [container]}}
    template = {"size": size, "workerTemplate": pod}
    meta = {"name": name, "namespace": NAMESPACE}
    return {"metadata": meta, "spec": {"replicas": replicas, "leaderWorkerTemplate": template}}


class Seen:
    """Reads the cluster as a user would."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client

    async def pod(self, name: str) -> Object | None:
        try:
            return await self.client.get(POD, name, NAMESPACE)
        except NotFound:
            return None

    async def pods(self) -> dict[str, Object]:
        return {pod["metadata"]["name"]: pod for pod in (await self.client.list(POD, NAMESPACE)).items}

    async def events(self, name: str) -> list[tuple[str, str]]:
        listed = await self.client.list(EVENT, NAMESPACE, field_selector=f"involvedObject.name={name}")
        told = sorted(listed.items, key=lambda event: int(event["metadata"]["resourceVersion"]))
        return [(event["reason"], event["message"]) for event in told]

    async def ready(self, *names: str) -> dict[str, Object]:
        """Wait until exactly these pods exist and are ready."""

        async def all_ready() -> dict[str, Object] | None:
            pods = await self.pods()
            return pods if set(pods) == set(names) and all(map(is_ready, pods.values())) else None

        return await eventually(all_ready)


async def eventually(look: Callable[[], Awaitable[Any]], within_s: float = 20.0) -> Any:
    """What `look` returns as soon as it is something; no pods at all is something."""
    async with asyncio.timeout(within_s):
        while (found := await look()) in (None, False, ""):
            await asyncio.sleep(0.03)
    return found


def container_of(pod: Object) -> Object:
    status: Object = pod["status"]["containerStatuses"][0]
    return status


def pid_of(pod: Object) -> int:
    return int(container_of(pod)["containerID"].removeprefix("localcluster://"))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
