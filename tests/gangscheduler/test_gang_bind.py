"""Bindings that fail, are refused or get lost, by server and nodes: nothing stays half bound, nothing is doubled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubeapi import kinds
from kubeapi.client import KubeClient
from kubeapi.config import Config
from tests.gangscheduler.builders import NAMESPACE, Object, node, podgroup, tp_group
from tests.gangscheduler.test_gang_loop import all_bound, create, events, places, scheduling, until
from tests.kubeapi.misbehaving import Fault, Proxy


def bindings(proxy: Proxy) -> list[str]:
    return [line.split("/")[-2] for line in proxy.seen if line.endswith("/binding")]


async def owned(client: KubeClient, pods: list[Object]) -> None:
    """Give the pods a controller, which the test plays."""
    labels, containers = {"app": "decode"}, [{"name": "main", "image": "worker"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    owner = await client.create(kinds.REPLICASET, {"metadata": {"name": "decode"}, "spec": spec}, NAMESPACE)
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "decode", "uid": owner["metadata"]["uid"]}
    for one in pods:
        one["metadata"]["ownerReferences"] = [reference | {"controller": True}]


async def test_what_the_server_refuses_for_the_first_pod_is_not_tried_for_the_others(
    proxy: Proxy, client: KubeClient
) -> None:
    proxy.concerns = lambda http: http.path.endswith("/binding")
    proxy.always = Fault(403)
    async with scheduling(Config(proxy.url)):
        nodes = [node(f"n{index}") for index in range(4)]
        await create(client, nodes, [podgroup("decode", 4)], tp_group("decode", 0, [8] * 4))

        async def told() -> list[Object]:
            return await events(client, "BindingRefused")

        event = (await until(told))[0]
        assert event["involvedObject"]["name"] == "decode-0"
        assert "its gang is tried again in" in event["message"]
        assert set((await places(client)).values()) == {""}
        assert set(bindings(proxy)) == {"decode-0"}
        proxy.always = None
        await until(lambda: all_bound(client))
    assert sorted((await places(client)).values()) == ["n0", "n1", "n2", "n3"]


async def test_a_late_failure_leaves_no_half_gang(proxy: Proxy, client: KubeClient) -> None:
    """Three are bound when the server begins to refuse the fourth; it is repaired as soon as it no longer does."""
    proxy.concerns = lambda http: http.path.endswith("/decode-0-3/binding")
    proxy.faults = [Fault(500), Fault(403)]
    async with scheduling(Config(proxy.url)):
        nodes = [node(f"n{index}") for index in range(4)]
        await create(client, nodes, [podgroup("decode", 4)], tp_group("decode", 0, [8] * 4))
        await until(lambda: all_bound(client))
    assert sorted((await places(client)).values()) == ["n0", "n1", "n2", "n3"]
    assert not proxy.faults


async def test_a_gang_that_the_server_goes_on_to_refuse_is_taken_back(proxy: Proxy, client: KubeClient) -> None:
    proxy.concerns = lambda http: http.path.endswith("/decode-0-1/binding")
    proxy.always = Fault(403)
    pods = tp_group("decode", 0, [8, 8])
    await owned(client, pods)
    async with scheduling(Config(proxy.url), undo_after_s=0.5):
        await create(client, [node("n0"), node("n1")], [podgroup("decode", 2)], pods)

        async def taken_back() -> list[Object]:
            return await events(client, "GangUndone")

        await until(taken_back)


@pytest.mark.parametrize("fault", [Fault(lost=True), Fault(status=0), Fault(503)], ids=["lost", "cut", "503"])
async def test_a_binding_whose_answer_is_lost_is_asked_for(proxy: Proxy, client: KubeClient, fault: Fault) -> None:
    """Done or not, the pod knows; meanwhile its node stays taken, so that the other gang does not get it as well."""
    proxy.concerns = lambda http: http.path.endswith("/decode-0/binding")
    proxy.faults = [fault]
    groups = [podgroup("decode", 1), podgroup("prefill", 1)]
    async with scheduling(Config(proxy.url)):
        pods = [*tp_group("decode", 0, [8]), *tp_group("prefill", 0, [8])]
        await create(client, [node("n0"), node("n1")], groups, pods)
        await until(lambda: all_bound(client))
    assert sorted((await places(client)).values()) == ["n0", "n1"]
    assert bindings(proxy).count("decode-0") == (1 if fault.lost else 2)


async def refuse(client: KubeClient, name: str, again: Object) -> None:
    """The kubelet's refusal, and what a controller does about it."""
    status = {"phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "Pod was rejected"}
    await client.patch(kinds.POD, name, NAMESPACE, {"status": status}, subresource="status")
    await client.delete(kinds.POD, name, NAMESPACE, grace_period_s=0)
    await create(client, [], [], [again])


async def test_a_node_that_refuses_a_pod_is_avoided_and_the_gang_made_whole_elsewhere(
    proxy: Proxy, client: KubeClient
) -> None:
    async with scheduling(Config(proxy.url)):
        pods = tp_group("decode", 0, [8, 8])
        await create(client, [node("n0"), node("n1")], [podgroup("decode", 2)], pods)
        await until(lambda: all_bound(client))
        refuser = (await places(client))["decode-0"]
        await create(client, [node("n2")], [], [])
        await refuse(client, "decode-0", tp_group("decode", 0, [8, 8])[0])
        await until(lambda: all_bound(client))
    found = await places(client)
    assert found["decode-0"] == "n2"
    assert refuser not in found.values()


async def test_where_nothing_else_is_free_the_rest_of_a_refused_gang_is_taken_back_at_once(
    proxy: Proxy, client: KubeClient
) -> None:
    """Not after a minute: that the place is of no use is known."""
    pods, again = tp_group("decode", 0, [8, 8]), tp_group("decode", 0, [8, 8])
    await owned(client, pods)
    again[0]["metadata"]["ownerReferences"] = pods[0]["metadata"]["ownerReferences"]
    async with scheduling(Config(proxy.url), undo_after_s=3600.0):
        await create(client, [node("n0"), node("n1")], [podgroup("decode", 2)], pods)
        await until(lambda: all_bound(client))
        await refuse(client, "decode-0", again[0])

        async def taken_back() -> list[Object]:
            return await events(client, "GangUndone")

        event = (await until(taken_back))[0]
        assert event["involvedObject"]["name"] == "decode-0-1"
        assert (await places(client))["decode-0"] == ""


async def test_a_slow_binding_keeps_no_other_gang_waiting(proxy: Proxy, client: KubeClient) -> None:
    proxy.concerns = lambda http: http.path.endswith("/decode-0/binding")
    proxy.always = Fault(hang=True)
    async with scheduling(Config(proxy.url)):
        await create(client, [node("n0")], [podgroup("decode", 1)], tp_group("decode", 0, [8]))

        async def sent() -> list[str]:
            return bindings(proxy)

        await until(sent)
        await create(client, [node("n1")], [podgroup("prefill", 1)], tp_group("prefill", 0, [8]))

        async def other() -> Any:
            return (await places(client)).get("prefill-0")

        assert await asyncio.wait_for(until(other), 8) == "n1"
        assert (await places(client))["decode-0"] == ""
