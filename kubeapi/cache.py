"""A kind kept in memory: list, watch, list again when the watch is too old.

Rule: readers see whole objects of one moment; they never mutate them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.errors import ApiError, Gone
from kubeapi.kinds import Kind

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

    async def run(self, *, retry_s: float = 1.0) -> None:
        """Keep the cache fresh until cancelled."""
        while True:
            try:
                version = await self._relist()
                while True:
                    version = await self._follow(version)
            except Gone:
                continue
            except ApiError as error:
                self.error = error
                await asyncio.sleep(retry_s)

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
