"""The manager against a real API server: objects come, change, clash and go; each is told what is done for it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autoscaler.adapters.exporter import Exporter
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.manager import Manager, declared, implied
from autoscaler.drivers.service import Edges
from autoscaler.model import Decision, Observation
from autoscaler.settings import Settings
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.config import Config
from localcluster.apiserver import ApiServer
from tests.autoscaler.objects import group, lws, node, podgroup

Status = dict[str, Any]


def rra(name: str, service: str = "demo", **spec: Any) -> Object:
    base = {"service": service, "profile": "qwen3-32b-a100-tp2", "gpuBudget": 8, "syncPeriodS": 0.2}
    metrics = {"scrapeTimeoutS": 0.1}
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {**base, "metrics": metrics, **spec}}


@asynccontextmanager
async def managed(
    client: KubeClient, may_write: Callable[[], bool] = lambda: True, exporter: Exporter | None = None
) -> AsyncIterator[None]:
    cluster, stop = Cluster(client, kinds.RRA), asyncio.Event()
    await cluster.start()
    task = asyncio.create_task(Manager(Edges(client, cluster, exporter, may_write=may_write)).run(stop))
    try:
        yield
    finally:
        stop.set()
        await task
        await cluster.stop()


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    async with ApiServer() as server, KubeClient(Config(server.url), field_manager="test") as made:
        await made.create(kinds.NAMESPACE, {"metadata": {"name": "ns"}})
        await made.create(kinds.NODE, node("n1", 8))
        for role in ("prefill", "decode"):
            await made.create(kinds.LWS, lws(role), "ns")
            await made.create(kinds.PODGROUP, podgroup(role, 2), "ns")
            for member in group(role, 0):
                await made.create(kinds.POD, member, "ns")
        yield made


async def status(client: KubeClient, name: str, until: Callable[[Status], bool]) -> Status:
    async with asyncio.timeout(10):
        while True:
            found: Status = (await client.get(kinds.RRA, name, "ns")).get("status") or {}
            if found and until(found):
                return found
            await asyncio.sleep(0.05)


def condition(found: Status, kind: str) -> tuple[str, str]:
    return next((c["status"], c["reason"]) for c in found["conditions"] if c["type"] == kind)


async def test_an_object_is_followed_and_told(client: KubeClient) -> None:
    async with managed(client):
        await client.create(kinds.RRA, rra("one"), "ns")
        found = await status(client, "one", lambda s: bool(s.get("roles")))
        assert [(role["name"], role["current"]) for role in found["roles"]] == [("prefill", 1), ("decode", 1)]
        assert condition(found, "ScalingActive") == ("False", "DemandMissing")
        assert found["observedGeneration"] == 1
        await client.patch(kinds.RRA, "one", "ns", {"spec": {"mode": "Off"}})
        found = await status(client, "one", lambda s: s["observedGeneration"] == 2)
        assert condition(found, "Ready") == ("False", "SwitchedOff")


async def test_a_minimum_above_the_replicas_is_carried_out_only_when_active(client: KubeClient) -> None:
    async with managed(client):
        await client.create(kinds.RRA, rra("one", prefill={"minGroups": 2}), "ns")
        found = await status(client, "one", lambda s: bool(s.get("roles")))
        assert found["roles"][0]["desired"] == 2
        assert (await client.get(kinds.LWS, "prefill", "ns"))["spec"]["replicas"] == 1
        await client.patch(kinds.RRA, "one", "ns", {"spec": {"mode": "Active"}})
        await status(client, "one", lambda s: s["roles"][0]["current"] == 2)
        assert (await client.get(kinds.LWS, "prefill", "ns"))["spec"]["replicas"] == 2


async def test_what_cannot_be_read_is_told_and_harms_no_other(client: KubeClient) -> None:
    async with managed(client):
        await client.create(kinds.RRA, rra("bad", gpuBudget=0, profile="none"), "ns")
        await client.create(kinds.RRA, rra("good"), "ns")
        bad = await status(client, "bad", lambda s: True)
        assert condition(bad, "Ready") == ("False", "SpecInvalid")
        assert "gpuBudget" in next(c["message"] for c in bad["conditions"] if c["type"] == "Ready")
        await status(client, "good", lambda s: bool(s.get("roles")))


async def test_a_service_has_one_object(client: KubeClient) -> None:
    async with managed(client):
        await client.create(kinds.RRA, rra("a-first"), "ns")
        await status(client, "a-first", lambda s: bool(s.get("roles")))
        await client.create(kinds.RRA, rra("b-second"), "ns")
        second = await status(client, "b-second", lambda s: True)
        assert condition(second, "Ready") == ("False", "ServiceClaimed")
        await asyncio.sleep(1.5)
        events = [e for e in (await client.list(kinds.EVENT, "ns")).items if e["reason"] == "ServiceClaimed"]
        assert [(e["involvedObject"]["name"], e["type"], e["count"]) for e in events] == [("b-second", "Warning", 1)]
        await client.delete(kinds.RRA, "a-first", "ns")
        await status(client, "b-second", lambda s: bool(s.get("roles")))


async def test_without_the_right_to_write_nothing_is_written(client: KubeClient) -> None:
    await client.create(kinds.RRA, rra("one", mode="Active", prefill={"minGroups": 2}), "ns")
    async with managed(client, may_write=lambda: False):
        await asyncio.sleep(1.0)
    assert "status" not in await client.get(kinds.RRA, "one", "ns")
    assert (await client.get(kinds.LWS, "prefill", "ns"))["spec"]["replicas"] == 1
    assert (await client.list(kinds.EVENT, "ns")).items == []


class Faulty(Exporter):
    """Has a bug that shows with one service only."""

    def observe(self, settings: Settings, observation: Observation, decision: Decision, tick_s: float) -> None:
        if settings.spec.service == "unlucky":
            raise ZeroDivisionError("a bug")
        super().observe(settings, observation, decision, tick_s)


async def test_a_loop_that_fails_starts_anew_and_harms_no_other(
    client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.create(kinds.RRA, rra("bad", service="unlucky"), "ns")

    def failures() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "the loop of ns/bad failed" in record.getMessage()]

    async with managed(client, exporter=Faulty()), asyncio.timeout(20):
        while len(failures()) < 2:
            await asyncio.sleep(0.05)
        # A service that comes meanwhile, and while the other one is down.
        await client.create(kinds.RRA, rra("good"), "ns")
        await status(client, "good", lambda s: bool(s.get("roles")))
    assert "status" not in await client.get(kinds.RRA, "bad", "ns"), "it never got so far"
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in failures())
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"] * len(failures())


def test_the_older_object_wins_whatever_the_order() -> None:
    old, young = rra("z-old"), rra("a-young")
    old["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    young["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    for objects in ([old, young], [young, old]):
        found = declared(objects)
        assert found["ns", "z-old"].problems == ()
        assert "already scaled by rra z-old" in found["ns", "a-young"].problems[0]


def test_labels_alone_are_observed_and_an_object_takes_over() -> None:
    labelled = lws("prefill")
    labelled["metadata"]["annotations"] = {"roleratio.dev/profile": "qwen3-32b-a100-tp2"}
    found = implied([labelled, lws("decode")], [node("n1", 8)], {})
    (only,) = found.values()
    assert only.settings is not None
    assert (only.obj, only.settings.spec.mode, only.settings.spec.gpu_budget) == (None, "DryRun", 8)
    assert implied([labelled], [], declared([rra("one")])) == {}
    assert implied([lws("prefill")], [], {}) == {}


async def test_the_whole_process_leads_serves_and_gives_its_lease_back(client: KubeClient, tmp_path: Path) -> None:
    await client.create(kinds.RRA, rra("one"), "ns")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(client.config.server)))
    words = ["controller", "--kubeconfig", str(kubeconfig), "--port", "0", "--leader-elect", "--lease-namespace", "ns"]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "roleratio", *words)
    try:
        await status(client, "one", lambda s: bool(s.get("roles")))
        lease = await client.get(kinds.LEASE, "roleratio-controller", "ns")
        assert lease["spec"]["holderIdentity"]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        lease = await client.get(kinds.LEASE, "roleratio-controller", "ns")
        assert not lease["spec"].get("holderIdentity")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _kubeconfig(server: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
