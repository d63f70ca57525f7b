"""The live driver: one service, from a settings file, once per sync period.

Rule: the loop outlives every ApiError; only bad settings and a taken port end it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoscaler.adapters.exporter import Exporter
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.service import Edges, Service
from autoscaler.model import Decision, Demand, Observation
from autoscaler.settings import Settings
from kubeapi import names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from perfmodel.profile import Profile

OnTick = Callable[[Observation, Decision], None]


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What the driver needs beside the settings."""

    settings: Settings
    profile: Profile
    config: Config
    host: str = "127.0.0.1"
    port: int | None = None
    journal: Path | None = None
    dry_run: bool = False
    once: bool = False


async def run(options: ControllerOptions, on_tick: OnTick | None = None) -> int:
    """Run until SIGTERM or SIGINT. With `once`: until the first decision that knows the demand (or has waited a
    whole window for it). Returns the exit code.
    """
    stop = stop_signal()
    async with KubeClient(options.config, field_manager=names.MANAGER_CONTROLLER) as client:
        cluster = Cluster(client)
        exporter = Exporter(problem=cluster.problem) if options.port is not None else None
        edges = Edges(client, cluster, exporter, options.journal, dry_run=options.dry_run)
        service = Service(options.settings, options.profile, edges)
        try:
            if exporter and options.port is not None:
                await exporter.start(options.host, options.port)
            await cluster.start()
            await _loop(service, stop, options.once, on_tick)
        finally:
            await service.close()
            await cluster.stop()
            if exporter:
                await exporter.stop()
    return 0


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _loop(service: Service, stop: asyncio.Event, once: bool, on_tick: OnTick | None) -> None:
    loop = asyncio.get_running_loop()
    period_s = service.settings.spec.sync_period_s
    due_s = loop.time()
    patience_s = due_s + service.settings.spec.metrics.window_s + 3 * period_s
    while not stop.is_set():
        observation, decision = await service.step(time.time())
        if on_tick:
            on_tick(observation, decision)
        if once and (isinstance(decision.signals.demand, Demand) or loop.time() > patience_s):
            return
        due_s = max(due_s + period_s, loop.time())
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), due_s - loop.time())
