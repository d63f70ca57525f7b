"""The router's side toward its workers: choosing one, asking it, and judging what comes back.

Rules:
1. A refusal (503) sends the request to another worker and costs nothing; while none is ready it waits.
2. A prompt is bound to a prefill worker as late as keeps the worker busy; until then it waits here, in the order
   of arrival, so that a worker that has just started helps with what is already there.
3. A failure (no connection, no answer, another 5xx) sends the request back to prefill, as `Again`.
4. 4xx is the client's business: it passes through unchanged and is never held against a worker.
5. KV that no decode worker will pull any more is given up at once rather than by its lease.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from math import inf
from typing import Any

import aiohttp

from serving.exchange import Exchange
from serving.flight import DECODE, FAILED, PREFILL, REJECTED, UNASSIGNED, Flight
from serving.http import DRAINING_HEADER, REQUEST_ID_HEADER
from serving.pool import Address, Endpoint, Pool

AVOID_FAILED_S = 2.0
AVOID_DRAINING_S = 5.0
AVOID_REFUSED_S = 0.25
CONNECT_LIMIT_S = 2.0
# About one step of prefill: the next prompt is there when the one before is done, and few wait where they are bound.
PREFILL_AHEAD_TOKENS = 4096
AHEAD = {PREFILL: PREFILL_AHEAD_TOKENS, DECODE: inf}
PATH = "/v1/completions"
WORKER_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)


class NoWorker(Exception):
    """No ready worker of a role for as long as the request may wait."""

    def __init__(self, role: str) -> None:
        super().__init__(f"no {role} worker is ready")
        self.role = role


class Again(Exception):
    """A worker failed: start again from prefill."""


class PassedThrough(Exception):
    """A worker's answer that is the client's business."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body
        self.outcome = FAILED if status == 429 else REJECTED


