"""One POST to a worker whose answer is a stream: bytes go from socket to callback, without a task in between.

This is what a token costs in the router, so it is done by hand; everything else uses an HTTP client.

Rules:
1. A connection serves one exchange. The body is handed on as it is, chunk frames included, but for the last
   chunk: an answer is whole only if that came. Events are JSON in lines, so a 0 before an empty line is
   found nowhere else.
2. Silence for longer than `silence_s` is a failure. The clock is looked at now and then, not at every token.
3. Every failure is an OSError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Self, cast
from urllib.parse import urlsplit

_LAST_CHUNK = b"0\r\n\r\n"
_PARTS_OF_IT = tuple(_LAST_CHUNK[:size] for size in range(1, len(_LAST_CHUNK)))
_MAX_HEAD_BYTES = 65_536

Sink = Callable[[bytes], None]


class Exchange(asyncio.Protocol):
    """`async with await Exchange.post(...)`; then `status`, `headers`, and `read`, or `begun` and `follow`."""

    def __init__(self, request: bytes, silence_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.status = 0
        self.headers: dict[str, str] = {}
        self._loop = loop
        self._request = request
        self._silence_s = silence_s
        self._heard_s = loop.time()
        self._early: list[bytes] = []
        self._sink: Sink = self._keep
        self._head: bytes | None = b""
        self._held = b""
        self._chunked = False
        self._left_bytes = 0
        self._whole = False
        self._started: asyncio.Future[None] = loop.create_future()
        self._begun: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._watch = loop.call_later(silence_s, self._check)

    @classmethod
    async def post(
        cls, url: str, body: bytes, headers: Mapping[str, str], *, connect_limit_s: float, silence_s: float
    ) -> Self:
        """Connect, ask, and wait for the status. Raises OSError."""
        parts = urlsplit(url)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        request = "\r\n".join(lines).encode("utf-8", "surrogateescape") + body
        with ExitStack() as unless_started:
            exchange = unless_started.enter_context(closing(cls(request, silence_s)))
            async with asyncio.timeout(connect_limit_s):
                await exchange._loop.create_connection(lambda: exchange, parts.hostname or "", parts.port or 80)
            await exchange._started
            unless_started.pop_all()
        return exchange

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    async def read(self) -> bytes:
        """The whole body of an answer that is not a stream."""
        await self._ended
        return b"".join(self._early)

    async def begun(self) -> None:
        """Wait for the first bytes of the body."""
        await self._begun

    async def follow(self, sink: Sink) -> None:
        """Hand all bytes, also those that are here already, to `sink`, until the answer is whole."""
        self._sink = sink
        if self._early:
            sink(b"".join(self._early))
            self._early.clear()
        await self._ended

    def close(self) -> None:
        """Give up what is not finished."""
        self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        for future in (self._started, self._begun, self._ended):
            if future.done() and not future.cancelled():
                future.exception()
            future.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        if self._head is not None:
            data = self._take_head(data)
        if self._chunked:
            data = self._without_last_chunk(data)
        elif self._head is None:
            self._left_bytes -= len(data)
            self._whole = self._left_bytes <= 0
        if data:
            self._sink(data)
        if self._whole:
            _settle(self._begun, None)
            _settle(self._ended, None)

    def connection_lost(self, error: Exception | None) -> None:
        self._watch.cancel()
        self._fail(error or ConnectionResetError("the connection was closed before the end"))

    def _keep(self, data: bytes) -> None:
        self._early.append(data)
        _settle(self._begun, None)

    def _take_head(self, data: bytes) -> bytes:
        """Read status and headers; what follows them."""
        self._head = (self._head or b"") + data
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if not found:
            if len(head) > _MAX_HEAD_BYTES:
                self._fail(ConnectionError("an endless HTTP head"))
            return b""
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdecimal():
            self._fail(ConnectionError("not an HTTP answer"))
            return b""
        self._head = None
        self.status = int(status[:3])
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length", "")
        self._left_bytes = int(length) if length.isdecimal() else 0
        _settle(self._started, None)
        return rest

    def _without_last_chunk(self, data: bytes) -> bytes:
        """Hold back what is, or may become, the last chunk: a read may end anywhere."""
        if self._held:
            data, self._held = self._held + data, b""
        if data.endswith(_LAST_CHUNK):
            self._whole = True
            return data[: -len(_LAST_CHUNK)]
        if data.endswith(_PARTS_OF_IT):
            size = max(len(part) for part in _PARTS_OF_IT if data.endswith(part))
            data, self._held = data[:-size], data[-size:]
        return data

    def _check(self) -> None:
        quiet_s = self._loop.time() - self._heard_s
        if quiet_s < self._silence_s:
            self._watch = self._loop.call_later(self._silence_s - quiet_s, self._check)
        else:
            self._fail(TimeoutError(f"silent for {quiet_s:.0f} s"))

    def _fail(self, error: Exception) -> None:
        for future in (self._started, self._begun, self._ended):
            _settle(future, error)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
