"""The controller's edges against a real API server and real metrics pages: what it reads, patches, and tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from autoscaler.adapters.journal import read_journal
from autoscaler.drivers import live
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.live import ControllerOptions
from autoscaler.drivers.replay import replay, resume
from autoscaler.drivers.service import Edges, Service
from autoscaler.model import Decision, Observation, State
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from localcluster.apiserver import ApiServer
from perfmodel.profile import load_profile
from policies.model import Code, Role
from tests.autoscaler.objects import group, lws, node, pod, podgroup
from tests.autoscaler.plant import make_settings

ROUTER_PAGE = """\
# TYPE roleratio_router_requests counter
roleratio_router_requests_total{{target_namespace="ns",target_service="demo"}} {requests}
# TYPE roleratio_router_prompt_tokens counter
roleratio_router_prompt_tokens_total{{target_namespace="ns",target_service="demo"}} {prompt}
# TYPE roleratio_router_generation_tokens counter
roleratio_router_generation_tokens_total{{target_namespace="ns",target_service="demo"}} {generated}
# TYPE roleratio_router_requests_finished counter
roleratio_router_requests_finished_total{{target_namespace="ns",target_service="demo",outcome="ok"}} {requests}
"""
WORKER_PAGE = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m",engine="0"} 2
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="m",engine="0"} 0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{model_name="m",engine="0"} 0.25
"""


@dataclass
class Scene:
    """An API server with one service in it, and its pods' metrics server."""

    client: KubeClient
    config: Config
    port: int
    requests: int = 0
    prompt_tokens: int = 1000

    async def router_page(self, _: web.Request) -> web.Response:
        prompt, generated = self.requests * self.prompt_tokens, self.requests * 100
        return web.Response(text=ROUTER_PAGE.format(requests=self.requests, prompt=prompt, generated=generated))

    async def worker_page(self, _: web.Request) -> web.Response:
        return web.Response(text=WORKER_PAGE)

    async def replicas(self, role: str) -> int:
        return int((await self.client.get(kinds.LWS, role, "ns"))["spec"]["replicas"])


def on_port(obj: dict[str, Any], port: int, path: str = "") -> dict[str, Any]:
    obj["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": port}]
    return obj


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with ApiServer() as server:
        config = Config(server.url)
        async with KubeClient(config, field_manager="test") as client:
            made = Scene(client, config, 0)
            routers, workers = web.Application(), web.Application()
            runners = [web.AppRunner(app) for app in (routers, workers)]
            routers.router.add_get("/metrics", made.router_page)
            workers.router.add_get("/metrics", made.worker_page)
            ports = [await _serve(runner) for runner in runners]
            await _populate(client, *ports)
            yield made
            for runner in runners:
                await runner.cleanup()


async def _serve(runner: web.AppRunner) -> int:
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port: int = runner.addresses[0][1]
    return port


async def _populate(client: KubeClient, router_port: int, worker_port: int) -> None:
    await client.create(kinds.NAMESPACE, {"metadata": {"name": "ns"}})
    await client.create(kinds.NODE, node("n1", 8))
    router = on_port(pod("router", 0, 0), router_port)
    del router["metadata"]["labels"][names.LWS_GROUP_KEY]
    pods = [router]
    for role in ("prefill", "decode"):
        await client.create(kinds.LWS, lws(role), "ns")
        await client.create(kinds.PODGROUP, podgroup(role, 2), "ns")
        pods += [on_port(member, worker_port) for member in group(role, 0)]
    for obj in pods:
        await client.create(kinds.POD, obj, "ns")
        name = obj["metadata"]["name"]
        await client.patch(kinds.POD, name, "ns", {"status": obj["status"]}, subresource="status")


async def run_ticks(scene: Scene, service: Service, count: int, rps: int, start_s: float = 1000.0) -> Decision:
    for index in range(count):
        _, decision = await service.step(start_s + index)
        scene.requests += rps
    return decision


@asynccontextmanager
async def watched(scene: Scene, *, journal: Path | None = None, dry_run: bool = False) -> AsyncIterator[Service]:
    """The service's loop, ready for its first tick."""
    cluster = Cluster(scene.client)
    settings = make_settings().without_writes() if dry_run else make_settings()
    service = Service(settings, load_profile(), Edges(scene.client, cluster, journal=journal))
    await cluster.start()
    try:
        yield service
    finally:
        await service.close()
        await cluster.stop()


async def test_it_reads_decides_patches_and_tells(scene: Scene, tmp_path: Path) -> None:
    scene.prompt_tokens = 5000
    journal = tmp_path / "journal.jsonl"
    async with watched(scene, journal=journal) as service:
        decision = await run_ticks(scene, service, 12, 3)
    assert decision.signals.demand.known
    assert decision.signals.demand.prompt_tokens_mean == pytest.approx(5000)
    assert await scene.replicas("prefill") > 1
    events = (await scene.client.list(kinds.EVENT, "ns")).items
    rescaled = [event for event in events if event["reason"] == "SuccessfulRescale"]
    assert rescaled
    assert "SizedForTTFT" in rescaled[0]["message"]
    assert len(read_journal(journal).ticks) == 12
    assert replay(journal).first_difference is None


