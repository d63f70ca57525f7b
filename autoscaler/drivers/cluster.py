"""The cluster as the controller sees it: one watch per kind, shared by all services.

Rule: readers get what the watches hold now; a watch that is not fresh is named, never hidden.
"""

from __future__ import annotations

import asyncio

from autoscaler.adapters.fleet import World
from kubeapi import kinds
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object
from kubeapi.errors import ApiError, NotFound
from kubeapi.kinds import Kind

WATCHED = (kinds.LWS, kinds.DEPLOYMENT, kinds.POD, kinds.PODGROUP, kinds.NODE)
# A cluster without these kinds is a cluster without such objects.
OPTIONAL = (kinds.LWS, kinds.PODGROUP)


class Cluster:
    """Caches of everything that decisions depend on. Not asked for a kind, it does not watch it."""

    def __init__(self, client: KubeClient, *extra: Kind) -> None:
        self._caches = {kind: Cache(client, kind) for kind in (*WATCHED, *extra)}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, timeout_s: float = 15.0) -> None:
        """Wait until every kind has been listed once. Raises the ApiError that stands in the way."""
        self._tasks = [asyncio.create_task(cache.run()) for cache in self._caches.values()]
        deadline = asyncio.get_running_loop().time() + timeout_s
        while waiting := [kind for kind, cache in self._caches.items() if not self._settled(kind, cache)]:
            error = self._caches[waiting[0]].error
            if isinstance(error, NotFound) or asyncio.get_running_loop().time() > deadline:
                raise error or ApiError(0, "Timeout", f"the API server did not answer in {timeout_s:g} s")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def objects(self, kind: Kind) -> list[Object]:
        """All objects of a kind."""
        return list(self._caches[kind].items.values())

    def world(self) -> World:
        """What one look at a service needs."""
        workloads = [*self.objects(kinds.LWS), *self.objects(kinds.DEPLOYMENT)]
        return World(workloads, self.objects(kinds.POD), self.objects(kinds.PODGROUP), self.objects(kinds.NODE))

    def stale(self) -> dict[str, str]:
        """The watches that are not fresh, and why."""
        return {
            f"watch of {kind.plural}": cache.error.message
            for kind, cache in self._caches.items()
            if cache.error and not _absent(kind, cache)
        }

    def problem(self) -> str:
        """Why the cluster cannot be seen; empty when all is fresh."""
        unseen = [kind.plural for kind, cache in self._caches.items() if not self._settled(kind, cache)]
        stale = [f"{what}: {why}" for what, why in self.stale().items()]
        return "; ".join([*stale, *([f"not listed yet: {', '.join(unseen)}"] if unseen else [])])

    @staticmethod
    def _settled(kind: Kind, cache: Cache) -> bool:
        return cache.synced.is_set() or _absent(kind, cache)


def _absent(kind: Kind, cache: Cache) -> bool:
    return kind in OPTIONAL and isinstance(cache.error, NotFound)
