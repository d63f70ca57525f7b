"""A kind kept in memory: list, watch, list again when the watch is too old.

Rule: readers see whole objects of one moment; they never mutate them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.errors import ApiError, Gone
from kubeapi.kinds import Kind
from kubeapi.retry import Backoff

# A watch that lasted as long has paid back what went wrong before; one that did not is not trusted to go on.
STEADY_S = 10.0

Key = tuple[str, str]


def key_of(obj: Object) -> Key:
    """(namespace, name); the namespace is empty for cluster-scoped objects."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


class Cache:
    """Objects of one kind, kept fresh by a watch. Run `run()` as a task; wait for `synced`.

    `on_change(event)` is called for every difference, also for those that a re-list reveals.
    `error` is the reason why the cache is not fresh at present, or None.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        on_change: Callable[[WatchEvent], None] | None = None,
    ) -> None:
        self.items: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self.error: ApiError | None = None
        self._client = client
        self._kind = kind
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._on_change = on_change or (lambda event: None)

    async def run(self, *, retry_s: float = 1.0, longest_s: float = 10.0) -> None:
        """Keep the cache fresh until cancelled. Waits grow while lists fail, and while watches end at once."""
        backoff, version = Backoff(retry_s, longest_s), ""
        while True:
            began_s = time.monotonic()
            try:
                version = await self._follow(version or await self._relist())
            except Gone:
                version = ""
            except ApiError as error:
                version, self.error = "", error
            if time.monotonic() - began_s >= STEADY_S:
                backoff.reset()
            else:
                version = ""
            if not version:
                await asyncio.sleep(backoff.next_s())

    async def _relist(self) -> str:
        listed = await self._client.list(
            self._kind,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        fresh = {key_of(item): item for item in listed.items}
        for key in [key for key in self.items if key not in fresh]:
            self._apply(WatchEvent("DELETED", self.items[key]))
        for key, item in fresh.items():
            old = self.items.get(key)
            if old is None or old["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._apply(WatchEvent("ADDED" if old is None else "MODIFIED", item))
        self.error = None
        self.synced.set()
        return listed.resource_version

    async def _follow(self, version: str) -> str:
        async for event in self._client.watch(
            self._kind,
            self._namespace,
            resource_version=version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ):
            version = event.object["metadata"]["resourceVersion"]
            if event.type != "BOOKMARK":
                self._apply(event)
        return version

    def _apply(self, event: WatchEvent) -> None:
        key = key_of(event.object)
        if event.type == "DELETED":
            with suppress(KeyError):
                del self.items[key]
        else:
            self.items[key] = event.object
        self._on_change(event)
