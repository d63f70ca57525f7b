"""The agent: runs the pods that are bound to the virtual nodes.

Rules:
1. It reacts to what the API server holds; a pod is known by its uid, so a new pod of an old name is another one.
2. What a node refuses to run ends there at once, as Failed and with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubeapi import names
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config
from kubeapi.kinds import POD
from localcluster.agent.addresses import Addresses
from localcluster.agent.pod import Host, Pod, Refuses
from localcluster.agent.registration import Registration
from localcluster.changes import Changes
from localcluster.objects import is_finished, is_terminating, uid
from localcluster.options import NodeOptions

STOP_WITHIN_S = 5.0


@asynccontextmanager
async def node_agent(
    options: NodeOptions, config: Config, kubeconfig: Path, log_dir: Path, refuses: Refuses = lambda pod: None
) -> AsyncIterator[asyncio.TaskGroup]:
    """Run the agent while the context is open; no process of a pod is left when it has closed.

    `kubeconfig` is what the pods get; `refuses` says why the nodes do not run a pod.
    """
    async with KubeClient(config, field_manager=names.MANAGER_KUBELET) as client:
        nodes = Registration(client, options)
        await nodes.register()
        async with asyncio.TaskGroup() as tasks:
            agent = _Agent(client, tasks, nodes.node_names, kubeconfig, log_dir, refuses)
            keepers = [tasks.create_task(keeper) for keeper in (agent.cache.run(), nodes.renew(), nodes.tell())]
            await agent.cache.synced.wait()
            try:
                yield tasks
            finally:
                for keeper in keepers:
                    keeper.cancel()
                await agent.stop()


class _Agent:
    def __init__(
        self,
        client: KubeClient,
        tasks: asyncio.TaskGroup,
        nodes: frozenset[str],
        kubeconfig: Path,
        log_dir: Path,
        refuses: Refuses,
    ) -> None:
        self._tasks = tasks
        self._nodes = nodes
        self._running: dict[str, tuple[Pod, asyncio.Task[None]]] = {}
        self._changes = Changes()
        self.cache = Cache(client, POD, on_change=self._on_pod)
        self._host = Host(
            client=client,
            addresses=Addresses(),
            pods=self.cache.items,
            changes=self._changes,
            kubeconfig=kubeconfig.absolute(),
            log_dir=log_dir.absolute(),
            refuses=refuses,
        )

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
