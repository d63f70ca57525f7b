"""One process of the test control plane: started with a log file, never outliving its parent, ended by its own id.

Rule: ending is SIGTERM, a bounded wait, SIGKILL; a process that has ended by itself is not signalled.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import psutil

_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 5


class Process:
    """A started program; `log` holds what it says."""

    def __init__(self, name: str, argv: Sequence[str], log: Path) -> None:
        with log.open("wb") as output:
            child = psutil.Popen(
                argv,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_dies_with_parent(),
            )
        self._know(name, argv, log, child)

    @classmethod
    def known(cls, name: str, argv: Sequence[str], log: Path, pid: int) -> Self:
        """One that another process has started, and will end. Raises psutil.NoSuchProcess."""
        found = cls.__new__(cls)
        found._know(name, argv, log, psutil.Process(pid))
        return found

    def _know(self, name: str, argv: Sequence[str], log: Path, process: psutil.Process) -> None:
        self.name, self.argv, self.log, self._process = name, tuple(argv), log, process
        self.pid = process.pid

    def running(self) -> bool:
        """Whether it still runs."""
        try:
            return bool(self._process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def tail(self) -> str:
        """The last lines that it said, in one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-_TAIL_LINES:]) or "no output"

    def terminate(self) -> None:
        """Ask it to end."""
        if self.running():
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> None:
        """Until it has ended; it is killed when that takes longer."""
        try:
            self._process.wait(timeout_s)
        except psutil.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _dies_with_parent() -> Callable[[], None]:
    # Loaded here: a forked child may not import or open libraries.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
