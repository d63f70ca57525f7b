"""Terms of leadership: work that runs only while this process leads, and begins anew with each term."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from kubeapi import names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from kubeapi.lease import Lease, own_identity

LEASE_NAME = "roleratio-controller"


async def candidacy(config: Config, namespace: str | None, name: str, stack: AsyncExitStack) -> Lease | None:
    """A Lease that is competed for until the stack unwinds; None without a namespace: then nobody has to lead."""
    if namespace is None:
        return None
    elector = await stack.enter_async_context(KubeClient(config, field_manager=names.MANAGER_CONTROLLER))
    return await stack.enter_async_context(Lease(elector, namespace, name, own_identity()))


def standing(lease: Lease | None) -> str:
    """Whether this process leads, in words."""
    if lease is None or lease.is_leader:
        return "ok"
    return f"ok, standing by: {lease.holder or 'nobody'} leads"


async def run_terms(lease: Lease | None, stop: asyncio.Event, term: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Until `stop`: one `term(over)` after another, which ends when `over` is set. What was learned under an older
    one may be wrong by now.
    """
    while not stop.is_set():
        over = stop
        if lease is not None:
            await _first(lease.wait_leader(), stop.wait())
            over = asyncio.Event()
        watch = asyncio.create_task(_set_after(over, lease, stop)) if lease is not None else None
        try:
            if not stop.is_set():
                await term(over)
        finally:
            if watch is not None:
                watch.cancel()


async def _set_after(over: asyncio.Event, lease: Lease, stop: asyncio.Event) -> None:
    await _first(lease.lost.wait(), stop.wait())
    over.set()


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
