"""A proxy before a real API server that misbehaves on request: refuses, fails, hangs, cuts streams, wants new tokens.

Rule: what no fault is asked for goes through unchanged, watches line by line.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from localcluster.apiserver import ApiServer


@dataclass(frozen=True)
class Fault:
    """What happens instead. `status` 0: the connection is closed without an answer.

    `hang` = nothing ever comes; `cut` = half of the first part of the answer comes, then the connection breaks;
    `lost` = the server does what it is asked, but its answer does not arrive.
    """

    status: int = 0
    retry_after: str = ""
    hang: bool = False
    cut: bool = False
    lost: bool = False


@dataclass
class Proxy:
    """`faults` are used up one a request that `concerns`; `token`, where set, is the only one that is accepted.

    `muted`: the streams of these requests stay open and bring nothing more.
    """

    upstream: str
    session: aiohttp.ClientSession
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    concerns: Callable[[web.Request], bool] = lambda request: True
    always: Fault | None = None
    token: str = ""
    muted: Callable[[web.Request], bool] = lambda request: False
    seen: list[str] = field(default_factory=list)
    streams: list[web.Request] = field(default_factory=list)

    def cut_streams(self) -> None:
        """Break the watches that are open."""
        for http in self.streams:
            if http.transport is not None:
                http.transport.abort()

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """One request."""
        self.seen.append(f"{http.method} {http.path}" + (" watch" if "watch" in http.query else ""))
        if self.token and http.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "")
        concerned = self.concerns(http)
        fault = self.faults.pop(0) if concerned and self.faults else self.always if concerned else None
        if fault is not None and not (fault.cut or fault.lost):
            return await self._fail(http, fault)
        return await self._forward(http, fault)

    async def _fail(self, http: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.hang:
            await asyncio.Event().wait()
        if fault.status == 0:
            await _hang_up(http)
        return _status(fault.status, "ByTest", fault.retry_after)

    async def _forward(self, http: web.Request, fault: Fault | None) -> web.StreamResponse:
        names = ("Content-Type", "Accept", "User-Agent", "Authorization")
        headers = {name: http.headers[name] for name in names if name in http.headers}
        body, url = await http.read(), self.upstream + http.path_qs
        async with self.session.request(http.method, url, data=body or None, headers=headers) as answer:
            if fault is not None and fault.lost:
                await answer.read()
                await _hang_up(http)
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await response.prepare(http)
            if "watch" in http.query:
                self.streams.append(http)
            try:
                async for chunk in answer.content.iter_any():
                    if fault is not None and fault.cut:
                        await response.write(chunk[: len(chunk) // 2])
                        await _hang_up(http)
                    if not self.muted(http):
                        await response.write(chunk)
            finally:
                self.streams = [other for other in self.streams if other is not http]
        return response


async def _hang_up(http: web.Request) -> None:
    if http.transport is not None:
        http.transport.abort()
    # The broken connection cancels the handler.
    await asyncio.Event().wait()


def _status(status: int, reason: str, retry_after: str) -> web.Response:
    body = {"kind": "Status", "code": status, "reason": reason, "message": "by a test", "details": {"name": "x"}}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return web.Response(status=status, text=json.dumps(body), content_type="application/json", headers=headers)


@asynccontextmanager
async def misbehaving() -> AsyncIterator[Proxy]:
    """An embedded API server behind a proxy."""
    async with ApiServer() as server, before(server.url) as proxy:
        yield proxy


@asynccontextmanager
async def before(upstream: str, ca_file: Path | None = None) -> AsyncIterator[Proxy]:
    """A proxy before an API server. It speaks plain HTTP, whatever is behind it."""
    context = ssl.create_default_context(cafile=ca_file) if upstream.startswith("https") else None
    connector = aiohttp.TCPConnector(ssl=context or True, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        proxy = Proxy(upstream, session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            await runner.cleanup()
