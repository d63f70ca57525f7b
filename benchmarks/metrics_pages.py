"""Metrics pages: read and aggregated by ours, and parsed alone by prometheus_client, over the same pages.

How: pages of 40 kB with the names, labels and buckets of a vLLM server of four data-parallel engines, no two with the
same values. Both parsers take the same pages in turns, on one core. prometheus_client's result still has to be
understood; ours is the finished `Page`. The fleet is as many different pages one after the other; then the same
pages as so many pods, which another process serves: scraped at once, understood and joined to samples.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.pages import read_page
from autoscaler.adapters.scrape import Scraper
from benchmarks.figure import Figure, figure
from benchmarks.processes import BenchmarkError
from benchmarks.stopwatch import timed

LIMIT_MS = 3
FLEET, FLEET_LIMIT_S = 1000, 5
PAGE_BYTES = 40_000
ENGINES = 4

_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
_COUNTERS = ("prompt_tokens", "generation_tokens", "num_preemptions", "prefix_cache_queries", "prefix_cache_hits")
_TIMES = {
    "time_to_first_token_seconds": (
        0.001,
        0.005,
        0.01,
        0.02,
        0.04,
        0.06,
        0.08,
        0.1,
        0.25,
        0.5,
        0.75,
        1.0,
        2.5,
        5.0,
        7.5,
    ),
    "inter_token_latency_seconds": (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    "request_queue_time_seconds": (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
}
_MODEL = "meta-llama/Llama-3.1-70B-Instruct"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many pages are timed one by one, and how many make the fleet."""

    pages: int = 200
    fleet: int = FLEET


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of reading pages."""
    pages = [page(seed) for seed in range(sizes.fleet)]
    ours_ms: list[float] = []
    theirs_ms: list[float] = []
    for index in range(sizes.pages):
        text = pages[index % len(pages)]
        with timed(ours_ms):
            understood = read_page(text)
        with timed(theirs_ms):
            families = list(text_string_to_metric_families(text))
        if len(understood.units) != ENGINES or not families:
            raise BenchmarkError(f"page {index} was not understood: {understood.problem or understood.units}")
    fleet_ms: list[float] = []
    with timed(fleet_ms):
        for text in pages:
            read_page(text)
    scraped_s, processor_s = _scraped(pages)
    size = f"{len(pages[0]) / 1000:.0f} kB"
    return [
        figure(f"a page of {size}: parsed and aggregated", "ms", ours_ms, median=LIMIT_MS),
        figure(f"a page of {size}: parsed by prometheus_client", "ms", theirs_ms),
        figure("prometheus_client's time over ours", "", [b / a for a, b in zip(ours_ms, theirs_ms, strict=True)]),
        figure(f"{sizes.fleet} pages on one core", "s", [fleet_ms[0] / 1000], median=FLEET_LIMIT_S),
        figure(f"{sizes.fleet} pods scraped, parsed, joined", "s", [scraped_s], median=FLEET_LIMIT_S),
        figure(f"{sizes.fleet} pods: CPU of the reader", "s", [processor_s]),
    ]


def _scraped(pages: Sequence[str]) -> tuple[float, float]:
    """Seconds of one read of as many pods as there are pages, and the reader's CPU seconds."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(list(pages), there), daemon=True)
    server.start()
    try:
        port = here.recv()
        return asyncio.run(_read(port, len(pages)))
    finally:
        server.terminate()
        server.join()


async def _read(port: int, count: int) -> tuple[float, float]:
    urls = [f"http://127.0.0.1:{port}/{index}" for index in range(count)]
    targets = [ScrapeTarget(f"decode-{index}", f"uid-{index}", "decode", url) for index, url in enumerate(urls)]
    scraper = Scraper(scrape_timeout_s=60)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    samples = await scraper.read(targets, 0.0, "chat")
    spent = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    await scraper.close()
    if len(samples.workers) != count:
        raise BenchmarkError(f"{len(samples.workers)} of {count} pods were read: {dict(samples.failures)}")
    return spent


def _serve(pages: list[str], pipe: Connection) -> None:
    """The pods: every page under its number, until the process is ended."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=pages[int(request.match_info["index"])])

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/{index}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=len(pages)).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(serve())


def page(seed: int) -> str:
    """A page of `PAGE_BYTES` or a little more; the families that nobody reads fill it up."""
    chance = random.Random(seed)
    blocks = [_family(f"vllm:{name}", "gauge", chance.random) for name in _GAUGES]
    blocks += [_family(f"vllm:{name}_total", "counter", lambda: float(chance.randrange(10**7))) for name in _COUNTERS]
    blocks += [_histogram(f"vllm:{name}", bounds, chance) for name, bounds in _TIMES.items()]
    text = "".join(blocks)
    for extra in range(99):
        if len(text) >= PAGE_BYTES:
            break
        text += _histogram(f"vllm:request_params_{extra}", _TIMES["request_queue_time_seconds"], chance)
    return text


def _family(name: str, kind: str, value: Callable[[], float]) -> str:
    lines = [f"# HELP {name} What a server counts.\n# TYPE {name} {kind}\n"]
    return "".join(
        lines + [f'{name}{{engine="{engine}",model_name="{_MODEL}"}} {value()}\n' for engine in range(ENGINES)]
    )


def _histogram(name: str, bounds: tuple[float, ...], chance: random.Random) -> str:
    lines = [f"# HELP {name} What a server times.\n# TYPE {name} histogram\n"]
    for engine in range(ENGINES):
        labels, count = f'engine="{engine}",model_name="{_MODEL}"', 0.0
        for bound in (*map(str, bounds), "+Inf"):
            count += chance.randrange(1000)
            lines.append(f'{name}_bucket{{engine="{engine}",le="{bound}",model_name="{_MODEL}"}} {count}\n')
        lines += [f"{name}_count{{{labels}}} {count}\n", f"{name}_sum{{{labels}}} {count * chance.random()}\n"]
    return "".join(lines)
