"""The ranks of a TP group: a TCP connection from each rank above 0 to its leader says "I am up".

Rules:
1. Nothing but asyncio and the standard library: a rank above 0 is the smallest process of the product.
2. The leader serves only while all its ranks are connected.
3. A rank outlives its leader's drain: after SIGTERM it waits until the leader closes or is gone.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from serving.options import RankOptions
from serving.ports import cannot_listen

RETRY_S = 0.2
_HELLO = "roleratio-rank"

log = logging.getLogger(__name__)


class RankHub:
    """The leader's side: who is connected. `on_change` is called after each change."""

    def __init__(self, expected: int, on_change: Callable[[], None]) -> None:
        self.expected = expected
        self.connected: dict[int, asyncio.StreamWriter] = {}
        self._on_change = on_change
        self._server: asyncio.Server | None = None

    @property
    def complete(self) -> bool:
        """Whether all ranks are up."""
        return len(self.connected) >= self.expected

    async def start(self, host: str, port: int) -> int:
        """Listen for ranks; the port. Without ranks there is nothing to listen for."""
        if self.expected == 0:
            return port
        self._server = await _listen(self._serve, host, port)
        address: tuple[str, int] = self._server.sockets[0].getsockname()
        return address[1]

    async def stop(self) -> None:
        """Let the ranks go."""
        if self._server is not None:
            self._server.close()
        for writer in [*self.connected.values()]:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = _rank_of(await reader.readline())
        if index is None or not 1 <= index <= self.expected:
            log.warning("a connection on the rank port did not name a rank from 1 to %d", self.expected)
            writer.close()
            return
        self.connected[index] = writer
        self._on_change()
        with suppress(ConnectionError):
            await reader.read()
        if self.connected.get(index) is writer:
            del self.connected[index]
            self._on_change()
        writer.close()


def _rank_of(line: bytes) -> int | None:
    match line.decode("ascii", "replace").split():
        case [name, number] if name == _HELLO and number.isdecimal():
            return int(number)
    return None


async def run(options: RankOptions) -> None:
    """Load, join the leader, be ready; end after SIGTERM once the leader has let go or is gone."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    asleep = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({asleep}, timeout=options.load_s)
    while not stopping.is_set():
        try:
            reader, writer = await asyncio.open_connection(options.leader_address, options.leader_port)
        except OSError:
            await asyncio.wait({asleep}, timeout=RETRY_S)
            continue
        try:
            await _stay(options, reader, writer)
        finally:
            writer.close()
        log.info("rank %d: the leader has let go", options.index)
        await asyncio.wait({asleep}, timeout=RETRY_S)
    asleep.cancel()


async def _stay(options: RankOptions, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a rank, ready on its own port, until the leader closes the connection."""
    ready = await _listen(_hang_up, options.host, options.port)
    try:
        writer.write(f"{_HELLO} {options.index}\n".encode())
        with suppress(ConnectionError):
            await reader.read()
    finally:
        ready.close()


async def _listen(serve: Callable[..., Awaitable[None]], host: str, port: int) -> asyncio.Server:
    try:
        return await asyncio.start_server(serve, host, port)
    except OSError as error:
        raise cannot_listen(host, port, error) from error


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A readiness probe only wants to connect."""
    writer.close()
