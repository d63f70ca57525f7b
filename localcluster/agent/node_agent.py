"""The agent: registers the virtual nodes, keeps them alive, and runs the pods that are bound to them.

Rule: it reacts to what the API server holds; a pod is known by its uid, so a new pod of an old name is another one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubeapi import names
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config
from kubeapi.errors import AlreadyExists, ApiError
from kubeapi.kinds import NODE, POD
from localcluster.agent.addresses import Addresses
from localcluster.agent.pod import Host, Pod
from localcluster.changes import Changes
from localcluster.events import EventRecorder
from localcluster.nodes import node_status, nodes_of
from localcluster.objects import is_finished, is_terminating, timestamp, uid
from localcluster.options import LocalClusterOptions

log = logging.getLogger(__name__)

HEARTBEAT_S = 30.0
STOP_WITHIN_S = 5.0


@asynccontextmanager
async def node_agent(options: LocalClusterOptions, config: Config, log_dir: Path) -> AsyncIterator[asyncio.TaskGroup]:
    """Run the agent while the context is open; no process of a pod is left when it has closed."""
    async with KubeClient(config, field_manager=names.MANAGER_KUBELET) as client, asyncio.TaskGroup() as tasks:
        agent = _Agent(options, client, tasks, log_dir)
        await agent.register()
        keepers = [tasks.create_task(agent.cache.run()), tasks.create_task(agent.beat())]
        await agent.cache.synced.wait()
        try:
            yield tasks
        finally:
            for keeper in keepers:
                keeper.cancel()
            await agent.stop()


class _Agent:
    def __init__(
        self, options: LocalClusterOptions, client: KubeClient, tasks: asyncio.TaskGroup, log_dir: Path
    ) -> None:
        self._options = options
        self._client = client
        self._tasks = tasks
        self._nodes = {node["metadata"]["name"]: node for node in nodes_of(options)}
        self._running: dict[str, tuple[Pod, asyncio.Task[None]]] = {}
        self._changes = Changes()
        self.cache = Cache(client, POD, on_change=self._on_pod)
        kubeconfig = options.kubeconfig_out.absolute()
        events = EventRecorder(client, "kubelet")
        self._host = Host(client, events, Addresses(), self.cache.items, self._changes, kubeconfig, log_dir.absolute())

    async def register(self) -> None:
        """Create the nodes, or take over those that exist."""
        for node in self._nodes.values():
            try:
                await self._client.create(NODE, node)
            except AlreadyExists:
                log.info("node %s exists already", node["metadata"]["name"])
            await self._beat_once(node)

    async def beat(self) -> None:
        """Say every half minute that the nodes are alive."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for node in self._nodes.values():
                try:
                    await self._beat_once(node)
                except ApiError as error:
                    log.warning("node %s: no heartbeat: %s", node["metadata"]["name"], error)

    async def _beat_once(self, node: Object) -> None:
        name = node["metadata"]["name"]
        status = node_status(self._options, node, timestamp(time.time()))
        body = {"status": status}
        await self._client.patch(NODE, name, None, body, patch_type="strategic", subresource="status")
        self._nodes[name] = node | {"status": status}

    async def stop(self) -> None:
        """End every process: SIGTERM, some seconds, SIGKILL."""
        running = list(self._running.values())
        for pod, _ in running:
            pod.leave(STOP_WITHIN_S)
        if running:
            await asyncio.wait([task for _, task in running])

    def _on_pod(self, event: WatchEvent) -> None:
        self._changes.notify()
        pod = event.object
        if pod["spec"].get("nodeName") not in self._nodes:
            return
        known = self._running.get(uid(pod))
        if event.type == "DELETED":
            if known:
                known[0].vanish()
        elif known:
            known[0].update(pod)
        elif is_terminating(pod) or not is_finished(pod):
            self._start(pod)

    def _start(self, pod: Object) -> None:
        runner = Pod(pod, self._host)
        task = self._tasks.create_task(runner.run(), name=f"pod {pod['metadata']['name']}")
        self._running[uid(pod)] = runner, task
        task.add_done_callback(lambda _: self._running.pop(uid(pod)))
