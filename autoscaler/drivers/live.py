"""The live driver: observe, tick, record, act, once per sync period. A dry run prints instead of acting.

Rules:
1. One step per tick; a failed step is told, forgotten, and decided anew from what is seen next.
2. The loop outlives every ApiError; only bad settings and a taken port end it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoscaler.adapters import act
from autoscaler.adapters.exporter import Exporter
from autoscaler.adapters.journal import JournalWriter
from autoscaler.core import tick
from autoscaler.drivers.world import Watcher
from autoscaler.model import Condition, Decision, Demand, Observation, RoleFleet, State, Step
from autoscaler.settings import Settings
from kubeapi import names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from kubeapi.errors import ApiError
from perfmodel.profile import Profile
from policies.model import ROLES

log = logging.getLogger("roleratio.controller")

# A condition worth an Event when it changes, and the status that is a warning.
_TOLD = {"ScalingActive": "False", "AbleToScale": "False", "ManualHold": "", "Paused": "", "SLOReachable": "False"}


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


class Controller:
    """One service's control loop: the state between ticks, and the edges."""

    def __init__(self, client: KubeClient, options: ControllerOptions, exporter: Exporter | None = None) -> None:
        self._client = client
        self._dry_run = options.dry_run or options.settings.spec.mode == "dry-run"
        self.settings = _with_mode(options.settings, self._dry_run)
        self._profile = options.profile
        self._watcher = Watcher(client, self.settings)
        self._journal = JournalWriter(options.journal) if options.journal else None
        self._exporter = exporter
        self._state = State()
        self._conditions: dict[str, Condition] = {}

    async def start(self) -> None:
        """Wait for the first look at the cluster. Raises ApiError."""
        await self._watcher.start()

    async def stop(self) -> None:
        """Close everything."""
        await self._watcher.stop()
        if self._journal:
            self._journal.close()

    async def step(self, now_s: float) -> tuple[Observation, Decision]:
        """One whole tick."""
        observation, _ = await self._watcher.observe(now_s)
        started = time.perf_counter()
        decision = tick(self._state, observation, self.settings, self._profile)
        spent_s = time.perf_counter() - started
        if self._journal:
            self._journal.append(self._state, observation, self.settings, self._profile, decision)
        if self._exporter:
            self._exporter.observe(self.settings, observation, decision, spent_s)
        self._state = decision.state
        if decision.step:
            await self._act(decision.step, observation, decision, now_s)
        await self._tell_conditions(observation, decision, now_s)
        return observation, decision

    async def _act(self, step: Step, seen: Observation, decision: Decision, now_s: float) -> None:
        fleet = seen.fleet[step.role]
        assert isinstance(fleet, RoleFleet)
        patch = act.patch_for(step, fleet)
        why = act.why_text(decision.why, step.role)
        if self._dry_run:
            log.info("would %s: %s", patch, why)
            return
        log.info("%s %s %d -> %d: %s", step.role, step.kind, step.before, step.after, why)
        try:
            await act.send(self._client, patch)
        except ApiError as error:
            log.warning("%s failed: %s", patch, error.message)
            await self._event(fleet, "FailedRescale", f"{patch}: {error.message}", True, now_s)
            return
        reason = "SuccessfulRescale" if step.kind == "replicas" else "MinimumMoved"
        await self._event(fleet, reason, f"{step.kind} {step.before} -> {step.after}: {why}", False, now_s)

    async def _tell_conditions(self, seen: Observation, decision: Decision, now_s: float) -> None:
        """A log line and an Event for every condition that changed."""
        for condition in decision.conditions:
            before = self._conditions.get(condition.type)
            self._conditions[condition.type] = condition
            unchanged = before is not None and (before.status, before.reason) == (condition.status, condition.reason)
            if unchanged or condition.type not in _TOLD or (before is None and not condition.message):
                continue
            warning = condition.status == _TOLD[condition.type]
            text = f"{condition.type}={condition.status}: {condition.message or condition.reason}"
            log.log(logging.WARNING if warning else logging.INFO, "%s", text)
            if not self._dry_run:
                for fleet in _concerned(seen, condition):
                    await self._event(fleet, condition.reason, text, warning, now_s)

    async def _event(self, fleet: RoleFleet, reason: str, message: str, warning: bool, now_s: float) -> None:
        try:
            await act.record(self._client, fleet, reason, message, warning=warning, now_s=now_s)
        except ApiError as error:
            log.warning("event %s on %s: %s", reason, fleet.name, error.message)


def _concerned(seen: Observation, condition: Condition) -> list[RoleFleet]:
    """The roles that a condition's message names; both when it names none."""
    fleets = {role: fleet for role in ROLES if isinstance(fleet := seen.fleet[role], RoleFleet)}
    named = [fleet for role, fleet in fleets.items() if f"{role.value} " in condition.message]
    return named or list(fleets.values())


def _with_mode(settings: Settings, dry_run: bool) -> Settings:
    """The core must know that nothing will be written."""
    mode = "dry-run" if dry_run else "live"
    return settings.model_copy(update={"spec": settings.spec.model_copy(update={"mode": mode})})


async def run(options: ControllerOptions, on_tick: Callable[[Observation, Decision], None] | None = None) -> int:
    """Run until SIGTERM or SIGINT. With `once`: until the first decision that knows the demand (or has waited a
    whole window for it). Returns the exit code.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    exporter = Exporter() if options.port is not None else None
    async with KubeClient(options.config, field_manager=names.MANAGER_CONTROLLER) as client:
        controller = Controller(client, options, exporter)
        try:
            if exporter and options.port is not None:
                await exporter.start(options.host, options.port)
            await controller.start()
            await _loop(controller, options, stop, on_tick)
        finally:
            await controller.stop()
            if exporter:
                await exporter.stop()
    return 0


async def _loop(
    controller: Controller,
    options: ControllerOptions,
    stop: asyncio.Event,
    on_tick: Callable[[Observation, Decision], None] | None,
) -> None:
    period_s = controller.settings.spec.sync_period_s
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    patience_s = due_s + controller.settings.spec.metrics.window_s + 3 * period_s
    while not stop.is_set():
        observation, decision = await controller.step(time.time())
        if on_tick:
            on_tick(observation, decision)
        if options.once and (isinstance(decision.signals.demand, Demand) or loop.time() > patience_s):
            return
        due_s = max(due_s + period_s, loop.time())
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), due_s - loop.time())
