"""A fleet read through a real Prometheus: asked, taken apart, understood and joined to pods.

How: a Prometheus (the one on PATH) has scraped `pods` pages of 40 kB, each of a vLLM server of four data-parallel
engines. The reader of the controller then reads all of them, again and again, each time with all of its queries. CPU
time is that of this process alone, in which nothing else runs, and that of Prometheus beyond what its scrapes take.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from dataclasses import dataclass

import aiohttp
import yaml

from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.settings import MetricsSettings
from benchmarks.figure import Figure, figure
from benchmarks.metrics_pages import page
from benchmarks.processes import BenchmarkError, Processes, Running
from roleratio.demo.status import free_ports

LIMIT_S = 2
READY_LIMIT_S = 60
SCRAPE_INTERVAL_S = 15
SERVICE = "team-a/chat"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the fleet is, and how often it is read."""

    pods: int = 100
    reads: int = 20


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of reading through Prometheus."""
    return asyncio.run(_measure(sizes))


async def _measure(sizes: Sizes) -> list[Figure]:
    binary = shutil.which("prometheus")
    if binary is None:
        raise BenchmarkError("no `prometheus` on PATH (Debian: apt-get install prometheus)")
    async with Processes() as processes:
        texts = [page(seed) for seed in range(sizes.pods)]
        url, store = await _start(processes, binary, texts)
        await processes.until("every page in Prometheus", READY_LIMIT_S, lambda: _has(url, sizes.pods))
        return await _read(sizes, url, store, texts)


async def _start(processes: Processes, binary: str, texts: list[str]) -> tuple[str, Running]:
    """A server of the pages and a Prometheus that scrapes it; where that answers."""
    pages_port, port = free_ports(2)
    folder = processes.folder / "pages"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    processes.start("pages", "http.server", f"{pages_port}", "--bind", "127.0.0.1", "--directory", str(folder))
    config = processes.folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(_config(f"127.0.0.1:{pages_port}", len(texts))), encoding="utf-8")
    arguments = (f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}")
    data = f"--storage.tsdb.path={processes.folder / 'data'}"
    return f"http://127.0.0.1:{port}", processes.start("prometheus", binary, *arguments, data, python=False)


def _config(address: str, pods: int) -> dict[str, object]:
    statics = [
        {
            "targets": [address],
            "labels": {"namespace": "team-a", "pod": f"decode-{number}", "__metrics_path__": f"/{number}.txt"},
        }
        for number in range(pods)
    ]
    every = f"{SCRAPE_INTERVAL_S}s"
    job = {"job_name": "pods", "static_configs": statics}
    return {"global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": [job]}


async def _has(url: str, pods: int) -> bool:
    try:
        asked = f"{url}/api/v1/query?query=sum(up)"
        async with aiohttp.ClientSession() as session, session.get(asked) as answer:
            found = (await answer.json())["data"]["result"]
    except (aiohttp.ClientError, json.JSONDecodeError, KeyError):
        return False
    return bool(found) and float(found[0]["value"][1]) == pods


async def _read(sizes: Sizes, url: str, store: Running, texts: list[str]) -> list[Figure]:
    metrics = MetricsSettings.model_validate({"prometheusUrl": url, "scrapeTimeoutS": 60, "staleAfterS": 60})
    targets = [ScrapeTarget(f"decode-{number}", f"uid-{number}", "decode") for number in range(sizes.pods)]
    reader = PrometheusReader(metrics, "team-a")
    took_s: list[float] = []
    ours_s: list[float] = []
    theirs_s: list[float] = []
    try:
        for _ in range(sizes.reads):
            began = time.perf_counter(), time.process_time(), store.cpu_s()
            samples = await reader.read(targets, time.time(), SERVICE)
            ended = time.perf_counter(), time.process_time(), store.cpu_s()
            for values, before, after in zip((took_s, ours_s, theirs_s), began, ended, strict=True):
                values.append(after - before)
            if len(samples.workers) != sizes.pods:
                raise BenchmarkError(f"{len(samples.workers)} of {sizes.pods} pods were read: {samples.failures}")
    finally:
        await reader.close()
    lines = sum(not line.startswith("#") for text in texts for line in text.splitlines()) // len(texts)
    fleet = f"{sizes.pods} pods of {lines} series"
    return [
        figure(f"{fleet} through Prometheus", "s", took_s, median=LIMIT_S),
        figure("CPU time of the reader", "s", ours_s, median=LIMIT_S),
        figure("CPU time of Prometheus", "s", theirs_s),
        figure("the reader's CPU time for a pod", "ms", [value * 1e3 / sizes.pods for value in ours_s]),
    ]
