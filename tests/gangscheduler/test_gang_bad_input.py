"""What cannot be understood: a condition and an event each, and nothing half bound; the rest of the cluster goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gangscheduler.report import COMPOSITE_SCHEDULED, INITIALLY_SCHEDULED, PLACEABLE
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from localcluster.apiserver import ApiServer
from tests.gangscheduler.builders import NAMESPACE, Object, node, podgroup, tp_group
from tests.gangscheduler.test_gang_loop import conditions, create, events, places, scheduling, until

REF = {"workloadName": "w", "templateName": "t"}


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[Config]:
    async with ApiServer(log_dir=tmp_path) as server:
        yield Config(server=server.url)


@pytest.fixture
async def client(config: Config) -> AsyncIterator[KubeClient]:
    async with KubeClient(config, field_manager="test") as made:
        yield made


async def composite(client: KubeClient, name: str, minimum: int, parent: str = "") -> None:
    spec: Object = {"schedulingPolicy": {"gang": {"minGroupCount": minimum}}, "workloadRef": REF}
    if parent:
        spec["parentCompositePodGroupName"] = parent
    await client.create(kinds.COMPOSITE_PODGROUP, {"metadata": {"name": name}, "spec": spec}, NAMESPACE)


def leaf(name: str, minimum: int, parent: str, **spec: Any) -> Object:
    raw = podgroup(name, minimum)
    raw["spec"] |= {"parentCompositePodGroupName": parent, "workloadRef": REF} | spec
    return raw


async def said_of(client: KubeClient, kind: kinds.Kind, name: str, reason: str) -> Object:
    """The group's condition of ours, once it has this reason."""

    async def said() -> Object | None:
        found = (await conditions(client, kind, name)).get(PLACEABLE, {})
        return found if found.get("reason") == reason else None

    found: Object = await until(said)
    return found


async def test_a_tree_is_bound_whole_and_says_so(config: Config, client: KubeClient) -> None:
    """Two roles of one TP group each: nothing while one of them has no room, all of it when there is some."""
    async with scheduling(config):
        await composite(client, "service", 2)
        groups = [leaf("prefill", 1, "service"), leaf("decode", 2, "service")]
        pods = [*tp_group("prefill", 0, [8]), *tp_group("decode", 0, [8, 8])]
        await create(client, [node("n0"), node("n1")], groups, pods)
        await said_of(client, kinds.COMPOSITE_PODGROUP, "service", "InsufficientResource")
        assert set((await places(client)).values()) == {""}
        await create(client, [node("n2")], [], [])

        async def bound() -> bool:
            return all((await places(client)).values())

        await until(bound)
        await said_of(client, kinds.COMPOSITE_PODGROUP, "service", "Fits")
        found = await conditions(client, kinds.COMPOSITE_PODGROUP, "service")
        assert (found[COMPOSITE_SCHEDULED]["status"], found[COMPOSITE_SCHEDULED]["reason"]) == ("True", "Scheduled")


async def test_a_circle_of_parents(config: Config, client: KubeClient) -> None:
    async with scheduling(config):
        await composite(client, "a", 1, parent="b")
        await composite(client, "b", 1, parent="a")
        fine = [podgroup("fine", 1)]
        pods = [*tp_group("x", 0, [1]), *tp_group("fine", 0, [1])]
        await create(client, [node("n0")], [leaf("x", 1, "a"), *fine], pods)
        said = await said_of(client, kinds.PODGROUP, "x", "InvalidGroup")
        assert "is its own ancestor" in said["message"]
        await said_of(client, kinds.COMPOSITE_PODGROUP, "a", "InvalidGroup")
        initially = (await conditions(client, kinds.PODGROUP, "x"))[INITIALLY_SCHEDULED]
        assert (initially["status"], initially["reason"]) == ("False", "Invalid")

        async def told() -> bool:
            about = {one["involvedObject"]["name"] for one in await events(client, "InvalidGroup")}
            waits = [one for one in await events(client, "FailedScheduling") if "ancestor" in one["message"]]
            return about == {"a", "b", "x"} and [one["involvedObject"]["name"] for one in waits] == ["x-0"]

        await until(told)
        found = await places(client)
        assert (found["x-0"], found["fine-0"]) == ("", "n0")


