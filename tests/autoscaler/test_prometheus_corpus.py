"""Every page of the corpus through a real Prometheus is understood as the page itself is.

Each page is scraped under several configurations of the scrape: labels of the page kept (`honor_labels`) or renamed,
targets whose own labels collide with the page's, and bucket bounds as Prometheus 3 stores them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import pytest_asyncio

from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.pages import PageError, as_corpus, page_of, read_page
from autoscaler.adapters.prometheus import PrometheusReader, time_query, value_queries
from autoscaler.adapters.scrape import Scraper
from autoscaler.adapters.sources import heartbeats, sources
from autoscaler.settings import MetricsSettings
from tests.autoscaler.pages import ROUTER, SERVICE, WORKER, server, text
from tests.dashboards.conftest import required
from tests.dashboards.queries import Asked, running
from tests.shared_data import shared

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT_S = 60.0

# What a ServiceMonitor adds; pages have some of these labels as well.
PLACE = {"namespace": "team-a", "container": "main", "node": "n0"}
COLLIDING = {"endpoint": "http", "name": "x", "finished_reason": "x", "source": "x", "service": "chat"}
AS_STORED = {"source_labels": ["le"], "regex": "([0-9]+)", "target_label": "le", "replacement": "${1}.0"}
JOBS: dict[str, tuple[bool, dict[str, str], list[dict[str, Any]]]] = {
    "plain": (False, {}, []),
    "service-monitor": (False, PLACE | {"endpoint": "http"}, []),
    "honoured": (True, PLACE | {"endpoint": "http"}, []),
    "renamed": (False, PLACE | COLLIDING, []),
    "prometheus-3": (False, PLACE, [AS_STORED]),
}
OWN = {"router-5d9c-x2x4z": ROUTER, "prefill-0": WORKER, "decode-0": WORKER, "decode-7": WORKER}


@cache
def pages() -> dict[str, str]:
    """The corpus, by name."""
    files = sorted(shared("data/metrics").glob("*.prom"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def readable() -> list[str]:
    """The pages that a Prometheus can scrape."""
    names = []
    for name, body in pages().items():
        try:
            read_page(body)
        except PageError:
            continue
        names.append(name)
    return names


def config(address: str) -> dict[str, Any]:
    """Every page as a pod of every job; pods of a fleet in one more."""
    scrapes = [
        {
            "job_name": job,
            "honor_labels": honoured,
            "metric_relabel_configs": relabel,
            "static_configs": [
                static(address, f"/{name}", f"page-{index}", more) for index, name in enumerate(pages())
            ],
        }
        for job, (honoured, more, relabel) in JOBS.items()
    ]
    fleet = {"job_name": "fleet", "static_configs": [static(address, f"/{pod}", pod, {}) for pod in OWN]}
    return {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": [*scrapes, fleet]}


def static(address: str, path: str, pod: str, more: dict[str, str]) -> dict[str, Any]:
    return {"targets": [address], "labels": {"pod": pod, "__metrics_path__": path, **more}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    folder = tmp_path_factory.mktemp("prometheus")
    routes = {f"/{name}": text(body) for name, body in {**pages(), **OWN}.items()}
    async with (
        server(routes) as url,
        running(required("prometheus"), folder, config(url.removeprefix("http://")), folder / "data") as found,
    ):
        up = len(JOBS) * len(readable()) + len(OWN)
        async with asyncio.timeout(LIMIT_S):
            while (await found.now("sum(up) or vector(0)"))[0][1] < up:
                await asyncio.sleep(0.2)
        yield found


async def every(asked: Asked, selector: str) -> list[Any]:
    """The series of all names that the tables know."""
    return [entry for query in value_queries(selector) for entry in (await asked.get("query", query=query))["result"]]


@pytest.mark.parametrize("job", JOBS)
async def test_a_page_and_its_scrape_are_understood_alike(asked: Asked, job: str) -> None:
    selector = f'pod=~"page-[0-9]+",job="{job}"'
    entries = await every(asked, selector)
    found = {source.pod: source for source in sources(entries, {}).values()}
    names = list(pages())
    read = {names[int(pod.removeprefix("page-"))]: page_of(source.page()) for pod, source in found.items()}
    assert sorted(read) == readable()
    for name, page in read.items():
        wanted = read_page(pages()[name])
        assert page.units == wanted.units, name
        assert page.totals == wanted.totals, name
        assert {**as_corpus(page), "error": ""} == {**as_corpus(wanted), "error": ""}, name


async def test_every_page_has_a_time_whatever_its_engine(asked: Asked) -> None:
    selector = 'pod=~"page-[0-9]+",job="plain"'
    entries = await every(asked, selector)
    chosen = heartbeats(sources(entries, {}).values())
    assert len(chosen) < len(readable())
    now_s = time.time()
    times = await asked.now(time_query(chosen, selector))
    assert len({labels["pod"] for labels, _ in times}) == len(readable())
    assert all(now_s - 10 < at_s <= now_s + 1 for _, at_s in times)


async def test_a_fleet_gives_the_samples_of_a_scrape(asked: Asked) -> None:
    targets = [
        ScrapeTarget("router-5d9c-x2x4z", "uid-r", "router"),
        ScrapeTarget("prefill-0", "uid-p", "prefill"),
        ScrapeTarget("decode-0", "uid-d", "decode"),
    ]
    metrics = MetricsSettings.model_validate({"prometheusUrl": asked.url, "scrapeTimeoutS": 5})
    reader, scraper = PrometheusReader(metrics, "team-a"), Scraper(5.0)
    samples = await reader.read(targets, time.time(), SERVICE)
    async with server({f"/{pod}": text(page) for pod, page in OWN.items()}) as url:
        there = [replace(target, url=f"{url}/{target.pod}") for target in targets]
        wanted = await scraper.read(there, 0.0, SERVICE)
    await asyncio.gather(reader.close(), scraper.close())
    assert samples.failures == {}
    assert samples.ghosts == ("decode-7",)
    assert tuple(replace(sample, at_s=0.0) for sample in samples.routers) == wanted.routers
    assert tuple(replace(sample, at_s=0.0) for sample in samples.workers) == wanted.workers


async def test_queries_of_ones_own_replace_what_pages_say(asked: Asked) -> None:
    targets = [ScrapeTarget("decode-0", "uid-d", "decode"), ScrapeTarget("decode-7", "uid-7", "decode")]
    queries = {
        "waiting": 'sum by (pod) (vllm:num_requests_running{pod="decode-0"})',
        "running": 'label_replace(vector(8), "role", "decode", "", "")',
        "kvUsage": "no_such_series",
    }
    metrics = MetricsSettings.model_validate({"prometheusUrl": asked.url, "scrapeTimeoutS": 5, "queries": queries})
    reader = PrometheusReader(metrics, "team-a")
    samples = await reader.read(targets, time.time(), SERVICE)
    await reader.close()
    assert samples.workers[0].waiting == 66.0
    assert "metrics.queries.waiting" in str(samples.workers[1].waiting)
    assert [worker.running for worker in samples.workers] == [4.0, 4.0]
    assert "metrics.queries.kvUsage" in str(samples.workers[0].kv_usage)
    assert samples.failures.keys() == {"metrics.queries.kvUsage"}


async def test_only_a_page_that_nobody_can_read_is_left_out() -> None:
    assert sorted(pages().keys() - set(readable())) == ["trtllm_json_body_at_metrics"]
