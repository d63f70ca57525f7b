"""The router's side toward one client: events passed on as they come, or gathered into one answer.

Rules:
1. Nothing is sent before the first bytes of an answer are there, so that a failure before them can be hidden.
2. Bytes go straight to the transport, in the chunks in which they came: a response object's own `write`
   costs several times as much. What a slow client has not read is bounded by its own max_tokens.
"""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from serving.api import chunk, completion_body, error_event, text_of, unchunked, usage
from serving.flight import Flight
from serving.http import EVENT_STREAM, REQUEST_ID_HEADER, error_response


class ClientGone(Exception):
    """There is nobody to answer."""


class Reply:
    """The answer to one request."""

    def __init__(self, request: web.Request, flight: Flight, model_name: str) -> None:
        self._request = request
        self._flight = flight
        self._model_name = model_name
        self._gathered: list[bytes] = []
        self._response: web.StreamResponse | None = None
        self._out: asyncio.WriteTransport | None = None

    async def open(self) -> None:
        """The first bytes of the answer are there: send the headers to a client that wants a stream."""
        if self._flight.completion.stream:
            self._out = await self._open()

    def pass_on(self, data: bytes) -> None:
        """Send or gather some bytes of the answer, chunk frames included."""
        if self._out is not None:
            self._out.write(data)
        else:
            self._gathered.append(data)

    async def end(self) -> web.StreamResponse:
        """The answer is whole."""
        if self._response is not None:
            await self._response.write_eof()
            return self._response
        text, used = text_of(unchunked(b"".join(self._gathered)))
        used = used or usage(self._flight.prompt_tokens, self._flight.tokens)
        body = completion_body(self._flight.id, int(time.time()), self._model_name, text, used)
        return web.Response(body=body, content_type="application/json", headers={REQUEST_ID_HEADER: self._flight.id})

    async def cut(self, reason: str) -> web.StreamResponse:
        """The answer cannot go on: say so in its place."""
        message = f"the answer broke off after {self._flight.tokens} tokens: {reason}; send the request again"
        if self._response is None or self._out is None:
            return error_response(502, message, "bad_gateway")
        self._out.write(chunk(error_event(message, "bad_gateway")))
        await self._response.write_eof()
        return self._response

    async def _open(self) -> asyncio.WriteTransport:
        response = web.StreamResponse(headers={**EVENT_STREAM, REQUEST_ID_HEADER: self._flight.id})
        response.enable_chunked_encoding()
        try:
            await response.prepare(self._request)
        except ConnectionResetError as error:
            raise ClientGone from error
        if self._request.transport is None:
            raise ClientGone
        self._response = response
        return self._request.transport
