"""One look at a cluster: lists in, a snapshot out, for who does not watch."""

from __future__ import annotations

import time
from contextlib import suppress

from gangscheduler.model import LEVELS, Snapshot
from gangscheduler.slim import slim_node, slim_pod
from gangscheduler.snapshot import build
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.errors import NotFound


async def look(client: KubeClient, levels: tuple[str, ...] = LEVELS) -> Snapshot:
    """What the cluster shows now. A kind of group that is not served has no objects. Raises ApiError."""
    nodes = (await client.list(kinds.NODE, slim=slim_node)).items
    pods = (await client.list(kinds.POD, slim=slim_pod)).items
    groups: list[Object] = []
    for kind in (kinds.PODGROUP, kinds.COMPOSITE_PODGROUP):
        with suppress(NotFound):
            groups += (await client.list(kind)).items
    return build(time.time(), nodes, pods, groups, levels=levels)
