"""The scheduler process: watch, snapshot, order, place, assume, bind and report.

Rules:
1. One cycle at a time; it wakes on a change, after a short pause that lets related changes arrive.
2. A pod that was bound counts on its node until the watch shows it there or gone.
3. A binding that fails is forgotten with every other failed one of its TP group; the next wake decides anew.
4. Without a fresh view of nodes, pods and PodGroups nothing is bound. A server without PodGroups has none.
5. With a Lease, only its holder decides, and the client's fence stops the writes of one that has just lost it.
6. What has been half-bound for UNDO_AFTER_S and has never started gives its places back (undo.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import replace

from gangscheduler.exporter import Exporter
from gangscheduler.model import Binding, Pod, Reason, Snapshot, Verdicts
from gangscheduler.place import place
from gangscheduler.report import Reporter
from gangscheduler.snapshot import build
from gangscheduler.undo import stuck
from kubeapi import kinds, names
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config
from kubeapi.discovery import why_not_served
from kubeapi.errors import ApiError, Conflict, NotFound
from kubeapi.lease import Lease, own_identity
from kubeapi.retry import Backoff

log = logging.getLogger("gangscheduler")

DEBOUNCE_S = 0.02
IDLE_S = 3.0
UNDO_AFTER_S = 60.0
STALLED_AFTER_S = 120.0


async def run(
    config: Config,
    *,
    scheduler_name: str = names.SCHEDULER_NAME,
    http_host: str = "127.0.0.1",
    http_port: int | None = None,
    lease_namespace: str | None = None,
    undo_after_s: float = UNDO_AFTER_S,
) -> None:
    """Schedule until cancelled. Raises OSError when the HTTP port is taken.

    With `lease_namespace` only while it holds the Lease there that has the scheduler's name.
    """
    async with AsyncExitStack() as stack:
        lease = None
        if lease_namespace is not None:
            elector = await stack.enter_async_context(KubeClient(config, field_manager=names.MANAGER_SCHEDULER))
            lease = await stack.enter_async_context(Lease(elector, lease_namespace, scheduler_name, own_identity()))
        fence = None if lease is None else lambda: lease.is_leader
        client = await stack.enter_async_context(KubeClient(config, field_manager=names.MANAGER_SCHEDULER, fence=fence))
        scheduler = Scheduler(client, scheduler_name, lease, undo_after_s=undo_after_s)
        if http_port is not None:
            await stack.enter_async_context(scheduler.exporter.serve(http_host, http_port))
        await scheduler.run()


class Scheduler:
    """The caches, what is assumed, and the cycle over them."""

    def __init__(
        self,
        client: KubeClient,
        scheduler_name: str,
        lease: Lease | None = None,
        *,
        undo_after_s: float = UNDO_AFTER_S,
    ) -> None:
        self.exporter = Exporter(self)
        self._lease = lease
        self._undo_after_s = undo_after_s
        self._stuck_since_s: dict[tuple[str, frozenset[str]], float] = {}
        self._backoff = Backoff(0.2, IDLE_S)
        self._turned_s = time.monotonic()
        self._client = client
        self._scheduler_name = scheduler_name
        self._wake = asyncio.Event()
        self._nodes = Cache(client, kinds.NODE, on_change=self._changed)
        self._pods = Cache(client, kinds.POD, on_change=self._changed)
        self._groups = Cache(client, kinds.PODGROUP, on_change=self._changed)
        self.caches = (self._nodes, self._pods, self._groups)
        self.assumed: dict[str, str] = {}
        self._reporter = Reporter(client)
        self._said_problem = ""
        self._no_podgroups = ""

    async def run(self) -> None:
        """Watch and decide until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for cache in self.caches:
                tasks.create_task(cache.run())
            if self._lease is not None:
                tasks.create_task(self._wake_when_elected(self._lease))
            while True:
                self._turned_s = time.monotonic()
                await self._woken()
                if await self.cycle():
                    self._backoff.reset()
                else:
                    await asyncio.sleep(self._backoff.next_s())
                    self._wake.set()

    def problem(self) -> str:
        """Why nothing can be bound at present; empty when all is well, also while another one leads."""
        if self._lease is not None and self._lease.error is not None and not self._lease.is_leader:
            return f"cannot use the Lease: {self._lease.error}"
        for cache, kind in zip(self.caches, (kinds.NODE, kinds.POD, kinds.PODGROUP), strict=True):
            if cache is self._groups and self._has_no_podgroups():
                continue
            if cache.error is not None:
                return f"cannot watch {kind.plural}: {cache.error}"
            if not cache.synced.is_set():
                return f"{kind.plural} are not listed yet"
        return ""

    def stalled(self) -> str:
        """Why it should be started anew; empty as long as the loop turns."""
        since_s = time.monotonic() - self._turned_s
        return f"no cycle for {since_s:.0f} s" if since_s > STALLED_AFTER_S else ""

    def leads(self) -> bool:
        """Whether it may bind: without a Lease always."""
        return self._lease is None or self._lease.is_leader

    def standing(self) -> str:
        """Whether it leads, in words, and what it does without."""
        known = f", but {self._no_podgroups}" if self._no_podgroups else ""
        if self._lease is None or self._lease.is_leader:
            return f"ok{known}"
        return f"ok, standing by: {self._lease.holder or 'nobody'} leads{known}"

    async def _wake_when_elected(self, lease: Lease) -> None:
        while True:
            await lease.wait_leader()
            self._wake.set()
            await lease.lost.wait()

    def _has_no_podgroups(self) -> bool:
        return isinstance(self._groups.error, NotFound)

    def _changed(self, event: WatchEvent) -> None:
        self._wake.set()

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(IDLE_S):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(DEBOUNCE_S)

    async def cycle(self) -> bool:
        """One decision and its consequences. False: bindings failed in a way that calls for a pause."""
        self._wake.clear()
        # 1 watch: the caches are fresh and we lead, or nothing is decided
        await self._look_for_podgroups()
        if self._is_blind() or self._stands_by():
            return True
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
            bound = [tasks.create_task(self._bind(binding, pods[binding.pod], now_s)) for binding in verdicts.bindings]
        if self.leads():
            await self._report(verdicts, pods, now_s)
            # 7 undo what has been half-bound for too long
            for name, members in self._overdue(snapshot, verdicts).items():
                await self._undo(name, members, pods, now_s)
        return all(task.result() for task in bound)

    def _is_blind(self) -> bool:
        problem = self.problem()
        if problem and problem != self._said_problem:
            log.warning("not scheduling: %s", problem)
        self._said_problem = problem
        return bool(problem)

    async def _look_for_podgroups(self) -> None:
        """The cache asks for them again and again: a server that has learned them needs no restart of ours."""
        if self._has_no_podgroups() and not self._no_podgroups:
            self._no_podgroups = await why_not_served(self._client, kinds.PODGROUP)
            log.warning("%s: pods are placed one by one; one that names a PodGroup waits", self._no_podgroups)
        elif self._no_podgroups and self._groups.error is None:
            log.info("%s is served now", kinds.PODGROUP.title)
            self._no_podgroups = ""

    def _stands_by(self) -> bool:
        if self.leads():
            return False
        # Another one decides: what was assumed or said of this cluster is no longer ours to know.
        self.assumed.clear()
        self._stuck_since_s.clear()
        self.exporter.show(Verdicts())
        return True

    def _snapshot(self, now_s: float) -> tuple[Snapshot, dict[str, Object]]:
        """The snapshot, and the raw pods by key. Assumptions that the watch has overtaken are dropped."""
        raw = list(self._pods.items.values())
        open_uids = {pod["metadata"]["uid"] for pod in raw if not pod["spec"].get("nodeName")}
        self.assumed = {uid: node for uid, node in self.assumed.items() if uid in open_uids}
        pods = [self._with_assumption(pod) for pod in raw]
        nodes = self._nodes.items.values()
        groups = () if self._has_no_podgroups() else self._groups.items.values()
        snapshot = build(now_s, nodes, pods, groups, scheduler_name=self._scheduler_name)
        return snapshot, {f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": pod for pod in pods}

    def _with_assumption(self, pod: Object) -> Object:
        node = self.assumed.get(pod["metadata"]["uid"])
        return pod if node is None else pod | {"spec": pod["spec"] | {"nodeName": node}}

    async def _bind(self, binding: Binding, pod: Object, now_s: float) -> bool:
        """Whether to go on without a pause: it is bound, or the pod is not what it was."""
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
            return isinstance(error, Conflict | NotFound)
        self.exporter.bindings.labels("bound").inc()
        log.info("pod %s bound to %s", binding.pod, binding.node)
        await self._reporter.scheduled(binding, pod, now_s)
        return True

    def _overdue(self, snapshot: Snapshot, verdicts: Verdicts) -> dict[str, tuple[Pod, ...]]:
        """What has been half-bound, with the same pods, for UNDO_AFTER_S."""
        now_s, found = time.monotonic(), stuck(snapshot, verdicts)
        keys = {name: (name, frozenset(pod.uid for pod in members)) for name, members in found.items()}
        self._stuck_since_s = {key: self._stuck_since_s.get(key, now_s) for key in keys.values()}
        return {
            name: members
            for name, members in found.items()
            if now_s - self._stuck_since_s[keys[name]] >= self._undo_after_s
        }

    async def _undo(self, name: str, members: tuple[Pod, ...], pods: dict[str, Object], now_s: float) -> None:
        """Evict them one after another, each only if it is still what was seen; the first refusal ends it."""
        log.warning("%s: half-bound for %.0f s: its %d pods are evicted", name, self._undo_after_s, len(members))
        for member in members:
            pod = pods[member.key]
            meta = pod["metadata"]
            seen = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
                "deleteOptions": {"preconditions": seen},
            }
            try:
                await self._client.create_sub(kinds.POD, meta["name"], meta["namespace"], "eviction", body)
            except ApiError as error:
                log.warning("pod %s not evicted: %s", member.key, error)
                return
            message = f"Taken off {member.node}: the rest of its {name} found no place for {self._undo_after_s:.0f} s"
            await self._reporter.undone(pod, message, now_s)

    def _named_by_ours(self, pods: dict[str, Object]) -> set[tuple[str, str]]:
        """The PodGroups of pods that are ours to schedule."""
        specs = ((pod["metadata"].get("namespace", ""), pod["spec"]) for pod in pods.values())
        return {
            (namespace, (spec.get("schedulingGroup") or {}).get("podGroupName", ""))
            for namespace, spec in specs
            if spec.get("schedulerName") == self._scheduler_name
        }

    async def _report(self, verdicts: Verdicts, pods: dict[str, Object], now_s: float) -> None:
        # A PodGroup whose pods another scheduler places is that one's to speak of.
        named = self._named_by_ours(pods)
        groups = {group["metadata"]["uid"]: group for key, group in self._groups.items.items() if key in named}
        self._reporter.forget(groups.keys() | {pod["metadata"]["uid"] for pod in pods.values()})
        async with asyncio.TaskGroup() as tasks:
            for verdict in verdicts.groups:
                if verdict.uid in groups:
                    tasks.create_task(self._reporter.podgroup(verdict, groups[verdict.uid], now_s))
            for waiting in verdicts.waiting:
                if waiting.reason is Reason.POD_GROUP_MISSING and self._no_podgroups:
                    waiting = replace(waiting, message=f"{waiting.message}: {self._no_podgroups}")
                tasks.create_task(self._reporter.waiting(waiting, pods[waiting.pod], now_s))
