"""A service whose pods answer with real page texts, in virtual time: raw objects, real sockets, the whole tick.

Steps come true at once: replicas become pods that are ready, minimums move. Every tick goes through the code that a
controller runs (look, scrape, tick, status, exporter), and checks that no number that leaves it is NaN or infinite.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.adapters.exporter import Exporter
from autoscaler.adapters.fleet import World, look
from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.rra import status_of
from autoscaler.adapters.scrape import Scraper
from autoscaler.codec import encode
from autoscaler.core import tick
from autoscaler.model import Decision, Observation, Samples, State
from autoscaler.settings import Settings
from perfmodel.profile import Profile, load_profile
from policies.model import ROLES, Code, Reason, Role
from tests.autoscaler.objects import Object, at, lws, node, pod, podgroup
from tests.autoscaler.plant import make_settings

MODEL = "Qwen/Qwen3-32B"
START_S = 10_000.0
SYNC_S = 15.0
HANGS = "hangs"
REFUSES = "refuses"
STREAMS = "streams 200 MB"
BREAKS_OFF = "breaks off"


@dataclass(frozen=True)
class Engine:
    """One vLLM engine as its page shows it; TTFT and ITL as (count, sum in s), all within the first bucket."""

    running: float = 0.0
    waiting: float = 0.0
    kv: float = 0.0
    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0
    finished: float = 0.0
    ttft: tuple[float, float] = (0.0, 0.0)
    itl: tuple[float, float] = (0.0, 0.0)


def vllm(*engines: Engine, model: str = MODEL, first: int = 0) -> str:
    """A page of vLLM with these data-parallel engines, the first one of which has the rank `first`."""
    lines: list[str] = []
    for rank, engine in enumerate(engines, first):
        own = f'engine="{rank}",model_name="{model}"'
        lines += [
            f"vllm:num_requests_running{{{own}}} {engine.running}",
            f"vllm:num_requests_waiting{{{own}}} {engine.waiting}",
            f"vllm:kv_cache_usage_perc{{{own}}} {engine.kv}",
            f"vllm:prompt_tokens_total{{{own}}} {engine.prompt_tokens}",
            f"vllm:generation_tokens_total{{{own}}} {engine.generation_tokens}",
            f'vllm:request_success_total{{{own},finished_reason="stop"}} {engine.finished}',
            *_times("vllm:time_to_first_token_seconds", own, engine.ttft),
            *_times("vllm:inter_token_latency_seconds", own, engine.itl),
        ]
    return "\n".join(lines) + "\n"


def _times(name: str, own: str, seen: tuple[float, float]) -> list[str]:
    count, sum_s = seen
    return [
        *(f'{name}_bucket{{{own},le="{bound}"}} {count}' for bound in ("1.0", "+Inf")),
        f"{name}_count{{{own}}} {count}",
        f"{name}_sum{{{own}}} {sum_s}",
    ]


def gateway(ttft: Mapping[str, float], arrivals: float = 0.0, tokens: float = 1.0, ended: bool = True) -> str:
    """A page of our router for this service: TTFT by the spelling of each bucket's bound; `tokens` for each prompt."""
    own = 'target_namespace="ns",target_service="demo"'
    done = arrivals if ended else 0.0
    counters = {"requests_total": arrivals, "prompt_tokens_total": arrivals * tokens, "generation_tokens_total": done}
    name = "roleratio_router_time_to_first_token_seconds"
    count = ttft["+Inf"]
    return "\n".join(
        [
            *(f"roleratio_router_{counter}{{{own}}} {value}" for counter, value in counters.items()),
            f'roleratio_router_requests_finished_total{{{own},outcome="ok"}} {done}',
            *(f'{name}_bucket{{{own},le="{bound}"}} {value}' for bound, value in ttft.items()),
            f"{name}_count{{{own}}} {count}",
            f"{name}_sum{{{own}}} {count * 0.5}",
            "",
        ]
    )


class Reader(Protocol):
    """What a controller reads samples with."""

    async def read(self, targets: list[ScrapeTarget], now_s: float, service: str) -> Samples:
        """A sample or a reason from every target."""

    async def close(self) -> None:
        """Close connections."""


