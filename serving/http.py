"""A small HTTP server: listening, answers in OpenAI's form, draining on a signal.

Rules:
1. A client that goes away cancels its handler; a handler's `finally` is where a request is forgotten.
2. SIGTERM and SIGINT begin a drain; a second one ends it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from serving.api import BadRequest, error_body
from serving.ports import cannot_listen

DRAINING_HEADER = "X-Roleratio-Draining"
REQUEST_ID_HEADER = "X-Request-Id"
EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_BODY_BYTES = 16 * 2**20

log = logging.getLogger(__name__)


class Server(Protocol):
    """What `serve` runs."""

    async def start(self) -> None:
        """Listen."""

    async def drain(self) -> None:
        """Refuse what is new, return when nothing is left."""

    async def stop(self) -> None:
        """Close everything."""


async def serve(server: Server) -> None:
    """Run a server until SIGTERM or SIGINT, let it drain, stop it. Raises OSError when its port is taken."""
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        await server.start()
        log.info("%s: draining", (await signals.get()).name)
        drain, again = asyncio.ensure_future(server.drain()), asyncio.ensure_future(signals.get())
        await asyncio.wait((drain, again), return_when=asyncio.FIRST_COMPLETED)
        drain.cancel()
        again.cancel()
        log.info("drained" if drain.done() else "second signal: stopping at once")
    finally:
        await server.stop()


class Listener:
    """One aiohttp application on one address."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=2.0)
        self._host = host
        self._port = port

    async def start(self) -> int:
        """Listen; the port. Raises OSError with one clear line when it is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise cannot_listen(self._host, self._port, error) from error
        address: tuple[str, int] = self._runner.addresses[0]
        return address[1]

    async def stop(self) -> None:
        """Close the socket and all connections."""
        await self._runner.cleanup()


def new_application() -> web.Application:
    """An application with the limits that all servers share."""
    return web.Application(client_max_size=MAX_BODY_BYTES)


def error_response(
    status: int, message: str, kind: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error in OpenAI's form."""
    body = error_body(message, kind, param, status)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def bad_request(error: BadRequest) -> web.Response:
    """What the client did wrong."""
    return error_response(error.status, error.message, "invalid_request_error", error.param)


def unavailable(message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """503: not here, not now."""
    return error_response(503, message, "service_unavailable", headers=headers)
