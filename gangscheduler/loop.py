"""The scheduler process: watch, snapshot, order, place, assume, bind and report.

Rules:
1. One cycle at a time; it wakes on a change that a decision could depend on (view.py), after a short pause that lets
   related changes arrive, and when a rest after a refusal ends.
2. A cycle waits for none of its consequences: what it binds is assumed, bindings (bind.py) and words (report.py) are
   under way while the next one decides.
3. A binding that fails is forgotten with what is left of its gang, and the gang rests, longer each time.
4. Without a fresh view of nodes, pods and PodGroups nothing is bound. A server without PodGroups has none.
5. With a Lease, only its holder decides, and the client's fence stops the writes of one that has just lost it.
6. What has been half-bound for UNDO_AFTER_S and has never started gives its places back (undo.py); at once when a node
   has refused a part of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from gangscheduler.ask import Questions
from gangscheduler.bind import Binder, Outcome
from gangscheduler.core import Core
from gangscheduler.exporter import Exporter
from gangscheduler.fragmentation import label, largest, shapes_of
from gangscheduler.layout import unit_of
from gangscheduler.model import LEVELS, Binding, Choice, Pod, Reason, Snapshot, Verdict, Verdicts
from gangscheduler.recorder import Recorder
from gangscheduler.report import Reporter
from gangscheduler.slim import slim_node, slim_pod
from gangscheduler.undo import stuck
from gangscheduler.view import ANY_NODE, View
from kubeapi import kinds, names
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config
from kubeapi.discovery import why_not_served
from kubeapi.errors import ApiError, NotFound, NotLeader
from kubeapi.lease import Lease, own_identity

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
    levels: tuple[str, ...] = LEVELS,
    choice: Choice = Choice.PACK,
    record: Path | None = None,
) -> None:
    """Schedule until cancelled. Raises OSError when the HTTP port is taken.

    With `lease_namespace` only while it holds the Lease there that has the scheduler's name. `levels`: topology levels
    as node labels, outermost first. `choice`: which domain, where several hold a group. `record`: where to keep
    decisions.
    """
    async with AsyncExitStack() as stack:
        lease = None
        if lease_namespace is not None:
            elector = await stack.enter_async_context(KubeClient(config, field_manager=names.MANAGER_SCHEDULER))
            lease = await stack.enter_async_context(Lease(elector, lease_namespace, scheduler_name, own_identity()))
        fence = None if lease is None else lambda: lease.is_leader
        client = await stack.enter_async_context(KubeClient(config, field_manager=names.MANAGER_SCHEDULER, fence=fence))
        recorder = None if record is None else Recorder(record)
        view = View(scheduler_name, levels, choice)
        scheduler = Scheduler(client, view, lease, undo_after_s=undo_after_s, recorder=recorder)
        if http_port is not None:
            routes = Questions(client, scheduler).routes()
            await stack.enter_async_context(scheduler.exporter.serve(http_host, http_port, routes))
        await scheduler.run()


class Scheduler:
    """The caches, the view that they feed, and the cycle over it."""

    def __init__(
        self,
        client: KubeClient,
        view: View,
        lease: Lease | None = None,
        *,
        undo_after_s: float = UNDO_AFTER_S,
        recorder: Recorder | None = None,
    ) -> None:
        self.exporter = Exporter(self)
        self.view = view
        self._core = Core()
        self._recorder = recorder
        self._decided = (Snapshot(0.0, (), (), ()), Verdicts())
        self.binder = Binder(client, self)
        self._lease = lease
        self._undo_after_s = undo_after_s
        self._stuck_since_s: dict[tuple[str, frozenset[str]], float] = {}
        self._turned_s = time.monotonic()
        self._client = client
        self._wake = asyncio.Event()
        self._nodes = Cache(client, kinds.NODE, on_change=self._node_changed, slim=slim_node)
        self._pods = Cache(client, kinds.POD, on_change=self._pod_changed, slim=slim_pod)
        self._groups = Cache(client, kinds.PODGROUP, on_change=self._group_changed)
        self._composites = Cache(client, kinds.COMPOSITE_PODGROUP, on_change=self._group_changed)
        self.caches = (self._nodes, self._pods, self._groups, self._composites)
        self._reporter = Reporter(client)
        self._said_problem = ""
        self._no_podgroups = ""

    async def run(self) -> None:
        """Watch and decide until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for cache in self.caches:
                    tasks.create_task(cache.run())
                tasks.create_task(self._reporter.run())
                if self._recorder is not None:
                    tasks.create_task(self._recorder.run())
                if self._lease is not None:
                    tasks.create_task(self._wake_when_elected(self._lease))
                while True:
                    self._turned_s = time.monotonic()
                    await self._woken()
                    await self.cycle()
        finally:
            await self.binder.close()

    def problem(self) -> str:
        """Why nothing can be bound at present; empty when all is well, also while another one leads."""
        if self._lease is not None and self._lease.error is not None and not self._lease.is_leader:
            return f"cannot use the Lease: {self._lease.error}"
        watched = (kinds.NODE, kinds.POD, kinds.PODGROUP, kinds.COMPOSITE_PODGROUP)
        for cache, kind in zip(self.caches, watched, strict=True):
            if cache in (self._groups, self._composites) and _is_not_served(cache):
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

    def largest(self) -> Iterator[tuple[str, str, int]]:
        """What of the shapes that gangs are made of still fits together, as of the last decision."""
        snapshot, _ = self._decided
        for shape in shapes_of(snapshot.pods):
            for level, pods in largest(self._core.cluster, snapshot.levels, shape):
                yield label(shape), level, pods

    def seen(self) -> Snapshot:
        """What is known now, with what is assumed."""
        return self.view.snapshot(time.time())

    def decided(self) -> tuple[Snapshot, Verdicts]:
        """The last decision, and from what it was made."""
        return self._decided

    async def _wake_when_elected(self, lease: Lease) -> None:
        while True:
            await lease.wait_leader()
            self._wake.set()
            await lease.lost.wait()

    def _node_changed(self, event: WatchEvent) -> None:
        self._wake_if(self.view.node(event.object, gone=event.type == "DELETED"))

    def _pod_changed(self, event: WatchEvent) -> None:
        gone = event.type == "DELETED"
        if gone:
            self._reporter.forget(event.object["metadata"]["uid"])
        self._wake_if(self.view.pod(event.object, time.time(), gone=gone))

    def _group_changed(self, event: WatchEvent) -> None:
        gone = event.type == "DELETED"
        if gone:
            self._reporter.forget(event.object["metadata"]["uid"])
        self._wake_if(self.view.group(event.object, gone=gone))

    def _wake_if(self, changed: bool) -> None:
        if changed:
            self._wake.set()

    async def _woken(self) -> None:
        now_s = time.time()
        due_s = self.view.due_s(now_s)
        try:
            async with asyncio.timeout(IDLE_S if due_s is None else min(IDLE_S, due_s - now_s)):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(DEBOUNCE_S)

    async def cycle(self) -> None:
        """One decision; its consequences are under way when it returns."""
        self._wake.clear()
        # 1 watch: the caches are fresh and we lead, or nothing is decided
        await self._look_for_podgroups()
        if self._is_blind() or self._stands_by():
            return
        began_s, now_s = time.monotonic(), time.time()
        # 2 snapshot: what the watch shows, with what is assumed
        snapshot = self.view.snapshot(now_s)
        # 3 order, 4 place: pure
        with self.exporter.placement_s.time():
            verdicts = self._core.decide(snapshot)
        self._decided = snapshot, verdicts
        # 5 assume: bound from now on
        gangs = self._assume(snapshot, verdicts)
        self.exporter.show(verdicts)
        self.exporter.cycle_s.observe(time.monotonic() - began_s)
        # 6 bind and report
        self.binder.start(gangs)
        if self._recorder is not None:
            self._recorder.note(snapshot, verdicts)
        self._report(snapshot, verdicts, now_s)
        # 7 undo what has been half-bound for too long
        for name, members in self._overdue(snapshot, verdicts, now_s).items():
            await self._undo(name, members, now_s)

    def _assume(self, snapshot: Snapshot, verdicts: Verdicts) -> list[list[Binding]]:
        """The bindings of each gang together, pods without one alone, in the order of the verdicts."""
        if not verdicts.bindings:
            return []
        pods = {pod.key: pod for pod in snapshot.pods if not pod.node}
        groups = {group.key: group for group in snapshot.groups}
        gangs: dict[str, list[Binding]] = {}
        for binding in verdicts.bindings:
            pod = pods[binding.pod]
            self.view.assume(pod.key, pod.uid, binding.node)
            gangs.setdefault(unit_of(pod, groups), []).append(binding)
        return list(gangs.values())

    def bound(self, binding: Binding) -> None:
        """The binder's word: the pod is on its node."""
        self.exporter.bindings.labels("bound").inc()
        log.info("pod %s bound to %s", binding.pod, binding.node)
        if (pod := self._raw(binding.pod, binding.uid)) is not None:
            self._reporter.scheduled(binding, pod, time.time())

    def undone(self, binding: Binding, outcome: Outcome, error: ApiError | None) -> None:
        """The binder's word: it is not, and what is left of its gang is decided anew after a rest."""
        self.view.forget(binding.pod, binding.uid)
        if error is None:
            return
        self.exporter.bindings.labels("failed").inc()
        log.warning("pod %s not bound to %s: %s", binding.pod, binding.node, error)
        if outcome is Outcome.REFUSED:
            now_s = time.time()
            rest_s = self.view.refused(self.view.family(binding.pod), ANY_NODE, now_s)
            self._wake.set()
            pod = self._raw(binding.pod, binding.uid)
            if pod is not None and not isinstance(error, NotLeader):
                message = f"Not bound to {binding.node}: {error.message}; its gang is tried again in {rest_s:g} s"
                self._reporter.refused(pod, message, now_s)

    def _raw(self, key: str, uid: str) -> Object | None:
        """The pod as the watch shows it, unless it is another one of that name."""
        namespace, _, name = key.partition("/")
        pod = self._pods.items.get((namespace, name))
        return pod if pod is not None and pod["metadata"]["uid"] == uid else None

    def _is_blind(self) -> bool:
        problem = self.problem()
        if problem and problem != self._said_problem:
            log.warning("not scheduling: %s", problem)
        self._said_problem = problem
        return bool(problem)

    async def _look_for_podgroups(self) -> None:
        """The cache asks for them again and again: a server that has learned them needs no restart of ours."""
        if _is_not_served(self._composites):
            self.view.forget_groups(composite=True)
        if _is_not_served(self._groups):
            self.view.forget_groups(composite=False)
        if _is_not_served(self._groups) and not self._no_podgroups:
            self._no_podgroups = await why_not_served(self._client, kinds.PODGROUP)
            log.warning("%s: pods are placed one by one; one that names a PodGroup waits", self._no_podgroups)
        elif self._no_podgroups and self._groups.error is None:
            log.info("%s is served now", kinds.PODGROUP.title)
            self._no_podgroups = ""

    def _stands_by(self) -> bool:
        if self.leads():
            return False
        # Another one decides: what was assumed or said of this cluster is no longer ours to know.
        self.view.forget_all()
        self._reporter.forget_all()
        self._stuck_since_s.clear()
        self.exporter.show(Verdicts())
        return True

    def _overdue(self, snapshot: Snapshot, verdicts: Verdicts, now_s: float) -> dict[str, tuple[Pod, ...]]:
        """What has been half-bound, with the same pods, for UNDO_AFTER_S, or at all if it was refused a place."""
        since_s, found = time.monotonic(), stuck(snapshot, verdicts)
        keys = {name: (name, frozenset(pod.uid for pod in members)) for name, members in found.items()}
        self._stuck_since_s = {key: self._stuck_since_s.get(key, since_s) for key in keys.values()}
        return {
            name: members
            for name, members in found.items()
            if not any(pod.uid in self.view.assumed for pod in members)
            if since_s - self._stuck_since_s[keys[name]] >= self._undo_after_s
            or self.view.is_kept_away(self.view.family(members[0].key), now_s)
        }

    async def _undo(self, name: str, members: tuple[Pod, ...], now_s: float) -> None:
        """Evict them one after another, each only if it is still what was seen; the first refusal ends it."""
        log.warning("%s: half-bound, and the rest finds no place: its %d pods are evicted", name, len(members))
        for member in members:
            pod = self._raw(member.key, member.uid)
            if pod is None:
                return
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
            self._reporter.undone(pod, f"Taken off {member.node}: the rest of its {name} found no place", now_s)

    def _raw_group(self, verdict: Verdict) -> Object | None:
        """The group as the watch shows it, unless it is another one of that name."""
        namespace, _, name = verdict.name.partition("/")
        kind, _, composite = name.rpartition("/")
        items = self._composites.items if kind else self._groups.items
        group = items.get((namespace, composite))
        return group if group is not None and group["metadata"]["uid"] == verdict.uid else None

    def _report(self, snapshot: Snapshot, verdicts: Verdicts, now_s: float) -> None:
        # A group whose pods another scheduler places is that one's to speak of.
        named = self.view.with_ancestors({pod.group for pod in snapshot.pods if pod.ours})
        for verdict in verdicts.groups:
            group = self._raw_group(verdict)
            if group is not None and verdict.name in named:
                self._reporter.podgroup(verdict, group, now_s)
        promised = {nomination.uid: nomination.node for nomination in verdicts.nominations}
        for waiting in verdicts.waiting:
            pod = self._raw(waiting.pod, waiting.uid)
            if pod is None:
                continue
            if waiting.reason is Reason.POD_GROUP_MISSING and self._no_podgroups:
                waiting = replace(waiting, message=f"{waiting.message}: {self._no_podgroups}")
            self._reporter.waiting(waiting, pod, now_s)
            self._reporter.nominated(pod, promised.get(waiting.uid, ""))


def _is_not_served(cache: Cache) -> bool:
    return isinstance(cache.error, NotFound)
