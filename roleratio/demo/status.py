"""What the controller and the scheduler say of themselves, asked once a second.

Rule: a page that does not answer leaves None, never an old answer that looks new.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from autoscaler.adapters import status as controller_status
from autoscaler.errors import UserError

PERIOD_S = 1.0


@dataclass(slots=True)
class Status:
    """The last answers. `controller`, `scheduler` and `prometheus` are base URLs; empty = that part does not run."""

    controller: str = ""
    scheduler: str = ""
    prometheus: str = ""
    decision: controller_status.Status | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PERIOD_S)) as session:
            while True:
                page = await _page(session, self.controller, "/v1/status")
                self.decision = _decision(page)
                page = await _page(session, self.scheduler, "/v1/verdicts")
                self.verdicts = page.get("groups", []) if page else []
                await asyncio.sleep(PERIOD_S)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


async def _page(session: aiohttp.ClientSession, url: str, path: str) -> dict[str, Any] | None:
    if not url:
        return None
    try:
        async with session.get(url + path) as response:
            body = json.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return body if isinstance(body, dict) else None


def _decision(page: dict[str, Any] | None) -> controller_status.Status | None:
    for name, data in (page or {}).get("services", {}).items():
        try:
            return controller_status.from_json(data, name)
        except UserError:
            return None
    return None
