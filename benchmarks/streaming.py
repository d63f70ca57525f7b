"""CPU per streamed token: client, router and workers as real processes.

How: a prefill worker, a decode worker, a router with static endpoints and the load client of `roleratio demo`, each a
process of its own. CPU is user + system time of each whole process between the first request and the last token,
divided by the tokens that the client received: connections, prompts, KV transfers, timers and metrics are all in it,
and nothing is subtracted. `streams` runs that many long answers at once, which start within a second; "demo's load"
replays the first requests of the built-in workload, whose answers are short and whose batches are small, for
information.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from benchmarks.figure import Figure, figure
from benchmarks.processes import BenchmarkError, Processes, Running
from roleratio import workload
from roleratio.demo.status import free_ports
from roleratio.traces import Arrival
from serving.options import DEFAULT_MODEL

HOST = "127.0.0.1"
READY_LIMIT_S = 20.0
RUN_LIMIT_S = 120.0
LIMIT_US = 150
WORKER_LIMIT_MB = 60


@dataclass(frozen=True, slots=True)
class Sizes:
    """The load. A step of the profile's decode takes about 30 ms, so 350 tokens stream for about 10 s."""

    streams: int = 40
    prompt_tokens: int = 200
    output_tokens: int = 350
    repeats: int = 3
    demo_requests: int = 60


DEFAULT = Sizes()


@dataclass(frozen=True, slots=True)
class Cost:
    """One run: CPU of each process, in microseconds per token."""

    parts_us: dict[str, float]
    tokens_per_s: float

    @property
    def total_us(self) -> float:
        """All processes together."""
        return sum(self.parts_us.values())


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of streaming."""
    return asyncio.run(_measure(sizes))


async def _measure(sizes: Sizes) -> list[Figure]:
    many = [Arrival(index / sizes.streams, sizes.prompt_tokens, sizes.output_tokens) for index in range(sizes.streams)]
    demo = workload.arrivals(0, workload.DEFAULT_DURATION_S)[: sizes.demo_requests]
    async with Processes() as processes:
        servers, url = await _start(processes)
        costs = [await _cost(processes, servers, url, many, f"{run}") for run in range(sizes.repeats)]
        calm = await _cost(processes, servers, url, demo, "demo")
        memory = [
            figure(f"memory (RSS) of the {name}", "MB", [server.rss_mb()], **_memory_claim(name))
            for name, server in servers.items()
        ]
    title = f"{sizes.streams} streams"
    return [
        figure(f"{title}: CPU of a token, all processes", "us", [cost.total_us for cost in costs], median=LIMIT_US),
        *(figure(f"{title}: {part}", "us", [cost.parts_us[part] for cost in costs]) for part in costs[0].parts_us),
        figure(f"{title}: tokens", "1/s", [cost.tokens_per_s for cost in costs]),
        figure("demo's load: CPU of a token, all processes", "us", [calm.total_us]),
        *(figure(f"demo's load: {part}", "us", [cost_us]) for part, cost_us in calm.parts_us.items()),
        figure("demo's load: tokens", "1/s", [calm.tokens_per_s]),
        *memory,
    ]


def _memory_claim(name: str) -> dict[str, float]:
    return {} if name == "router" else {"max": WORKER_LIMIT_MB}


async def _start(processes: Processes) -> tuple[dict[str, Running], str]:
    """The serving processes by what they are, and the router's URL, once a token comes through."""
    ports = dict(zip(("prefill", "decode", "router"), free_ports(3), strict=True))
    urls = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    endpoints = [f"--endpoint={role}={urls[role]}" for role in ("prefill", "decode")]
    servers = {
        name: processes.start(
            name,
            "roleratio",
            "serve",
            name,
            f"--host={HOST}",
            f"--port={port}",
            *(endpoints if name == "router" else []),
        )
        for name, port in ports.items()
    }
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READY_LIMIT_S)) as session:

        async def serves() -> bool:
            body = {"model": DEFAULT_MODEL, "prompt": "hello", "max_tokens": 1}
            try:
                async with session.post(f"{urls['router']}/v1/completions", json=body) as response:
                    return response.status == 200
            except aiohttp.ClientConnectionError:
                return False

        await processes.until("the first token", READY_LIMIT_S, serves)
    return servers, urls["router"]


async def _cost(
    processes: Processes, servers: dict[str, Running], url: str, arrivals: Sequence[Arrival], name: str
) -> Cost:
    """Send a load from a process of its own. Raises BenchmarkError when a request fails."""
    spec, result_file = (processes.folder / f"{name}.{kind}.json" for kind in ("spec", "result"))
    rows = [(arrival.at_s, arrival.input_tokens, arrival.output_tokens) for arrival in arrivals]
    spec.write_text(json.dumps({"url": url, "model": DEFAULT_MODEL, "arrivals": rows}), encoding="utf-8")
    before_s = {part: server.cpu_s() for part, server in servers.items()}
    client = processes.start(f"client-{name}", "benchmarks.load_client", str(spec), str(result_file))
    await processes.finish(client, RUN_LIMIT_S)
    result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
    if set(result["outcomes"]) != {"ok"}:
        raise BenchmarkError(f"not every request was answered: {result['outcomes']}; log of the router may say why")
    spent_s = {"client": result["cpu_s"]} | {part: server.cpu_s() - before_s[part] for part, server in servers.items()}
    parts_us = {part: spent_s[part] / result["tokens"] * 1e6 for part in ("client", "router", "prefill", "decode")}
    return Cost(parts_us, result["tokens"] / result["span_s"])
