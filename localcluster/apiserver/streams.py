"""Answers that go on: watches, as asynchronous iterators of bytes.

A watcher keeps no queue: it is woken and reads the shared history from its own revision, so a slow client costs
nothing and is told 410 once the history has moved past it.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import NamedTuple

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.refusal import Refusal
from localcluster.apiserver.selectors import Predicate
from localcluster.apiserver.store import Change, Store, encode

BOOKMARK_S = 5.0


class Watch(NamedTuple):
    """What a client wants to see. `since` 0: first everything there is; `render`: from JSON to what was asked."""

    served: Served
    namespace: str
    matches: Predicate | None
    since: int
    bookmarks: bool
    marks_initial: bool
    render: Callable[[bytes], bytes]

    async def lines(self, store: Store) -> AsyncGenerator[bytes, None]:
        """Lines until the history no longer reaches back."""
        changed, revision, bookmark_due = asyncio.Event(), self.since or store.revision, self.marks_initial
        store.listeners[self.served].add(changed.set)
        try:
            for _, entry in [] if self.since else store.scan(self.served, self.namespace):
                if self.matches is None or self.matches(entry.obj):
                    yield line("ADDED", self.render(entry.data))
            while True:
                changed.clear()
                seen = [self._seen(change) for change in store.changes_since(self.served, revision)]
                revision = store.revision
                yield b"".join([*seen, self._bookmark(revision) if bookmark_due else b""])
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), BOOKMARK_S)
                bookmark_due = self.bookmarks and not changed.is_set()
        except Refusal as refusal:
            yield line("ERROR", encode(refusal.status()))
        finally:
            store.listeners[self.served].discard(changed.set)

    def _seen(self, change: Change) -> bytes:
        """The event as this client sees it: with a selector, objects come and go that only changed."""
        kind = "" if self.namespace and change.namespace != self.namespace else change.type
        if kind and self.matches is not None:
            before = change.before is not None and self.matches(json.loads(change.before))
            after = kind != "DELETED" and self.matches(json.loads(change.after))
            kind = ("MODIFIED" if after else "DELETED") if before else "ADDED" if after else ""
        return line(kind, self.render(change.after)) if kind else b""

    def _bookmark(self, revision: int) -> bytes:
        # A client that asked for the initial events reads their end from the annotation, any other ignores it.
        meta = {"resourceVersion": str(revision), "annotations": {"k8s.io/initial-events-end": "true"}}
        kind = self.served.kind
        return line("BOOKMARK", encode({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}))


def line(kind: str, data: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), data)
