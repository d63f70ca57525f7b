"""The scheduler process against a real API server: it binds, reports, and says why it does not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gangscheduler.loop import Scheduler, run
from gangscheduler.model import Binding
from gangscheduler.place import place
from gangscheduler.recorder import read
from gangscheduler.report import INITIALLY_SCHEDULED, PLACEABLE
from gangscheduler.view import View
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from localcluster.apiserver import ApiServer
from tests.gangscheduler.builders import NAMESPACE, Object, node, podgroup, tp_group

WAIT_S = 20.0


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[Config]:
    async with ApiServer(log_dir=tmp_path) as server:
        yield Config(server=server.url)


@pytest.fixture
async def client(config: Config) -> AsyncIterator[KubeClient]:
    async with KubeClient(config, field_manager="test") as made:
        yield made


@asynccontextmanager
async def scheduling(config: Config, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(run(config, **options))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def all_bound(client: KubeClient) -> bool:
    """Whether there are pods, and all of them are on nodes."""
    found = await places(client)
    return bool(found) and all(found.values())


async def until(found: Callable[[], Awaitable[Any]]) -> Any:
    """The first true answer."""
    async with asyncio.timeout(WAIT_S):
        while not (answer := await found()):
            await asyncio.sleep(0.05)
        return answer


async def create(client: KubeClient, nodes: list[Object], groups: list[Object], pods: list[Object]) -> None:
    for one in nodes:
        status = one.pop("status")
        await client.create(kinds.NODE, one)
        await client.patch(kinds.NODE, one["metadata"]["name"], None, {"status": status}, subresource="status")
    for kind, objects in ((kinds.PODGROUP, groups), (kinds.POD, pods)):
        for one in objects:
            one.pop("status", None)
            for server_owned in ("uid", "creationTimestamp"):
                one["metadata"].pop(server_owned)
            for container in one["spec"].get("containers", ()):
                container["image"] = "worker"
            await client.create(kind, one, NAMESPACE)


async def places(client: KubeClient) -> dict[str, str]:
    pods = (await client.list(kinds.POD, NAMESPACE)).items
    return {one["metadata"]["name"]: one["spec"].get("nodeName", "") for one in pods}


async def conditions(client: KubeClient, kind: kinds.Kind, name: str) -> dict[str, Object]:
    found = await client.get(kind, name, NAMESPACE)
    return {one["type"]: one for one in found.get("status", {}).get("conditions", ())}


async def events(client: KubeClient, reason: str) -> list[Object]:
    return [one for one in (await client.list(kinds.EVENT, NAMESPACE)).items if one["reason"] == reason]


async def test_it_binds_a_gang_whole_and_reports_it(config: Config, client: KubeClient) -> None:
    pods = tp_group("decode", 0, [8, 8])
    async with scheduling(config):
        await create(client, [node("n0"), node("n1")], [podgroup("decode", 2, service="s")], pods)

        async def all_bound() -> bool:
            return all((await places(client)).values())

        await until(all_bound)
        assert set((await places(client)).values()) == {"n0", "n1"}

        async def reported() -> bool:
            said = await conditions(client, kinds.PODGROUP, "decode")
            return said.get(INITIALLY_SCHEDULED, {}).get("status") == "True"

        await until(reported)
        placeable = (await conditions(client, kinds.PODGROUP, "decode"))[PLACEABLE]
        assert (placeable["status"], placeable["reason"]) == ("True", "Fits")

        async def told() -> bool:
            return len(await events(client, "Scheduled")) == 2

        await until(told)


async def test_it_says_why_once_and_binds_when_room_appears(config: Config, client: KubeClient) -> None:
    pods = [one for index in range(2) for one in tp_group("decode", index, [8])]
    async with scheduling(config):
        await create(client, [node("n0")], [podgroup("decode", 2)], pods)

        async def unschedulable() -> bool:
            return (await conditions(client, kinds.POD, "decode-0")).get("PodScheduled", {}).get("status") == "False"

        await until(unschedulable)
        said = (await conditions(client, kinds.PODGROUP, "decode"))[PLACEABLE]
        assert (said["status"], said["reason"]) == ("False", "InsufficientResource")
        assert said["message"].startswith("0 of 2 TP groups admitted, 1 placeable now, floor 2")

        async def both_told() -> bool:
            return len(await events(client, "FailedScheduling")) == 2

        await until(both_told)
        version = (await client.list(kinds.EVENT, NAMESPACE)).resource_version
        await client.patch(kinds.NODE, "n0", None, {"metadata": {"labels": {"touched": "yes"}}})
        await asyncio.sleep(0.3)
        again = await client.list(kinds.EVENT, NAMESPACE)
        assert [one["count"] for one in again.items] == [1, 1], "a cycle that changes nothing writes nothing"
        assert int(again.resource_version) - int(version) == 1, "only the test itself has written"
        await create(client, [node("n1")], [], [])

        async def all_bound() -> bool:
            return all((await places(client)).values())

        await until(all_bound)


async def with_an_old_view(client: KubeClient) -> Scheduler:
    """A scheduler that has seen the cluster once and sees no change of it any more."""
    scheduler = Scheduler(client, View())
    watches = [asyncio.create_task(cache.run()) for cache in scheduler.caches]
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(cache.synced.wait() for cache in scheduler.caches))
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    return scheduler


async def test_a_refused_binding_is_forgotten_with_the_rest_of_its_gang(config: Config, client: KubeClient) -> None:
    """While the scheduler's view is old, someone else binds the first pod of the TP group."""
    pods = tp_group("decode", 0, [8, 8])
    await create(client, [node("n0"), node("n1"), node("n2")], [podgroup("decode", 2)], pods)
    scheduler = await with_an_old_view(client)
    target = {"target": {"kind": "Node", "name": "n2"}, "metadata": {"name": "decode-0"}}
    await client.create_sub(kinds.POD, "decode-0", NAMESPACE, "binding", target)
    await scheduler.cycle()
    assert len(scheduler.view.assumed) == 2
    await scheduler.binder.idle()
    assert await places(client) == {"decode-0": "n2", "decode-0-1": ""}
    assert scheduler.view.assumed == {}