def settings(**spec: Any) -> Settings:
    """Settings as the field cases have them: a sync of 15 s, room for growth."""
    metrics = {"scrapeTimeoutS": 0.5, **spec.pop("metrics", {})}
    return make_settings(**{"syncPeriodS": SYNC_S, "gpuBudget": 64, "metrics": metrics, **spec})


@dataclass
class Field:
    """The service. `page(role, group, worker)` is what a pod answers now, or HANGS or REFUSES."""

    url: str
    replicas: dict[Role, int]
    page: Callable[[Role, int, int], str]
    settings: Settings
    reader: Reader
    sizes: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 1))
    router: Callable[[], str] | None = None
    meta: Callable[[str], Object] = lambda _: {}
    unready: set[str] = field(default_factory=set)
    now_s: float = START_S
    state: State = field(default_factory=State)
    profile: Profile = field(default_factory=load_profile)
    decisions: list[Decision] = field(default_factory=list)
    seen: list[Observation] = field(default_factory=list)
    told: Object = field(default_factory=dict)
    exported: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)
    exporter: Exporter = field(default_factory=Exporter)
    minimum: dict[Role, int] = field(default_factory=dict)
    port: int = 0

    @property
    def last(self) -> Decision:
        """The last decision."""
        return self.decisions[-1]

    async def run(self, ticks: int) -> Decision:
        """So many ticks; the last decision."""
        for _ in range(ticks):
            await self._tick()
            self.now_s += SYNC_S
        return self.last

    async def _tick(self) -> None:
        seen = look(self._world(), "ns", "demo", self.now_s)
        targets = [replace(target, url=f"{self.url}/{target.pod}") for target in seen.targets]
        samples = await self.reader.read(targets, self.now_s, "ns/demo")
        failures = {**seen.failures, **samples.failures}
        observation = Observation(self.now_s, replace(samples, failures=failures), seen.fleet)
        decision = tick(self.state, observation, self.settings, self.profile)
        self.state = decision.state
        self.decisions.append(decision)
        self.seen.append(observation)
        await self._tell(observation, decision)
        if step := decision.step:
            (self.replicas if step.kind == "replicas" else self.minimum)[step.role] = step.after

    async def _tell(self, observation: Observation, decision: Decision) -> None:
        """What leaves the controller: the codec refuses numbers that are not finite, the exported page is read here."""
        encode(Observation, observation)
        encode(State, decision.state)
        self.exporter.observe(self.settings, observation, decision, 0.001)
        self.told = status_of(self.settings, observation, decision, self.told or None, self.now_s, 1)
        assert all(map(math.isfinite, _numbers(self.told))), self.told
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as response:
            page = await response.text()
        families = text_string_to_metric_families(page)
        self.exported = {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}
        assert all(map(math.isfinite, self.exported.values()))

    def _world(self) -> World:
        for role in ROLES:
            self.minimum.setdefault(role, self.sizes[role])
        workloads = [lws(role, replicas=self.replicas[role], size=self.sizes[role]) for role in ROLES]
        podgroups = [podgroup(role, self.minimum[role]) for role in ROLES]
        return World(workloads, [self._pod(*place) for place in self.places()], podgroups, [node("n1", 512)])

    def places(self) -> list[tuple[str, int, int]]:
        """Role, group and worker of every pod."""
        workers = [
            (role.value, group, worker)
            for role in ROLES
            for group in range(self.replicas[role])
            for worker in range(self.sizes[role])
        ]
        return workers + ([("router", 0, 0)] if self.router else [])

    def _pod(self, role: str, group: int, worker: int) -> Object:
        name = f"{role}-{group}" + (f"-{worker}" if worker else "")
        made = pod(role, group, worker, ready=name not in self.unready, **self.meta(name))
        made["spec"]["containers"][0]["ports"][0]["name"] = "metrics"
        return made

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A pod's page."""
        role, *numbers = request.path.strip("/").split("-")
        if role == "router":
            assert self.router
            text = self.router()
        else:
            group, worker = int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0
            text = self.page(Role(role), group, worker)
        if text == HANGS:
            await asyncio.Event().wait()
        if text in (STREAMS, BREAKS_OFF):
            return await _endless(request, chunks=3200 if text == STREAMS else 1)
        return web.Response(text=text, status=503 if text == REFUSES else 200)

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and message of a condition."""
        return next((c.status, c.message) for c in self.last.conditions if c.type == kind)

    def reason(self, code: Code, role: Role | None = None) -> Reason:
        """A reason of the last decision."""
        return next(r for r in self.last.why if r.code is code and (role is None or r.role is role))

    def gauge(self, name: str, role: Role | None = None) -> float | None:
        """What is exported now."""
        labels = {"target_namespace": "ns", "target_service": "demo", **({"role": role.value} if role else {})}
        return self.exported.get((f"roleratio_controller_{name}", frozenset(labels.items())))


def codes(decision: Decision) -> set[Code]:
    return {reason.code for reason in decision.why}


def no_traffic(role: Role, group: int, worker: int) -> str:
    """Counters that stand still, at what has been served so far."""
    seen = (41220.0, 9000.0)
    return vllm(
        Engine(
            prompt_tokens=4e7,
            generation_tokens=1e7,
            finished=41220,
            ttft=seen,
            itl=seen if role == "decode" else (0, 0),
        )
    )


Silent = Callable[[Role, int], str | None]
"""What a group answers instead of its page, or None."""


class Traffic:
    """Requests that prefill accepts and decode answers, as counters that grow while time passes."""

    def __init__(self, rate_rps: float, prefill: int, decode: int, silent: Silent = lambda role, group: None) -> None:
        self.rate_rps, self.sizes, self.silent = rate_rps, {Role.PREFILL: prefill, Role.DECODE: decode}, silent
        self.requests = 1000.0
        self.field: Field | None = None
        self._at_s: float | None = None

    def page(self, role: Role, group: int, worker: int) -> str:
        """What a pod answers; groups beyond the first ones have just come and have served nothing."""
        assert self.field
        if self._at_s is not None and self.field.now_s > self._at_s:
            self.requests += self.rate_rps * (self.field.now_s - self._at_s)
        self._at_s = self.field.now_s
        if (silent := self.silent(role, group)) is not None:
            return silent
        done = self.requests / self.sizes[role] if group < self.sizes[role] else 0.0
        served = Engine(prompt_tokens=done * 1000, finished=done, ttft=(done, done * 0.3))
        if role is Role.PREFILL:
            return vllm(replace(served, running=1, generation_tokens=done))
        if self.rate_rps > 0:
            served = replace(served, running=16, waiting=20, kv=0.95)
        return vllm(replace(served, generation_tokens=done * 300, itl=(done * 299, done * 299 * 0.12)))


@asynccontextmanager
async def service(
    prefill: int,
    decode: int,
    page: Callable[[Role, int, int], str],
    *,
    reader: Reader | None = None,
    chosen: Settings | None = None,
    **more: Any,
) -> AsyncIterator[Field]:
    """A service that is served, and its exporter."""
    chosen = chosen or settings()
    metrics = chosen.spec.metrics
    used = reader or Scraper(metrics.scrape_timeout_s, metrics.model)
    made = Field("", {Role.PREFILL: prefill, Role.DECODE: decode}, page, chosen, used, **more)
    app = web.Application()
    app.router.add_get("/{pod}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    made.port = await made.exporter.start("127.0.0.1", 0)
    try:
        yield made
    finally:
        await made.reader.close()
        await made.exporter.stop()
        await runner.cleanup()


async def _endless(request: web.Request, chunks: int) -> web.StreamResponse:
    """A body of 200 MB, of which so many chunks of 64 kB come before the connection is closed."""
    response = web.StreamResponse(headers={"Content-Length": str(200 << 20)})
    await response.prepare(request)
    for _ in range(chunks):
        await response.write(b"# HELP a long comment\n" * 3120)
    assert request.transport
    request.transport.close()
    return response


def young(name: str, born: Mapping[str, float]) -> Object:
    """Metadata of a pod that was made anew: another UID, another start."""
    return {"uid": f"uid-{name}-again", "creationTimestamp": at(born[name])} if name in born else {}


def _numbers(data: Any) -> Sequence[float]:
    if isinstance(data, dict):
        return [number for part in data.values() for number in _numbers(part)]
    if isinstance(data, list):
        return [number for part in data for number in _numbers(part)]
    return [data] if isinstance(data, float | int) else []
