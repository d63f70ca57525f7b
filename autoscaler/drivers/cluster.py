"""The cluster as the controller sees it: one watch per kind, shared by all services.

Rules:
1. Readers get what the watches hold now; a watch that is not fresh is named, never hidden.
2. A kind that the server does not know (any more) has no objects; the watch finds it once it is there.
3. A kind that we may not list is unseen, which is not the same as empty; the rest goes on.
"""

from __future__ import annotations

import asyncio

from autoscaler.adapters.fleet import World
from autoscaler.drivers.served import Served, why_no_crd
from autoscaler.errors import UserError
from kubeapi import kinds
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object
from kubeapi.errors import ApiError, Forbidden, NotFound
from kubeapi.kinds import Kind

WATCHED = (kinds.LWS, kinds.DEPLOYMENT, kinds.POD, kinds.PODGROUP, kinds.NODE)
# A cluster without these kinds is a cluster without such objects.
OPTIONAL = (kinds.LWS, kinds.PODGROUP)


class Cluster:
    """Caches of everything that decisions depend on. Not asked for a kind, it does not watch it."""

    def __init__(self, client: KubeClient, *extra: Kind, quiet_s: float = 150.0) -> None:
        self._caches = {kind: Cache(client, kind, quiet_s=quiet_s) for kind in (*WATCHED, *extra)}
        self._tasks: list[asyncio.Task[None]] = []
        self._client = client
        ours = f"metadata.name={kinds.RRA.plural}.{kinds.RRA.group}"
        self._crd = Cache(client, kinds.CRD, field_selector=ours, quiet_s=quiet_s) if kinds.RRA in extra else None
        self.served = Served(client, self._has_no_podgroups, self._crd_seen)

    async def start(self, timeout_s: float = 15.0) -> None:
        """Wait until every kind has been listed once.

        Raises the ApiError that stands in the way, UserError for a server without our CRD.
        """
        caches = [*self._caches.values(), *([self._crd] if self._crd else [])]
        self._tasks = [asyncio.create_task(cache.run()) for cache in caches]
        deadline = asyncio.get_running_loop().time() + timeout_s
        while waiting := [kind for kind, cache in self._caches.items() if not self._settled(kind, cache)]:
            error = self._caches[waiting[0]].error
            if isinstance(error, NotFound) and waiting[0] == kinds.RRA:
                raise UserError(await why_no_crd(self._client)) from error
            if isinstance(error, NotFound) or asyncio.get_running_loop().time() > deadline:
                raise error or ApiError(0, "Timeout", f"the API server did not answer in {timeout_s:g} s")
            await asyncio.sleep(0.02)
        await self.served.look()
        self._tasks.append(asyncio.create_task(self.served.watch()))

    async def stop(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def objects(self, kind: Kind) -> list[Object]:
        """All objects of a kind."""
        cache = self._caches[kind]
        return [] if isinstance(cache.error, NotFound) else list(cache.items.values())

    def world(self) -> World:
        """What one look at a service needs."""
        workloads = [*self.objects(kinds.LWS), *self.objects(kinds.DEPLOYMENT)]
        return World(
            workloads, self.objects(kinds.POD), self.objects(kinds.PODGROUP), self.objects(kinds.NODE), self.unseen()
        )

    def unseen(self) -> dict[str, str]:
        """The kinds that could never be listed, and why."""
        return {
            kind.plural: cache.error.message
            for kind, cache in self._caches.items()
            if cache.error and not cache.synced.is_set() and not _absent(kind, cache)
        }

    def doubt(self, kind: Kind) -> None:
        """A write has shown that what is held of this kind is old, or will be: list it again."""
        self._caches[kind].doubt()

    def stale(self) -> dict[str, str]:
        """The kinds whose watches are not fresh, by plural, and why."""
        return {
            kind.plural: cache.error.message
            for kind, cache in self._caches.items()
            if cache.error and not _absent(kind, cache)
        }

    def problem(self) -> str:
        """Why the cluster cannot be seen; empty when all is fresh."""
        unseen = [kind.plural for kind, cache in self._caches.items() if not self._settled(kind, cache)]
        stale = [f"watch of {plural}: {why}" for plural, why in self.stale().items()]
        crd = self.served.problem()
        listed = [f"not listed yet: {', '.join(unseen)}"] if unseen else []
        return "; ".join([*stale, *listed, *([crd] if crd else [])])

    def _crd_seen(self) -> Object | None:
        """Our CRD, if there is one and we may see it."""
        return next(iter(self._crd.items.values()), None) if self._crd and not self._crd.error else None

    def _has_no_podgroups(self) -> bool:
        """Raises the ApiError that keeps us from knowing; what we may not list is there."""
        error = self._caches[kinds.PODGROUP].error
        if error is not None and not isinstance(error, NotFound | Forbidden):
            raise error
        return isinstance(error, NotFound)

    @staticmethod
    def _settled(kind: Kind, cache: Cache) -> bool:
        refused = isinstance(cache.error, Forbidden) and kind != kinds.RRA
        return cache.synced.is_set() or refused or _absent(kind, cache)


def _absent(kind: Kind, cache: Cache) -> bool:
    return kind in OPTIONAL and isinstance(cache.error, NotFound)
