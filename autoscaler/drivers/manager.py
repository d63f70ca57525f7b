"""The manager: every RoleRatioAutoscaler object in the cluster is one service with a loop of its own.

Rules:
1. One service's failure is never another's: each loop is a task, and tells its own object what is wrong.
2. Only a leader runs loops, and nothing is written once it may no longer.
3. Of two objects that name one service the older is followed; the other one is told so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace

from autoscaler.adapters import rra
from autoscaler.adapters.exporter import Exporter
from autoscaler.drivers.another import Another
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.live import stop_signal
from autoscaler.drivers.service import Edges, Service
from autoscaler.drivers.terms import LEASE_NAME, candidacy, run_terms, standing
from autoscaler.drivers.trouble import Pause, Troubles
from autoscaler.errors import UserError
from autoscaler.settings import Mode, Settings
from kubeapi import kinds, names
from kubeapi.client import KubeClient, Object
from kubeapi.config import Config
from kubeapi.errors import ApiError, NotFound, NotLeader
from kubeapi.events import About, tell
from kubeapi.retry import passes
from perfmodel.profile import Profile, ProfileError, load_profile
from policies.model import Code

log = logging.getLogger("roleratio.manager")

LOOK_S = 1.0
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Declared:
    """An object understood: settings and profile, or every problem that stands in the way.

    `obj` is None for a service that only its labels declare: it is recommended for, and has no status.
    """

    obj: Object | None
    settings: Settings | None = None
    profile: Profile | None = None
    problems: tuple[str, ...] = ()
    code: Code = Code.SPEC_INVALID

    @property
    def generation(self) -> int:
        """The version of the spec that this is."""
        return int(self.obj["metadata"].get("generation", 0)) if self.obj else 0

    @property
    def status(self) -> Object | None:
        """What the object says of itself so far."""
        return self.obj.get("status") if self.obj else None


def declared(objects: Iterable[Object]) -> Mapping[Key, Declared]:
    """Every object by (namespace, name). Linear, but for the sorting by age."""
    result: dict[Key, Declared] = {}
    taken: dict[Key, str] = {}
    for obj in sorted(objects, key=_age):
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        found = _understand(obj)
        if found.settings is not None:
            service = found.settings.spec.service
            first = taken.setdefault((namespace, service), name)
            if first != name:
                problem = f"service {service} is already scaled by rra {first}; delete one of the two"
                found = Declared(obj, problems=(problem,), code=Code.SERVICE_CLAIMED)
        result[namespace, name] = found
    return result


def _age(obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("creationTimestamp") or "", meta["name"]


def _understand(obj: Object) -> Declared:
    try:
        settings = rra.settings_of(obj)
        return Declared(obj, settings, load_profile(settings.spec.profile))
    except UserError as error:
        return Declared(obj, problems=error.problems)
    except ProfileError as error:
        return Declared(obj, problems=tuple(f"spec.profile: {problem}" for problem in error.problems))


def implied(
    workloads: Iterable[Object], nodes: Iterable[Object], known: Mapping[Key, Declared]
) -> Mapping[Key, Declared]:
    """Services that labels alone declare: label to observe, policy to act. Keyed by (namespace, service).

    Their profile is named by an annotation; without one there is nothing to recommend by. Pure.
    """
    acted_on = {(key[0], found.settings.spec.service) for key, found in known.items() if found.settings is not None}
    gpus = sum(int(text) for node in nodes if (text := str(_allocatable(node).get(names.GPU, "0"))).isdecimal())
    result: dict[Key, Declared] = {}
    for workload in workloads:
        meta = workload["metadata"]
        service = (meta.get("labels") or {}).get(names.LABEL_SERVICE)
        profile = (meta.get("annotations") or {}).get(names.ANNOTATION_PROFILE)
        if service and profile and (meta["namespace"], service) not in acted_on:
            spec = {"service": service, "profile": profile, "gpuBudget": max(2, gpus), "mode": Mode.DRY_RUN.value}
            obj = {"metadata": {"name": service, "namespace": meta["namespace"]}, "spec": spec}
            result[meta["namespace"], f"label {service}"] = replace(_understand(obj), obj=None)
    return result


def _allocatable(node: Object) -> Object:
    found: Object = (node.get("status") or {}).get("allocatable") or {}
    return found


@dataclass(frozen=True, slots=True)
class Lost:
    """A write whose answer never came."""


class Manager:
    """All services of one cluster."""

    def __init__(self, edges: Edges, clock: Callable[[], float] = time.time) -> None:
        self._edges = edges
        self._clock = clock
        self._declared: Mapping[Key, Declared] = {}
        self._loops: dict[Key, asyncio.Task[None]] = {}
        self._pauses: dict[Key, Pause] = {}
        self._troubles = Troubles("all services")

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the objects until `stop`. Objects come, change and go without a restart."""
        try:
            while not stop.is_set():
                await self._look()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), LOOK_S)
        finally:
            for task in self._loops.values():
                task.cancel()
            await asyncio.gather(*self._loops.values(), return_exceptions=True)

    async def _look(self) -> None:
        cluster = self._edges.cluster
        if stale := cluster.stale():
            first = f"{', '.join(stale)}: {next(iter(stale.values()))}"
            self._troubles.failed("watches", ApiError(0, "Stale", first), self._clock(), Code.WATCH_FAILED)
        else:
            self._troubles.over("watches", self._clock(), "fresh again")
        own = declared(cluster.objects(kinds.RRA))
        workloads = [*cluster.objects(kinds.LWS), *cluster.objects(kinds.DEPLOYMENT)]
        self._declared = {**own, **implied(workloads, cluster.objects(kinds.NODE), own)}
        wanted = {key for key, found in self._declared.items() if found.settings and not _is_off(found)}
        for key in [key for key in self._loops if key not in wanted or self._loops[key].done()]:
            await self._end(key)
        for key in wanted - self._loops.keys():
            if key not in self._pauses or self._pauses[key].is_over():
                self._loops[key] = asyncio.create_task(self._follow(key))
        for key in self._declared.keys() - wanted:
            await self._decline(self._declared[key])

    async def _end(self, key: Key) -> None:
        task = self._loops.pop(key)
        if task.done() and not task.cancelled() and task.exception():
            # A bug in one service's decision must not end the others: it is told, and the loop starts anew.
            wait_s = self._pauses.setdefault(key, Pause()).begin()
            log.error("the loop of %s/%s failed and starts anew in %.0f s", *key, wait_s, exc_info=task.exception())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, key: Key) -> None:
        """One object's loop: its settings may change under way; what was learned stays."""
        found = self._declared[key]
        if found.settings is None or found.profile is None:
            return
        service, another = Service(found.settings, found.profile, self._edges), Another()
        loop = asyncio.get_running_loop()
        try:
            while True:
                started_s = loop.time()
                latest = self._declared.get(key, found)
                if latest.settings and latest.profile and latest.settings != found.settings:
                    await service.update(latest.settings, latest.profile)
                found = latest
                await self._tick(service, found, another)
                await asyncio.sleep(max(0.0, service.settings.spec.sync_period_s - (loop.time() - started_s)))
        finally:
            await service.close()

    async def _tick(self, service: Service, found: Declared, another: Another) -> None:
        now_s = self._clock()
        also = self._edges.cluster.served.reasons
        if found.obj:
            service.about = About.of(kinds.RRA, found.obj)
            also = (*also, *another.look(found.obj, now_s))
        observation, decision = await service.step(now_s, also)
        told = another.told(found.obj) if found.obj else None
        status = rra.status_of(service.settings, observation, decision, told, now_s, found.generation)
        if status == told:
            return
        stored = await self._write(found, status, service.troubles, "status")
        if isinstance(stored, Lost):
            another.lost(status)
        elif stored is not None:
            another.wrote(status, stored)

    async def _decline(self, found: Declared) -> None:
        """Tell an object why nothing is done for it."""
        before, now_s = found.status, self._clock()
        if found.problems:
            status = rra.refusal(found.problems, before, now_s, found.generation, found.code)
        else:
            status = rra.switched_off(before, now_s, found.generation)
        what = f"status of {rra.title_of(found.obj)}" if found.obj else ""
        if found.obj and isinstance(await self._write(found, status, self._troubles, what), dict):
            text = "; ".join(found.problems) or "mode Off"
            log.warning("%s: %s", rra.title_of(found.obj), text)
            about, reason = About.of(kinds.RRA, found.obj), (found.code if found.problems else Code.SWITCHED_OFF).value
            await tell(self._edges.client, about, reason, text, now_s=now_s, warning=bool(found.problems))

    async def _write(self, found: Declared, status: Object, troubles: Troubles, what: str) -> Object | Lost | None:
        """What was stored of it: None if nothing, Lost if that is not known."""
        if found.obj is None or not self._edges.may_write() or not self._edges.cluster.served.can_be_told:
            return None
        try:
            stored = await rra.write_status(self._edges.client, found.obj, status)
        except (NotLeader, NotFound):
            return None
        except ApiError as error:
            troubles.failed(what, error, self._clock(), Code.REPORT_FAILED)
            return Lost() if passes(error) else None
        troubles.over(what, self._clock())
        return stored


