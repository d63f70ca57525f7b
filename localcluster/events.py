"""Events, told once: a repeated one raises its count instead of adding an object.

Rule: an event that cannot be written is logged and forgotten; nothing waits for it or fails by it.
"""

from __future__ import annotations

import logging
import time
from typing import Literal

from kubeapi.client import KubeClient, Object
from kubeapi.errors import ApiError, NotFound
from kubeapi.kinds import EVENT, Kind
from localcluster.objects import timestamp, uid

log = logging.getLogger(__name__)

Level = Literal["Normal", "Warning"]
_REMEMBERED = 1000


class EventRecorder:
    """Writes events of one component."""

    def __init__(self, client: KubeClient, component: str) -> None:
        self._client = client
        self._component = component
        self._written: dict[tuple[str, str, str], Object] = {}
        self._serial = time.time_ns()

    async def record(self, kind: Kind, about: Object, reason: str, message: str, level: Level = "Normal") -> None:
        """Tell that something happened to `about`."""
        key = (uid(about), reason, message)
        before = self._written.pop(key, None)
        try:
            written = await self._again(before) if before else None
            self._written[key] = written or await self._first(kind, about, reason, message, level)
        except ApiError as error:
            log.debug("event %s of %s not written: %s", reason, about["metadata"]["name"], error)
        if len(self._written) > _REMEMBERED:
            del self._written[next(iter(self._written))]

    async def _again(self, before: Object) -> Object | None:
        meta = before["metadata"]
        body = {"count": before["count"] + 1, "lastTimestamp": timestamp(time.time())}
        try:
            return await self._client.patch(EVENT, meta["name"], meta["namespace"], body)
        except NotFound:
            return None

    async def _first(self, kind: Kind, about: Object, reason: str, message: str, level: Level) -> Object:
        meta = about["metadata"]
        now = timestamp(time.time())
        self._serial += 1
        namespace = meta.get("namespace", "default")
        body: Object = {
            "metadata": {"name": f"{meta['name']}.{self._serial:x}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "name": meta["name"],
                "namespace": meta.get("namespace", ""),
                "uid": uid(about),
                "resourceVersion": meta.get("resourceVersion", ""),
            },
            "type": level,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        return await self._client.create(EVENT, body, namespace)
