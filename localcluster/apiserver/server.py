"""The HTTP face: paths and verbs to the registry, answers in JSON, Tables, logs and watch streams.

Rules:
1. Handlers translate; what a write means is in registry.py.
2. Every failure is a Status of one line.
3. Only loopback names are answered: a web page cannot reach the server through a rebound DNS name.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from localcluster.apiserver import discovery, logs
from localcluster.apiserver.kinds import NAMESPACES, PODS, SERVICES, Served
from localcluster.apiserver.patch import json_patch, merge_patch, strategic_merge_patch
from localcluster.apiserver.refusal import Refusal, bad_request, success
from localcluster.apiserver.registry import Registry, Write, timestamp
from localcluster.apiserver.request import (
    Target,
    check_object,
    parse_body,
    parse_deletion,
    parse_int,
    parse_path,
    parse_write,
)
from localcluster.apiserver.selectors import Predicate, predicate
from localcluster.apiserver.store import Entry, Object, Store, encode
from localcluster.apiserver.subresources import scale_of, with_binding, with_scale
from localcluster.apiserver.table import table
from localcluster.apiserver.watch import Watch, line

_log = logging.getLogger(__name__)

NAMESPACES_AT_START = ("default", "kube-system", "roleratio-demo")
_MAX_BODY_BYTES = 3 * 1024 * 1024
_STRATEGIC = "application/strategic-merge-patch+json"
_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": merge_patch,
    "application/json-patch+json": json_patch,
    _STRATEGIC: strategic_merge_patch,
}


class ApiServer:
    """The embedded API server, used once as an async context manager. A taken port raises OSError on entry."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, log_dir: Path | None = None) -> None:
        self.host = host
        self.port = port
        self.store = Store()
        self._log_dir = log_dir
        self._documents = discovery.documents()
        self._streams: set[asyncio.Task[Any]] = set()
        self._registry = Registry(self.store, lambda call: asyncio.get_running_loop().call_soon(call))
        for name in NAMESPACES_AT_START:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self._registry.create(NAMESPACES, "", body, Write("localcluster"))
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        _log.info("API server on %s", self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._streams:
            task.cancel()
        await self._runner.cleanup()

    def write_kubeconfig(self, path: Path) -> None:
        """A kubeconfig for kubectl and the official clients (JSON, which is YAML)."""
        name = "localcluster"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        path.write_text(json.dumps(config, indent=2) + "\n")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._dispatch(request)
        except Refusal as refusal:
            failure = refusal
        except web.HTTPRequestEntityTooLarge:
            failure = Refusal(413, "RequestEntityTooLarge", f"the body exceeds {_MAX_BODY_BYTES} bytes")
        return _json(encode(failure.status()), failure.code)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        host = request.host.rsplit(":", 1)[0]
        if host != "localhost" and not host.startswith("127."):
            raise Refusal(403, "Forbidden", f"this server is not called {host}")
        path = request.path.rstrip("/")
        if request.method == "GET" and path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if request.method == "GET" and path in self._documents:
            return _json(encode(self._documents[path]))
        target = parse_path(path)
        if request.method == "GET":
            return await self._read(request, target)
        body = parse_body(await request.read(), request.content_type)
        agent = request.headers.get("User-Agent", "")
        write = parse_write(request.query, agent, target.subresource, body)
        if request.method == "POST":
            return self._post(request, target, body, write)
        if request.method in ("PUT", "PATCH") and target.subresource in ("", "status", "scale") and target.name:
            return self._modify(request, target, body, write)
        if request.method == "DELETE" and not target.subresource:
            return self._delete(request, target, body, write)
        raise Refusal(405, "MethodNotAllowed", f"{request.method} is not supported on {path}")

    async def _read(self, request: web.Request, target: Target) -> web.StreamResponse:
        if not target.name:
            watches = request.query.get("watch") in ("true", "1")
            return await self._watch(request, target) if watches else self._list(request, target)
        entry = self.store.get(target.ref)
        if target.subresource == "log":
            path = logs.find(entry.obj, request.query.get("container", ""), self._log_dir)
            parts = logs.chunks(path, request.query, self.store, target.ref, entry)
            return await self._stream(request, "text/plain", parts, None)
        if target.subresource in ("binding", "eviction"):
            raise Refusal(405, "MethodNotAllowed", f"{target.subresource} can only be created")
        return self._answer(request, target, entry)

    def _list(self, request: web.Request, target: Target) -> web.StreamResponse:
        matches = _selectors(target.served, request)
        rows = list(self.store.scan(target.served, target.namespace))
        revision = self.store.revision
        if token := request.query.get("continue"):
            revision, *start = _read_token(token)
            self.store.changes_since(target.served, revision)
            rows = [row for row in rows if [row[0].namespace, row[0].name] > start]
        if matches is not None:
            rows = [row for row in rows if matches(row[1].obj)]
        meta: Object = {"resourceVersion": str(revision)}
        limit = parse_int(request.query.get("limit"), "limit")
        if limit and len(rows) > limit:
            last = rows[limit - 1][0]
            token = base64.urlsafe_b64encode(encode([revision, last.namespace, last.name])).decode()
            meta |= {"continue": token, "remainingItemCount": len(rows) - limit}
            rows = rows[:limit]
        if _wants_table(request):
            return _json(_table(request, target, [entry.obj for _, entry in rows], meta))
        kind = target.served.kind
        head = encode({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
        return _json(b'%s,"items":[%s]}' % (head[:-1], b",".join(entry.data for _, entry in rows)))

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        query = request.query
        first = count()

        def render(data: bytes) -> bytes:
            if not _wants_table(request):
                return data
            obj = json.loads(data)
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return _table(request, target, [obj], meta, header=next(first) == 0)

        initial = query.get("sendInitialEvents") == "true"
        watch = Watch(
            target.served,
            target.namespace,
            _selectors(target.served, request),
            since=0 if initial else parse_int(query.get("resourceVersion"), "resourceVersion") or 0,
            bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
            marks_initial=initial,
            render=render,
        )
        if watch.since:
            self.store.changes_since(target.served, watch.since)
        changed = asyncio.Event()
        self.store.listeners(target.served).add(changed.set)
        try:
            timeout_s = parse_int(query.get("timeoutSeconds"), "timeoutSeconds")
            return await self._stream(request, "application/json", watch.lines(self.store, changed), timeout_s)
        finally:
            self.store.listeners(target.served).discard(changed.set)

    async def _stream(
        self, request: web.Request, content_type: str, parts: AsyncIterator[bytes], timeout_s: int | None
    ) -> web.StreamResponse:
        """Send parts until they end, the time is over, the client leaves or the server stops."""
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)

        async def send() -> None:
            try:
                async for part in parts:
                    if part:
                        await response.write(part)
            except Refusal as refusal:
                await response.write(line("ERROR", encode(refusal.status())))

        task = asyncio.create_task(send())
        self._streams.add(task)
        try:
            await asyncio.wait([task], timeout=timeout_s or None)
        finally:
            self._streams.discard(task)
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task
        return response

    def _post(self, request: web.Request, target: Target, body: Any, write: Write) -> web.StreamResponse:
        if target.subresource == "binding":
            self._registry.update(target.ref, lambda pod: with_binding(pod, body, timestamp()), write)
        elif target.subresource == "eviction":
            options = body.get("deleteOptions") if isinstance(body, dict) else None
            self._registry.delete(target.ref, parse_deletion({}, options), write)
        elif target.name:
            raise Refusal(405, "MethodNotAllowed", "POST needs the path of a collection")
        else:
            checked = check_object(target, body)
            entry = self._registry.create(target.served, target.namespace, checked, write)
            return self._answer(request, target, entry, 201)
        return _json(encode(success({}, 201)), 201)

    def _modify(self, request: web.Request, target: Target, body: Any, write: Write) -> web.StreamResponse:
        scales = target.subresource == "scale"
        apply: Callable[[Any, Any], Any]
        if request.method == "PATCH":
            if request.content_type == _STRATEGIC and target.served.custom and not scales:
                why = f"{target.served.resource} knows no strategic merge patch; use a merge patch"
                raise Refusal(415, "UnsupportedMediaType", why)
            if request.content_type not in _PATCHES:
                raise Refusal(415, "UnsupportedMediaType", f"not a patch type: {request.content_type}")
            apply = _PATCHES[request.content_type]
        else:
            body = body if scales else check_object(target, body)
            apply = _replace

        def change(obj: Object) -> Any:
            return with_scale(obj, apply(scale_of(target.served, obj), body)) if scales else apply(obj, body)

        return self._answer(request, target, self._registry.update(target.ref, change, write))

    def _delete(self, request: web.Request, target: Target, body: Any, write: Write) -> web.StreamResponse:
        options = parse_deletion(request.query, body)
        details: Object = {"name": target.name, "group": target.served.kind.group, "kind": target.served.kind.plural}
        if not target.name:
            matches = _selectors(target.served, request)
            for ref, entry in list(self.store.scan(target.served, target.namespace)):
                if matches is None or matches(entry.obj):
                    self._registry.delete(ref, options, write)
            return _json(encode(success(details)))
        entry, gone = self._registry.delete(target.ref, options, write)
        if gone and target.served not in (PODS, SERVICES):
            return _json(encode(success(details | {"uid": entry.obj["metadata"]["uid"]})))
        return self._answer(request, target, entry)

    def _answer(self, request: web.Request, target: Target, entry: Entry, status: int = 200) -> web.StreamResponse:
        if target.subresource == "scale":
            return _json(encode(scale_of(target.served, entry.obj)), status)
        if _wants_table(request):
            meta = {"resourceVersion": entry.obj["metadata"].get("resourceVersion", "")}
            return _json(_table(request, target, [entry.obj], meta), status)
        return _json(entry.data, status)


def _replace(old: Any, new: Any) -> Any:
    return new


def _selectors(served: Served, request: web.Request) -> Predicate | None:
    query = request.query
    return predicate(query.get("labelSelector", ""), query.get("fieldSelector", ""), served.fields)


def _wants_table(request: web.Request) -> bool:
    return ";as=Table" in request.headers.get("Accept", "").split(",")[0].replace(" ", "")


def _table(request: web.Request, target: Target, objects: list[Object], meta: Object, header: bool = True) -> bytes:
    include = request.query.get("includeObject", "Metadata")
    made = table(target.served, objects, datetime.now(UTC), meta, include)
    return encode(made if header else made | {"columnDefinitions": None})


def _read_token(token: str) -> list[Any]:
    try:
        revision, namespace, name = json.loads(base64.urlsafe_b64decode(token.encode()))
        return [int(revision), str(namespace), str(name)]
    except (ValueError, TypeError):
        raise bad_request("the continue token is not one of this server's") from None


def _json(data: bytes, status: int = 200) -> web.Response:
    return web.Response(body=data, status=status, content_type="application/json")
