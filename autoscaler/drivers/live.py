"""The live driver: one service, from a settings file, once per sync period.

Rules:
1. The loop outlives every ApiError; only bad settings and a taken port end it.
2. A term, the process' first or the next one of a leader, goes on from where the journal ends, if that is young.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from autoscaler.adapters.exporter import Exporter
from autoscaler.adapters.journal import JournalWriter
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.replay import resume
from autoscaler.drivers.service import Edges, Service
from autoscaler.drivers.terms import LEASE_NAME, candidacy, run_terms, standing
from autoscaler.model import Decision, Observation, State
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
    lease_namespace: str | None = None


async def run(options: ControllerOptions, on_tick: OnTick | None = None) -> int:
    """Run until SIGTERM or SIGINT; with a Lease namespace only while leading. With `once`: until the first decision
    that knows the demand (or has waited a whole window for it). Returns the exit code.
    """
    stop = stop_signal()
    if options.journal:
        # Whether it can be written is for now, not for the moment at which this process is elected.
        JournalWriter(options.journal)
    async with AsyncExitStack() as stack:
        name = f"{LEASE_NAME}-{options.settings.spec.service}"
        lease = await candidacy(options.config, options.lease_namespace, name, stack)
        leads = (lambda: True) if lease is None else (lambda: lease.is_leader)
        client = KubeClient(options.config, field_manager=names.MANAGER_CONTROLLER, fence=leads)
        await stack.enter_async_context(client)
        cluster = Cluster(client)
        exporter = None
        if options.port is not None:
            exporter = Exporter(problem=cluster.problem, leads=leads, standing=lambda: standing(lease))
            stack.push_async_callback(exporter.stop)
            await exporter.start(options.host, options.port)
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        learning = None if options.once else asyncio.Lock()
        edges = Edges(client, cluster, exporter, options.journal, leads, options.dry_run, learning)
        await run_terms(lease, stop, lambda over: _term(options, edges, stop, over, on_tick))
    return 0


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _term(
    options: ControllerOptions, edges: Edges, stop: asyncio.Event, over: asyncio.Event, on_tick: OnTick | None
) -> None:
    state = resume(options.journal, options.settings, time.time()) if options.journal else State()
    service = Service(options.settings, options.profile, edges, state)
    try:
        await _loop(service, over, options.once, on_tick)
    finally:
        await service.close()
    if not over.is_set():
        stop.set()


async def _loop(service: Service, stop: asyncio.Event, once: bool, on_tick: OnTick | None) -> None:
    loop = asyncio.get_running_loop()
    period_s = service.settings.spec.sync_period_s
    due_s = loop.time()
    patience_s = due_s + service.settings.spec.metrics.window_s + 3 * period_s
    while not stop.is_set():
        observation, decision = await service.step(time.time())
        if on_tick:
            on_tick(observation, decision)
        if once and (decision.signals.demand.known or loop.time() > patience_s):
            return
        due_s = max(due_s + period_s, loop.time())
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), due_s - loop.time())
