"""The world as the controller sees it: watches of Kubernetes, metrics of pods or Prometheus, one Observation.

Rule: an edge translates; it does not decide.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from autoscaler.adapters.fleet import Seen, World, look
from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.adapters.scrape import Scraper, ScrapeTarget
from autoscaler.model import Observation, Samples
from autoscaler.settings import Settings
from kubeapi import kinds
from kubeapi.cache import Cache
from kubeapi.client import KubeClient
from kubeapi.errors import ApiError, NotFound

WATCHED = (kinds.LWS, kinds.DEPLOYMENT, kinds.POD, kinds.PODGROUP, kinds.NODE)
# A cluster without these kinds is a cluster without such objects.
OPTIONAL = (kinds.LWS, kinds.PODGROUP)


class MetricsReader(Protocol):
    """Where samples come from."""

    async def read(self, targets: list[ScrapeTarget], now_s: float, service: str) -> Samples:
        """A sample or a reason from every target."""

    async def close(self) -> None:
        """Close connections."""


class Watcher:
    """Caches of all that one service's decisions depend on, and its metrics."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self._settings = settings
        self._caches = {kind: Cache(client, kind) for kind in WATCHED}
        self._tasks: list[asyncio.Task[None]] = []
        self._reader = _reader(settings)

    async def start(self, timeout_s: float = 15.0) -> None:
        """Wait until every kind has been listed once. Raises the ApiError that stands in the way."""
        self._tasks = [asyncio.create_task(cache.run()) for cache in self._caches.values()]
        needed = [cache for cache in self._caches.values() if not self._may_be_absent(cache)]
        deadline = asyncio.get_running_loop().time() + timeout_s
        while waiting := [cache for cache in needed if not cache.synced.is_set()]:
            if any(isinstance(cache.error, NotFound) for cache in waiting):
                needed = [cache for cache in needed if not self._may_be_absent(cache)]
            if asyncio.get_running_loop().time() > deadline:
                raise waiting[0].error or ApiError(0, "Timeout", f"the API server did not answer in {timeout_s:g} s")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End the watches and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.close()

    async def observe(self, now_s: float) -> tuple[Observation, Seen]:
        """See everything once; takes at most one scrape timeout."""
        spec, namespace = self._settings.spec, self._settings.metadata.namespace
        seen = look(self._world(), namespace, spec.service, now_s)
        samples = await self._reader.read(list(seen.targets), now_s, f"{namespace}/{spec.service}")
        failures = {**seen.failures, **samples.failures, **self._stale_watches()}
        return Observation(now_s, replace(samples, failures=failures), seen.fleet), seen

    def _may_be_absent(self, cache: Cache) -> bool:
        optional = any(self._caches[kind] is cache for kind in OPTIONAL)
        return optional and isinstance(cache.error, NotFound)

    def _world(self) -> World:
        items = {kind: list(cache.items.values()) for kind, cache in self._caches.items()}
        workloads = [*items[kinds.LWS], *items[kinds.DEPLOYMENT]]
        return World(workloads, items[kinds.POD], items[kinds.PODGROUP], items[kinds.NODE])

    def _stale_watches(self) -> dict[str, str]:
        return {
            f"watch of {kind.plural}": cache.error.message
            for kind, cache in self._caches.items()
            if cache.error and not self._may_be_absent(cache)
        }


def _reader(settings: Settings) -> MetricsReader:
    metrics = settings.spec.metrics
    if metrics.prometheus_url:
        namespace = settings.metadata.namespace
        return PrometheusReader(metrics.prometheus_url, metrics.scrape_timeout_s, metrics.stale_after_s, namespace)
    return Scraper(metrics.scrape_timeout_s)
