"""Container logs: the files of the node agent, as `kubectl logs` reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from localcluster.apiserver.refusal import bad_request
from localcluster.apiserver.request import parse_int
from localcluster.apiserver.selectors import at
from localcluster.apiserver.store import Entry, Object, Ref, Store

_POLL_S = 0.2
_CHUNK_BYTES = 1024 * 1024


def find(pod: Object, container: str, log_dir: Path | None) -> Path:
    """The log file of one container, the first if none is named."""
    meta, names = pod["metadata"], [item["name"] for item in pod["spec"]["containers"]]
    name = container or names[0]
    if name not in names:
        raise bad_request(f"container {name} is not valid for pod {meta['name']}; expected one of {names}")
    path = log_dir / f"{meta['namespace']}_{meta['name']}_{name}.log" if log_dir else None
    if path is None or not path.is_file():
        why = "is waiting to start: ContainerCreating"
        raise bad_request(f'container "{name}" in pod "{meta["name"]}" {why}')
    return path


async def chunks(path: Path, query: Mapping[str, str], store: Store, ref: Ref, pod: Entry) -> AsyncIterator[bytes]:
    """The log from its last `tailLines` on; with follow=true until the pod is gone or has ended."""
    tail = parse_int(query.get("tailLines"), "tailLines")
    with path.open("rb") as file:
        if tail is not None:
            lines = file.read().splitlines(keepends=True)
            yield b"".join(lines[len(lines) - tail :] if tail < len(lines) else lines)
        while True:
            if data := file.read(_CHUNK_BYTES):
                yield data
            elif query.get("follow") == "true" and _runs(store.find(ref), pod):
                await asyncio.sleep(_POLL_S)
            else:
                return


def _runs(now: Entry | None, then: Entry) -> bool:
    same = now is not None and now.obj["metadata"]["uid"] == then.obj["metadata"]["uid"]
    return same and at(now.obj if now else {}, "status.phase") not in ("Succeeded", "Failed")