async def test_a_parent_that_is_missing_and_comes(config: Config, client: KubeClient) -> None:
    async with scheduling(config):
        await create(client, [node("n0")], [leaf("x", 1, "late")], tp_group("x", 0, [1]))
        said = await said_of(client, kinds.PODGROUP, "x", "InvalidGroup")
        assert "the parent default/composite/late of default/x does not exist" in said["message"]
        await composite(client, "late", 1)

        async def bound() -> bool:
            return all((await places(client)).values())

        await until(bound)
        await said_of(client, kinds.PODGROUP, "x", "Fits")


async def test_a_topology_key_that_nobody_knows_and_a_minimum_above_the_children(
    config: Config, client: KubeClient
) -> None:
    async with scheduling(config):
        await composite(client, "few", 2)
        odd = podgroup("odd", 1)
        odd["spec"]["schedulingConstraints"] = {"topology": [{"key": "example.com/aisle"}]}
        pods = [*tp_group("odd", 0, [1]), *tp_group("only", 0, [1])]
        await create(client, [node("n0")], [odd, leaf("only", 1, "few")], pods)
        said = await said_of(client, kinds.PODGROUP, "odd", "InvalidGroup")
        assert f"topology key example.com/aisle; this scheduler knows {names.TOPOLOGY_ZONE}" in said["message"]
        await said_of(client, kinds.COMPOSITE_PODGROUP, "few", "MinimumNotMet")
        assert set((await places(client)).values()) == {""}


async def test_a_pod_waits_for_its_group_object_and_says_so(config: Config, client: KubeClient) -> None:
    async with scheduling(config):
        await create(client, [node("n0")], [], tp_group("decode", 0, [1]))

        async def told() -> bool:
            said = (await conditions(client, kinds.POD, "decode-0")).get("PodScheduled", {})
            return "the PodGroup that the pod names does not exist" in said.get("message", "")

        await until(told)
        assert len(await events(client, "FailedScheduling")) == 1
        await create(client, [], [podgroup("decode", 1)], [])

        async def bound() -> bool:
            return all((await places(client)).values())

        await until(bound)


async def test_pods_of_one_gang_for_two_schedulers(config: Config, client: KubeClient) -> None:
    pods = tp_group("decode", 0, [1, 1])
    pods[1]["spec"]["schedulerName"] = "default-scheduler"
    async with scheduling(config):
        await create(client, [node("n0")], [podgroup("decode", 2)], pods)
        said = await said_of(client, kinds.PODGROUP, "decode", "InvalidGroup")
        assert "give all of them the same schedulerName" in said["message"]
        assert set((await places(client)).values()) == {""}


async def test_more_pods_than_the_tp_group_has_places(config: Config, client: KubeClient) -> None:
    pods = tp_group("decode", 0, [1, 1, 1])
    for one in pods:
        one["metadata"]["annotations"][names.LWS_SIZE] = "2"
    async with scheduling(config):
        await create(client, [node("n0")], [podgroup("decode", 2)], pods)

        async def told() -> list[Object]:
            waits = await events(client, "FailedScheduling")
            return [one for one in waits if "has 3 pods and a size of 2" in one["message"]]

        event = (await until(told))[0]
        assert event["involvedObject"]["name"] == "decode-0-2"
        found = await places(client)
        assert sorted(found.values()) == ["", "n0", "n0"]
        assert found["decode-0-2"] == ""


async def test_a_group_that_is_deleted_while_its_pods_wait(config: Config, client: KubeClient) -> None:
    async with scheduling(config):
        await create(client, [], [podgroup("decode", 2)], tp_group("decode", 0, [8, 8]))
        await said_of(client, kinds.PODGROUP, "decode", "SelectorMismatch")
        await client.delete(kinds.PODGROUP, "decode", NAMESPACE)
        await create(client, [node("n0"), node("n1")], [], [])

        async def told() -> bool:
            said = (await conditions(client, kinds.POD, "decode-0")).get("PodScheduled", {})
            return "does not exist" in said.get("message", "")

        await until(told)
        assert set((await places(client)).values()) == {""}


async def test_a_node_with_an_absurd_quantity_has_none_of_it(config: Config, client: KubeClient) -> None:
    absurd = node("n0", 0, allocatable={names.GPU: "9e99"})
    async with scheduling(config):
        await create(client, [absurd], [podgroup("decode", 1)], tp_group("decode", 0, [1]))
        await said_of(client, kinds.PODGROUP, "decode", "PodTooLarge")
        await create(client, [node("n1")], [], [])

        async def bound() -> bool:
            return (await places(client))["decode-0"] == "n1"

        await until(bound)
