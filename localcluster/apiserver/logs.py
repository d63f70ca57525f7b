"""Container logs: the files of the node agent, as `kubectl logs` reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from localcluster.apiserver.refusal import bad_request
from localcluster.apiserver.store import Object

_POLL_S = 0.2
_CHUNK_BYTES = 1024 * 1024


def find(pod: Object, container: str, log_dir: Path | None) -> Path:
    """The log file of one container, the first if none is named."""
    meta, names = pod["metadata"], [item["name"] for item in pod["spec"]["containers"]]
    name = container or names[0]
    if name not in names:
        raise bad_request(f"container {name} is not valid for pod {meta['name']}; expected one of {names}")
    path = (log_dir or Path()) / f"{meta['namespace']}_{meta['name']}_{name}.log"
    if log_dir is None or not path.is_file():
        raise bad_request(f'container "{name}" in pod "{meta["name"]}" is waiting to start: ContainerCreating')
    return path


async def chunks(path: Path, tail_lines: int | None, follows: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log, or its last lines, and then what is added as long as `follows()`."""
    with path.open("rb") as file:
        if tail_lines is not None:
            lines = file.read().splitlines(keepends=True)
            yield b"".join(lines[max(len(lines) - tail_lines, 0) :])
        while True:
            goes_on = follows()
            if data := file.read(_CHUNK_BYTES):
                yield data
            elif goes_on:
                await asyncio.sleep(_POLL_S)
            else:
                return
