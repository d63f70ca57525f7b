"""Metrics pages, observations and settings for this folder's tests, and a server on a free local port."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import web

from autoscaler.model import (
    Fleet,
    Group,
    Histogram,
    Observation,
    Outlook,
    RoleFleet,
    RouterSample,
    Samples,
    WorkerSample,
)
from autoscaler.outlook import SERIES
from autoscaler.settings import Settings, parse_settings
from forecasting.model import Forecast, Measured
from policies.model import Missing, Role

SERVICE = "chat"

WORKER = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="example/tiny"} 64.0
vllm:num_requests_running{engine="1",model_name="example/tiny"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="example/tiny"} 7.0
vllm:num_requests_waiting{engine="1",model_name="example/tiny"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="example/tiny",reason="capacity"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="example/tiny",reason="deferred"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="example/tiny"} 0.98
vllm:kv_cache_usage_perc{engine="1",model_name="example/tiny"} 0.02
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="example/tiny"} 1000.0
vllm:prompt_tokens_total{engine="1",model_name="example/tiny"} 10.0
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0",model_name="example/tiny"} 500.0
vllm:generation_tokens_total{engine="1",model_name="example/tiny"} 5.0
# TYPE vllm:request_success counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="example/tiny"} 20.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="example/tiny"} 3.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5",model_name="example/tiny"} 40.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="example/tiny"} 90.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="example/tiny"} 100.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="example/tiny"} 100.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="example/tiny"} 90.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.5",model_name="example/tiny"} 9.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="1.0",model_name="example/tiny"} 10.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf",model_name="example/tiny"} 10.0
vllm:time_to_first_token_seconds_count{engine="1",model_name="example/tiny"} 10.0
vllm:time_to_first_token_seconds_sum{engine="1",model_name="example/tiny"} 1.0
"""

ROUTER = """\
# TYPE roleratio_router_requests counter
roleratio_router_requests_total{target_service="chat"} 120.0
# TYPE roleratio_router_prompt_tokens counter
roleratio_router_prompt_tokens_total{target_service="chat"} 120000.0
# TYPE roleratio_router_generation_tokens counter
roleratio_router_generation_tokens_total{target_service="chat"} 24000.0
# TYPE roleratio_router_requests_finished counter
roleratio_router_requests_finished_total{outcome="ok",target_service="chat"} 100.0
roleratio_router_requests_finished_total{outcome="rejected",target_service="chat"} 5.0
roleratio_router_requests_finished_total{outcome="failed",target_service="chat"} 2.0
roleratio_router_requests_finished_total{outcome="aborted",target_service="chat"} 3.0
# TYPE roleratio_router_time_to_first_token_seconds histogram
roleratio_router_time_to_first_token_seconds_bucket{le="1.0",target_service="chat"} 95.0
roleratio_router_time_to_first_token_seconds_bucket{le="2.5",target_service="chat"} 100.0
roleratio_router_time_to_first_token_seconds_bucket{le="+Inf",target_service="chat"} 100.0
roleratio_router_time_to_first_token_seconds_count{target_service="chat"} 100.0
roleratio_router_time_to_first_token_seconds_sum{target_service="chat"} 62.5
# TYPE roleratio_router_inter_token_latency_seconds histogram
roleratio_router_inter_token_latency_seconds_bucket{le="0.05",target_service="chat"} 23000.0
roleratio_router_inter_token_latency_seconds_bucket{le="+Inf",target_service="chat"} 23900.0
roleratio_router_inter_token_latency_seconds_count{target_service="chat"} 23900.0
roleratio_router_inter_token_latency_seconds_sum{target_service="chat"} 800.0
# TYPE roleratio_router_requests_in_flight gauge
roleratio_router_requests_in_flight{target_service="chat",stage="prefill"} 4.0
roleratio_router_requests_in_flight{target_service="chat",stage="decode"} 6.0
"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(routes: dict[str, Handler]) -> AsyncIterator[str]:
    """An HTTP server with these routes (any method); its URL."""
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def text(body: str, status: int = 200) -> Handler:
    """A page that answers `body`."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status)

    return handler


