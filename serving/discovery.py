"""Which workers are there: the pods of a service, watched. The only file of `serving` that knows Kubernetes.

Rules:
1. A worker is a pod that is Ready, not terminating, and the leader of its TP group.
2. When the API server cannot be reached, what was last seen stays in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from kubeapi import names
from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object
from kubeapi.config import load_config
from kubeapi.kinds import POD
from serving.options import HTTP_PORT
from serving.pool import Address


def addresses(pods: Iterable[Object]) -> list[Address]:
    """The usable leaders among these pods."""
    return [address for pod in pods if (address := _address(pod)) is not None]


def _address(pod: Object) -> Address | None:
    meta, status = pod["metadata"], pod.get("status", {})
    labels = meta.get("labels", {})
    role = labels.get(names.LABEL_ROLE)
    if role not in (names.ROLE_PREFILL, names.ROLE_DECODE) or meta.get("deletionTimestamp"):
        return None
    if labels.get(names.LWS_WORKER_INDEX, "0") != "0" or not status.get("podIP"):
        return None
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions", [])
    )
    return Address(meta["uid"], role, f"http://{status['podIP']}:{HTTP_PORT}") if ready else None


class Discovery:
    """Calls `on_change` with all workers of "namespace/name", first when they are known, then after every change."""

    def __init__(self, service: str, kubeconfig: str | None, on_change: Callable[[list[Address]], None]) -> None:
        namespace, _, name = service.partition("/")
        if not namespace or not name:
            raise ValueError(f"service = {service!r}: expected NAMESPACE/NAME")
        self._cache: Cache | None = None
        self._config = load_config(kubeconfig)
        self._namespace = namespace
        self._selector = f"{names.LABEL_SERVICE}={name}"
        self._on_change = on_change

    @property
    def error(self) -> str:
        """Why the watch does not work at present; empty if it does."""
        return str(self._cache.error) if self._cache and self._cache.error else ""

    async def run(self) -> None:
        """Watch until cancelled."""
        async with KubeClient(self._config, field_manager="roleratio-router") as client:
            changed = asyncio.Event()
            cache = self._cache = Cache(
                client,
                POD,
                self._namespace,
                label_selector=self._selector,
                on_change=lambda event: changed.set(),
            )
            watch = asyncio.create_task(cache.run())
            try:
                await cache.synced.wait()
                while True:
                    changed.clear()
                    self._on_change(addresses(cache.items.values()))
                    await changed.wait()
            finally:
                watch.cancel()
