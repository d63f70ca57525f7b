"""One operating system process, with its own process group, that never outlives the agent.

Rule: the group is signalled while its leader is still unreaped, so a recycled process id is never hit.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Child:
    """A started process. `wait` may be awaited once; `signal` works until it has ended."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], log: Path, *, cwd: str | None, append: bool
    ) -> None:
        """Start it. Raises OSError when the program cannot be run."""
        parent = os.getpid()

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with log.open("ab" if append else "wb") as output:
            self._process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.pid = self._process.pid

    async def wait(self) -> int:
        """Until it ends: its exit code, 128 + N after signal N. What is left of its group is killed.

        Cancelling the wait kills the process.
        """
        descriptor = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self.signal(signal.SIGKILL)
            code = self._process.wait()
        return 128 - code if code < 0 else code

    def signal(self, number: int) -> None:
        """Send a signal to the whole group, unless it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)
