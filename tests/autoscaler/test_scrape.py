"""Direct scraping against real HTTP servers: each bad pod gets its own reason, the others their samples."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from autoscaler.adapters import scrape
from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.scrape import Scraper
from autoscaler.model import Samples
from policies.model import Role
from tests.autoscaler.pages import ROUTER, SERVICE, WORKER, server, text

TIMEOUT_S = 0.5


@pytest.fixture
async def scraper() -> AsyncIterator[Scraper]:
    scraper = Scraper(TIMEOUT_S)
    yield scraper
    await scraper.close()


def decode(pod: str, url: str) -> ScrapeTarget:
    return ScrapeTarget(pod, f"uid-{pod}", "decode", url)


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("never reached")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(WORKER.encode())


async def test_router_and_workers(scraper: Scraper) -> None:
    async with server({"/r": text(ROUTER), "/w": text(WORKER)}) as url:
        targets = [
            ScrapeTarget("router-1", "uid-r", "router", f"{url}/r"),
            ScrapeTarget("prefill-0", "uid-p", "prefill", f"{url}/w"),
            decode("decode-0", f"{url}/w"),
        ]
        samples = await scraper.read(targets, 7.0, SERVICE)
    assert [sample.uid for sample in samples.routers] == ["uid-r"]
    assert [(sample.pod, sample.uid, sample.role, sample.at_s) for sample in samples.workers] == [
        ("decode-0", "uid-decode-0", Role.DECODE, 7.0),
        ("prefill-0", "uid-p", Role.PREFILL, 7.0),
    ]
    assert samples.failures == {}


async def test_one_bad_pod_never_affects_the_others(scraper: Scraper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "MAX_PAGE_BYTES", 200_000)
    routes = {
        "/good": text(WORKER),
        "/hang": hang,
        "/endless": endless,
        "/html": text("<html>Welcome</html>"),
        "/missing": text("no such page", status=404),
        "/broken": text(WORKER + "vllm:num_requests_running{"),
    }
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with server(routes) as url:
            targets = [decode(path[1:], f"{url}{path}") for path in routes]
            targets += [
                decode("refused", f"http://127.0.0.1:{closed.getsockname()[1]}/metrics"),
                decode("no-url", "http://"),
                ScrapeTarget("not-a-router", "u", "router", f"{url}/good"),
            ]
            samples = await scraper.read(targets, 7.0, SERVICE)
    assert [sample.pod for sample in samples.workers] == ["good"]
    assert samples.routers == ()
    reasons = dict(samples.failures)
    assert reasons.pop("hang") == "no answer within 0.5 s"
    assert "larger than" in reasons.pop("endless")
    assert "is HTML" in reasons.pop("html")
    assert "HTTP 404" in reasons.pop("missing")
    assert "is cut off in its last line" in reasons.pop("broken")
    assert "refused" in reasons.pop("refused")
    assert "InvalidUrl" in reasons.pop("no-url")
    assert "is one of an engine (vllm), but the pod's label" in reasons.pop("not-a-router")
    assert reasons == {}
    assert not any("\n" in why for why in samples.failures.values())


async def test_many_hanging_pods_cost_one_timeout_together(scraper: Scraper) -> None:
    started = asyncio.Barrier(41)

    async def wait_for_all(request: web.Request) -> web.StreamResponse:
        await started.wait()
        return await hang(request)

    async with server({"/hang": wait_for_all, "/good": text(WORKER)}) as url:
        targets = [decode(f"decode-{number}", f"{url}/hang") for number in range(40)]
        reading = asyncio.create_task(scraper.read([*targets, decode("good", f"{url}/good")], 7.0, SERVICE))
        # All forty hang at the same time, so none waits for another's limit.
        await asyncio.wait_for(started.wait(), 30)
        samples = await reading
    assert [sample.pod for sample in samples.workers] == ["good"]
    assert set(samples.failures.values()) == {"no answer within 0.5 s"}
    assert len(samples.failures) == 40


async def test_no_targets_give_nothing(scraper: Scraper) -> None:
    assert await scraper.read([], 7.0, SERVICE) == Samples()