async def test_growth_stops_at_what_the_nodes_hold(scene: Scene) -> None:
    scene.prompt_tokens = 20_000
    async with watched(scene) as service:
        decision = await run_ticks(scene, service, 12, 3)
    # Five of eight GPUs are taken; the other three hold one more group of two, and no half of another.
    assert await scene.replicas("prefill") + await scene.replicas("decode") == 3
    assert Code.DOES_NOT_FIT in {reason.code for reason in decision.why}


async def test_a_dry_run_prints_the_patch_and_writes_nothing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.prompt_tokens = 5000
    before = {role: await scene.client.get(kinds.LWS, role, "ns") for role in ("prefill", "decode")}
    caplog.set_level("INFO")
    async with watched(scene, dry_run=True) as service:
        await run_ticks(scene, service, 12, 3)
    assert {role: await scene.client.get(kinds.LWS, role, "ns") for role in before} == before
    assert (await scene.client.list(kinds.EVENT, "ns")).items == []
    printed = [record.getMessage() for record in caplog.records if "would PATCH" in record.getMessage()]
    assert "/leaderworkersets/prefill/scale" in printed[0]
    body = printed[0][printed[0].index("[") : printed[0].index("]") + 1]
    assert json.loads(body)[0] == {"op": "test", "path": "/spec/replicas", "value": 1}


async def test_a_manual_scale_is_noticed_named_and_respected(scene: Scene) -> None:
    async with watched(scene) as service:
        await run_ticks(scene, service, 6, 3)
        async with KubeClient(scene.config, field_manager="kubectl-scale") as person:
            await person.patch(kinds.LWS, "decode", "ns", {"spec": {"replicas": 3}}, subresource="scale")
        decision = await _until_hold(scene, service)
    hold = next(reason for reason in decision.why if reason.code is Code.MANUAL_HOLD)
    assert (hold.role, hold.detail["writer"], hold.detail["theirs"]) == (Role.DECODE, "kubectl-scale", 3)
    assert await scene.replicas("decode") == 3
    events = (await scene.client.list(kinds.EVENT, "ns")).items
    assert [e["involvedObject"]["name"] for e in events if e["reason"] == "ManualHold"] == ["decode"]


async def _until_hold(scene: Scene, service: Service) -> Decision:
    for index in range(60):
        decision = await run_ticks(scene, service, 1, 3, 1010.0 + index)
        if any(reason.code is Code.MANUAL_HOLD for reason in decision.why):
            return decision
    raise AssertionError("the manual change was not noticed in 60 ticks")


async def test_a_role_at_zero_is_brought_back(scene: Scene) -> None:
    await scene.client.patch(kinds.LWS, "decode", "ns", {"spec": {"replicas": 0}})
    async with watched(scene) as service:
        await run_ticks(scene, service, 3, 3)
    assert await scene.replicas("decode") == 1


async def test_a_failed_patch_is_told_and_tried_anew(scene: Scene) -> None:
    scene.prompt_tokens = 5000
    await scene.client.delete(kinds.PODGROUP, "prefill", "ns")
    await scene.client.delete(kinds.PODGROUP, "decode", "ns")
    async with watched(scene) as service:
        decision = await run_ticks(scene, service, 12, 3)
    assert await scene.replicas("prefill") > 1
    assert decision.step is None or decision.step.kind == "replicas"


async def test_only_a_leader_decides_and_its_next_term_goes_on(scene: Scene, tmp_path: Path) -> None:
    seen: list[Observation] = []
    options = ControllerOptions(
        make_settings(), load_profile(), scene.config, journal=tmp_path / "journal.jsonl", lease_namespace="ns"
    )
    running = asyncio.create_task(live.run(options, lambda observation, _: seen.append(observation)))

    async def until_told(count: int) -> None:
        async with asyncio.timeout(30):
            while len(seen) < count and not running.done():
                await asyncio.sleep(0.05)
        assert not running.done()

    async def hold(holder: str) -> None:
        lease = await scene.client.get(kinds.LEASE, "roleratio-controller-demo", "ns")
        await scene.client.update(kinds.LEASE, lease | {"spec": lease["spec"] | {"holderIdentity": holder}}, "ns")

    try:
        await until_told(2)
        await hold("somebody else")
        # It looks at its Lease every two seconds.
        await asyncio.sleep(4)
        decided = len(seen)
        await asyncio.sleep(2)
        assert len(seen) == decided
        await hold("")
        await until_told(decided + 2)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    first, second = (read_journal(tmp_path / name) for name in ("journal.jsonl.1", "journal.jsonl"))
    assert len(first.ticks) == decided
    assert second.state == resume(first.path, second.settings, first.ticks[-1].observation.now_s)
    assert second.state != State()
