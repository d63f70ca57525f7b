"""The client: get, list, watch, create, patch, delete on raw JSON.

Rules:
1. `resource_version` in means optimistic locking; a stale one raises Conflict.
2. Lists follow `continue` to the end; the returned version is where a watch goes on.
3. A watch yields what the server sends; it ends when the server ends it. `Cache` (cache.py) keeps one going.
4. What failed in passing and may be done twice is done again (retry.py), all of it within `timeout_s`.
5. A 401 reloads the credentials, once a request. With a `fence` that says no, nothing is written.
6. While a Retry-After lasts nothing is written. `unwritable` says why the last write came to nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from kubeapi.config import Config
from kubeapi.errors import ApiError, NotLeader, TooManyRequests, Unauthorized, Unreachable, error_for
from kubeapi.kinds import Kind
from kubeapi.retry import PATIENT, RetryPolicy, passes
from kubeapi.rights import missing_right

Object = dict[str, Any]
PatchType = Literal["merge", "strategic", "json"]

log = logging.getLogger("kubeapi")

# A Retry-After above this is somebody's mistake: writes are tried again after it all the same.
LONGEST_REST_S = 60.0

_VERSIONS = (("major", "minor"), ("emulationMajor", "emulationMinor"))

_CONTENT_TYPES: dict[PatchType, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}


@dataclass(frozen=True, slots=True)
class _Call:
    """A request, ready to be sent. `repeatable`: sent twice it does what it does once."""

    method: str
    path: str
    params: dict[str, str] | None
    data: bytes | None
    content_type: str
    repeatable: bool


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A complete list and the version at which it was true."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED or BOOKMARK, with the object."""

    type: str
    object: Object


