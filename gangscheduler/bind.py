"""Sends the bindings of a gang, and finds out what became of each.

Rules:
1. Gangs are bound at the same time; of each the first pod goes ahead: what the server refuses for it is refused for
   all, and nothing of the gang is bound.
2. After a refusal nothing more of that gang is sent. What was not bound is told to `undone` and decided anew.
3. A binding whose answer was lost is neither made nor unmade until the pod says so: it is asked for until it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from gangscheduler.model import Binding
from kubeapi import kinds
from kubeapi.client import KubeClient
from kubeapi.errors import ApiError, Conflict, NotFound, NotLeader, TooManyRequests
from kubeapi.retry import Backoff, passes

log = logging.getLogger("gangscheduler")

# Below the client's connections, so that what is told and asked beside does not wait behind all bindings.
AT_ONCE = 48
FIRST_ASK_S, LONGEST_ASK_S = 0.1, 3.0


class Outcome(Enum):
    """What became of a binding."""

    BOUND = "bound"
    MOVED_ON = "moved on"  # The pod is gone, another one of that name, or bound by somebody else.
    REFUSED = "refused"
    UNSENT = "unsent"


class Listener(Protocol):
    """Who is told, at once and in the order in which it happens."""

    def bound(self, binding: Binding) -> None:
        """The pod is on its node."""

    def undone(self, binding: Binding, outcome: Outcome, error: ApiError | None) -> None:
        """It is not, and nothing is under way."""


class Binder:
    """Bindings under way; `idle` waits for all of them."""

    def __init__(self, client: KubeClient, listener: Listener) -> None:
        self._client = client
        self._listener = listener
        self._room = asyncio.Semaphore(AT_ONCE)
        self._gangs: set[asyncio.Task[None]] = set()

    def start(self, gangs: Iterable[list[Binding]]) -> None:
        """Begin to bind each of these lists, all or nothing as far as that can be."""
        self._forget_done()
        self._gangs |= {asyncio.create_task(self._gang(bindings)) for bindings in gangs}

    async def idle(self) -> None:
        """Until nothing is under way."""
        if self._gangs:
            await asyncio.wait(self._gangs)
        self._forget_done()

    def _forget_done(self) -> None:
        done = {task for task in self._gangs if task.done()}
        self._gangs -= done
        for task in done:
            task.result()  # What it raised is a bug, and ends the process.

    async def close(self) -> None:
        """Stop: what has been sent may still happen."""
        for task in self._gangs:
            task.cancel()
        await asyncio.gather(*self._gangs, return_exceptions=True)

    async def _gang(self, bindings: list[Binding]) -> None:
        first, *rest = bindings
        refused = asyncio.Event()
        await self._one(first, refused)
        async with asyncio.TaskGroup() as tasks:
            for binding in rest:
                tasks.create_task(self._one(binding, refused))

    async def _one(self, binding: Binding, refused: asyncio.Event) -> None:
        async with self._room:
            if refused.is_set():
                self._listener.undone(binding, Outcome.UNSENT, None)
                return
            outcome, error = await self._send(binding)
        if outcome is Outcome.BOUND:
            self._listener.bound(binding)
        else:
            refused.set()
            self._listener.undone(binding, outcome, error)

    async def _send(self, binding: Binding) -> tuple[Outcome, ApiError | None]:
        namespace, _, name = binding.pod.partition("/")
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": binding.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": binding.node},
        }
        try:
            await self._client.create_sub(kinds.POD, name, namespace, "binding", body)
        except (Conflict, NotFound) as error:
            return Outcome.MOVED_ON, error
        except ApiError as error:
            # Of these the server has said that nothing was done.
            if not passes(error) or isinstance(error, TooManyRequests | NotLeader):
                return Outcome.REFUSED, error
            return await self._ask(binding, error), error
        return Outcome.BOUND, None

    async def _ask(self, binding: Binding, lost: ApiError) -> Outcome:
        """What the pod itself says, as soon as it can be asked."""
        log.info("pod %s: the answer to its binding to %s was lost: %s", binding.pod, binding.node, lost)
        namespace, _, name = binding.pod.partition("/")
        backoff = Backoff(FIRST_ASK_S, LONGEST_ASK_S)
        while True:
            try:
                pod = await self._client.get(kinds.POD, name, namespace)
            except NotFound:
                return Outcome.MOVED_ON
            except ApiError as error:
                log.debug("pod %s cannot be asked: %s", binding.pod, error)
                await asyncio.sleep(backoff.next_s())
                continue
            node = pod["spec"].get("nodeName")
            if pod["metadata"]["uid"] == binding.uid and not node:
                return Outcome.REFUSED
            same = pod["metadata"]["uid"] == binding.uid and node == binding.node
            return Outcome.BOUND if same else Outcome.MOVED_ON
