"""`roleratio doctor` on a real API server and real pages: what it says, its verdict, and that the controller agrees."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autoscaler.adapters.fleet import World, look
from autoscaler.adapters.nearby import likely_routers, near_misses
from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.doctor import OUTSIDE
from autoscaler.drivers.manager import Manager
from autoscaler.drivers.service import Edges
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import load_config
from localcluster.apiserver import ApiServer
from localcluster.controllers import controllers
from localcluster.kubeconfig import write_kubeconfig
from policies.model import Missing
from roleratio.commands.doctor import folded
from roleratio.embedded import fill_in
from tests.apiserver.small_service import SERVICE, Service, service_in
from tests.autoscaler.objects import Object, group, lws, pod
from tests.autoscaler.test_live import on_port
from tests.dashboards.conftest import prometheus
from tests.dashboards.queries import Asked, running
from tests.localcluster.living import NAMESPACE, eventually

__all__ = ["prometheus"]
SECONDS = re.compile(r"[\d.]+ s ")
OFF = {"service": "quiet", "profile": "qwen3-32b-a100-tp2", "gpuBudget": 8, "mode": "Off"}


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


def verdict(out: str) -> str:
    return out.splitlines()[-1].strip()


async def test_a_healthy_service_can_scale(tmp_path: Path) -> None:
    async with small_service(tmp_path) as (kubeconfig, made):
        await made.ask(groups=1)
        code, out, err = await doctor(kubeconfig)
        assert (code, err) == (0, "")
        assert out.startswith(f"{NAMESPACE}/{SERVICE}  (mode Active, by rra {SERVICE})\n")
        assert verdict(out) == "can scale"
        assert "  prefill  1 workload (LeaderWorkerSet prefill); 1 pod\n" in out
        assert "  decode   1 workload (Deployment decode); 1 pod\n" in out
        assert "groups: 1 wanted, 1 present, 1 ready; minCount 1 in PodGroup decode\n" in out
        assert "1 of 1 page read: roleratio-router on 1 pod; " in out
        assert "requests/s, as counted by router" in out
        code, out, err = await doctor(kubeconfig, "--service", f"{NAMESPACE}/{SERVICE}", "-o", "json")
        assert err == ""
        (told,) = json.loads(out)
        assert (code, told["cannot"], told["unreadable"], told["near"], told["lacks"]) == (0, "", {}, [], [])
        assert told["conditions"]["ScalingActive"] == "True DemandKnown"
        prefill, _, router = told["roles"]
        assert prefill["engines"] == {"prefill-0": "vllm"}
        assert prefill["series"] > 20
        assert 0 <= prefill["signals"]["kv_usage"]["age_s"] < 30
        assert router["signals"]["arrivals"]["pods"] == 1


async def test_a_settings_file_is_enough_and_a_dry_run_is_told_as_one(tmp_path: Path) -> None:
    async with small_service(tmp_path) as (kubeconfig, _):
        spec = {"service": SERVICE, "profile": "qwen3-32b-a100-tp2", "gpuBudget": 8, "metrics": {"windowS": 2}}
        file = tmp_path / "settings.json"
        file.write_text(json.dumps({"metadata": {"name": SERVICE, "namespace": NAMESPACE}, "spec": spec}))
        code, out, _ = await doctor(kubeconfig, "--settings", str(file))
        assert code == 0
        assert "(mode DryRun, by the settings file)" in out
        assert verdict(out) == "can scale, but mode DryRun only tells: set mode Active"
        code, _, err = await doctor(kubeconfig, "--settings", str(file), "--service", "a/b")
        assert code == 2
        assert "leave one of them out" in err
        code, out, _ = await doctor(kubeconfig)
        assert code == 1
        assert f"no workload of it has the annotation {names.ANNOTATION_PROFILE}" in verdict(out)
        assert "  decode   1 workload (Deployment decode); 1 pod\n" in out, "labels match, whoever looks"
        note = {"metadata": {"annotations": {names.ANNOTATION_PROFILE: "qwen3-32b-a100-tp2"}}}
        async with KubeClient(load_config(kubeconfig), field_manager="test") as client:
            await client.patch(kinds.LWS, "prefill", NAMESPACE, note)
        code, out, _ = await doctor(kubeconfig)
        assert (code, verdict(out)) == (0, "can scale, but is only recommended for: create an rra that names it")


async def _other_model(made: Service) -> None:
    spec = {"metrics": {"model": "M-large", "windowS": 2, "scrapeTimeoutS": 0.5}}
    await made.client.patch(kinds.RRA, SERVICE, NAMESPACE, {"spec": spec})


async def _suffix(made: Service) -> None:
    labels = {"metadata": {"labels": {names.LABEL_SERVICE: f"{SERVICE}-rank-0"}}}
    for one in (await made.client.list(kinds.POD, NAMESPACE)).items:
        await made.client.patch(kinds.POD, one["metadata"]["name"], NAMESPACE, labels)


async def _other_name(made: Service) -> None:
    for kind, name in ((kinds.LWS, "prefill"), (kinds.DEPLOYMENT, "decode")):
        labels = {"metadata": {"labels": {names.LABEL_SERVICE: SERVICE.title()}}}
        await made.client.patch(kind, name, NAMESPACE, labels)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (_other_model, "metrics.model M-large matches 0 series, while m exists on 2 pods"),
        (_suffix, f"label {names.LABEL_SERVICE}={SERVICE}-rank-0; expected {SERVICE}"),
        (_other_name, "2 workloads (prefill, ...): label roleratio.dev/service=Chat; expected chat"),
    ],
)
async def test_what_matches_nothing_is_told_as_the_controller_tells_it(
    tmp_path: Path, mistake: Callable[[Service], Awaitable[None]], told: str
) -> None:
    async with small_service(tmp_path) as (kubeconfig, made):
        await made.ask(mode="DryRun", groups=1)
        await mistake(made)
        code, out, _ = await doctor(kubeconfig)
        assert code == 1
        said = SECONDS.sub("", verdict(out))
        assert said.startswith("cannot scale: ScalingActive=False: ")
        assert told in said
        async with controller(made.client):
            message = await _told(lambda: made.message("ScalingActive", "False"))
        assert SECONDS.sub("", message) in said, "the first tick says what the doctor says"


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


async def test_a_router_without_labels_is_looked_for(tmp_path: Path) -> None:
    async with small_service(tmp_path) as (kubeconfig, made):
        await made.ask(groups=1)
        await made.client.delete(kinds.POD, "router", NAMESPACE, grace_period_s=0)
        spec = {"containers": [{"name": "main", "image": "router"}]}
        await made.client.create(kinds.POD, {"metadata": {"name": "chat-router-0"}, "spec": spec}, NAMESPACE)
        code, out, _ = await doctor(kubeconfig)
        assert (code, verdict(out)) == (0, "can scale")
        assert "as counted by prefill" in out
        assert "router   no workloads; no pods" in out
        assert "- Pod chat-router-0: without labels; if it is the service's router, give its pods roleratio.dev/" in out


async def test_workloads_without_pods_cannot_scale(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (kubeconfig, client):
        await client.create(kinds.NAMESPACE, {"metadata": {"name": "ns"}})
        for role in ("prefill", "decode"):
            await client.create(kinds.LWS, lws(role), "ns")
        spec = {"service": "demo", "profile": "qwen3-32b-a100-tp2", "gpuBudget": 8, "mode": "Active"}
        await client.create(kinds.RRA, {"metadata": {"name": "one"}, "spec": spec}, "ns")
        code, out, _ = await doctor(kubeconfig)
        assert code == 1
        assert "1 workload (LeaderWorkerSet prefill); no pods\n" in out
        assert "groups: 1 wanted, 0 present, 0 ready; no minimum: PodGroup prefill does not exist\n" in out
        assert "- LeaderWorkerSet prefill has no pod: see its events" in out
        assert "- rra ns/one has no status: is a controller running, and does it lead?" in out
        assert "cannot scale: ScalingActive=False: DemandMissing (why=no router or worker gave a sample)" in out


async def test_from_outside_the_clusters_network_it_says_where_to_look_from(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (kubeconfig, client):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            await client.create(kinds.NAMESPACE, {"metadata": {"name": "ns"}})
            for role in ("prefill", "decode"):
                await client.create(kinds.LWS, lws(role, size=1), "ns")
                member = on_port(pod(role, 0, 0), closed.getsockname()[1])
                await client.create(kinds.POD, member, "ns")
                status = {"status": member["status"]}
                await client.patch(kinds.POD, member["metadata"]["name"], "ns", status, subresource="status")
            spec = {"service": "demo", "profile": "qwen3-32b-a100-tp2", "gpuBudget": 8}
            await client.create(kinds.RRA, {"metadata": {"name": "one"}, "spec": spec}, "ns")
            code, out, _ = await doctor(kubeconfig)
    assert code == 1
    assert "0 of 1 page read" in out
    assert "- decode-0, prefill-0: cannot connect: Connection refused" in out
    assert f"- {OUTSIDE}" in out


async def test_a_prometheus_without_the_targets(tmp_path: Path, prometheus: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        async with small_service(tmp_path) as (kubeconfig, made):
            await made.ask(groups=1)
            scrapes = {
                "router": static(nobody, pod="router"),
                "prefill": static(f"127.0.0.1:{made.port}", pod="prefill-0-rank-0"),
            }
            jobs = [{"job_name": name, "static_configs": [one]} for name, one in scrapes.items()]
            config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
            async with running(prometheus, tmp_path, config, tmp_path / "data") as store:
                await eventually(lambda: _is_scraped(store), 30)
                metrics = {"prometheusUrl": store.url, "windowS": 2, "scrapeTimeoutS": 0.9}
                await made.client.patch(kinds.RRA, SERVICE, NAMESPACE, {"spec": {"metrics": metrics}})
                code, out, _ = await doctor(kubeconfig)
    assert code == 1
    assert f"metrics  from {store.url}" in out
    assert "- router: no series of pod router: Prometheus cannot scrape it (up is 0): look at its page of tar" in out
    assert "- prefill-0: no series of pod prefill-0, while " in out
    assert " have the label pod=prefill-0-rank-0: correct the relabeling" in out
    assert ", and no target: is there a monitor for it, and does the label pod name it?" in out
    assert verdict(out).startswith("cannot scale: ScalingActive=False: DemandMissing (why=")
    assert "no series of pod prefill-0, while " in verdict(out)


def static(address: str, **labels: str) -> Any:
    return {"targets": [address], "labels": {"namespace": NAMESPACE, **labels}}


async def _is_scraped(store: Asked) -> bool:
    ups = {labels["pod"]: value for labels, value in await store.now("up")}
    return ups == {"router": 0.0, "prefill-0-rank-0": 1.0}


async def test_nothing_declared_and_unknown_names_are_one_line(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (kubeconfig, client):
        code, out, err = await doctor(kubeconfig)
        assert (code, out) == (1, "")
        assert "no service: looked for RoleRatioAutoscaler objects, and for LeaderWorkerSets and Deployments" in err
        assert names.LABEL_SERVICE in err
        assert err.count("\n") == 1
        code, out, _ = await doctor(kubeconfig, "-o", "json")
        assert (code, json.loads(out)) == (1, [])
        await client.create(kinds.NAMESPACE, {"metadata": {"name": "ns"}})
        spec = {"service": "chat", "profile": "absent", "gpuBudget": 8}
        await client.create(kinds.RRA, {"metadata": {"name": "chat"}, "spec": spec}, "ns")
        await client.create(kinds.RRA, {"metadata": {"name": "off"}, "spec": OFF}, "ns")
        code, out, _ = await doctor(kubeconfig)
        assert code == 1
        assert "cannot scale: ScalingActive=False: SpecInvalid (why=spec.profile: profile 'absent': no such pro" in out
        assert "SwitchedOff (why=mode Off); to do: set spec.mode DryRun or Active" in verdict(out)
        code, _, err = await doctor(kubeconfig, "--service", "ns/other")
        assert code == 2
        assert "--service ns/other: no such service; there are ns/chat" in err
        code, _, err = await doctor(kubeconfig, "--service", "chat")
        assert code == 2
        assert "expected NAMESPACE/SERVICE" in err


@pytest.mark.parametrize("width", [80, 120])
def test_lines_are_folded_under_their_beginnings(width: int) -> None:
    words = "label roleratio.dev/service=demo-0; expected demo; " * 6
    lines = ["team-a/chat  (mode Active)", f"  prefill  {words}", f"    - {words}", f"  cannot scale: {words}"]
    found = list(folded(lines, width))
    assert max(map(len, found)) <= width
    assert found[0] == lines[0]
    indents = {len(line) - len(line.lstrip()) for line in found if not line.lstrip().startswith(("-", "pre", "can"))}
    assert indents == {0, 4, 6, 11}
    assert " ".join(" ".join(found).split()) == " ".join(" ".join(lines).split())
    assert list(folded(lines, None)) == lines


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


def test_a_service_of_its_own_is_no_near_miss() -> None:
    own = [lws("prefill")]
    canary = [
        labelled(lws(role, name=f"canary-{role}"), labels={SERVICE_LABEL: "demo-canary", ROLE_LABEL: role})
        for role in ("prefill", "decode")
    ]
    assert near_misses(world(*own, *canary), "ns", "demo") == ()
    (found,) = near_misses(world(*canary), "ns", "demo")
    assert found == "2 workloads (canary-prefill, ...): label roleratio.dev/service=demo-canary; expected demo"


def test_a_router_is_looked_for_only_where_none_bears_the_labels() -> None:
    gateway = labelled(pod("router", 0, 0), name="my-gateway-0", labels={})
    (found,) = likely_routers(world(gateway), "ns", "demo")
    assert found.startswith("Pod my-gateway-0: without labels; ")
    assert likely_routers(world(gateway, pod("router", 1, 0)), "ns", "demo") == ()
    assert likely_routers(world(gateway), "other", "demo") == ()


def test_a_look_tells_what_is_near_only_where_something_is_missing() -> None:
    moved = [labelled(lws(role), namespace="other") for role in ("prefill", "decode")]
    fleet = look(world(*moved), "ns", "demo", 1000.0).fleet
    assert isinstance(fleet.prefill, Missing)
    assert (
        "2 workloads (prefill, ...) in namespace other: label roleratio.dev/service=demo; exp" in fleet.prefill.missing
    )
    there = [lws("prefill"), lws("decode"), *group("prefill", 0)]
    near = labelled(pod("decode", 0, 0), labels={SERVICE_LABEL: "demo-rank-0", ROLE_LABEL: "decode"})
    fleet = look(world(*there, near), "ns", "demo", 1000.0).fleet
    assert fleet.problems == ("pod decode-0: label roleratio.dev/service=demo-rank-0; expected demo",)
    fleet = look(world(*there, *group("decode", 1), near), "ns", "demo", 1000.0).fleet
    assert fleet.problems == ()
