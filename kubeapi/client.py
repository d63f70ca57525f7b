"""The client: get, list, watch, create, patch, delete on raw JSON.

Rules:
1. `resource_version` in means optimistic locking; a stale one raises Conflict.
2. Lists follow `continue` to the end; the returned version is where a watch goes on.
3. A watch yields what the server sends; it ends when the server ends it. `Cache` (cache.py) keeps one going.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from kubeapi.config import Config
from kubeapi.errors import ApiError, Unreachable, error_for
from kubeapi.kinds import Kind

Object = dict[str, Any]
PatchType = Literal["merge", "strategic", "json"]

_CONTENT_TYPES: dict[PatchType, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}


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
    """One connection pool to one API server, used as an async context manager."""

    def __init__(self, config: Config, *, field_manager: str, timeout_s: float = 10.0) -> None:
        self.config = config
        self.field_manager = field_manager
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self.config.ssl_context or True, limit=64)
        agent = {"User-Agent": f"{self.field_manager}/roleratio"}
        self._session = aiohttp.ClientSession(connector=connector, headers=agent, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(
        self, kind: Kind, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        """One object. Raises NotFound."""
        return await self._request("GET", kind.path(namespace, name, subresource))

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page: int = 500,
    ) -> ObjectList:
        """All objects that match, page by page; linear in their number."""
        params = _selectors(label_selector, field_selector) | {"limit": str(page)}
        items: list[Object] = []
        while True:
            answer = await self._request("GET", kind.path(namespace), params)
            items += answer.get("items") or []
            meta = answer.get("metadata", {})
            if not meta.get("continue"):
                return ObjectList(items, str(meta.get("resourceVersion", "")))
            params["continue"] = meta["continue"]

    async def create(self, kind: Kind, body: Object, namespace: str | None = None, *, dry_run: bool = False) -> Object:
        """Create. Raises AlreadyExists. apiVersion and kind are filled in."""
        body = {"apiVersion": kind.api_version, "kind": kind.kind} | body
        return await self._request("POST", kind.path(namespace), self._write(dry_run), body)

    async def create_sub(self, kind: Kind, name: str, namespace: str | None, subresource: str, body: Object) -> Object:
        """POST to a subresource: `binding`, `eviction`."""
        return await self._request("POST", kind.path(namespace, name, subresource), self._write(False), body)

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
        return await self._request("PATCH", path, self._write(dry_run), body, _CONTENT_TYPES[patch_type])

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
        await self._request("DELETE", kind.path(namespace, name), None, body)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version`, until the server closes. Raises Gone when it is too old."""
        params = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total)
        try:
            async with self._open().get(
                self.config.server + kind.path(namespace),
                params=params,
                headers=self._headers(),
                timeout=timeout,
            ) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.text())
                async for line in _lines(response.content):
                    yield _event(line)
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
    ) -> Object:
        headers = self._headers()
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body, separators=(",", ":")).encode()
        try:
            async with self._open().request(
                method, self.config.server + path, params=params, data=data, headers=headers
            ) as response:
                text = await response.text()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unreachable(0, "Unreachable", f"{method} {self.config.server}{path}: {_text(error)}") from error
        if response.status >= 400:
            raise _error(response.status, text)
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
    if raw["type"] == "ERROR":
        status = raw["object"]
        raise error_for(int(status.get("code", 0)), status.get("reason", ""), status.get("message", ""))
    return WatchEvent(raw["type"], raw["object"])


def _decoded(text: str | bytes, status: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        begin = " ".join(str(text[:80]).split())
        raise ApiError(status, "NotJSON", f"the answer is not from an API server: {begin}") from error


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in pairs.items() if value}


def _error(status: int, text: str) -> ApiError:
    try:
        body = json.loads(text)
        return error_for(status, str(body.get("reason", "")), str(body.get("message", text)))
    except (json.JSONDecodeError, AttributeError):
        return error_for(status, "", " ".join(text.split())[:300] or f"HTTP {status}")


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
