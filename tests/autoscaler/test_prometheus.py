"""The Prometheus adapter gives the same samples as a scrape of the same pages.

Two stores answer the adapter's queries. `Store` is an HTTP server in this file that speaks `/api/v1/query` for
the two fixed forms of query that the adapter sends: it is what runs where only Python is installed, and it is
also what plays the broken Prometheus. The last test runs a real Prometheus over the same pages and pods, where a
`prometheus` binary is on PATH; it is what shows that the queries mean what `Store` takes them to mean.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.adapters.scrape import Scraper, ScrapeTarget
from autoscaler.model import Samples
from policies.model import Missing
from tests.autoscaler.pages import ROUTER, SERVICE, WORKER, Handler, server, text

NOW_S = 1_000_000.0
TARGETS = (
    ScrapeTarget("router-5d9c-x2x4z", "uid-r", "router"),
    ScrapeTarget("prefill-0", "uid-p", "prefill"),
    ScrapeTarget("decode-0", "uid-d", "decode"),
)
PAGES = {"router-5d9c-x2x4z": ROUTER, "prefill-0": WORKER, "decode-0": WORKER}


@dataclass
class Store:
    """Series with the time of their scrape, as `(labels with __name__, value, at_s)`."""

    series: list[tuple[dict[str, str], str, float]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)

    def add(self, pod: str, page: str, at_s: float = NOW_S - 3, **labels: str) -> None:
        """A page as Prometheus stores it: labels of the target added, the page's own renamed where they collide."""
        added = {"pod": pod, "namespace": "team-a", "job": "pods", "instance": f"{pod}:8000", **labels}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                own = {(f"exported_{key}" if key in added else key): value for key, value in sample.labels.items()}
                value = {"nan": "NaN", "inf": "+Inf"}.get(str(sample.value), str(sample.value))
                self.series.append(({"__name__": sample.name, **own, **added}, value, at_s))

    async def answer(self, request: web.Request) -> web.Response:
        query, now_s = request.query["query"], float(request.query["time"])
        self.queries.append(query)
        if times := re.findall(r"timestamp\(([a-z_:]+)\{(.*?)\}\)", query):
            result = [
                {
                    "metric": {key: part for key, part in labels.items() if key != "__name__"},
                    "value": [now_s, str(at_s)],
                }
                for name, selector in times
                for labels, _, at_s in self._matching(f'__name__="{name}",{selector}')
            ]
        else:
            result = [{"metric": labels, "value": [now_s, value]} for labels, value, _ in self._matching(query[1:-1])]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    def _matching(self, selector: str) -> list[tuple[dict[str, str], str, float]]:
        tests = re.findall(r'([a-z_]+)(=~?)"([^"]*)"', selector)
        return [
            entry
            for entry in self.series
            if all(
                re.fullmatch(value if operator == "=~" else re.escape(value), entry[0].get(label, ""))
                for label, operator, value in tests
            )
        ]


@pytest.fixture
def store() -> Store:
    store = Store()
    for pod, page in PAGES.items():
        store.add(pod, page)
    return store


async def ask(store: Store | Handler, targets: tuple[ScrapeTarget, ...] = TARGETS, **options: Any) -> Samples:
    handler = store.answer if isinstance(store, Store) else store
    async with server({"/api/v1/query": handler}) as url:
        reader = PrometheusReader(url, 2.0, 30.0, **options)
        try:
            return await reader.read(targets, NOW_S, SERVICE)
        finally:
            await reader.close()


async def scraped(at_s: float) -> Samples:
    """What a scrape of the same pages gives."""
    scraper = Scraper(2.0)
    async with server({f"/{pod}": text(page) for pod, page in PAGES.items()}) as url:
        targets = [replace(target, url=f"{url}/{target.pod}") for target in TARGETS]
        samples = await scraper.read(targets, at_s, SERVICE)
        await scraper.close()
    return samples


async def test_equals_a_scrape_and_costs_two_queries(store: Store) -> None:
    assert await ask(store) == await scraped(NOW_S - 3)
    assert len(store.queries) == 2


async def test_a_service_monitor_renames_labels_and_nothing_changes() -> None:
    store = Store()
    for pod, page in PAGES.items():
        store.add(pod, page, service="chat-metrics", endpoint="http", container="main")
    assert await ask(store) == await scraped(NOW_S - 3)


async def test_two_scrape_jobs_count_once_and_the_newer_counts(store: Store) -> None:
    for pod, page in PAGES.items():
        store.add(pod, page.replace("64.0", "99.0"), at_s=NOW_S - 1, job="other")
    samples = await ask(store)
    assert [worker.running for worker in samples.workers] == [101.0, 101.0]
    assert {worker.at_s for worker in samples.workers} == {NOW_S - 1}


async def test_stale_absent_and_foreign_pods_have_reasons(store: Store) -> None:
    store.series.clear()
    store.add("decode-0", WORKER, at_s=NOW_S - 75)
    store.add("prefill-0", "vllm:num_requests_running 3\n", namespace="team-b")
    samples = await ask(store, namespace="team-a")
    assert (samples.routers, samples.workers) == ((), ())
    assert samples.failures["decode-0"] == "stale: scraped 75 s ago, limit 30 s"
    assert "no series of pod prefill-0" in samples.failures["prefill-0"]
    assert "no series of pod router-5d9c-x2x4z" in samples.failures["router-5d9c-x2x4z"]


