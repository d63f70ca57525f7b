"""What prefill and decode workers share: loading, readiness with all ranks, refusing, draining, the engine's clock.

Rules:
1. A worker takes new work only while it is loaded, whole (all ranks connected) and not draining; otherwise 503.
2. A rank that drops takes its part of every KV with it: all work fails at once, so that others may redo it.
3. One timer drives the engine: `pump` after every change, and again when the step that runs is due.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from dataclasses import replace

from aiohttp import web
from prometheus_client.metrics_core import Metric

from perfmodel.profile import Profile, ProfileError, load_profile
from serving.http import DRAINING_HEADER, METRICS_TYPE, Listener, new_application, unavailable
from serving.metrics import WorkerMetrics, gauge, page
from serving.options import WorkerOptions
from serving.rank import RankHub

DRAIN_POLL_S = 0.05

log = logging.getLogger(__name__)


def profile_for(options: WorkerOptions) -> Profile:
    """The profile with the options' own limits. Raises ProfileError."""
    profile = load_profile(options.profile)
    names = ("max_num_seqs", "max_model_len", "kv_capacity_tokens", "transfer_gb_per_s")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    problems = [f"{name} = {value}: expected a number above 0" for name, value in given.items() if value <= 0]
    limits = {"max_num_seqs": profile.decode.xs[-1], "max_model_len": profile.max_model_len}
    problems += [
        f"{name} = {given[name]}: profile {profile.name} covers up to {limit:g}"
        for name, limit in limits.items()
        if given.get(name, 0) > limit
    ]
    if problems:
        raise ProfileError(*problems)
    return replace(profile, **given)


class Worker(ABC):
    """The leader of one TP group."""

    role: str

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.profile = profile_for(options)
        self.metrics = WorkerMetrics(options.model_name)
        self.draining = False
        self.url = ""
        self.rank_port = options.rank_port
        self._loaded = False
        self._was_whole = False
        self._timer: asyncio.TimerHandle | None = None
        self._load: asyncio.Task[None] | None = None
        self._ranks = RankHub(options.group_size - 1, self._ranks_changed)
        self._listener = Listener(self._application(), options.host, options.port)

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether nothing would be lost by stopping now."""

    @property
    @abstractmethod
    def due_s(self) -> float | None:
        """When the engine's running step ends."""

    @abstractmethod
    def advance(self, now_s: float) -> None:
        """Let the engine do what is due and hand out the results."""

    @abstractmethod
    def fail_all(self, reason: str) -> None:
        """End all work with an error that may be retried elsewhere."""

    @abstractmethod
    def routes(self) -> list[web.RouteDef]:
        """The worker's own paths."""

    @abstractmethod
    def families(self) -> list[Metric]:
        """The worker's own metrics."""

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        return self._loaded and self._ranks.complete and not self.draining

    def refusal(self) -> web.Response | None:
        """Why new work is not taken, as an answer; None if it is."""
        if self.draining:
            return unavailable(f"this {self.role} worker is draining", {DRAINING_HEADER: "1"})
        if not self.ready:
            return unavailable(f"this {self.role} worker is not ready: {self._missing()}")
        return None

    async def start(self) -> None:
        """Listen and begin to load. Raises OSError when a port is taken."""
        self.rank_port = await self._ranks.start(self.options.host, self.options.rank_port)
        port = await self._listener.start()
        self.url = f"http://{self.options.host}:{port}"
        self._load = asyncio.create_task(self._load_weights())
        log.info("%s worker: listening on %s, loading for %g s", self.role, self.url, self.options.load_s)

    async def drain(self) -> None:
        """Refuse new work and return when what is here has ended, or has been ended at the limit."""
        self.draining = True
        deadline_s = self.now_s() + self.options.drain_limit_s
        while not self.idle:
            if self.now_s() >= deadline_s:
                self.fail_all("the drain limit has passed")
            await asyncio.sleep(DRAIN_POLL_S)

    async def stop(self) -> None:
        """Close everything; the ranks go with it, which is then no loss."""
        self._was_whole = False
        if self._load is not None:
            self._load.cancel()
        if self._timer is not None:
            self._timer.cancel()
        await self._listener.stop()
        await self._ranks.stop()

    def pump(self) -> None:
        """Do what is due, then set the timer to the end of the step that runs."""
        self.advance(self.now_s())
        if self._timer is not None:
            self._timer.cancel()
        due_s = self.due_s
        self._timer = None if due_s is None else asyncio.get_running_loop().call_at(due_s, self.pump)

    @staticmethod
    def now_s() -> float:
        """The event loop's clock: all times of a worker are on it."""
        return asyncio.get_running_loop().time()

    async def _load_weights(self) -> None:
        await asyncio.sleep(self.options.load_s)
        self._loaded = True
        self._ranks_changed()

    def _ranks_changed(self) -> None:
        whole = self._loaded and self._ranks.complete
        if whole and not self._was_whole:
            log.info("%s worker: ready, a group of %d", self.role, self.options.group_size)
        if self._was_whole and not whole:
            log.warning("%s worker: lost a rank: %s", self.role, self._missing())
            self.fail_all("a rank of its TP group is gone")
        self._was_whole = whole

    def _missing(self) -> str:
        if not self._loaded:
            return "loading"
        return f"{len(self._ranks.connected)} of {self._ranks.expected} other ranks connected"

    def _application(self) -> web.Application:
        app = new_application()
        app.add_routes(self.routes())
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ready", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        return self.refusal() or web.Response(text="ok\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        draining = gauge("roleratio_worker_draining", "1 while the worker drains", (self.metrics.labels, self.draining))
        body = page([*self.families(), draining])
        return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})
