"""The Prometheus adapter gives the same samples as a scrape of the same pages.

`Store` is an HTTP server in this file that speaks `/api/v1/query` for the two fixed forms of query that the adapter
sends: it is what runs where only Python is installed, and it is also what plays the broken Prometheus. That the queries
mean what `Store` takes them to mean is shown by a real Prometheus, in `tests/dashboards`.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import hypothesis
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.adapters.scrape import Scraper
from autoscaler.model import Samples
from autoscaler.settings import MetricsSettings
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
        form = await request.post()
        query, now_s = str(form["query"]), float(str(form["time"]))
        self.queries.append(query)
        if times := re.findall(r"timestamp\(([a-z0-9_:]+)\{(.*?)\}\)", query):
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


def metrics(url: str, **keys: Any) -> MetricsSettings:
    """Settings of the source of metrics, by their keys in YAML."""
    return MetricsSettings.model_validate({"prometheusUrl": url, **keys})


@pytest.fixture
def store() -> Store:
    store = Store()
    for pod, page in PAGES.items():
        store.add(pod, page)
    return store


async def ask(
    store: Store | Handler, targets: tuple[ScrapeTarget, ...] = TARGETS, namespace: str | None = None, **keys: Any
) -> Samples:
    handler = store.answer if isinstance(store, Store) else store
    async with server({"/api/v1/query": handler}) as url:
        reader = PrometheusReader(metrics(url, **keys), namespace)
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


async def test_equals_a_scrape_and_costs_few_bounded_queries(store: Store) -> None:
    assert await ask(store) == await scraped(NOW_S - 3)
    assert len(store.queries) <= 6
    assert max(map(len, store.queries)) < 9000
    *_, times = store.queries
    assert times.count("timestamp(") == 2  # One name for engines, one for the router.


@hypothesis.settings(max_examples=20, deadline=None)
@given(st.randoms())
def test_any_order_of_rows_gives_the_same_samples(shuffled: Random) -> None:
    async def both() -> tuple[Samples, Samples]:
        store = Store()
        for pod, page in PAGES.items():
            store.add(pod, page)
            store.add(pod, page, job="other", prometheus_replica="b")
        first = await ask(store)
        shuffled.shuffle(store.series)
        return first, await ask(store)

    first, second = asyncio.run(both())
    assert len(first.workers) == 2
    assert first == second


async def test_a_service_monitor_renames_labels_and_nothing_changes() -> None:
    store = Store()
    for pod, page in PAGES.items():
        store.add(pod, page, service="chat-metrics", endpoint="http", container="main", engine="9", model_name="x")
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


async def test_what_is_older_than_the_pods_start_is_dropped_and_named(store: Store) -> None:
    samples = await ask(store, (TARGETS[0], TARGETS[1], replace(TARGETS[2], start_s=NOW_S - 2)))
    assert [worker.pod for worker in samples.workers] == ["prefill-0"]
    assert "no series of pod decode-0" in samples.failures["decode-0"]
    assert samples.ghosts == ("decode-0",)
    store.add("decode-0", WORKER.replace("64.0", "1.0"), at_s=NOW_S - 1, instance="10.0.0.9:8000")
    samples = await ask(store, (TARGETS[0], TARGETS[1], replace(TARGETS[2], start_s=NOW_S - 2)))
    assert [(worker.pod, worker.running) for worker in samples.workers] == [("decode-0", 3.0), ("prefill-0", 66.0)]


async def test_ranks_of_a_group_are_asked_for_by_one_pattern(store: Store) -> None:
    targets = tuple(
        ScrapeTarget(f"decode-{n}-{m}", f"u{n}{m}", "decode", leader=False) for n in range(99) for m in (1, 2)
    )
    store.add("decode-7-2", WORKER)
    samples = await ask(store, (*TARGETS, *targets))
    assert [worker.pod for worker in samples.workers] == ["decode-0", "decode-7-2", "prefill-0"]
    assert samples.failures == {}
    assert max(map(len, store.queries)) < 9000


async def test_replicas_of_a_prometheus_count_once(store: Store) -> None:
    for pod, page in PAGES.items():
        for label in ("prometheus_replica", "replica"):
            store.add(pod, page, at_s=NOW_S - 4, **{label: "b"})
    assert await ask(store) == await scraped(NOW_S - 3)


async def test_pods_of_one_name_in_two_clusters_are_refused(store: Store) -> None:
    store.add("decode-0", WORKER, cluster="east")
    store.add("decode-0", WORKER, cluster="west")
    samples = await ask(store)
    assert [worker.pod for worker in samples.workers] == ["prefill-0"]
    assert "clusters , east, west" in samples.failures["decode-0"]


async def test_of_two_ports_the_one_of_the_role_counts(store: Store) -> None:
    store.add("decode-0", ROUTER, at_s=NOW_S - 1, instance="decode-0:9000")
    assert await ask(store) == await scraped(NOW_S - 3)


@pytest.mark.parametrize("added", [{"warnings": ["store x is down"]}, {"isPartial": True}], ids=["Thanos", "VM"])
async def test_warnings_make_the_samples_a_lower_bound(store: Store, added: dict[str, Any]) -> None:
    async def handler(request: web.Request) -> web.Response:
        said = json.loads((await store.answer(request)).text or "")
        return web.json_response({**said, **added})

    samples = await ask(handler)
    assert replace(samples, partial="") == await scraped(NOW_S - 3)
    assert samples.partial.startswith("Prometheus warns: ")


async def test_infos_are_no_warnings(store: Store) -> None:
    async def handler(request: web.Request) -> web.Response:
        said = json.loads((await store.answer(request)).text or "")
        info = ["PromQL info: metric might not be a counter"]
        return web.json_response({**said, "infos": info, "warnings": info})

    assert await ask(handler) == await scraped(NOW_S - 3)


async def test_nan_is_missing_as_in_a_scrape() -> None:
    store = Store()
    store.add("decode-0", WORKER.replace("} 0.98", "} NaN"))
    sample = (await ask(store, (TARGETS[2],))).workers[0]
    assert isinstance(sample.kv_usage, Missing)
    assert "vllm:kv_cache_usage_perc is nan" in sample.kv_usage.missing
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
        samples = await PrometheusReader(metrics(url)).read(TARGETS, NOW_S, SERVICE)
    assert samples == Samples(failures={"prometheus": f"cannot connect to {url}"})


async def test_prometheus_that_never_answers_is_asked_by_one_thread_only() -> None:
    asked, release = 0, asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        """Never done, and never silent for so long that the client itself gives up."""
        nonlocal asked
        asked += 1
        response = web.StreamResponse(status=503)
        await response.prepare(request)
        while not release.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response

    async with server({"/api/v1/query": hang}) as url:
        reader = PrometheusReader(metrics(url, scrapeTimeoutS=0.2))
        first = await reader.read(TARGETS, NOW_S, SERVICE)
        second = await reader.read(TARGETS, NOW_S, SERVICE)
        release.set()
    assert first.failures == {"prometheus": "no answer within 0.2 s"}
    assert second.failures == {"prometheus": "the query before has still not been answered"}
    assert asked == 1


async def test_no_targets_ask_nothing(store: Store) -> None:
    assert await ask(store, ()) == Samples()
    assert store.queries == []
