"""`roleratio doctor` on a real API server and real pages: what it says, its verdict, and that the controller agrees."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autoscaler.adapters.fleet import World
from autoscaler.adapters.nearby import near_misses
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.manager import Manager
from autoscaler.drivers.service import Edges
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import load_config
from localcluster.apiserver import ApiServer
from localcluster.controllers import controllers
from localcluster.kubeconfig import write_kubeconfig
from roleratio.embedded import fill_in
from tests.apiserver.small_service import SERVICE, Service, service_in
from tests.autoscaler.objects import Object, group, lws, pod
from tests.localcluster.living import NAMESPACE, eventually


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[Path, KubeClient]]:
    kubeconfig = tmp_path / "kubeconfig"
    async with ApiServer(models={kinds.RRA: fill_in}) as server:
        write_kubeconfig(server.url, kubeconfig)
        async with KubeClient(load_config(kubeconfig), field_manager="test") as client:
            yield kubeconfig, client


@asynccontextmanager
async def small_service(tmp_path: Path) -> AsyncIterator[tuple[Path, Service]]:
    """A service of one group per role, all of it ready."""
    async with (
        cluster(tmp_path) as (kubeconfig, client),
        controllers(load_config(kubeconfig), (names.MANAGER_DEPLOYMENT,)),
        service_in(client, NAMESPACE) as made,
    ):
        made.binds = True
        assert await eventually(lambda: _all_ready(client), 20)
        yield kubeconfig, made


async def _all_ready(client: KubeClient) -> bool:
    pods = (await client.list(kinds.POD, NAMESPACE)).items
    return len(pods) == 3 and all(one["status"].get("phase") == "Running" for one in pods)


async def doctor(kubeconfig: Path, *words: str) -> tuple[int | None, str, str]:
    argv = [sys.executable, "-m", "roleratio", "doctor", "--kubeconfig", str(kubeconfig), *words]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_healthy_service_can_scale(tmp_path: Path) -> None:
    async with small_service(tmp_path) as (kubeconfig, made):
        await made.ask(groups=1)
        code, out, err = await doctor(kubeconfig)
        assert (code, err) == (0, "")
        lines = [line.strip() for line in out.splitlines()]
        assert lines[0] == f"{NAMESPACE}/{SERVICE}  (mode Active, by rra {SERVICE})"
        assert lines[-1] == "can scale"
        seen = {line.split()[0]: line for line in lines if line.startswith(("prefill", "decode", "router", "demand"))}
        assert "LeaderWorkerSet prefill; 1 of 1 groups ready; 1 pod; 1 of 1 pages read (vllm; " in seen["prefill"]
        assert "Deployment decode; 1 of 1 groups ready; 1 pod; 1 of 1 pages read (vllm; " in seen["decode"]
        assert "1 pod; 1 of 1 pages read (roleratio-router; " in seen["router"]
        assert "requests/s, as counted by router" in seen["demand"]
        code, out, err = await doctor(kubeconfig, "--service", f"{NAMESPACE}/{SERVICE}", "-o", "json")
        assert err == ""
        (told,) = json.loads(out)
        assert (code, told["cannot"]) == (0, "")
        assert told["conditions"]["ScalingActive"] == "True DemandKnown"
        assert told["findings"] == []


async def test_a_model_that_nobody_serves_is_told_as_the_controller_tells_it(tmp_path: Path) -> None:
    async with small_service(tmp_path) as (kubeconfig, made):
        await made.ask(mode="DryRun", groups=1)
        spec = {"metrics": {"model": "M-large", "windowS": 2, "scrapeTimeoutS": 0.5}}
        await made.client.patch(kinds.RRA, SERVICE, NAMESPACE, {"spec": spec})
        code, out, _ = await doctor(kubeconfig)
        assert code == 1
        said = out.splitlines()[-1].strip()
        assert said.startswith("cannot scale: ScalingActive=False: ")
        assert "metrics.model M-large matches 0 series, while m exists on 2 pods" in said
        async with controller(made.client):
            message = await _told(lambda: made.message("ScalingActive", "False"))
        assert message in said


@asynccontextmanager
async def controller(client: KubeClient) -> AsyncIterator[None]:
    watched, stop = Cluster(client, kinds.RRA), asyncio.Event()
    await watched.start()
    task = asyncio.create_task(Manager(Edges(client, watched)).run(stop))
    try:
        yield
    finally:
        stop.set()
        await task
        await watched.stop()


async def _told(ask: Callable[[], Awaitable[str]]) -> str:
    async with asyncio.timeout(20):
        while not (found := await ask()):
            await asyncio.sleep(0.1)
    return found


async def test_what_cannot_be_read_and_what_is_nearly_it_is_found(tmp_path: Path) -> None:
    async with small_service(tmp_path) as (kubeconfig, made):
        await made.ask(groups=1)
        await made.client.delete(kinds.POD, "router", NAMESPACE, grace_period_s=0)
        meta = {"name": "decode-r0", "labels": {names.LABEL_SERVICE: f"{SERVICE}-rank-0", names.LABEL_ROLE: "decode"}}
        spec = {"containers": [{"name": "main", "image": "worker"}]}
        await made.client.create(kinds.POD, {"metadata": meta, "spec": spec}, NAMESPACE)
        _, out, _ = await doctor(kubeconfig)
        assert f"- pod decode-r0: label {names.LABEL_SERVICE}={SERVICE}-rank-0; expected {SERVICE}" in out
        assert "router   no pods; 0 of 0 pages read" in out


async def test_nothing_declared_and_unknown_names_are_one_line(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (kubeconfig, client):
        code, out, err = await doctor(kubeconfig)
        assert (code, out) == (2, "")
        assert names.LABEL_SERVICE in err
        assert err.count("\n") == 1
        await client.create(kinds.NAMESPACE, {"metadata": {"name": "ns"}})
        spec = {"service": "chat", "profile": "absent", "gpuBudget": 8}
        await client.create(kinds.RRA, {"metadata": {"name": "chat"}, "spec": spec}, "ns")
        code, out, _ = await doctor(kubeconfig)
        assert code == 1
        assert "cannot scale: spec.profile: profile 'absent': no such profile" in out
        code, _, err = await doctor(kubeconfig, "--service", "ns/other")
        assert code == 2
        assert "--service ns/other: no such service; there are ns/chat" in err
        code, _, err = await doctor(kubeconfig, "--service", "chat")
        assert code == 2
        assert "expected NAMESPACE/SERVICE" in err


def labelled(obj: Object, **meta: Any) -> Object:
    obj["metadata"] = {**obj["metadata"], **meta}
    return obj


def world(*objects: Object) -> World:
    workloads = [one for one in objects if one["kind"] != "Pod"]
    return World(workloads, [one for one in objects if one["kind"] == "Pod"], [], [])


SERVICE_LABEL, ROLE_LABEL = names.LABEL_SERVICE, names.LABEL_ROLE


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([lws("prefill"), *group("prefill", 0)], []),
        ([labelled(lws("prefill"), labels={SERVICE_LABEL: "Demo", ROLE_LABEL: "prefill"})], ["expected demo"]),
        ([labelled(pod("decode", 0, 0), namespace="other")], ["pod decode-0 in namespace other"]),
        (
            [labelled(one, labels={SERVICE_LABEL: "demo-0"}) for one in group("decode", 0)],
            ["2 pods (decode-0, ...): label roleratio.dev/service=demo-0; expected demo"],
        ),
        (
            [labelled(pod("decode", 0, 0), labels={SERVICE_LABEL: "demo", ROLE_LABEL: "decoder"})],
            ["label roleratio.dev/role=decoder; expected one of prefill, decode, router"],
        ),
        ([labelled(pod("decode", 0, 0), labels={SERVICE_LABEL: "demo"})], ["no label roleratio.dev/role"]),
        ([labelled(pod("decode", 0, 0), labels={SERVICE_LABEL: "other"})], []),
    ],
)
def test_near_misses(objects: list[Object], said: list[str]) -> None:
    found = near_misses(world(*objects), "ns", "demo")
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))


def test_a_template_without_the_labels_is_a_near_miss() -> None:
    workload = lws("decode")
    workload["spec"]["leaderWorkerTemplate"]["workerTemplate"]["metadata"] = {}
    (found,) = near_misses(world(workload), "ns", "demo")
    assert found.startswith("LeaderWorkerSet decode: its pod template lacks the label roleratio.dev/service=demo and")
