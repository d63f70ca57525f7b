"""What others may ask a running scheduler: POST /v1/fit, and GET /v1/decision for a record of the last decision.

Rules:
1. Who asks is known to the API server and may do so there (kubeapi.access); /v1/decision names every pod and node.
2. A scheduler that sees nothing or does not lead answers 503: what it knows may be old.
3. A long answer is made in a thread; the cycle goes on.
"""

from __future__ import annotations

import asyncio
import json
from typing import Protocol

from aiohttp import web

from gangscheduler.model import Snapshot, Verdicts
from gangscheduler.record import to_json
from gangscheduler.whatif import BadQuestion, fit_answer
from kubeapi.access import access
from kubeapi.client import KubeClient


class Source(Protocol):
    """Where answers come from."""

    def problem(self) -> str:
        """Why nothing can be said; empty when all is well."""

    def leads(self) -> bool:
        """Whether what it knows is what holds."""

    def standing(self) -> str:
        """Whether it leads, in words."""

    def seen(self) -> Snapshot:
        """What it knows now."""

    def decided(self) -> tuple[Snapshot, Verdicts]:
        """Its last decision, and from what it was made."""


class Questions:
    """The handlers."""

    def __init__(self, client: KubeClient, source: Source) -> None:
        self._client = client
        self._source = source

    def routes(self) -> list[web.RouteDef]:
        """For an application's router."""
        return [web.post("/v1/fit", self._fit), web.get("/v1/decision", self._decision)]

    async def _fit(self, request: web.Request) -> web.Response:
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        try:
            question = json.loads(await request.read())
            return web.json_response(await asyncio.to_thread(fit_answer, self._source.seen(), question))
        except (BadQuestion, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            return _error(400, str(error))

    async def _decision(self, request: web.Request) -> web.Response:
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        text = await asyncio.to_thread(lambda: json.dumps(to_json(*self._source.decided())))
        return web.json_response(text=text)

    async def _refusal(self, request: web.Request) -> web.Response | None:
        if not self._source.leads():
            return _error(503, self._source.standing())
        if problem := self._source.problem():
            return _error(503, problem)
        authorization = request.headers.get("Authorization", "")
        answer = await access(self._client, authorization, request.path, request.method.lower())
        return None if answer.allowed else _error(answer.status, answer.message)


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