def settings(**spec: object) -> Settings:
    """Settings of the service, with changes."""
    base = {"service": SERVICE, "mode": "Active", "profile": "qwen3-32b-a100-tp2", "gpuBudget": 16}
    metadata = {"name": SERVICE, "namespace": "team-a"}
    raw = {"apiVersion": "roleratio.dev/v1alpha1", "kind": "RoleRatioAutoscaler", "metadata": metadata}
    return parse_settings({**raw, "spec": {**base, **spec}}, "test")


def role_fleet(name: str, groups: int = 1) -> RoleFleet:
    """A role whose groups are all ready."""
    return RoleFleet(
        kind="LeaderWorkerSet",
        namespace="team-a",
        name=name,
        uid=f"uid-{name}",
        created_s=900.0,
        replicas=groups,
        ready=groups,
        present=groups,
        pods_per_group=2,
        gpus_per_group=2,
        fit=4,
        pod_group=name,
        min_pods=2,
        ready_after_s=(8.0,),
        groups=tuple(Group(f"key-{name}-{group}", (f"{name}-{group}",)) for group in range(groups)),
    )


def router(at_s: float, arrivals: float, tokens: float = 1000.0) -> RouterSample:
    """A router at which `arrivals` prompts of `tokens` tokens have come, all of them answered."""
    ttft = Histogram((0.5, 2.0, math.inf), (arrivals / 2, arrivals, arrivals), arrivals * 0.6)
    itl = Histogram((0.03, 0.06, math.inf), (arrivals, arrivals * 90, arrivals * 100), arrivals * 4.0)
    return RouterSample(
        uid="uid-r",
        pod="router",
        at_s=at_s,
        arrivals=arrivals,
        prompt_tokens=arrivals * tokens,
        generation_tokens=arrivals * 100,
        finished=arrivals,
        failed=0.0,
        ttft=ttft,
        itl=itl,
        in_flight={"decode": 3.0},
    )


def worker(role: Role, at_s: float) -> WorkerSample:
    """An engine that is half busy."""
    absent = Missing("not on the page")
    return WorkerSample(
        uid=f"uid-{role}-0",
        pod=f"{role}-0",
        role=role,
        group=f"key-{role}-0",
        at_s=at_s,
        running=8.0,
        waiting=1.0,
        waiting_by_reason={"capacity": 1.0, "deferred": 0.0},
        kv_usage=0.4,
        prompt_tokens=5000.0,
        generation_tokens=900.0,
        finished=absent,
        ttft=absent,
        itl=absent,
    )


def observations(count: int, start_s: float = 1000.0, growth: float = 0.1) -> list[Observation]:
    """Ticks every 5 s of a service whose demand grows."""
    fleet = Fleet(role_fleet("prefill"), role_fleet("decode"))
    seen, arrivals = [], 50.0
    for number in range(count):
        now_s = start_s + 5.0 * number
        arrivals += 15.0 * (1 + growth * number)
        workers = (worker(Role.PREFILL, now_s), worker(Role.DECODE, now_s))
        samples = Samples((router(now_s, arrivals),), workers, {})
        seen.append(Observation(now_s, samples, fleet))
    return [*seen[:-1], replace(seen[-1], samples=replace(seen[-1].samples, failures={"decode-1": "stale"}))]


def outlook(median: float = 500.0, targets: int = 300) -> Outlook:
    """What learned forecasts say of all series, with the errors that they have shown."""
    measured = Measured(targets, 8.0, 10.0, 0.125, (0.52, 0.91, 0.985)) if targets else Measured()
    values, weights = (median, 1.5 * median, 2.0 * median), {"last_value": 0.25, "ridge": 0.75}
    said = Forecast(1000.0, 180.0, (0.5, 0.9, 0.99), values, "burst", measured, weights)
    return Outlook(dict.fromkeys(SERIES, said))
