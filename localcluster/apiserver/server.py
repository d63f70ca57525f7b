"""The HTTP face: paths and verbs to the registry, answers in JSON, Tables, logs and watch streams.

Web pages are refused, also those that come through a rebound DNS name: pods are processes on this host.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from localcluster.apiserver import request, streams
from localcluster.apiserver.kinds import NAMESPACES, PODS, SERVICES, documents
from localcluster.apiserver.patch import json_patch, merge_patch, strategic_merge_patch
from localcluster.apiserver.refusal import Object, Refusal, bad_request
from localcluster.apiserver.registry import Registry, Write, scale_of, timestamp, with_binding, with_scale
from localcluster.apiserver.request import Target, parse_int
from localcluster.apiserver.schema import Models
from localcluster.apiserver.selectors import Predicate, at, predicate
from localcluster.apiserver.store import Entry, Store, encode
from localcluster.apiserver.table import table
from localcluster.logs import log_chunks

_log = logging.getLogger(__name__)

_CHANGES: dict[str, Callable[..., Any]] = {
    "whole": lambda original, patch: patch,
    "application/merge-patch+json": merge_patch,
    "application/json-patch+json": json_patch,
    "application/strategic-merge-patch+json": strategic_merge_patch,
}
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


class ApiServer:
    """The embedded API server, used once as an async context manager. A taken port raises OSError on entry."""

    def __init__(self, port: int = 0, log_dir: Path | None = None, models: Models | None = None) -> None:
        self.port, self.store = port, Store()
        self._log_dir, self._documents = log_dir, documents()
        self._limits: set[asyncio.Timeout] = set()
        self._registry = Registry(self.store, lambda call: asyncio.get_running_loop().call_soon(call), models or {})
        for name in ("default", "kube-node-lease", "kube-system"):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self._registry.create(NAMESPACES, "", body, Write("localcluster"))
        app = web.Application(client_max_size=3 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, handler_cancellation=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        _log.info("API server on %s", self.url)
        return self

    async def __aexit__(self, *error: object) -> None:
        for limit in self._limits:
            limit.reschedule(0)
        await self._runner.cleanup()

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        try:
            return await self._dispatch(http)
        except Refusal as refusal:
            return _json(refusal.status(), refusal.code)

    async def _dispatch(self, http: web.Request) -> web.StreamResponse:
        host, path = http.host.rsplit(":", 1)[0], http.path.rstrip("/")
        if "Origin" in http.headers or (host != "localhost" and not host.startswith("127.")):
            raise Refusal(403, "Forbidden", f"not for web pages, nor under the name {host}")
        if http.method == "GET" and path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if http.method == "GET" and path in self._documents:
            return _json(self._documents[path])
        target = request.parse_path(path)
        if http.method == "GET" and target.subresource not in ("binding", "eviction"):
            return await self._read(http, target)
        body = request.parse_body(await http.read(), http.headers.get("Content-Type", "application/json"))
        write = request.parse_write(http.query, http.headers.get("User-Agent", ""), target.subresource, body)
        if http.method == "POST" and (not target.name or target.subresource in ("binding", "eviction")):
            return self._post(http, target, body, write)
        if http.method in ("PUT", "PATCH") and target.name and target.subresource in ("", "status", "scale"):
            return self._modify(http, target, body, write)
        if http.method == "DELETE" and not target.subresource:
            return self._delete(http, target, body, write)
        raise Refusal(405, "MethodNotAllowed", f"{http.method} {path} is not supported")

    async def _read(self, http: web.Request, target: Target) -> web.StreamResponse:
        if not target.name:
            watches = http.query.get("watch") in ("true", "1")
            return await self._watch(http, target) if watches else self._list(http, target)
        entry = self.store.get(target.ref)
        if target.subresource == "log":
            return await self._log(http, target, entry.obj)
        return _answer(http, target, entry)

    def _list(self, http: web.Request, target: Target) -> web.StreamResponse:
        matches, limit = _selectors(http, target), parse_int(http.query, "limit")
        rows, revision = self.store.scan(target.served, target.namespace), self.store.revision
        if token := http.query.get("continue"):
            revision, last = request.parse_token(token)
            self.store.changes_since(target.served, revision)
            rows = [row for row in rows if row[0][1:] > last]
        rows = [row for row in rows if matches is None or matches(row[1].obj)]
        meta: Object = {"resourceVersion": str(revision)}
        if limit and len(rows) > limit:
            left, (ref, _) = len(rows) - limit, rows[limit - 1]
            token = f"{revision}/{ref.namespace}/{ref.name}"
            rows, meta = rows[:limit], meta | {"continue": token} | ({} if matches else {"remainingItemCount": left})
        if _wants_table(http):
            return _json(_table(http, target, [entry.obj for _, entry in rows], meta))
        kind = target.served.kind
        head = encode({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
        return _json(b'%s,"items":[%s]}' % (head[:-1], b",".join(entry.data for _, entry in rows)))

    async def _watch(self, http: web.Request, target: Target) -> web.StreamResponse:
        initial, bookmarks = (http.query.get(key) == "true" for key in ("sendInitialEvents", "allowWatchBookmarks"))
        since = 0 if initial else parse_int(http.query, "resourceVersion") or 0
        rendered = count()

        def render(data: bytes) -> bytes:
            if not _wants_table(http):
                return data
            obj = json.loads(data)
            made = _table(http, target, [obj], {"resourceVersion": obj["metadata"]["resourceVersion"]})
            return encode(made | ({"columnDefinitions": None} if next(rendered) else {}))

        matches = _selectors(http, target)
        watch = streams.Watch(target.served, target.namespace, matches, since, bookmarks, initial, render)
        return await self._stream(http, "application/json", watch.lines(self.store))

    async def _log(self, http: web.Request, target: Target, pod: Object) -> web.StreamResponse:
        names = [item["name"] for item in pod["spec"]["containers"]]
        name = http.query.get("container") or names[0]
        if name not in names:
            raise bad_request(f"container {name} is not valid for pod {target.name}; expected one of {names}")
        path = (self._log_dir or Path()) / f"{target.namespace}_{target.name}_{name}.log"
        if self._log_dir is None or not path.is_file():
            raise bad_request(f'container "{name}" in pod "{target.name}" is waiting to start')

        def follows() -> bool:
            entry = self.store.find(target.ref)
            runs = entry is not None and entry.obj["status"].get("phase") not in ("Succeeded", "Failed")
            return runs and http.query.get("follow") == "true"

        chunks = log_chunks(path, parse_int(http.query, "tailLines"), follows)
        return await self._stream(http, "text/plain", chunks)

    async def _stream(self, http: web.Request, kind: str, parts: AsyncGenerator[bytes, None]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        limit = asyncio.timeout(parse_int(http.query, "timeoutSeconds") or None)
        await response.prepare(http)
        with suppress(TimeoutError, ConnectionError):
            async with limit, aclosing(parts):
                self._limits.add(limit)
                try:
                    async for part in parts:
                        if part:
                            await response.write(part)
                finally:
                    self._limits.discard(limit)
        return response

    def _post(self, http: web.Request, target: Target, body: Any, write: Write) -> web.StreamResponse:
        if not target.name:
            checked = request.check_object(target, body)
            return _answer(http, target, self._registry.create(target.served, target.namespace, checked, write), 201)
        if at(body, "metadata.name") not in (None, target.name):
            raise bad_request(f"metadata.name must be {target.name}, as in the path")
        if target.subresource == "binding":
            self._registry.update(target.ref, lambda pod: with_binding(pod, body, timestamp()), write)
        else:
            options = body.get("deleteOptions") if isinstance(body, dict) else None
            self._registry.delete(target.ref, request.parse_deletion({}, options), write)
        return _json(_SUCCESS | {"code": 201}, 201)

    def _modify(self, http: web.Request, target: Target, body: Any, write: Write) -> web.StreamResponse:
        scales, kind = target.subresource == "scale", http.content_type
        if http.method == "PUT":
            body, kind = body if scales else request.check_object(target, body), "whole"
            write = write._replace(replaces=not scales)
        if kind not in _CHANGES or (_CHANGES[kind] is strategic_merge_patch and target.served.custom):
            why = f"{kind} is not a patch type of {target.served.resource}; use a merge patch"
            raise Refusal(415, "UnsupportedMediaType", why)
        plain = partial(_CHANGES[kind], patch=body)
        change = partial(with_scale, target.served, plain) if scales else plain
        return _answer(http, target, self._registry.update(target.ref, change, write))

    def _delete(self, http: web.Request, target: Target, body: Any, write: Write) -> web.StreamResponse:
        options, kind = request.parse_deletion(http.query, body), target.served.kind
        details = {"name": target.name, "group": kind.group, "kind": kind.plural}
        if not target.name:
            matches = _selectors(http, target)
            for ref, entry in self.store.scan(target.served, target.namespace):
                if matches is None or matches(entry.obj):
                    self._registry.delete(ref, options, write)
            return _json(_SUCCESS | {"details": details})
        entry, gone = self._registry.delete(target.ref, options, write)
        if gone and target.served not in (PODS, SERVICES):
            return _json(_SUCCESS | {"details": details | {"uid": entry.obj["metadata"]["uid"]}})
        return _answer(http, target, entry)


def _answer(http: web.Request, target: Target, entry: Entry, status: int = 200) -> web.Response:
    if target.subresource == "scale":
        return _json(scale_of(target.served, entry.obj), status)
    if _wants_table(http):
        return _json(_table(http, target, [entry.obj], {}), status)
    return _json(entry.data, status)


def _selectors(http: web.Request, target: Target) -> Predicate | None:
    known = ("metadata.name", "metadata.namespace", *target.served.fields)
    return predicate(http.query.get("labelSelector", ""), http.query.get("fieldSelector", ""), known)


def _wants_table(http: web.Request) -> bool:
    return ";as=Table" in http.headers.get("Accept", "").split(",")[0].replace(" ", "")


def _table(http: web.Request, target: Target, objects: list[Object], meta: Object) -> Object:
    include = http.query.get("includeObject", "Metadata")
    return table(target.served, objects, datetime.now(UTC), meta, include)


def _json(data: bytes | Object, status: int = 200) -> web.Response:
    body = data if isinstance(data, bytes) else encode(data)
    return web.Response(body=body, status=status, content_type="application/json")
