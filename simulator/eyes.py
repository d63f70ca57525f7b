"""What a policy gets to see of a simulated service: the Observation that our adapters would make of it.

Rules:
1. As adapters/fleet.py: pages of groups that are ready and stay; workloads as the API server has them; what fits as the
   scheduler says.
2. Pages are read for every decision, or every `interval_s`, and are seen `delay_s` later; workloads are never old.
3. A page that cannot be read is a failure with its reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from autoscaler.model import Fleet, Observation, RoleFleet, RouterSample, Samples, WorkerSample
from autoscaler.model import Group as SeenGroup
from policies.model import Role
from simulator.clock import Clock
from simulator.cluster import NAMESPACE, Cluster
from simulator.gauges import Snapshot
from simulator.groups import Group, Phase
from simulator.pages import MODEL, ROUTER, Passed, router_sample, worker_sample
from simulator.router import Router
from simulator.scenario import ScrapeModel
from simulator.workload import Workload


class Eyes:
    """`passed` is told of decode groups that end; `router_unread`: why the router's page cannot be read, or nothing."""

    def __init__(
        self,
        clock: Clock,
        scrape: ScrapeModel,
        period_s: float,
        router: Router,
        cluster: Cluster,
        workloads: Mapping[Role, Workload],
    ) -> None:
        self.passed = Passed()
        self.router_unread = ""
        self._clock = clock
        self._at_once = not (scrape.interval_s or scrape.delay_s)
        self._interval_s = scrape.interval_s or period_s
        self._delay_s = scrape.delay_s
        self._router = router
        self._cluster = cluster
        self._workloads = workloads
        self._scrapes: deque[tuple[float, Samples]] = deque()

    def begin(self) -> None:
        """Start to read pages."""
        if not self._at_once:
            self._scrape(self._clock.now_s)

    def look(self) -> Observation:
        """The world now."""
        samples = self._read() if self._at_once else self._newest()
        return Observation(self._clock.now_s, samples, Fleet(self._role(Role.PREFILL), self._role(Role.DECODE)))

    def _scrape(self, now_s: float) -> None:
        self._scrapes.append((now_s, self._read()))
        self._clock.at(now_s + self._interval_s, self._scrape)

    def _newest(self) -> Samples:
        """The last pages that have come through."""
        limit_s = self._clock.now_s - self._delay_s
        while len(self._scrapes) > 1 and self._scrapes[1][0] <= limit_s:
            self._scrapes.popleft()
        return self._scrapes[0][1] if self._scrapes and self._scrapes[0][0] <= limit_s else Samples()

    def _read(self) -> Samples:
        now_s = self._clock.now_s
        pages = {group: group.engine.snapshot() for group in self._serving()}
        failures = {group.leader: group.unread for group in pages if group.unread}
        workers = tuple(self._workers(pages, now_s))
        routers: tuple[RouterSample, ...] = ()
        if self.router_unread:
            failures[ROUTER] = self.router_unread
        else:
            decode = (page for group, page in pages.items() if group.role is Role.DECODE)
            routers = (router_sample(self._router.counters, self.passed.plus(decode), now_s, 0.0),)
        return Samples(routers, workers, dict(sorted(failures.items())), models={MODEL: len(workers)})

    def _serving(self) -> list[Group]:
        groups = (group for workload in self._workloads.values() for group in workload.groups.values())
        return sorted((g for g in groups if g.phase in (Phase.READY, Phase.DRAINING)), key=lambda g: g.leader)

    @staticmethod
    def _workers(pages: Mapping[Group, Snapshot], now_s: float) -> list[WorkerSample]:
        readable = ((g, page) for g, page in pages.items() if g.phase is Phase.READY and not g.unread)
        return [worker_sample(group, page, now_s) for group, page in readable]

    def _role(self, role: Role) -> RoleFleet:
        workload, shape, fit = self._workloads[role], self._cluster.shapes[role], self._cluster.fit(role)
        groups = workload.groups.values()
        ready = [group for group in groups if group.phase is Phase.READY]
        counted = workload.kind == "LeaderWorkerSet"
        seen = (
            SeenGroup(
                group.uid,
                group.pods,
                group.phase is Phase.READY,
                waits=group.phase is Phase.PENDING,
                ordinal=group.index if counted else None,
            )
            for group in groups
        )
        return RoleFleet(
            kind=workload.kind,
            namespace=NAMESPACE,
            name=role.value,
            uid=role.value,
            created_s=0.0,
            replicas=workload.replicas,
            ready=len(ready),
            present=workload.present,
            pods_per_group=shape.pods,
            gpus_per_group=shape.gpus,
            fit=fit.groups,
            pod_group=role.value,
            min_pods=self._cluster.min_pods[role],
            draining=workload.draining,
            ready_after_s=tuple(sorted(g.ready_s - g.created_s - g.waited_s for g in ready)),
            groups=tuple(sorted(seen, key=lambda group: group.pods)),
            limiting_resource=fit.limiting_resource,
            owner="us",
        )
