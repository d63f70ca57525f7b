"""The scheduler in clusters that are not well: no PodGroups, a server that fails, half-bound gangs, a lost Lease."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gangscheduler.loop import Scheduler
from gangscheduler.report import PLACEABLE
from gangscheduler.view import View
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from kubeapi.errors import NotFound
from kubeapi.lease import Lease, clock_s
from tests.gangscheduler.builders import NAMESPACE, Object, node, podgroup, tp_group
from tests.gangscheduler.test_gang_loop import all_bound, conditions, create, events, places, scheduling, until
from tests.kubeapi.misbehaving import Fault, Proxy


async def test_without_podgroups_pods_are_placed_alone_and_it_is_said_once(
    proxy: Proxy, client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.concerns = lambda http: "podgroups" in http.path
    proxy.always = Fault(404)
    alone = tp_group("decode", 0, [8])[0]
    del alone["spec"]["schedulingGroup"]
    with caplog.at_level(logging.INFO, "gangscheduler"):
        async with scheduling(Config(proxy.url)):
            await create(client, [node("n0"), node("n1")], [], [alone])
            await until(lambda: all_bound(client))
            more = tp_group("decode", 1, [8])[0]
            del more["spec"]["schedulingGroup"]
            await create(client, [], [], [more])
            await until(lambda: all_bound(client))
    said = [record.getMessage() for record in caplog.records if "podgroups" in record.getMessage()]
    (line,) = said
    assert line.startswith("podgroups.scheduling.k8s.io/v1beta1 is not served")
    assert line.endswith(": pods are placed one by one; one that names a PodGroup waits")


async def test_bindings_that_fail_in_passing_are_made_in_the_end(proxy: Proxy, client: KubeClient) -> None:
    proxy.concerns = lambda http: http.path.endswith("/binding")
    proxy.faults = [Fault(429), Fault(503), Fault(500), Fault(0)]
    async with scheduling(Config(proxy.url)):
        pods = tp_group("decode", 0, [8, 8])
        await create(client, [node("n0"), node("n1")], [podgroup("decode", 2)], pods)
        await until(lambda: all_bound(client))
    assert not proxy.faults


async def test_bindings_that_always_fail_are_not_tried_in_a_storm(proxy: Proxy, client: KubeClient) -> None:
    proxy.concerns = lambda http: http.path.endswith("/binding")
    proxy.always = Fault(403)
    async with scheduling(Config(proxy.url)):
        await create(client, [node("n0")], [podgroup("decode", 1)], tp_group("decode", 0, [8]))
        for index in range(20):
            await client.patch(kinds.NODE, "n0", None, {"metadata": {"labels": {"beat": str(index)}}})
            await asyncio.sleep(0.05)
    bindings = [line for line in proxy.seen if line.endswith("/binding")]
    assert 1 <= len(bindings) <= 5, "twenty changes of the node woke it"


async def test_a_condition_that_could_not_be_written_is_written_later(
    proxy: Proxy, client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gangscheduler.report.RETRY_S", 0.5)
    proxy.concerns = lambda http: http.method == "PATCH" and "podgroups" in http.path
    proxy.faults = [Fault(403)]
    async with scheduling(Config(proxy.url)):
        await create(client, [], [podgroup("decode", 1)], tp_group("decode", 0, [8]))

        async def said() -> bool:
            return PLACEABLE in await conditions(client, kinds.PODGROUP, "decode")

        await until(said)
    assert not proxy.faults


async def half_bound(client: KubeClient) -> None:
    """One node, full with the first of two pods that a controller owns."""
    labels, containers = {"app": "decode"}, [{"name": "main", "image": "worker"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    owner = await client.create(kinds.REPLICASET, {"metadata": {"name": "decode"}, "spec": spec}, NAMESPACE)
    pods = tp_group("decode", 0, [8, 8])
    for one in pods:
        reference = {"name": "decode", "uid": owner["metadata"]["uid"], "controller": True}
        one["metadata"]["ownerReferences"] = [{"apiVersion": "apps/v1", "kind": "ReplicaSet"} | reference]
    await create(client, [node("n0")], [podgroup("decode", 2)], pods)
    target = {"target": {"kind": "Node", "name": "n0"}, "metadata": {"name": "decode-0"}}
    await client.create_sub(kinds.POD, "decode-0", NAMESPACE, "binding", target)


async def gone(client: KubeClient) -> bool:
    try:
        pod = await client.get(kinds.POD, "decode-0", NAMESPACE)
    except NotFound:
        return True
    return "deletionTimestamp" in pod["metadata"]


async def test_what_is_half_bound_for_too_long_is_evicted(proxy: Proxy, client: KubeClient) -> None:
    await half_bound(client)
    async with scheduling(Config(proxy.url), undo_after_s=0.5):
        await until(lambda: gone(client))

        async def told() -> list[Object]:
            return await events(client, "GangUndone")

        assert "gang default/decode found no place" in (await until(told))[0]["message"]


async def test_what_is_half_bound_is_repaired_when_room_appears_in_time(proxy: Proxy, client: KubeClient) -> None:
    await half_bound(client)
    async with scheduling(Config(proxy.url), undo_after_s=30.0):

        async def told() -> list[Object]:
            return await events(client, "FailedScheduling")

        await until(told)
        await create(client, [node("n1")], [], [])
        await until(lambda: all_bound(client))
    assert await places(client) == {"decode-0": "n0", "decode-0-1": "n1"}
    assert await events(client, "GangUndone") == []


async def test_an_eviction_that_is_refused_leaves_the_pod(
    proxy: Proxy, client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A PodDisruptionBudget answers 429; a right that is missing 403."""
    proxy.concerns = lambda http: http.path.endswith("/eviction")
    proxy.always = Fault(429)
    await half_bound(client)
    async with scheduling(Config(proxy.url), undo_after_s=0.2):

        async def refused() -> bool:
            return "pod default/decode-0 not evicted" in caplog.text

        await until(refused)
    assert not await gone(client)
    assert await events(client, "GangUndone") == []


