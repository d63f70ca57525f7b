"""The virtual nodes at the API server: registered, and kept alive.

Rules:
1. A node lives by its Lease, and tells its state less often, as a kubelet does.
2. A beat that is refused is logged; the next one tries again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from kubeapi import names
from kubeapi.client import KubeClient
from kubeapi.errors import AlreadyExists, ApiError, NotFound
from kubeapi.kinds import LEASE, NODE
from localcluster.nodes import lease_of, node_status, nodes_of
from localcluster.objects import micro_timestamp, timestamp
from localcluster.options import NodeOptions

log = logging.getLogger(__name__)

RENEW_S = 10.0
HEARTBEAT_S = 30.0


class Registration:
    """The nodes of one agent."""

    def __init__(self, client: KubeClient, options: NodeOptions) -> None:
        self._client = client
        self._options = options
        self._nodes = {node["metadata"]["name"]: node for node in nodes_of(options)}
        self.node_names = frozenset(self._nodes)

    async def register(self) -> None:
        """Create the nodes, or take over those that exist; they are Ready when this returns. Raises ApiError."""
        await asyncio.gather(*map(self._register, self._nodes))

    async def renew(self) -> None:
        """Say that the nodes are alive, until cancelled."""
        await self._every(RENEW_S, self._renew)

    async def tell(self) -> None:
        """Say how the nodes are, until cancelled."""
        await self._every(HEARTBEAT_S, self._tell)

    async def _every(self, period_s: float, beat: Callable[[str], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(period_s)
            for name in self._nodes:
                try:
                    await beat(name)
                except ApiError as error:
                    log.warning("node %s: no heartbeat: %s", name, error)

    async def _register(self, name: str) -> None:
        wanted = self._nodes[name]
        try:
            node = await self._client.create(NODE, wanted)
        except AlreadyExists:
            log.info("node %s exists already", name)
            node = await self._client.get(NODE, name)
        self._nodes[name] = node
        await self._renew(name)
        await self._tell(name)
        # A real API server taints every new node as not ready, and some clusters have nobody who takes that away.
        taints = wanted["spec"].get("taints", [])
        if node["spec"].get("taints", []) != taints:
            await self._client.patch(NODE, name, None, {"spec": {"taints": taints}})

    async def _renew(self, name: str) -> None:
        lease = lease_of(self._nodes[name], micro_timestamp(time.time()))
        try:
            await self._client.patch(LEASE, name, names.NODE_LEASES, lease)
        except NotFound:
            await self._client.create(LEASE, lease, names.NODE_LEASES)

    async def _tell(self, name: str) -> None:
        status = node_status(self._options, self._nodes[name], timestamp(time.time()))
        body = {"status": status}
        await self._client.patch(NODE, name, None, body, patch_type="strategic", subresource="status")
        self._nodes[name] |= {"status": status}
