"""Credentials, TLS and refusals of a Prometheus: a store behind a real TLS server that checks what it is sent."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.errors import UserError
from autoscaler.model import Samples
from tests.autoscaler.pages import SERVICE, Handler, server, settings
from tests.autoscaler.test_prometheus import NOW_S, PAGES, TARGETS, Store, metrics

TOKEN = {"prometheusTokenFile": "token"}
HEADERS = {"prometheusHeadersFile": "headers"}


@pytest.fixture
def store() -> Store:
    store = Store()
    for pod, page in PAGES.items():
        store.add(pod, page)
    return store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The credentials for 127.0.0.1."""
    monkeypatch.setenv("ROLERATIO_CREDENTIALS", str(tmp_path / "credentials"))
    found = tmp_path / "credentials" / "127.0.0.1"
    found.mkdir(parents=True)
    return found


async def look(url: str, **keys: Any) -> Samples:
    reader = PrometheusReader(metrics(url, **keys))
    try:
        return await reader.read(TARGETS, NOW_S, SERVICE)
    finally:
        await reader.close()


class Guard:
    """Lets through only what carries these headers."""

    def __init__(self, store: Store, **headers: str) -> None:
        self._store = store
        self.headers = headers

    async def answer(self, request: web.Request) -> web.Response:
        if any(request.headers.get(name.replace("_", "-")) != value for name, value in self.headers.items()):
            return web.Response(text="no entry", status=401)
        return await self._store.answer(request)


async def test_token_and_tenant_are_read_again_at_each_use(store: Store, folder: Path) -> None:
    guard = Guard(store, Authorization="Bearer first", X_Scope_OrgID="team-a")
    (folder / "token").write_text("first\n")
    (folder / "headers").write_text("X-Scope-OrgID: team-a\n\nX-Other: b:c\n".replace("\n\n", "\n"))
    async with server({"/api/v1/query": guard.answer}) as url:
        reader = PrometheusReader(metrics(url, **TOKEN, **HEADERS))
        assert len((await reader.read(TARGETS, NOW_S, SERVICE)).workers) == 2
        guard.headers["Authorization"] = "Bearer second"
        refused = await reader.read(TARGETS, NOW_S, SERVICE)
        (folder / "token").write_text("second")
        assert len((await reader.read(TARGETS, NOW_S, SERVICE)).workers) == 2
        await reader.close()
    assert refused.failures["prometheus"].startswith("HTTP 401: no entry: it wants credentials")
    assert "first" not in refused.failures["prometheus"]


async def test_credentials_of_one_host_are_never_sent_to_another(store: Store, folder: Path) -> None:
    (folder / "token").write_text("secret")
    sent: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        sent.append(request.headers.get("Authorization", ""))
        return await store.answer(request)

    async with server({"/api/v1/query": handler}) as url:
        samples = await look(url.replace("127.0.0.1", "localhost"), **TOKEN)
    assert sent == []
    assert "localhost/token: cannot be read: No such file" in samples.failures["prometheus"]


BAD_FILES = {
    "absent": (TOKEN, None, "cannot be read"),
    "empty": (TOKEN, b"\n", "is empty"),
    "two words": (TOKEN, b"a b", "expected one token"),
    "binary": (TOKEN, b"\xff\xfe", "expected text"),
    "no colon": (HEADERS, b"hello", "X-Scope-OrgID: team-a"),
}


@pytest.mark.parametrize("case", BAD_FILES)
async def test_a_bad_file_is_one_line_that_does_not_show_it(store: Store, folder: Path, case: str) -> None:
    keys, content, why = BAD_FILES[case]
    if content is not None:
        (folder / next(iter(keys.values()))).write_bytes(content)
    async with server({"/api/v1/query": store.answer}) as url:
        samples = await look(url, **keys)
    reason = samples.failures["prometheus"]
    assert why in reason
    assert "\n" not in reason
    assert "hello" not in reason


REFUSALS = {
    401: "metrics.prometheusTokenFile",
    403: "metrics.prometheusHeadersFile",
    404: "metrics.prometheusUrl",
    422: "check the query",
    503: "overloaded",
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal_names_its_remedy(status: int) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"status": "error", "error": "so\nit is"}, status=status)

    async with server({"/api/v1/query": handler}) as url:
        reason = (await look(url)).failures["prometheus"]
    assert reason.startswith(f"HTTP {status}: so it is: ")
    assert REFUSALS[status] in reason


async def test_a_redirection_is_not_followed(folder: Path) -> None:
    (folder / "token").write_text("secret")
    followed: list[str] = []

    async def login(request: web.Request) -> web.Response:
        followed.append(request.path)
        return web.Response(text="<html>Sign in</html>")

    async def handler(_: web.Request) -> web.Response:
        raise web.HTTPFound("/login")

    async with server({"/api/v1/query": handler, "/login": login}) as url:
        reason = (await look(url, **TOKEN)).failures["prometheus"]
    assert reason == "HTTP 302: leads to /login: is that a log-in, or the right URL?"
    assert followed == []


@asynccontextmanager
async def tls_server(handler: Handler, folder: Path) -> AsyncIterator[str]:
    """A server with a certificate of its own, which is written to the folder as `ca.crt`; its URL."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no `openssl` on PATH to make a certificate with")
    subject = ("-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(folder / "key"), "-out", str(folder / "ca.crt"))
    command = (openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject)
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key")
    app = web.Application()
    app.router.add_post("/api/v1/query", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_ca_of_ones_own(store: Store, folder: Path) -> None:
    guard = Guard(store, Authorization="Bearer t")
    (folder / "token").write_text("t")
    async with tls_server(guard.answer, folder) as url:
        trusted = await look(url, prometheusCaFile="ca.crt", **TOKEN)
        doubted = await look(url, **TOKEN)
    assert len(trusted.workers) == 2
    reason = doubted.failures["prometheus"]
    assert reason.startswith(f"cannot trust {url}: ")
    assert reason.endswith("set metrics.prometheusCaFile to its CA")
    assert "self-signed certificate" in reason


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/token", ".."])
def test_a_file_is_named_without_its_folder(name: str) -> None:
    with pytest.raises(UserError, match=r"prometheusTokenFile.*pattern"):
        settings(metrics={"prometheusUrl": "http://p", "prometheusTokenFile": name})


@pytest.mark.parametrize("keys", [TOKEN, HEADERS, {"queries": {"waiting": "x"}}])
def test_what_needs_a_prometheus_asks_for_one(keys: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="prometheusUrl is not set"):
        settings(metrics=keys)
    assert settings(metrics={"prometheusUrl": "http://p", **keys}).spec.metrics.prometheus_url == "http://p"


@pytest.mark.parametrize(("queries", "why"), [({"latency": "x"}, "unknown key"), ({"waiting": ""}, "at least 1")])
def test_queries_have_a_closed_set_of_names(queries: dict[str, str], why: str) -> None:
    with pytest.raises(UserError, match=why):
        settings(metrics={"prometheusUrl": "http://p", "queries": queries})
