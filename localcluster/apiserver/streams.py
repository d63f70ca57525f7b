"""Answers that go on: watches and followed logs, as asynchronous iterators of bytes.

A watcher keeps no queue: it is woken and reads the shared history from its own revision, so a slow client costs
nothing and is told 410 once the history has moved past it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.selectors import Predicate
from localcluster.apiserver.store import Change, Store, encode

BOOKMARK_S = 5.0
_LOG_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Watch:
    """What a client wants to see. `since` 0: first everything there is; `render`: from JSON to what was asked."""

    served: Served
    namespace: str
    matches: Predicate | None
    since: int
    bookmarks: bool
    marks_initial: bool
    render: Callable[[bytes], bytes]

    async def lines(self, store: Store, changed: asyncio.Event) -> AsyncIterator[bytes]:
        """Lines without end; `changed` is set by whoever changes the kind. Refuses with 410."""
        revision = self.since or store.revision
        for _, entry in [] if self.since else store.scan(self.served, self.namespace):
            if self.matches is None or self.matches(entry.obj):
                yield line("ADDED", self.render(entry.data))
        if self.marks_initial:
            yield self._bookmark(revision, {"k8s.io/initial-events-end": "true"})
        bookmark_due = False
        while True:
            changed.clear()
            seen = [self._seen(change) for change in store.changes_since(self.served, revision)]
            revision = store.revision
            yield b"".join([*seen, self._bookmark(revision, {}) if bookmark_due else b""])
            try:
                await asyncio.wait_for(changed.wait(), BOOKMARK_S)
                bookmark_due = False
            except TimeoutError:
                bookmark_due = self.bookmarks

    def _seen(self, change: Change) -> bytes:
        kind = "" if self.namespace and change.namespace != self.namespace else change.type
        if kind and self.matches is not None:
            before = change.before is not None and self.matches(json.loads(change.before))
            after = kind != "DELETED" and self.matches(json.loads(change.after))
            kind = ("MODIFIED" if after else "DELETED") if before else "ADDED" if after else ""
        return line(kind, self.render(change.after)) if kind else b""

    def _bookmark(self, revision: int, annotations: dict[str, str]) -> bytes:
        meta = {"resourceVersion": str(revision), "creationTimestamp": None, "annotations": annotations}
        kind = self.served.kind
        return line("BOOKMARK", encode({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}))


def line(kind: str, data: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), data)


async def log_chunks(path: Path, tail_lines: int | None, follows: Callable[[], bool]) -> AsyncIterator[bytes]:
    """A log, or its last lines, and then what is added as long as `follows()`."""
    with path.open("rb") as file:
        lines, goes_on = file.read().splitlines(keepends=True), follows()
        yield b"".join(lines[0 if tail_lines is None else max(len(lines) - tail_lines, 0) :])
        while goes_on:
            await asyncio.sleep(_LOG_POLL_S)
            goes_on = follows()
            yield file.read()
