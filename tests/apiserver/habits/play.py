"""Plays rows of the table against one API server and keeps its answers.

Rules:
1. A row is data: nothing in it depends on which server answers.
2. `$ns` in any text is the test's namespace, `$(made.metadata.uid)` a field of the answer to the row named `made`.
3. Whoever else writes (a real cluster's controllers) has come to rest before the next row is played.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from kubeapi.config import Config

PATIENCE_S = 30.0
_POLL_S = 0.05
_WATCH_S = 5
_SAVED = re.compile(r"\$\((?P<row>[\w-]+)\.(?P<path>[^()]+)\)")
_TYPES = {
    "MERGE": "application/merge-patch+json",
    "STRATEGIC": "application/strategic-merge-patch+json",
    "JSON": "application/json-patch+json",
}


@dataclass(frozen=True)
class Edited:
    """The answer to an earlier row with a merge patch applied, as a client that reads, changes and writes sends it."""

    row: str
    change: Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """One row. `verb`: a method, the type of a patch, or WATCH. `until`: ask again until this status comes back;
    `where`: until the answer's field (a dotted path) has this value. `events`: how many a watch waits for.
    """

    name: str
    verb: str
    path: str
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    until: int = 0
    where: tuple[str, Any] = ("", None)
    events: int = 0


@dataclass(frozen=True)
class Answer:
    """What came back: the status and the body, a list of events after a watch, text where it is not JSON."""

    code: int
    body: Any


class Player:
    """One server's side. `settles`: the server has controllers of its own, whose writes are waited for."""

    def __init__(self, http: aiohttp.ClientSession, config: Config, namespace: str, settles: bool) -> None:
        self._http, self._config, self._namespace, self._settles = http, config, namespace, settles
        self._saved: dict[str, Any] = {}

    async def play(self, call: Call) -> Answer:
        """The answer to one row, kept under its name."""
        async with asyncio.timeout(PATIENCE_S):
            answer = await self._ask(call)
            while not _is_awaited(call, answer):
                await asyncio.sleep(_POLL_S)
                answer = await self._ask(call)
            if self._settles:
                await self._settle(call, answer)
        self._saved[call.name] = answer.body
        return answer

    async def _ask(self, call: Call) -> Answer:
        path, query = self._filled(call.path), self._filled(dict(call.query))
        headers, data = self._headers(call), self._data(call.body)
        if call.verb == "WATCH":
            query = {"watch": "true", "timeoutSeconds": str(_WATCH_S)} | query
        method = {"WATCH": "GET"}.get(call.verb, "PATCH" if call.verb in _TYPES else call.verb)
        url = self._config.server + path
        async with self._http.request(method, url, params=query, data=data, headers=headers) as response:
            if call.verb == "WATCH" and response.status == 200:
                return Answer(200, await _events(response, call.events))
            text = await response.text(errors="replace")
        return Answer(response.status, json.loads(text) if response.content_type == "application/json" else text)

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {"User-Agent": "habits/1"}
        if call.body is not None:
            headers["Content-Type"] = _TYPES.get(call.verb, "application/json")
        authorization = self._config.authorization()
        return headers | ({"Authorization": authorization} if authorization else {}) | dict(call.headers)

    def _data(self, body: Any) -> bytes | None:
        if isinstance(body, Edited):
            body = merged(self._saved[body.row], self._filled(dict(body.change)))
        body = self._filled(body)
        return None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._filled(key): self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if not isinstance(value, str):
            return value
        text = value.replace("$ns", self._namespace)
        return _SAVED.sub(lambda found: str(at(self._saved[found["row"]], found["path"])), text)

    async def _settle(self, call: Call, answer: Answer) -> None:
        """Wait until the cluster's own controllers have seen an object that they write to."""
        body = answer.body if call.verb != "WATCH" else None
        meta = at(body, "metadata") or {}
        if call.verb == "POST" and at(body, "kind") == "Namespace":
            # A pod is refused until its namespace has this account; the embedded server knows no accounts.
            account = f"/api/v1/namespaces/{meta['name']}/serviceaccounts/default"
            while (await self._ask(Call("", "GET", account))).code != 200:
                await asyncio.sleep(_POLL_S)
        waits = at(body, "kind") in ("Deployment", "ReplicaSet") and "uid" in meta and "dryRun" not in call.query
        path = self._filled(call.path).removesuffix("/status")
        path = path if call.verb != "POST" else f"{path}/{meta.get('name')}"
        while waits and "deletionTimestamp" not in meta:
            await asyncio.sleep(_POLL_S)
            seen = await self._ask(Call("", "GET", path))
            meta = at(seen.body, "metadata") or {}
            waits = seen.code == 200 and at(seen.body, "status.observedGeneration") != meta["generation"]


@asynccontextmanager
async def player(config: Config, namespace: str, *, settles: bool) -> AsyncIterator[Player]:
    """A player with connections of its own."""
    connector = aiohttp.TCPConnector(ssl=config.ssl_context or True)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield Player(http, config, namespace, settles)


def _is_awaited(call: Call, answer: Answer) -> bool:
    path, value = call.where
    return call.until in (0, answer.code) and (not path or at(answer.body, path) == value)


async def _events(response: aiohttp.ClientResponse, count: int) -> list[Any]:
    """That many events, or those that came before the server ended the watch."""
    events: list[Any] = []
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        events += [json.loads(line) for line in lines if line]
        if len(events) >= count:
            break
    return events[:count]


def at(value: Any, path: str) -> Any:
    """A field by its dotted path, numbers for items; None where there is none, the whole for the empty path."""
    for step in path.split(".") if path else ():
        if isinstance(value, list):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def merged(value: Any, change: Any) -> Any:
    """A merge patch, applied."""
    if not isinstance(change, dict):
        return change
    kept = value if isinstance(value, dict) else {}
    result = {key: item for key, item in kept.items() if key not in change}
    return result | {key: merged(kept.get(key), item) for key, item in change.items() if item is not None}
