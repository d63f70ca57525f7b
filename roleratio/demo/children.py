"""The demo's child processes: started, watched, kept, stopped.

Rules:
1. Every child has its own session, so that Ctrl-C reaches the demo alone, and the demo stops them in order.
2. Stopping is bounded: SIGTERM, then SIGKILL; the last one started stops first.
3. A child dies with the demo, even when the demo is killed (Linux: a parent-death signal).
4. A child that ends by itself ends the demo with a line that names its log and the log's last line.
5. One that is kept is started again instead, as a kubelet does with a container: with the same arguments and the same
   pod's name and UID, after a pause that doubles. Bad input (exit code 2) and too many ends in a short time are final.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

FIRST_PAUSE_S = 0.5
MOST_RESTARTS = 4
"""Within `SHORT_S`; the pauses of one after another: 0.5, 1, 2 and 4 s."""
SHORT_S = 60.0

_OURS = (sys.executable, "-m", "roleratio")
_BAD_INPUT = 2
_PR_SET_PDEATHSIG = 1


class DemoError(Exception):
    """A part of the demo failed; the line names the part, what it said and its log. Exit code 1."""


@dataclass(slots=True)
class _Child:
    """`ended` is done when it has ended for good, and then holds how."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    kept: bool
    log: Path
    stop_s: float
    process: asyncio.subprocess.Process
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    ends_s: list[float] = field(default_factory=list)
    ended: asyncio.Task[str] = field(init=False)


class Children:
    """An async context manager; leaving it stops every child. `tell` gets a line about each restart."""

    def __init__(self, log_dir: Path, tell: Callable[[str], None] = lambda _: None) -> None:
        self._log_dir = log_dir
        self._tell = tell
        self._children: list[_Child] = []

    async def __aenter__(self) -> Children:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(
        self, name: str, *arguments: str, program: tuple[str, ...] = _OURS, stop_s: float = 5.0, kept: bool = False
    ) -> None:
        """Start `python -m roleratio ARGUMENTS`, or a `program`; it is killed `stop_s` after it was asked to stop."""
        log = self._log_dir / f"{name}.log"
        log.write_bytes(b"")
        command, environment = (*program, *arguments), dict(os.environ)
        if kept:
            environment |= {"POD_NAME": name, "POD_UID": str(uuid.uuid4())}
        process = await _launch(command, environment, log)
        child = _Child(name, command, environment, kept, log, stop_s, process)
        child.ended = asyncio.create_task(self._attend(child))
        self._children.append(child)

    async def watch(self) -> NoReturn:
        """Wait until one of the children that run now ends, which none should. Raises DemoError."""
        ends = {child.ended: child for child in self._children}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        child = ends[done.pop()]
        raise DemoError(f"{child.name} {child.ended.result()}: {last_line(child.log)} (log: {child.log})")

    async def stop(self) -> None:
        """Stop all, the last one started first."""
        while self._children:
            child = self._children[-1]
            child.stopping.set()
            await child.ended
            self._children.pop()

    async def _attend(self, child: _Child) -> str:
        """Follow it until it ends for good; how it did."""
        while True:
            how = await _end(child)
            if child.stopping.is_set() or not child.kept or child.process.returncode == _BAD_INPUT:
                return how
            now_s = time.monotonic()
            child.ends_s = [*(end_s for end_s in child.ends_s if end_s > now_s - SHORT_S), now_s]
            if len(child.ends_s) > MOST_RESTARTS:
                return f"{how}, the {len(child.ends_s)}th time within {SHORT_S:g} s"
            with suppress(TimeoutError):
                await asyncio.wait_for(child.stopping.wait(), FIRST_PAUSE_S * 2 ** (len(child.ends_s) - 1))
                return how
            child.process = await _launch(child.command, child.environment, child.log)
            self._tell(f"{child.name} {how}, restarted")


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


async def _launch(command: tuple[str, ...], environment: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_dies_with_parent(),
        )


async def _end(child: _Child) -> str:
    """How its process ended, by itself or because it was asked to."""
    ended, stopping = asyncio.create_task(child.process.wait()), asyncio.create_task(child.stopping.wait())
    await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not ended.done():
        with suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)
            await asyncio.wait((ended,), timeout=child.stop_s)
            child.process.kill()
    code = await ended
    return f"ended by signal {-code}" if code < 0 else f"ended with code {code}"


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
