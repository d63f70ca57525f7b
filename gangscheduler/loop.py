"""The scheduler process: watch, snapshot, order, place, assume, bind and report.

Rules:
1. One cycle at a time; it wakes on a change, after a short pause that lets related changes arrive.
2. A pod that was bound counts on its node until the watch shows it there or gone.
3. A binding that fails is forgotten with every other failed one of its TP group; the next wake decides anew.
4. Without a fresh view of nodes, pods and PodGroups nothing is bound.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack

from gangscheduler.exporter import Exporter
from gangscheduler.model import Binding, Snapshot, Verdicts
from gangscheduler.place import place
from gangscheduler.report import Reporter
from gangscheduler.snapshot import build
from kubeapi import kinds, names
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config
from kubeapi.errors import ApiError

log = logging.getLogger("gangscheduler")

DEBOUNCE_S = 0.02
IDLE_S = 3.0


async def run(
    config: Config,
    *,
    scheduler_name: str = names.SCHEDULER_NAME,
    http_host: str = "127.0.0.1",
    http_port: int | None = None,
) -> None:
    """Schedule until cancelled. Raises OSError when the HTTP port is taken."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(KubeClient(config, field_manager=names.MANAGER_SCHEDULER))
        scheduler = Scheduler(client, scheduler_name)
        if http_port is not None:
            await stack.enter_async_context(scheduler.exporter.serve(http_host, http_port))
        await scheduler.run()


class Scheduler:
    """The caches, what is assumed, and the cycle over them."""

    def __init__(self, client: KubeClient, scheduler_name: str) -> None:
        self.exporter = Exporter(self.problem)
        self._client = client
        self._scheduler_name = scheduler_name
        self._wake = asyncio.Event()
        self._nodes = Cache(client, kinds.NODE, on_change=self._changed)
        self._pods = Cache(client, kinds.POD, on_change=self._changed)
        self._groups = Cache(client, kinds.PODGROUP, on_change=self._changed)
        self.caches = (self._nodes, self._pods, self._groups)
        self.assumed: dict[str, str] = {}
        self._reporter = Reporter(client, scheduler_name)
        self._said_problem = ""

    async def run(self) -> None:
        """Watch and decide until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for cache in self.caches:
                tasks.create_task(cache.run())
            while True:
                await self._woken()
                await self.cycle()

    def problem(self) -> str:
        """Why nothing can be bound at present; empty when all is well."""
        for cache, kind in zip(self.caches, (kinds.NODE, kinds.POD, kinds.PODGROUP), strict=True):
            if cache.error is not None:
                return f"cannot watch {kind.plural}: {cache.error}"
            if not cache.synced.is_set():
                return f"{kind.plural} are not listed yet"
        return ""

    def _changed(self, event: WatchEvent) -> None:
        self._wake.set()

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(IDLE_S):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(DEBOUNCE_S)

    async def cycle(self) -> None:
        """One decision and its consequences."""
        self._wake.clear()
        # 1 watch: the caches are fresh, or nothing is decided
        if self._is_blind():
            return
        began_s, now_s = time.monotonic(), time.time()
        # 2 snapshot: what the watch shows, with what is assumed
        snapshot, pods = self._snapshot(now_s)
        # 3 order, 4 place: pure
        verdicts = place(snapshot)
        # 5 assume: bound from now on
        self.assumed |= {binding.uid: binding.node for binding in verdicts.bindings}
        self.exporter.show(verdicts)
        self.exporter.cycle_s.observe(time.monotonic() - began_s)
        # 6 bind and report
        async with asyncio.TaskGroup() as tasks:
            for binding in verdicts.bindings:
                tasks.create_task(self._bind(binding, pods[binding.pod], now_s))
        await self._report(verdicts, pods, now_s)

    def _is_blind(self) -> bool:
        problem = self.problem()
        if problem and problem != self._said_problem:
            log.warning("not scheduling: %s", problem)
        self._said_problem = problem
        return bool(problem)

    def _snapshot(self, now_s: float) -> tuple[Snapshot, dict[str, Object]]:
        """The snapshot, and the raw pods by key. Assumptions that the watch has overtaken are dropped."""
        raw = list(self._pods.items.values())
        open_uids = {pod["metadata"]["uid"] for pod in raw if not pod["spec"].get("nodeName")}
        self.assumed = {uid: node for uid, node in self.assumed.items() if uid in open_uids}
        pods = [self._with_assumption(pod) for pod in raw]
        nodes, groups = self._nodes.items.values(), self._groups.items.values()
        snapshot = build(now_s, nodes, pods, groups, scheduler_name=self._scheduler_name)
        return snapshot, {f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": pod for pod in pods}

    def _with_assumption(self, pod: Object) -> Object:
        node = self.assumed.get(pod["metadata"]["uid"])
        return pod if node is None else pod | {"spec": pod["spec"] | {"nodeName": node}}

    async def _bind(self, binding: Binding, pod: Object, now_s: float) -> None:
        meta = pod["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": binding.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": binding.node},
        }
        try:
            await self._client.create_sub(kinds.POD, meta["name"], meta["namespace"], "binding", body)
        except ApiError as error:
            self.assumed.pop(binding.uid, None)
            self.exporter.bindings.labels("failed").inc()
            log.warning("pod %s not bound to %s: %s", binding.pod, binding.node, error)
            return
        self.exporter.bindings.labels("bound").inc()
        log.info("pod %s bound to %s", binding.pod, binding.node)
        await self._reporter.scheduled(binding, pod, now_s)

    async def _report(self, verdicts: Verdicts, pods: dict[str, Object], now_s: float) -> None:
        groups = {group["metadata"]["uid"]: group for group in self._groups.items.values()}
        self._reporter.forget(groups.keys() | {pod["metadata"]["uid"] for pod in pods.values()})
        async with asyncio.TaskGroup() as tasks:
            for verdict in verdicts.groups:
                if verdict.uid in groups:
                    tasks.create_task(self._reporter.podgroup(verdict, groups[verdict.uid], now_s))
            for waiting in verdicts.waiting:
                tasks.create_task(self._reporter.waiting(waiting, pods[waiting.pod], now_s))