async def test_ghosts_are_dropped_and_named(store: Store) -> None:
    before = await ask(store)
    store.add("decode-3", WORKER.replace("64.0", "900.0"))
    store.add("decode-0-1", WORKER)
    store.add("decode-of-another-service-0", WORKER)
    samples = await ask(store)
    assert (samples.routers, samples.workers) == (before.routers, before.workers)
    assert samples.failures == {}
    assert samples.ghosts == ("decode-3",)


async def test_nan_is_missing_as_in_a_scrape() -> None:
    store = Store()
    store.add("decode-0", WORKER.replace("} 0.98", "} NaN"))
    sample = (await ask(store, (TARGETS[2],))).workers[0]
    assert sample.kv_usage == Missing("vllm:kv_cache_usage_perc is nan")
    assert sample.running == 66.0


async def answer(body: object, status: int = 200) -> web.Response:
    if isinstance(body, str):
        return web.Response(text=body, status=status)
    return web.json_response(body, status=status)


VECTOR = {"resultType": "vector", "result": []}
BROKEN = {
    "bad query": (
        {"status": "error", "error": "parse error: bad selector"},
        400,
        "HTTP 400: parse error: bad selector",
    ),
    "overload": ("upstream timed out", 503, "HTTP 503"),
    "partial": (
        {"status": "success", "data": VECTOR, "warnings": ["store x is down"]},
        200,
        "partial: store x is down",
    ),
    "login page": ("<html>Sign in</html>", 200, "not a Prometheus'"),
    "other JSON": ({"hello": 1}, 200, "not a Prometheus'"),
    "a list": ([1, 2], 200, "not a Prometheus'"),
    "no metric": ({"data": {"result": [{"value": [0, "1"]}]}}, 200, "not a Prometheus'"),
    "no number": (
        {"data": {"result": [{"metric": {"pod": "decode-0", "__name__": "x"}, "value": [0, "?"]}]}},
        200,
        "'?'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_prometheus_is_one_reason_and_no_samples(case: str) -> None:
    body, status, why = BROKEN[case]

    async def handler(_: web.Request) -> web.Response:
        return await answer(body, status)

    samples = await ask(handler)
    assert (samples.routers, samples.workers, list(samples.failures)) == ((), (), ["prometheus"])
    assert why in samples.failures["prometheus"]
    assert "\n" not in samples.failures["prometheus"]


async def test_prometheus_that_is_down() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        samples = await PrometheusReader(url, 2.0, 30.0).read(TARGETS, NOW_S, SERVICE)
    assert samples == Samples(failures={"prometheus": f"cannot connect to {url}"})


async def test_prometheus_that_never_answers_is_asked_by_one_thread_only() -> None:
    asked, release = 0, asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await release.wait()
        return web.Response(status=503)

    async with server({"/api/v1/query": hang}) as url:
        reader = PrometheusReader(url, 0.2, 30.0)
        first = await reader.read(TARGETS, NOW_S, SERVICE)
        second = await reader.read(TARGETS, NOW_S, SERVICE)
        release.set()
    assert first.failures == {"prometheus": "no answer within 0.2 s"}
    assert second.failures == {"prometheus": "the query before has still not been answered"}
    assert asked == 1


async def test_no_targets_ask_nothing(store: Store) -> None:
    assert await ask(store, ()) == Samples()
    assert store.queries == []


@asynccontextmanager
async def real_prometheus(folder: Path, pages_url: str) -> AsyncIterator[str]:
    """A Prometheus that scrapes the pages as pods, once a second."""
    statics = [
        {"targets": [pages_url.removeprefix("http://")], "labels": {"pod": pod, "__metrics_path__": f"/{pod}"}}
        for pod in (*PAGES, "decode-7")
    ]
    job = {"job_name": "pods", "scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": statics}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        await process.wait()


async def until_scraped(url: str) -> None:
    """Wait until each pod's page is stored."""
    async with aiohttp.ClientSession() as session:
        for _ in range(150):
            await asyncio.sleep(0.2)
            try:
                async with session.get(f"{url}/api/v1/query", params={"query": "sum(up)"}) as response:
                    result = (await response.json())["data"]["result"]
            except aiohttp.ClientError:
                continue
            if result and float(result[0]["value"][1]) == len(PAGES) + 1:
                return
    raise AssertionError("Prometheus has not scraped the pages within 30 s")


@pytest.mark.skipif(not shutil.which("prometheus"), reason="no `prometheus` binary on PATH; Store stands in for it")
async def test_a_real_prometheus_equals_a_scrape(tmp_path: Path) -> None:
    routes = {f"/{pod}": text(page) for pod, page in {**PAGES, "decode-7": WORKER}.items()}
    async with server(routes) as pages_url, real_prometheus(tmp_path, pages_url) as url:
        await until_scraped(url)
        reader = PrometheusReader(url, 5.0, 30.0, namespace="team-a")
        samples = await reader.read(TARGETS, time.time(), SERVICE)
        await reader.close()
    assert samples.failures == {}
    assert samples.ghosts == ("decode-7",)
    wanted = await scraped(0.0)
    assert tuple(replace(sample, at_s=0.0) for sample in samples.routers) == wanted.routers
    assert tuple(replace(sample, at_s=0.0) for sample in samples.workers) == wanted.workers