async def test_what_is_assumed_is_not_bound_again(config: Config, client: KubeClient) -> None:
    pods = tp_group("decode", 0, [8, 8])
    await create(client, [node("n0"), node("n1")], [podgroup("decode", 2)], pods)
    scheduler = await with_an_old_view(client)
    await scheduler.cycle()
    await scheduler.binder.idle()
    found = await places(client)
    assert sorted(found.values()) == ["n0", "n1"]
    assert sorted(scheduler.view.assumed.values()) == ["n0", "n1"]
    version = (await client.list(kinds.POD, NAMESPACE)).resource_version
    await scheduler.cycle()
    await scheduler.binder.idle()
    assert (await client.list(kinds.POD, NAMESPACE)).resource_version == version
    assert len(scheduler.view.assumed) == 2


async def test_it_leaves_foreign_pods_alone_and_serves_its_verdicts(config: Config, client: KubeClient) -> None:
    foreign = tp_group("other", 0, [1])[0]
    foreign["spec"]["schedulerName"] = "default-scheduler"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with scheduling(config, http_port=port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        groups = [podgroup("decode", 1, role="decode"), podgroup("other", 1)]
        await create(client, [node("n0")], groups, [foreign, *tp_group("decode", 0, [8])])

        async def decided() -> Any:
            async with http.get("/v1/verdicts") as answer:
                said = {one["name"]: one for one in (await answer.json())["groups"]}
            return said if said.get("default/decode", {}).get("admitted") == 1 else None

        said = await until(decided)
        assert said["default/decode"]["reason"] == "Fits"
        assert (await places(client))["other-0"] == ""

        async def reported() -> bool:
            return PLACEABLE in await conditions(client, kinds.PODGROUP, "decode")

        await until(reported)
        assert await conditions(client, kinds.PODGROUP, "other") == {}, "another scheduler's to speak of"
        for page in ("/healthz", "/readyz"):
            async with http.get(page) as answer:
                assert (answer.status, await answer.text()) == (200, "ok")

        async def counted() -> bool:
            async with http.get("/metrics") as answer:
                return 'roleratio_scheduler_bindings_total{result="bound"} 1.0' in await answer.text()

        await until(counted)
        async with http.get("/metrics") as answer:
            text = await answer.text()
        mine = 'target_namespace="default",target_service=""'
        groups = 'roleratio_scheduler_groups{podgroup="decode",role="decode",state="admitted",'
        verdict = 'roleratio_scheduler_verdict{limiting_resource="",podgroup="decode",reason="Fits",role="decode",'
        assert groups + mine + "} 1.0" in text
        assert verdict + mine + "} 1.0" in text
        assert "roleratio_scheduler_leader 1.0" in text, "without a Lease it always leads"


async def test_without_an_api_server_it_is_not_ready_and_says_why_but_need_not_be_restarted() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = Config(server="http://127.0.0.1:9")
    async with scheduling(config, http_port=port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

        async def unready() -> str:
            with suppress(aiohttp.ClientConnectorError):
                async with http.get("/readyz") as answer:
                    text = await answer.text()
                    return text if answer.status == 503 and "cannot watch" in text else ""
            return ""

        assert "127.0.0.1:9" in await until(unready)
        async with http.get("/healthz") as answer:
            assert answer.status == 200


async def test_a_taken_port_ends_it(config: Config) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address already in use"):
            await run(config, http_port=taken.getsockname()[1])


async def test_a_place_that_is_being_freed_is_promised_and_then_taken(config: Config, client: KubeClient) -> None:
    """The pod on the only node terminates: the gang gets its place as nominatedNodeName, and once it is gone, bound."""
    (old,) = tp_group("old", 0, [8], on=["n0"])
    old["metadata"]["finalizers"] = ["roleratio.dev/test"]
    async with scheduling(config):
        await create(client, [node("n0")], [podgroup("old", 1), podgroup("decode", 1)], [old])
        await client.delete(kinds.POD, "old-0", NAMESPACE, grace_period_s=0)
        await create(client, [], [], tp_group("decode", 0, [8]))

        async def promised() -> bool:
            pod = await client.get(kinds.POD, "decode-0", NAMESPACE)
            return bool(pod["status"].get("nominatedNodeName") == "n0" and not pod["spec"].get("nodeName"))

        await until(promised)
        await client.patch(kinds.POD, "old-0", NAMESPACE, {"metadata": {"finalizers": None}})

        async def bound() -> bool:
            return (await places(client))["decode-0"] == "n0"

        await until(bound)


async def test_it_counts_gangs_that_wait_and_the_largest_that_fit(config: Config, client: KubeClient) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with scheduling(config, http_port=port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        groups = [podgroup("decode", 1), podgroup("large", 3)]
        pods = [*tp_group("decode", 0, [4]), *tp_group("large", 0, [8, 8, 8])]
        await create(client, [node("n0"), node("n1")], groups, pods)

        gauge = "roleratio_scheduler_largest_group_pods{"

        async def told() -> dict[str, float] | None:
            """The gauge, once a decision has seen what the one before it has bound."""
            async with http.get("/metrics") as answer:
                lines = (await answer.text()).splitlines()
            found = {
                name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
            }
            waits = found.get('roleratio_scheduler_waiting_groups{reason="InsufficientResource"}') == 1
            return found if waits and found[f'{gauge}level="cluster",shape="{names.GPU}=4"}}'] == 3 else None

        found = await until(told)
        assert found[f'{gauge}level="{names.HOSTNAME}",shape="{names.GPU}=4"}}'] == 2
        assert found[f'{gauge}level="cluster",shape="{names.GPU}=8"}}'] == 1
        assert found["roleratio_scheduler_placement_seconds_count"] > 0


async def test_decisions_are_recorded_and_decided_again(config: Config, client: KubeClient, tmp_path: Path) -> None:
    async with scheduling(config, record=tmp_path / "decisions"):
        await create(client, [node("n0")], [podgroup("decode", 1)], tp_group("decode", 0, [8]))

        async def recorded() -> list[Binding]:
            found = [read(path)[1] for path in files(tmp_path / "decisions")]
            return [binding for verdicts in found for binding in verdicts.bindings]

        (binding,) = await until(recorded)
        assert (binding.pod, binding.node) == ("default/decode-0", "n0")
    for path in files(tmp_path / "decisions"):
        snapshot, verdicts = read(path)
        assert place(snapshot) == verdicts


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gz"))
