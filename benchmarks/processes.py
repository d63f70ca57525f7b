"""Real processes for a benchmark: started as a user or a node agent would, measured from outside, always stopped.

Rules:
1. A process that ends by itself, or a wait that takes too long, is a BenchmarkError that quotes its last line.
2. Stopping is bounded: SIGTERM to all, SIGKILL to what is left after STOP_LIMIT_S.
3. Nothing outlives the benchmark: a child is killed by the kernel when we are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.errors import BenchmarkError as BenchmarkError
from localcluster.agent.child import Child

ROOT = Path(__file__).resolve().parent.parent
STOP_LIMIT_S = 15.0
POLL_S = 0.005
MB = 1e6


@dataclass(frozen=True, slots=True)
class Running:
    """A started process."""

    name: str
    log: Path
    began_s: float
    child: Child
    ended: asyncio.Task[int]

    def cpu_s(self) -> float:
        """User and system time that it has spent so far."""
        return cpu_s(self.child.pid)

    def rss_mb(self) -> float:
        """Its resident memory."""
        return rss_mb(self.child.pid)


class Processes:
    """An async context manager with a scratch folder; leaving it stops every process."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="roleratio-benchmark-")
        self._running: list[Running] = []
        self.folder = Path(self._scratch.name)

    async def __aenter__(self) -> Processes:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for process in [*reversed(self._running)]:
                await self.stop(process)
        finally:
            self._scratch.cleanup()

    def start(
        self, name: str, module: str, *arguments: str, env: Mapping[str, str] | None = None, python: bool = True
    ) -> Running:
        """Start `python -m MODULE ARGUMENTS` in the repository; not `python`: a program of that path."""
        log = self.folder / f"{name}.log"
        argv = [*((sys.executable, "-m") if python else ()), module, *arguments]
        began_s = time.perf_counter()
        child = Child(argv, {**os.environ, **(env or {})}, log, cwd=str(ROOT), append=False)
        process = Running(name, log, began_s, child, asyncio.create_task(child.wait()))
        self._running.append(process)
        return process

    async def until(self, what: str, limit_s: float, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something that must come true. Raises BenchmarkError when it does not."""
        deadline_s = time.perf_counter() + limit_s
        while not await condition():
            for process in self._running:
                if process.ended.done():
                    raise BenchmarkError(f"{process.name} ended with code {process.ended.result()}: {_said(process)}")
            if time.perf_counter() > deadline_s:
                said = "; ".join(f"{process.name}: {_said(process)}" for process in self._running)
                raise BenchmarkError(f"{what}: not within {limit_s:g} s ({said})")
            await asyncio.sleep(POLL_S)

    async def finish(self, process: Running, limit_s: float) -> None:
        """Wait for a process that ends by itself. Raises BenchmarkError when it does not, or fails."""
        done, _ = await asyncio.wait({process.ended}, timeout=limit_s)
        if not done:
            raise BenchmarkError(f"{process.name}: not finished within {limit_s:g} s: {_said(process)}")
        if code := process.ended.result():
            raise BenchmarkError(f"{process.name} ended with code {code}: {_said(process)}")
        self._running.remove(process)

    async def stop(self, process: Running) -> None:
        """Stop one process."""
        self._running.remove(process)
        process.child.signal(signal.SIGTERM)
        done, _ = await asyncio.wait({process.ended}, timeout=STOP_LIMIT_S)
        if not done:
            process.child.signal(signal.SIGKILL)
        await process.ended


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in MB (1e6 bytes)."""
    return float(psutil.Process(pid).memory_info().rss) / MB


def _said(process: Running) -> str:
    lines = [line.strip() for line in process.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "no output")