def _is_off(found: Declared) -> bool:
    return found.settings is not None and found.settings.spec.mode is Mode.OFF


def problem_of(cluster: Cluster, client: KubeClient) -> str:
    """Why the cluster cannot be seen or written; empty when it can."""
    unwritable = f"writes fail: {client.unwritable.message}" if client.unwritable else ""
    return "; ".join(text for text in (cluster.problem(), unwritable) if text)


@dataclass(frozen=True, slots=True)
class ManagerOptions:
    """What the manager needs: it learns its services from the cluster."""

    config: Config
    host: str = "127.0.0.1"
    port: int | None = None
    dry_run: bool = False
    lease_namespace: str | None = None
    timeout_s: float = 10.0
    """How long a request may take."""
    quiet_s: float = 150.0
    """How long a watch may say nothing."""


async def run(options: ManagerOptions) -> int:
    """Run until SIGTERM or SIGINT; with a Lease namespace only while leading. Returns the exit code.

    Raises ApiError when the cluster cannot be read, UserError when it has no RoleRatioAutoscaler kind.
    """
    return await serve(options, stop_signal())


async def serve(options: ManagerOptions, stop: asyncio.Event) -> int:
    """The same until `stop` is set."""
    async with AsyncExitStack() as stack:
        lease = await candidacy(options.config, options.lease_namespace, LEASE_NAME, stack)
        fence = None if lease is None else lambda: lease.is_leader
        client = KubeClient(
            options.config, field_manager=names.MANAGER_CONTROLLER, fence=fence, timeout_s=options.timeout_s
        )
        await stack.enter_async_context(client)
        cluster = Cluster(client, kinds.RRA, quiet_s=options.quiet_s)
        leads = fence or (lambda: True)
        exporter = None
        if options.port is not None:
            exporter = Exporter(
                problem=lambda: problem_of(cluster, client), leads=leads, standing=lambda: standing(lease)
            )
            stack.push_async_callback(exporter.stop)
            await exporter.start(options.host, options.port)
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        edges = Edges(client, cluster, exporter, may_write=leads, dry_run=options.dry_run, learning=asyncio.Lock())
        await run_terms(lease, stop, lambda over: Manager(edges).run(over))
    return 0
