"""What the scheduler shows over HTTP: /metrics, /healthz and /v1/verdicts.

Rule: numbers come from the last cycle's verdicts; a PodGroup that is gone leaves no series behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gangscheduler.model import Verdicts

GROUP_LABELS = ("podgroup", "service", "role")


class Exporter:
    """The metrics, and the last verdicts as JSON."""

    def __init__(self, problem: Callable[[], str]) -> None:
        """`problem` says in one line why the scheduler is not healthy; empty = it is."""
        self._problem = problem
        self._registry = CollectorRegistry()
        self._verdicts = Verdicts()
        name = "roleratio_scheduler"
        registry = self._registry
        self.cycle_s = Histogram(f"{name}_cycle_seconds", "Time of a cycle without its bindings.", registry=registry)
        self.bindings = Counter(f"{name}_bindings", "Bindings sent.", ("result",), registry=registry)
        self._groups = Gauge(
            f"{name}_groups",
            "TP groups of a PodGroup: desired, admitted, placeable, floor.",
            (*GROUP_LABELS, "state"),
            registry=registry,
        )
        self._waiting = Gauge(
            f"{name}_waiting_pods", "Pods that wait for a place, by reason.", ("reason",), registry=registry
        )

    def show(self, verdicts: Verdicts) -> None:
        """Take over a cycle's verdicts."""
        self._verdicts = verdicts
        self._groups.clear()
        self._waiting.clear()
        for group in verdicts.groups:
            states = {
                "desired": group.desired,
                "admitted": group.admitted,
                "placeable": group.placeable_now,
                "floor": group.floor,
            }
            for state, value in states.items():
                self._groups.labels(group.name, group.service, group.role, state).set(value)
        for waiting in verdicts.waiting:
            self._waiting.labels(str(waiting.reason)).inc()

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve while the context is open."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/v1/verdicts", self._show)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield
        finally:
            await runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), content_type="text/plain", charset="utf-8")

    async def _healthz(self, request: web.Request) -> web.Response:
        problem = self._problem()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def _show(self, request: web.Request) -> web.Response:
        groups = [dataclasses.asdict(group) | {"message": group.message} for group in self._verdicts.groups]
        bindings = [binding._asdict() for binding in self._verdicts.bindings]
        waiting = [dataclasses.asdict(one) for one in self._verdicts.waiting]
        return web.json_response({"groups": groups, "bindings": bindings, "waiting": waiting})
