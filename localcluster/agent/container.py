"""One container: start its process, watch it and its probes, start it again.

Rules:
1. The state is the only thing others read; every change of it is reported through `changed`.
2. `stop` and `kill` are for good: nothing is started again after them.
3. Cancelling `run` kills the process.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kubeapi.client import Object
from localcluster.agent.child import Child
from localcluster.agent.environment import ContainerConfigError, Surroundings, command_line, environment
from localcluster.agent.probes import Probe, probe_of
from localcluster.agent.status import ContainerState, terminated, waiting
from localcluster.objects import timestamp

FIRST_BACK_OFF_S = 1.0
LONGEST_BACK_OFF_S = 30.0
_FORGIVEN_AFTER_S = 60.0
_RESTARTS: dict[str, Callable[[int], bool]] = {
    "Always": lambda code: True,
    "OnFailure": lambda code: code != 0,
    "Never": lambda code: False,
}
_NOT_RUNNABLE = 127
PROBE_KINDS = ("startupProbe", "livenessProbe", "readinessProbe")

Probes = dict[str, Probe | None]


class Tell(Protocol):
    """Tells users what happened, as an Event."""

    async def __call__(self, reason: str, message: str, *, warning: bool = False) -> None: ...


class Container:
    """A container of a pod that is bound to this node."""

    def __init__(self, pod: Object, spec: Object, log_file: Path, changed: Callable[[], None], tell: Tell) -> None:
        self.state = ContainerState(spec["name"], spec.get("image", ""))
        self._pod = pod
        self._spec = spec
        self._log_file = log_file
        self._changed = changed
        self._tell = tell
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._exit_code = 0

    async def run(self, around: Surroundings) -> None:
        """Until it has ended for good."""
        back_off_s = FIRST_BACK_OFF_S
        restarts = _RESTARTS.get(self._pod["spec"].get("restartPolicy"), _RESTARTS["Always"])
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._run_once(around)
            if self._stopping.is_set() or not restarts(self._exit_code):
                return
            if time.monotonic() - began > _FORGIVEN_AFTER_S:
                back_off_s = FIRST_BACK_OFF_S
            await self._back_off(back_off_s)
            back_off_s = min(2 * back_off_s, LONGEST_BACK_OFF_S)

    def stop(self) -> None:
        """Ask it to end: SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it now: SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        self._stopping.set()
        self.state.ready = False
        if self._child is not None:
            self._child.signal(number)
        self._changed()

    async def _run_once(self, around: Surroundings) -> None:
        started_at = timestamp(time.time())
        try:
            env, argv, probes = self._prepare(around)
            child = self._start(argv, env)
        except (ContainerConfigError, OSError) as error:
            await self._failed_to_start(error, started_at)
            return
        self.state.state = {"running": {"startedAt": started_at}}
        self.state.container_id = f"localcluster://{child.pid}"
        self._changed()
        try:
            code = await self._watch(child, probes)
        finally:
            self._child = None
        self._ended(code, "Completed" if code == 0 else "Error", started_at)

    def _prepare(self, around: Surroundings) -> tuple[dict[str, str], list[str], Probes]:
        try:
            env = environment(self._pod, self._spec, around)
            probes = {kind: probe_of(self._spec, kind, around.ip, env) for kind in PROBE_KINDS}
            return env, command_line(self._spec, env, sys.executable), probes
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ContainerConfigError(f"container {self.state.name}: cannot be read: {what}") from error

    async def _watch(self, child: Child, probes: Probes) -> int:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce(child))
            probing = tasks.create_task(self._probe(probes))
            code = await child.wait()
            probing.cancel()
        return code

    async def _announce(self, child: Child) -> None:
        await self._tell("Created", f"Created container {self.state.name}")
        await self._tell("Started", f"Started container {self.state.name}, process {child.pid}")

    def _start(self, argv: list[str], env: dict[str, str]) -> Child:
        append = self.state.restarts > 0 or bool(self.state.last_state)
        child = Child(argv, env, self._log_file, cwd=self._spec.get("workingDir"), append=append)
        self._child = child
        return child

    async def _failed_to_start(self, error: Exception, started_at: str) -> None:
        text = " ".join(str(error).split())
        self._ended(_NOT_RUNNABLE, "StartError", started_at, text)
        await self._tell("Failed", f"Error: {text}", warning=True)

    def _ended(self, code: int, reason: str, started_at: str, message: str = "") -> None:
        self._exit_code = code
        self.state.state = terminated(code, reason, started_at, timestamp(time.time()), message)
        self.state.ready = self.state.started = False
        self._changed()

    async def _back_off(self, back_off_s: float) -> None:
        ended = self.state.state["terminated"]
        text = f"back-off {back_off_s:g} s restarting failed container {self.state.name}"
        self.state.last_state = self.state.state
        self.state.state = waiting("CrashLoopBackOff", f"{text} (exit code {ended['exitCode']})")
        self._changed()
        await self._tell("BackOff", text, warning=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), back_off_s)
            self.state.state = self.state.last_state
            return
        self.state.restarts += 1

    async def _probe(self, probes: Probes) -> None:
        startup, live, ready = (probes[kind] for kind in PROBE_KINDS)
        if startup:
            await self._until_started(startup)
        self.state.started = True
        self.state.ready = ready is None and not self._stopping.is_set()
        self._changed()
        async with asyncio.TaskGroup() as tasks:
            if live:
                tasks.create_task(live.follow(self._on_liveness))
            if ready:
                tasks.create_task(ready.follow(self._on_readiness))

    async def _until_started(self, startup: Probe) -> None:
        started = asyncio.Event()

        async def on_result(verdict: bool | None, complaint: str | None) -> None:
            if verdict:
                started.set()
            elif verdict is False:
                await self._give_up(f"Startup probe failed: {complaint}")

        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(startup.follow(on_result))
            await started.wait()
            following.cancel()

    async def _on_readiness(self, verdict: bool | None, complaint: str | None) -> None:
        was_ready = self.state.ready
        if verdict is not None and not self._stopping.is_set():
            self.state.ready = verdict
        if self.state.ready != was_ready:
            self._changed()
        if complaint and was_ready:
            await self._tell("Unhealthy", f"Readiness probe failed: {complaint}", warning=True)

    async def _on_liveness(self, verdict: bool | None, complaint: str | None) -> None:
        if verdict is False:
            await self._give_up(f"Liveness probe failed: {complaint}")

    async def _give_up(self, why: str) -> None:
        await self._tell("Unhealthy", why, warning=True)
        await self._tell("Killing", f"Container {self.state.name} is restarted: {why}")
        if self._child is not None:
            self._child.signal(signal.SIGTERM)
            await asyncio.sleep(self._pod["spec"].get("terminationGracePeriodSeconds", 30))
        # Not reached when the process has ended in time: its end cancels the probes.
        if self._child is not None:
            self._child.signal(signal.SIGKILL)
