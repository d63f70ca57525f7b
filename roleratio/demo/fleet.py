"""The fleet over time, seen through watches: groups per role, changes of replicas and of gang minimums.

Rules:
1. A TP group is ready when all its pods are, draining when its leader terminates or it is no longer wanted,
   else starting. A wanted group without pods is starting: it has been asked for.
2. A sample is kept only when it differs from the last one of its role.
3. Who changed `spec.replicas` comes from managedFields.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kubeapi import kinds, names
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, WatchEvent
from roleratio.records import FleetSample
from roleratio.report.numbers import ROLES

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """`spec.replicas` of a role changed, by whom."""

    at: float
    role: str
    before: int
    after: int
    by: str


@dataclass(slots=True)
class FleetLog:
    """All that the watches showed; `at` and `t_s` are monotonic times here, the report subtracts its origin."""

    samples: list[FleetSample] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    min_count_patches: list[float] = field(default_factory=list)

    def latest(self, role: str) -> FleetSample | None:
        """The role's newest sample."""
        return next((sample for sample in reversed(self.samples) if sample.role == role), None)


class FleetWatch:
    """Keeps a `FleetLog` from watches of the demo's namespace. Run `run()` as a task; wait for `synced()`."""

    def __init__(self, client: KubeClient, namespace: str, service: str) -> None:
        self.log = FleetLog()
        selector = f"{names.LABEL_SERVICE}={service}"

        def cache(kind: kinds.Kind, on_change: Callable[[WatchEvent], None]) -> Cache:
            return Cache(client, kind, namespace, label_selector=selector, on_change=on_change)

        self.workloads = cache(kinds.LWS, self._workload_changed)
        self.pods = cache(kinds.POD, lambda _: self._sample())
        self.pod_groups = cache(kinds.PODGROUP, self._pod_group_changed)
        self._replicas: dict[str, int] = {}
        self._minimums: dict[str, int] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for cache in (self.workloads, self.pods, self.pod_groups):
                group.create_task(cache.run(retry_s=0.3))

    async def synced(self) -> None:
        """Wait until all kinds were listed once."""
        for cache in (self.workloads, self.pods, self.pod_groups):
            await cache.synced.wait()

    def router_url(self, port: int) -> str | None:
        """Where a ready router is, or None."""
        for pod in self.pods.items.values():
            if role_of(pod) == names.ROLE_ROUTER and is_ready(pod):
                return f"http://{pod['status']['podIP']}:{port}"
        return None

    def _workload_changed(self, event: WatchEvent) -> None:
        role = role_of(event.object)
        wanted = int(event.object["spec"].get("replicas", 1))
        before = self._replicas.get(role)
        if event.type != "DELETED" and before != wanted:
            self._replicas[role] = wanted
            if before is not None:
                by = writer_of_replicas(event.object)
                self.log.changes.append(Change(time.monotonic(), role, before, wanted, by))
        self._sample()

    def _pod_group_changed(self, event: WatchEvent) -> None:
        role = role_of(event.object)
        minimum = int(event.object["spec"]["schedulingPolicy"]["gang"]["minCount"])
        if self._minimums.get(role, minimum) != minimum:
            self.log.min_count_patches.append(time.monotonic())
        self._minimums[role] = minimum

    def _sample(self) -> None:
        for workload in list(self.workloads.items.values()):
            role = role_of(workload)
            if role not in ROLES:
                continue
            sample = count_groups(time.monotonic(), workload, self.pods.items.values())
            latest = self.log.latest(role)
            if latest is None or _numbers(latest) != _numbers(sample):
                self.log.samples.append(sample)


def count_groups(t_s: float, workload: Object, pods: Iterable[Object]) -> FleetSample:
    """The groups of one LeaderWorkerSet; linear in its pods."""
    role = role_of(workload)
    wanted = int(workload["spec"].get("replicas", 1))
    size = int(workload["spec"]["leaderWorkerTemplate"].get("size", 1))
    members: dict[int, list[Object]] = {index: [] for index in range(wanted)}
    for pod in pods:
        labels = pod["metadata"].get("labels", {})
        if labels.get(names.LWS_NAME) == workload["metadata"]["name"]:
            with suppress(KeyError, ValueError):
                members.setdefault(int(labels[names.LWS_GROUP_INDEX]), []).append(pod)
    states = [_state(index < wanted, size, group) for index, group in members.items()]
    return FleetSample(t_s, role, wanted, states.count("ready"), states.count("starting"), states.count("draining"))


def _state(wanted: bool, size: int, pods: list[Object]) -> str:
    leader_goes = any(
        "deletionTimestamp" in pod["metadata"] and pod["metadata"]["labels"].get(names.LWS_WORKER_INDEX) == "0"
        for pod in pods
    )
    if leader_goes or not wanted:
        return "draining"
    return "ready" if len(pods) == size and all(is_ready(pod) for pod in pods) else "starting"


def is_ready(pod: Object) -> bool:
    """Whether a pod is ready and stays."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def role_of(item: Object) -> str:
    """The role in an object's labels, or nothing."""
    return str(item["metadata"].get("labels", {}).get(names.LABEL_ROLE, ""))


def writer_of_replicas(workload: Object) -> str:
    """The manager that last changed `spec.replicas`."""
    for entry in workload["metadata"].get("managedFields", []):
        if "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {}):
            return str(entry.get("manager", ""))
    return ""


def _numbers(sample: FleetSample) -> tuple[int, int, int, int]:
    return sample.wanted, sample.ready, sample.starting, sample.draining
