"""Events, told once: one object per thing, reason and code; a repeat raises its count and brings the newest words.

Rule: an event that `tell` cannot write is logged and forgotten; `write` leaves that to its caller.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from kubeapi.client import KubeClient, Object
from kubeapi.errors import AlreadyExists, ApiError, NotLeader
from kubeapi.kinds import EVENT, Kind

log = logging.getLogger("kubeapi.events")

MESSAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class About:
    """The object that an event is about. `namespace` is empty for cluster-scoped ones."""

    kind: Kind
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, kind: Kind, obj: Object) -> About:
        """About a raw object."""
        meta = obj["metadata"]
        return cls(kind, meta.get("namespace", ""), meta["name"], meta.get("uid", ""))


async def tell(
    client: KubeClient, about: About, reason: str, message: str, *, now_s: float, warning: bool = False, code: str = ""
) -> None:
    """`write`, come what may."""
    try:
        await write(client, about, reason, message, now_s=now_s, warning=warning, code=code)
    except NotLeader:
        return
    except ApiError as error:
        log.warning("event %s of %s %s not written: %s", reason, about.kind.kind, about.name, error.message)


async def write(
    client: KubeClient, about: About, reason: str, message: str, *, now_s: float, warning: bool = False, code: str = ""
) -> None:
    """Create the event of this object, reason and code, or raise its count. At most three requests; raises ApiError."""
    digest = hashlib.sha256(f"{client.field_manager} {about.uid} {reason} {code}".encode()).hexdigest()[:16]
    name, namespace = f"{about.name}.{digest}", about.namespace or "default"
    moment = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    message = message[:MESSAGE_MAX]
    body: Object = {
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": about.kind.api_version,
            "kind": about.kind.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "source": {"component": client.field_manager},
        "reportingComponent": client.field_manager,
        "reportingInstance": client.field_manager,
    }
    try:
        await client.create(EVENT, body, namespace)
    except AlreadyExists:
        old = await client.get(EVENT, name, namespace)
        again = {"count": int(old.get("count") or 1) + 1, "lastTimestamp": moment, "message": message}
        await client.patch(EVENT, name, namespace, again)
