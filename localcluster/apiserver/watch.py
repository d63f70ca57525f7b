"""A watch: the history of a kind from a revision on, as JSON lines, pushed as it grows.

Rules:
1. A watcher keeps no queue: it is woken and reads the shared history from its own revision, so a slow client
   costs nothing and is told 410 once the history has moved past it.
2. With a selector, an object that stops matching is DELETED and one that begins to match is ADDED.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.selectors import Predicate
from localcluster.apiserver.store import Change, Store, encode

BOOKMARK_S = 5.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What a client wants to see. `since` 0: first everything there is, as ADDED.

    `render` turns an object's JSON into what the client asked for.
    """

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
        if not self.since:
            entries = [entry for ref, entry in store.scan(self.served, self.namespace)]
            matching = [entry for entry in entries if self.matches is None or self.matches(entry.obj)]
            yield b"".join(line("ADDED", self.render(entry.data)) for entry in matching)
        if self.marks_initial:
            yield self._bookmark(revision, {"k8s.io/initial-events-end": "true"})
        while True:
            changed.clear()
            seen = [self._seen(change) for change in store.changes_since(self.served, revision)]
            revision = store.revision
            yield b"".join(seen)
            try:
                await asyncio.wait_for(changed.wait(), BOOKMARK_S)
            except TimeoutError:
                if self.bookmarks:
                    yield self._bookmark(store.revision, {})

    def _seen(self, change: Change) -> bytes:
        if self.namespace and change.namespace != self.namespace:
            return b""
        kind = change.type
        if self.matches is not None:
            before = change.before is not None and self.matches(json.loads(change.before))
            after = change.type != "DELETED" and self.matches(json.loads(change.after))
            kind = {(0, 0): "", (0, 1): "ADDED", (1, 0): "DELETED", (1, 1): "MODIFIED"}[before, after]
        return line(kind, self.render(change.after)) if kind else b""

    def _bookmark(self, revision: int, annotations: dict[str, str]) -> bytes:
        meta = {"resourceVersion": str(revision), "creationTimestamp": None, "annotations": annotations}
        kind = self.served.kind
        return line("BOOKMARK", encode({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}))


def line(kind: str, data: bytes) -> bytes:
    """One watch event."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), data)
