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
    `error` is the reason why the cache is not fresh at present, or None. A watch that says nothing for `quiet_s` may be
    dead, and so may one that replaces it: the kind is listed again. `slim` leaves of an object what its reader needs;
    metadata's name, namespace and resourceVersion have to stay.
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
        quiet_s: float = 150.0,
        slim: Callable[[Object], Object] | None = None,
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
        self._quiet_s = quiet_s
        self._slim = slim
        self._doubted = asyncio.Event()

    async def run(self, *, retry_s: float = 1.0, longest_s: float = 10.0) -> None:
        """Keep the cache fresh until cancelled. Waits grow while lists fail, and while watches end at once."""
        backoff, version = Backoff(retry_s, longest_s), ""
        while True:
            began_s, asked_s = time.monotonic(), 0.0
            try:
                begin = version or await self._relist()
                version = await self._undoubted(begin)
                if version == begin:
                    # Not even a bookmark: nothing shows that anything would have come.
                    version = ""
            except Gone:
                version = ""
            except ApiError as error:
                version, self.error = "", error
                asked_s = min(longest_s, error.retry_after_s or 0.0)
            if time.monotonic() - began_s >= min(STEADY_S, self._quiet_s):
                backoff.reset()
            else:
                version = ""
            if not version:
                await asyncio.sleep(max(backoff.next_s(), asked_s))

    def doubt(self) -> None:
        """Somebody knows better than what is shown here: list again soon, whatever the watch says."""
        self._doubted.set()

    async def _undoubted(self, version: str) -> str:
        """Follow the watch until it ends, or is doubted: then there is no version to go on from."""
        self._doubted.clear()
        following = asyncio.create_task(self._follow(version))
        doubted = asyncio.create_task(self._doubted.wait())
        try:
            await asyncio.wait((following, doubted), return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else ""
        finally:
            for task in (following, doubted):
                task.cancel()
            await asyncio.gather(following, doubted, return_exceptions=True)

    async def _relist(self) -> str:
        listed = await self._client.list(
            self._kind,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            slim=self._slim,
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
            quiet_s=self._quiet_s,
        ):
            version = event.object["metadata"]["resourceVersion"]
            if event.type != "BOOKMARK":
                self._apply(event if self._slim is None else WatchEvent(event.type, self._slim(event.object)))
        return version

    def _apply(self, event: WatchEvent) -> None:
        key = key_of(event.object)
        if event.type == "DELETED":
            with suppress(KeyError):
                del self.items[key]
        else:
            self.items[key] = event.object
        self._on_change(event)
