"""A container's log as it grows: what the node agent writes and the API server shows."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

_POLL_S = 0.2


async def log_chunks(path: Path, tail_lines: int | None, follows: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """A log, or its last lines, and then what is added as long as `follows()`."""
    with path.open("rb") as file:
        lines, goes_on = file.read().splitlines(keepends=True), follows()
        yield b"".join(lines[0 if tail_lines is None else max(len(lines) - tail_lines, 0) :])
        while goes_on:
            await asyncio.sleep(_POLL_S)
            goes_on = follows()
            yield file.read()
