"""The objects in memory: one revision counter, a bounded history for watches.

A stored object is never changed in place and never handed out for writing: `Entry.fresh()` gives a copy. Every change
has one revision of the one counter; a watch resumes from any revision that the history reaches.
"""

import json
import time
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import takewhile
from typing import Any, NamedTuple

from localcluster.apiserver.kinds import SERVED, Served
from localcluster.apiserver.refusal import Object, Refusal, not_found

HISTORY_EVENTS = 2_000


class Ref(NamedTuple):
    """Where an object lives; the namespace is empty for cluster-scoped kinds."""

    served: Served
    namespace: str
    name: str


class Entry:
    """An object, for reading only, and its JSON."""

    def __init__(self, obj: Object) -> None:
        self.obj, self.data = obj, encode(obj)

    def fresh(self) -> Object:
        """A copy that may be changed."""
        return dict(json.loads(self.data))


class Change(NamedTuple):
    """One event of the history, serialized to stay small; `before` is None for ADDED."""

    revision: int
    type: str
    namespace: str
    after: bytes
    before: bytes | None


def encode(obj: Any) -> bytes:
    return json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode()


class Store:
    """All objects, and where each uid lives. Everything here is synchronous, so every method is atomic."""

    def __init__(self) -> None:
        # Above whatever an earlier server gave out, so that its clients are told to list again.
        self.revision = time.time_ns() // 1_000_000
        self.by_uid: dict[str, Ref] = {}
        self._dependents: defaultdict[str, set[Ref]] = defaultdict(set)
        self.listeners: dict[Served, set[Callable[[], None]]] = {served: set() for served in SERVED}
        self._objects: dict[Served, defaultdict[str, dict[str, Entry]]] = {row: defaultdict(dict) for row in SERVED}
        self._history: dict[Served, deque[Change]] = {row: deque(maxlen=HISTORY_EVENTS) for row in SERVED}
        self._forgotten_revision = dict.fromkeys(SERVED, self.revision)

    def find(self, ref: Ref) -> Entry | None:
        return self._objects[ref.served][ref.namespace].get(ref.name)

    def get(self, ref: Ref) -> Entry:
        if entry := self.find(ref):
            return entry
        raise not_found(ref.served.resource, ref.name)

    def scan(self, served: Served, namespace: str = "") -> list[tuple[Ref, Entry]]:
        """Objects in the order of etcd; an empty namespace means all of them."""
        spaces = self._objects[served]
        chosen = [namespace] if namespace else sorted(spaces)
        return [(Ref(served, space, name), spaces[space][name]) for space in chosen for name in sorted(spaces[space])]

    def in_namespace(self, namespace: str) -> list[Ref]:
        return [ref for served in SERVED if served.kind.namespaced for ref, _ in self.scan(served, namespace)]

    def dependents(self, uid: str) -> list[Ref]:
        return list(self._dependents.get(uid, ()))

    def put(self, ref: Ref, obj: Object) -> Entry:
        """Store a new version; the store owns `obj` from here on."""
        old, entry = self.find(ref), self._next(obj)
        self._objects[ref.served][ref.namespace][ref.name] = entry
        self.by_uid[obj["metadata"]["uid"]] = ref
        self._publish(ref, "MODIFIED" if old else "ADDED", entry, old)
        return entry

    def remove(self, ref: Ref) -> Entry:
        """Take the object away; the last event shows it with the revision of its removal."""
        old = self.get(ref)
        entry = self._next(old.fresh())
        del self._objects[ref.served][ref.namespace][ref.name]
        del self.by_uid[old.obj["metadata"]["uid"]]
        self._publish(ref, "DELETED", entry, old)
        return entry

    def changes_since(self, served: Served, revision: int) -> list[Change]:
        """What happened to a kind after `revision`. Refuses with 410 what the history does not hold."""
        if not self._forgotten_revision[served] <= revision <= self.revision:
            oldest = self._forgotten_revision[served]
            raise Refusal(410, "Expired", f"too old resource version: {revision} ({oldest})")
        newest_first = takewhile(lambda change: change.revision > revision, reversed(self._history[served]))
        return list(newest_first)[::-1]

    def _next(self, obj: Object) -> Entry:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        return Entry(obj)

    def _publish(self, ref: Ref, kind: str, after: Entry, before: Entry | None) -> None:
        history = self._history[ref.served]
        if len(history) == HISTORY_EVENTS:
            self._forgotten_revision[ref.served] = history[0].revision
        change = Change(self.revision, kind, ref.namespace, after.data, before.data if before else None)
        history.append(change)
        for uid in _owner_uids(before):
            self._dependents[uid].discard(ref)
            if not self._dependents[uid]:
                del self._dependents[uid]
        for uid in _owner_uids(after) if kind != "DELETED" else ():
            self._dependents[uid].add(ref)
        for callback in self.listeners[ref.served]:
            callback()


def _owner_uids(entry: Entry | None) -> set[str]:
    return {owner["uid"] for owner in entry.obj["metadata"].get("ownerReferences") or []} if entry else set()