class KubeClient:
    """One connection pool to one API server, used as an async context manager.

    `fence` is asked before every write; while it says False, writes raise NotLeader and are not sent.
    """

    def __init__(
        self,
        config: Config,
        *,
        field_manager: str,
        timeout_s: float = 10.0,
        retry: RetryPolicy = PATIENT,
        fence: Callable[[], bool] | None = None,
    ) -> None:
        self.config = config
        self.field_manager = field_manager
        self._timeout_s = timeout_s
        self._retry = retry
        self._fence = fence
        self._unwritable: tuple[ApiError, float] | None = None
        self._writable_s = 0.0
        self._refreshing = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self.config.ssl_context or True, limit=64)
        agent = {"User-Agent": f"{self.field_manager}/roleratio"}
        self._session = aiohttp.ClientSession(connector=connector, headers=agent)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def unwritable(self) -> ApiError | None:
        """The last write's error if it was the server's (no answer, 401, 429, 5xx) and of the last minute."""
        if self._unwritable is None or time.monotonic() - self._unwritable[1] > LONGEST_REST_S:
            return None
        return self._unwritable[0]

    async def get(
        self, kind: Kind, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        """One object. Raises NotFound."""
        return await self._request("GET", kind.path(namespace, name, subresource))

    async def read(self, path: str) -> Object:
        """What is at a path that is no object: a group's versions, a published schema. Raises NotFound."""
        return await self._request("GET", path)

    async def version(self) -> str:
        """The server's version, such as v1.37.2; v1.36 for one that was told to behave as that."""
        told = await self.read("/version")
        own, emulated = ([str(told.get(key, "")) for key in keys] for keys in _VERSIONS)
        return f"v{'.'.join(emulated)}" if all(emulated) and emulated != own else str(told.get("gitVersion", ""))

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page: int = 500,
        slim: Callable[[Object], Object] | None = None,
    ) -> ObjectList:
        """All objects that match, page by page; linear in their number. apiVersion and kind are filled in.

        `slim` is applied to each page at once: a list of large objects is never held whole.
        """
        params = _selectors(label_selector, field_selector) | {"limit": str(page)}
        # A list of built-in kinds says these once, for all its items.
        own = {"apiVersion": kind.api_version, "kind": kind.kind}
        items: list[Object] = []
        while True:
            answer = await self._request("GET", kind.path(namespace), params)
            found = (own | item for item in answer.get("items") or ())
            items += found if slim is None else map(slim, found)
            meta = answer.get("metadata", {})
            if not meta.get("continue"):
                return ObjectList(items, str(meta.get("resourceVersion", "")))
            params["continue"] = meta["continue"]

    async def some(self, kind: Kind, namespace: str | None = None, *, field_selector: str = "") -> bool:
        """Whether any object matches, without fetching more than one."""
        params = _selectors("", field_selector) | {"limit": "1"}
        return bool((await self._request("GET", kind.path(namespace), params)).get("items"))

    async def create(self, kind: Kind, body: Object, namespace: str | None = None, *, dry_run: bool = False) -> Object:
        """Create. Raises AlreadyExists. apiVersion and kind are filled in."""
        body = {"apiVersion": kind.api_version, "kind": kind.kind} | body
        return await self._request("POST", kind.path(namespace), self._write(dry_run), body, repeatable=False)

    async def create_sub(self, kind: Kind, name: str, namespace: str | None, subresource: str, body: Object) -> Object:
        """POST to a subresource: `binding`, `eviction`."""
        path = kind.path(namespace, name, subresource)
        return await self._request("POST", path, self._write(False), body, repeatable=False)

    async def update(
        self, kind: Kind, body: Object, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        """Replace; metadata.resourceVersion in the body locks. Raises Conflict."""
        path = kind.path(namespace, body["metadata"]["name"], subresource)
        return await self._request("PUT", path, self._write(False), body)

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        body: Any,
        *,
        patch_type: PatchType = "merge",
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Patch; a resourceVersion inside the body locks. Raises NotFound, Conflict, Invalid."""
        path = kind.path(namespace, name, subresource)
        content_type, repeatable = _CONTENT_TYPES[patch_type], patch_type != "json"
        return await self._request("PATCH", path, self._write(dry_run), body, content_type, repeatable=repeatable)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        uid: str | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
    ) -> None:
        """Delete; `uid` makes sure it is the object that was seen. Raises NotFound, Conflict."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_s is not None:
            body["gracePeriodSeconds"] = grace_period_s
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if propagation is not None:
            body["propagationPolicy"] = propagation
        # Without a uid, a repeated deletion could hit a namesake made in between.
        await self._request("DELETE", kind.path(namespace, name), None, body, repeatable=uid is not None)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: int = 240,
        quiet_s: float = 150.0,
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version`, until the server closes, at the latest after `timeout_s`.

        A server sends at least a bookmark a minute; where one says nothing for `quiet_s` the watch ends, too. Raises
        Gone for a version that is too old.
        """
        params = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_s),
        }
        total_s = timeout_s + self._timeout_s
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=self._timeout_s, sock_read=quiet_s)
        path = kind.path(namespace)
        try:
            async with self._open().get(
                self.config.server + path,
                params=params,
                headers=self._headers(),
                timeout=timeout,
            ) as response:
                if response.status >= 400:
                    text = await response.text()
                    raise _error(f"GET {path}", response.status, text, response.headers.get("Retry-After"))
                async for line in _lines(response.content):
                    yield _event(line)
        except aiohttp.SocketTimeoutError:
            log.debug("the watch of %s is quiet", path)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(0, "Unreachable", f"{self.config.server}: {_text(error)}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("KubeClient is used outside `async with`")
        return self._session

    def _write(self, dry_run: bool) -> dict[str, str]:
        params = {"fieldManager": self.field_manager}
        return params | {"dryRun": "All"} if dry_run else params

    def _headers(self) -> dict[str, str]:
        authorization = self.config.authorization()
        return {"Authorization": authorization} if authorization else {}

    async def _request(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        *,
        repeatable: bool = True,
    ) -> Object:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        call = _Call(method, path, params, data, content_type, repeatable)
        if method == "GET":
            return await self._repeated(call)
        try:
            answer = await self._repeated(call)
        except NotLeader:
            raise
        except ApiError as error:
            of_server = passes(error) or isinstance(error, Unauthorized)
            self._unwritable = (error, time.monotonic()) if of_server else None
            raise
        self._unwritable = None
        return answer

    async def _repeated(self, call: _Call) -> Object:
        deadline_s = time.monotonic() + self._timeout_s
        waits = self._retry.waits() if call.repeatable else iter(())
        while True:
            try:
                return await self._authorized(call, deadline_s)
            except ApiError as error:
                wait_s = max(next(waits, math.inf), error.retry_after_s or 0.0)
                if not passes(error) or time.monotonic() + wait_s >= deadline_s:
                    raise
                log.debug("%s; again in %.2f s", error, wait_s)
                await asyncio.sleep(wait_s)

    async def _authorized(self, call: _Call, deadline_s: float) -> Object:
        headers = self._headers()
        try:
            return await self._send(call, headers, deadline_s)
        except Unauthorized:
            await self._refresh(headers)
            again = self._headers()
            if again == headers:
                raise
            return await self._send(call, again, deadline_s)

    async def _refresh(self, refused: dict[str, str]) -> None:
        """Reload the credentials, unless another request has done so already."""
        async with self._refreshing:
            if self._headers() == refused:
                # What cannot be reloaded stays as it is: the caller sees the 401.
                with suppress(ApiError):
                    await asyncio.to_thread(self.config.refresh)

    async def _send(self, call: _Call, headers: dict[str, str], deadline_s: float) -> Object:
        request = f"{call.method} {call.path}"
        if call.method != "GET" and self._fence is not None and not self._fence():
            raise NotLeader(0, "NotLeader", f"{request} not sent: this process does not hold its Lease")
        if call.method != "GET" and (left_s := self._writable_s - time.monotonic()) > 0:
            why = f"{request} not sent: the server has asked to wait"
            raise TooManyRequests(429, "TooManyRequests", why, left_s)
        if call.data is not None:
            headers = headers | {"Content-Type": call.content_type}
        timeout = aiohttp.ClientTimeout(total=max(0.001, deadline_s - time.monotonic()))
        url = self.config.server + call.path
        try:
            async with self._open().request(
                call.method, url, params=call.params, data=call.data, headers=headers, timeout=timeout
            ) as response:
                text = await response.text()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unreachable(0, "Unreachable", f"{call.method} {url}: {_text(error)}") from error
        if response.status >= 400:
            refusal = _error(request, response.status, text, response.headers.get("Retry-After"))
            rest_s = min(LONGEST_REST_S, refusal.retry_after_s or 0.0)
            self._writable_s = max(self._writable_s, time.monotonic() + rest_s)
            raise refusal
        answer: Object = _decoded(text, response.status) if text else {}
        return answer


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: a watched object may exceed the reader's line limit."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _event(line: bytes) -> WatchEvent:
    raw = _decoded(line, 200)
    kind, obj = (raw.get("type"), raw.get("object")) if isinstance(raw, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(obj, dict):
        raise ApiError(200, "NotAnEvent", f"a watch brought no event: {' '.join(str(line[:80]).split())}")
    if kind == "ERROR":
        raise error_for(int(obj.get("code", 0)), obj.get("reason", ""), obj.get("message", ""))
    return WatchEvent(kind, obj)


def _decoded(text: str | bytes, status: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        begin = " ".join(str(text[:80]).split())
        raise ApiError(status, "NotJSON", f"the answer is not from an API server: {begin}") from error


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in pairs.items() if value}


def _error(request: str, status: int, text: str, retry_after: str | None) -> ApiError:
    """The error of an answer; what was asked comes first where the answer does not say of what it speaks."""
    try:
        body = json.loads(text)
        reason, message = str(body.get("reason", "")), str(body.get("message", text))
        known = bool(body.get("details"))
    except (json.JSONDecodeError, AttributeError):
        reason, message, known = "", " ".join(text.split())[:300] or f"HTTP {status}", False
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    if status == 403:
        message = missing_right(message)
    return error_for(status, reason, message if known else f"{request}: {message}", seconds)


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