class Dispatcher:
    """The workers of one service."""

    def __init__(self, answer_limit_s: float) -> None:
        self._answer_limit_s = answer_limit_s
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT_S, sock_read=answer_limit_s)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5.0)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False)
        self._pool = Pool()
        self._changed = asyncio.Event()
        self._turns = {role: asyncio.Lock() for role in AHEAD}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Cut what is left."""
        for task in [*self._tasks]:
            task.cancel()
        await self._session.close()

    def endpoints(self) -> list[Endpoint]:
        """The workers that are known now."""
        return [*self._pool.of_role(PREFILL), *self._pool.of_role(DECODE)]

    def take_over(self, seen: list[Address]) -> None:
        """Use these workers from now on; those who wait for one look again."""
        self._pool.replace(seen)
        self._wake()

    def _wake(self) -> None:
        """Let those who are first in line look again."""
        self._changed.set()
        self._changed.clear()

    async def prefill(self, flight: Flight, deadline_s: float) -> dict[str, Any]:
        """Have the prompt computed; where its KV is. Raises Again, NoWorker, PassedThrough."""
        body = flight.prefill_body()
        while True:
            endpoint = await self._acquire(PREFILL, deadline_s)
            with self._using(endpoint, flight, PREFILL, flight.prompt_tokens), self._blaming(endpoint):
                async with self._post(endpoint, body, flight) as response:
                    answer = await response.read()
                    self._judge(endpoint, response.status, DRAINING_HEADER in response.headers, answer)
                if response.status == 200:
                    return _hand_over_in(answer)

    @asynccontextmanager
    async def decode(self, flight: Flight, hand_over: dict[str, Any], deadline_s: float) -> AsyncIterator[Exchange]:
        """Have the answer streamed. Raises Again, NoWorker, PassedThrough, also while it is followed."""
        body = flight.decode_body(hand_over)
        try:
            while True:
                endpoint = await self._acquire(DECODE, deadline_s)
                with self._using(endpoint, flight, DECODE, 1), self._blaming(endpoint):
                    async with await self._exchange(endpoint, body, flight) as exchange:
                        if exchange.status == 200:
                            await exchange.begun()
                            yield exchange
                            return
                        draining = DRAINING_HEADER.lower() in exchange.headers
                        self._judge(endpoint, exchange.status, draining, await exchange.read())
        finally:
            if not flight.tokens:
                self._give_up(hand_over)

    async def _exchange(self, endpoint: Endpoint, body: bytes, flight: Flight) -> Exchange:
        return await Exchange.post(
            f"{endpoint.address.url}{PATH}",
            body,
            _headers(flight),
            connect_limit_s=CONNECT_LIMIT_S,
            silence_s=self._answer_limit_s,
        )

    def _post(
        self, endpoint: Endpoint, body: bytes, flight: Flight
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.post(f"{endpoint.address.url}{PATH}", data=body, headers=_headers(flight))

    async def _acquire(self, role: str, deadline_s: float) -> Endpoint:
        """A worker, as soon as one has room, first come first served.

        Raises NoWorker at the deadline, which counts only while no worker is usable: a queue is not an outage.
        """
        async with self._turns[role]:
            while (endpoint := self._pool.pick(role, now_s(), AHEAD[role])) is None:
                busy = bool(self._pool.usable(role, now_s()))
                left_s = inf if busy else deadline_s - now_s()
                if left_s <= 0:
                    raise NoWorker(role)
                next_try_s = None if busy else self._pool.next_try_s(role)
                until_try_s = left_s if next_try_s is None else max(next_try_s - now_s(), 0.0)
                wait_s = min(left_s, until_try_s)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), None if wait_s == inf else wait_s)
            return endpoint

    def _judge(self, endpoint: Endpoint, status: int, draining: bool, body: bytes) -> None:
        """Return if it is an answer or a refusal; raise otherwise."""
        if status == 503:
            _avoid(endpoint, AVOID_DRAINING_S if draining else AVOID_REFUSED_S)
        elif 400 <= status < 500:
            raise PassedThrough(status, body)
        elif status == 502:
            # The decode worker could not get the KV: not its fault.
            raise Again(_message(body))
        elif status != 200:
            raise aiohttp.ClientPayloadError(f"HTTP {status}")

    @contextmanager
    def _using(self, endpoint: Endpoint, flight: Flight, stage: str, load: int) -> Iterator[None]:
        endpoint.load += load
        flight.stage = stage
        try:
            yield
        finally:
            endpoint.load -= load
            flight.stage = UNASSIGNED
            self._wake()

    @contextmanager
    def _blaming(self, endpoint: Endpoint) -> Iterator[None]:
        """What goes wrong in here is the worker's failure."""
        try:
            yield
        except WORKER_ERRORS as error:
            _avoid(endpoint, AVOID_FAILED_S)
            url = endpoint.address.url
            raise Again(f"{endpoint.address.role} worker {url}: {str(error) or type(error).__name__}") from error

    def _give_up(self, hand_over: Mapping[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(self._discard(hand_over))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _discard(self, hand_over: Mapping[str, Any]) -> None:
        with suppress(*WORKER_ERRORS):
            await self._session.delete(f"{hand_over['remote_url']}/kv/{hand_over['remote_kv_id']}")


def _avoid(endpoint: Endpoint, for_s: float) -> None:
    endpoint.avoid_until_s = now_s() + for_s


def _headers(flight: Flight) -> dict[str, str]:
    return {"Content-Type": "application/json", REQUEST_ID_HEADER: flight.id}


def _hand_over_in(body: bytes) -> dict[str, Any]:
    with suppress(ValueError, KeyError, TypeError):
        return dict(json.loads(body)["kv_transfer_params"])
    raise aiohttp.ClientPayloadError("an answer without kv_transfer_params")


def _message(body: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["message"])
    return "a worker answered 502"


def now_s() -> float:
    """The event loop's clock."""
    return asyncio.get_running_loop().time()
