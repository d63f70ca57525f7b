"""The demo's child processes: started, watched, stopped.

Rules:
1. Every child has its own session, so that Ctrl-C reaches the demo alone, and the demo stops them in order.
2. Stopping is bounded: SIGTERM, then SIGKILL; the last one started stops first.
3. A child dies with the demo, even when the demo is killed (Linux: a parent-death signal).
4. A child that ends by itself ends the demo with a line that names its log and the log's last line.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

_OURS = (sys.executable, "-m", "roleratio")
_PR_SET_PDEATHSIG = 1


class DemoError(Exception):
    """A part of the demo failed; the line names the part, what it said and its log. Exit code 1."""


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: asyncio.subprocess.Process
    log: Path
    stop_s: float
    ended: asyncio.Task[int]


class Children:
    """An async context manager; leaving it stops every child."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: list[_Child] = []

    async def __aenter__(self) -> Children:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, name: str, *arguments: str, program: tuple[str, ...] = _OURS, stop_s: float = 5.0) -> None:
        """Start `python -m roleratio ARGUMENTS`, or a `program`; it is killed `stop_s` after it was asked to stop."""
        log = self._log_dir / f"{name}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_dies_with_parent(),
            )
        self._children.append(_Child(name, process, log, stop_s, asyncio.create_task(process.wait())))

    async def watch(self) -> NoReturn:
        """Wait until one of the children that run now ends, which none should. Raises DemoError."""
        ends = {child.ended: child for child in self._children}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        child = ends[done.pop()]
        said = f"{last_line(child.log)} (log: {child.log})"
        raise DemoError(f"{child.name} ended with code {child.process.returncode}: {said}")

    async def stop(self) -> None:
        """Stop all, the last one started first."""
        while self._children:
            child = self._children[-1]
            if child.process.returncode is None:
                await _stop(child)
            await child.ended
            self._children.pop()


async def beside(work: Coroutine[Any, Any, T], *helpers: Coroutine[Any, Any, None]) -> T:
    """The result of `work`, done while helpers run that never end by themselves; one that fails ends the work."""
    main = asyncio.create_task(work)
    tasks = [main, *(asyncio.create_task(helper) for helper in helpers)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {main}:
            task.result()
        return main.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stop(child: _Child) -> None:
    child.process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(asyncio.shield(child.ended), child.stop_s)
    except TimeoutError:
        child.process.kill()


def last_line(log: Path) -> str:
    """The last thing that a child said."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else "no output"


def _dies_with_parent() -> Callable[[], None] | None:
    """A function for the child to run before its program; loaded here, since a forked child may not import."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