async def test_the_fence_stops_the_bindings_of_one_that_no_longer_leads(
    proxy: Proxy, client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """It loses its Lease between the decision and the binding: nothing is written, not even a condition."""
    shift_s = 0.0
    await create(client, [node("n0")], [podgroup("decode", 1)], tp_group("decode", 0, [8]))
    lease = Lease(client, NAMESPACE, names.SCHEDULER_NAME, "a", clock=lambda: clock_s() + shift_s)
    async with lease, KubeClient(client.config, field_manager="x", fence=lambda: lease.is_leader) as fenced:
        await asyncio.wait_for(lease.wait_leader(), 10)
        scheduler = Scheduler(fenced, View(), lease)
        watches = [asyncio.create_task(cache.run()) for cache in scheduler.caches]
        await asyncio.wait_for(asyncio.gather(*(cache.synced.wait() for cache in scheduler.caches)), 10)
        decide = scheduler.exporter.show

        def show_and_stall(verdicts: object) -> None:
            nonlocal shift_s
            decide(verdicts)  # type: ignore[arg-type]
            shift_s = 11.0

        scheduler.exporter.show = show_and_stall  # type: ignore[method-assign]
        before = (await client.list(kinds.POD, NAMESPACE)).resource_version
        await scheduler.cycle()
        await scheduler.binder.idle()
        for watch in watches:
            watch.cancel()
        assert (await client.list(kinds.POD, NAMESPACE)).resource_version == before
    assert "this process does not hold its Lease" in caplog.text
    assert await places(client) == {"decode-0": ""}


async def test_of_two_one_binds_and_the_other_follows(client: KubeClient, proxy: Proxy) -> None:
    config = Config(proxy.upstream)
    async with scheduling(config, lease_namespace=NAMESPACE):
        await create(client, [node("n0")], [podgroup("decode", 1)], tp_group("decode", 0, [8]))
        await until(lambda: all_bound(client))
        first = (await client.get(kinds.LEASE, names.SCHEDULER_NAME, NAMESPACE))["spec"]["holderIdentity"]
        second = scheduling(config, lease_namespace=NAMESPACE)
        await second.__aenter__()
    await create(client, [node("n1")], [], tp_group("decode", 1, [8]))
    await until(lambda: all_bound(client))
    lease = (await client.get(kinds.LEASE, names.SCHEDULER_NAME, NAMESPACE))["spec"]
    assert (lease["holderIdentity"] != first, lease["leaseTransitions"]) == (True, 1)
    await second.__aexit__(None, None, None)
