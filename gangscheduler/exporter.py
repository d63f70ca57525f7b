"""What the scheduler shows over HTTP: /metrics, /healthz, /readyz and /v1/verdicts.

Rules:
1. Numbers come from the last cycle's verdicts; a PodGroup that is gone leaves no series behind.
2. /healthz says whether the loop turns, /readyz whether it sees the cluster; a scheduler that stands by is ready.
3. No label has a name that a scrape adds (namespace, pod, service, ...): Prometheus would rename it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter as Counts
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gangscheduler.model import Reason, Verdicts

_CYCLE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
GROUP_LABELS = ("target_namespace", "target_service", "podgroup", "role")


class State(Protocol):
    """What the scheduler says of itself, each in one line; no problem is the empty string."""

    def problem(self) -> str:
        """Why it can bind nothing."""

    def stalled(self) -> str:
        """Why it should be started anew."""

    def standing(self) -> str:
        """Whether it leads."""

    def leads(self) -> bool:
        """Whether it may bind."""

    def largest(self) -> Iterable[tuple[str, str, int]]:
        """(shape, level, pods): the largest group of a shape that one domain of the level still holds."""


class Exporter:
    """The metrics, and the last verdicts as JSON."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._registry = CollectorRegistry()
        self._verdicts = Verdicts()
        name = "roleratio_scheduler"
        registry = self._registry
        self.cycle_s = Histogram(
            f"{name}_cycle_seconds",
            "Time of a cycle without its bindings.",
            buckets=_CYCLE_BUCKETS_S,
            registry=registry,
        )
        self.placement_s = Histogram(
            f"{name}_placement_seconds",
            "Time of the pure part of a cycle: order and place.",
            buckets=_CYCLE_BUCKETS_S,
            registry=registry,
        )
        self.bindings = Counter(f"{name}_bindings", "Bindings sent.", ("result",), registry=registry)
        for result in ("bound", "failed"):
            self.bindings.labels(result)  # From zero: Prometheus sees no increase in a counter's first value.
        leader = Gauge(f"{name}_leader", "1 while this process may bind.", registry=registry)
        leader.set_function(lambda: float(state.leads()))
        self._groups = Gauge(
            f"{name}_groups",
            "TP groups of a PodGroup: desired, admitted, placeable, floor.",
            (*GROUP_LABELS, "state"),
            registry=registry,
        )
        self._verdict = Gauge(
            f"{name}_verdict",
            "1 for the reason of a PodGroup's verdict, and the resource that limits it.",
            (*GROUP_LABELS, "reason", "limiting_resource"),
            registry=registry,
        )
        self._largest = Gauge(
            f"{name}_largest_group_pods",
            "Pods of a shape that one domain of a level still takes together.",
            ("shape", "level"),
            registry=registry,
        )
        self._waiting_groups = Gauge(
            f"{name}_waiting_groups", "Groups of which something waits, by reason.", ("reason",), registry=registry
        )
        self._waiting = Gauge(
            f"{name}_waiting_pods", "Pods that wait for a place, by reason.", ("reason",), registry=registry
        )

    def show(self, verdicts: Verdicts) -> None:
        """Take over a cycle's verdicts."""
        self._verdicts = verdicts
        self._groups.clear()
        self._verdict.clear()
        self._waiting.clear()
        self._waiting_groups.clear()
        for reason, count in Counts(group.reason for group in verdicts.groups if group.reason != Reason.FITS).items():
            self._waiting_groups.labels(str(reason)).set(count)
        for group in verdicts.groups:
            states = {
                "desired": group.desired,
                "admitted": group.admitted,
                "placeable": group.placeable_now,
                "floor": group.floor,
            }
            namespace, _, podgroup = group.name.partition("/")
            labels = (namespace, group.service, podgroup, group.role)
            for state, value in states.items():
                self._groups.labels(*labels, state).set(value)
            self._verdict.labels(*labels, group.reason, group.limiting_resource).set(1)
        for waiting in verdicts.waiting:
            self._waiting.labels(str(waiting.reason)).inc()

    @asynccontextmanager
    async def serve(self, host: str, port: int, routes: Iterable[web.RouteDef] = ()) -> AsyncIterator[None]:
        """Serve these pages and more `routes` while the context is open."""
        app = web.Application()
        app.router.add_routes(routes)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/v1/verdicts", self._show)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield
        finally:
            await runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        self._largest.clear()
        for shape, level, pods in self._state.largest():
            self._largest.labels(shape, level).set(pods)
        return web.Response(body=generate_latest(self._registry), content_type="text/plain", charset="utf-8")

    async def _healthz(self, request: web.Request) -> web.Response:
        return _answer(self._state.stalled())

    async def _readyz(self, request: web.Request) -> web.Response:
        return _answer(self._state.problem(), self._state.standing())

    async def _show(self, request: web.Request) -> web.Response:
        groups = [dataclasses.asdict(group) | {"message": group.message} for group in self._verdicts.groups]
        bindings = [binding._asdict() for binding in self._verdicts.bindings]
        waiting = [dataclasses.asdict(one) for one in self._verdicts.waiting]
        return web.json_response({"groups": groups, "bindings": bindings, "waiting": waiting})


def _answer(problem: str, fine: str = "ok") -> web.Response:
    return web.Response(text=problem or fine, status=503 if problem else 200)
