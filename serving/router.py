"""The router: OpenAI completions in, prefill and then decode behind it, the latencies that a user sees.

Rules:
1. A prompt is always prefilled on a prefill worker. Without a ready worker of a role a request waits up to
   `max_wait_s`, then it gets 503 with Retry-After.
2. Offered work is counted at arrival, before any waiting; what the client did wrong is not offered work.
3. Until the first token a failure starts again from prefill, MAX_FAILURES times at most. Afterwards the
   stream ends with an error event.
4. A token costs one read, one count and one write; its JSON is not looked at (see exchange.py).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

from perfmodel.profile import load_profile
from serving.api import BadRequest, check_length, parse_completion
from serving.dispatch import Again, Dispatcher, NoWorker, PassedThrough, now_s
from serving.flight import ABORTED, OK, REJECTED, Flight, RouterMetrics
from serving.http import (
    DRAINING_HEADER,
    METRICS_TYPE,
    REQUEST_ID_HEADER,
    Listener,
    bad_request,
    error_response,
    new_application,
    serve,
    unavailable,
)
from serving.metrics import page
from serving.options import RouterOptions
from serving.pool import Address, Endpoint
from serving.reply import ClientGone, Reply
from serving.tokens import tokenize

if TYPE_CHECKING:
    from serving.discovery import Discovery

MAX_FAILURES = 4
RETRY_AFTER_S = 5
DRAIN_POLL_S = 0.05

log = logging.getLogger(__name__)


class Router:
    """One service's front."""

    def __init__(self, options: RouterOptions) -> None:
        if bool(options.service) == bool(options.endpoints):
            raise ValueError("the router needs either service = NAMESPACE/NAME or endpoints, and not both")
        self.options = options
        self.metrics = RouterMetrics(options.service or "static")
        self.url = ""
        self.draining = False
        self._limit_tokens = options.max_model_len or load_profile(options.profile).max_model_len
        self._synced = False
        self._workers: Dispatcher | None = None
        self._discovery: Discovery | None = None
        self._watch: asyncio.Task[None] | None = None
        self._listener = Listener(self._application(), options.host, options.port)

    async def start(self) -> None:
        """Find workers and listen. Raises OSError when the port is taken, ApiError without a kubeconfig."""
        self._workers = Dispatcher(self.options.answer_limit_s)
        if self.options.service:
            # Only here: the Kubernetes client is heavy, and static endpoints do not need it.
            from serving.discovery import Discovery

            self._discovery = Discovery(self.options.service, self.options.kubeconfig, self.take_over)
            self._watch = asyncio.create_task(self._discovery.run())
        else:
            named = enumerate(self.options.endpoints)
            self.take_over([Address(str(i), endpoint.role, endpoint.url) for i, endpoint in named])
        port = await self._listener.start()
        self.url = f"http://{self.options.host}:{port}"
        log.info("router of %s: listening on %s", self.metrics.service, self.url)

    async def drain(self) -> None:
        """Refuse new requests and return when the open ones have ended."""
        self.draining = True
        deadline_s = now_s() + self.options.drain_limit_s
        while self.metrics.in_flight and now_s() < deadline_s:
            await asyncio.sleep(DRAIN_POLL_S)

    async def stop(self) -> None:
        """Close everything."""
        await self._listener.stop()
        if self._watch is not None:
            self._watch.cancel()
        if self._workers is not None:
            await self._workers.close()

    def endpoints(self) -> list[Endpoint]:
        """The workers that are known now."""
        return self._dispatcher().endpoints()

    def take_over(self, seen: list[Address]) -> None:
        """Use these workers from now on."""
        self._dispatcher().take_over(seen)
        self._synced = True

    def _dispatcher(self) -> Dispatcher:
        if self._workers is None:
            raise RuntimeError("the router is used before start()")
        return self._workers

    def _application(self) -> web.Application:
        app = new_application()
        app.add_routes(
            [
                web.post("/v1/completions", self._completions),
                web.get("/v1/models", self._models),
                web.get("/metrics", self._metrics),
                web.get("/ready", self._ready),
                web.get("/health", self._health),
            ]
        )
        return app

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if self.draining:
            return unavailable("this router is draining", {DRAINING_HEADER: "1"})
        try:
            completion = parse_completion(raw, self.options.model_name)
            prompt_tokens = len(tokenize(completion.prompt))
            check_length(prompt_tokens, completion.max_tokens, self._limit_tokens)
        except BadRequest as error:
            self.metrics.finished[REJECTED] += 1
            return bad_request(error)
        request_id = request.headers.get(REQUEST_ID_HEADER) or uuid4().hex
        flight = Flight(request_id, completion, prompt_tokens, now_s())
        with self.metrics.flying(flight):
            return await self._answer(request, flight)

    async def _answer(self, request: web.Request, flight: Flight) -> web.StreamResponse:
        """The answer; `flight.outcome` tells how it went."""
        deadline_s = flight.arrived_s + self.options.max_wait_s
        while True:
            try:
                hand_over = await self._dispatcher().prefill(flight, deadline_s)
                return await self._relay(request, flight, hand_over)
            except Again as error:
                flight.failures += 1
                log.warning("request %s: %s", flight.id, error)
                if flight.failures >= MAX_FAILURES:
                    return error_response(502, f"workers failed {flight.failures} times", "bad_gateway")
            except PassedThrough as passed:
                flight.outcome = passed.outcome
                return web.Response(status=passed.status, body=passed.body, content_type="application/json")
            except ClientGone:
                flight.outcome = ABORTED
                return unavailable("the client has gone")
            except NoWorker as error:
                self.metrics.no_worker[error.role] += 1
                log.warning("request %s: %s within %g s", flight.id, error, self.options.max_wait_s)
                return unavailable(str(error), {"Retry-After": str(RETRY_AFTER_S)})

    async def _relay(self, request: web.Request, flight: Flight, hand_over: dict[str, Any]) -> web.StreamResponse:
        """Pass the events on as they come. Raises Again while nothing has been passed on."""
        reply = Reply(request, flight, self.options.model_name)
        tokens = self.metrics.tokens

        def pass_on(data: bytes) -> None:
            if count := flight.count(data):
                tokens(flight, count, now_s())
            reply.pass_on(data)

        deadline_s = now_s() + self.options.max_wait_s
        try:
            async with self._dispatcher().decode(flight, hand_over, deadline_s) as exchange:
                await reply.open()
                await exchange.follow(pass_on)
        except Again as error:
            if not flight.tokens:
                raise
            log.warning("request %s: after %d tokens: %s", flight.id, flight.tokens, error)
            return await reply.cut(str(error))
        flight.outcome = OK
        return await reply.end()

    async def _models(self, request: web.Request) -> web.Response:
        model = {"id": self.options.model_name, "object": "model", "created": 0, "owned_by": "roleratio"}
        return web.json_response({"object": "list", "data": [model | {"max_model_len": self._limit_tokens}]})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=page(self.metrics.families()), headers={"Content-Type": METRICS_TYPE})

    async def _ready(self, request: web.Request) -> web.Response:
        if self.draining:
            return unavailable("this router is draining", {DRAINING_HEADER: "1"})
        if not self._synced:
            error = self._discovery.error if self._discovery else ""
            return unavailable(f"the workers are not yet known: {error or 'no answer yet'}")
        return web.Response(text="ok\n")

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")


async def run(options: RouterOptions) -> None:
    """Serve until SIGTERM, drain, return. Raises ValueError, ProfileError, ApiError or OSError (port taken)."""
    await serve(Router(options))
