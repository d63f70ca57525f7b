"""The real control plane itself, and our client's habits against it: what the product takes for granted."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config, load_config
from kubeapi.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, Unauthorized
from kubeapi.kinds import LEASE, LWS, NODE, POD, PODGROUP, RRA
from tests.controlplane.plane import ControlPlane


def gang(min_count: int) -> Object:
    return {"spec": {"schedulingPolicy": {"gang": {"minCount": min_count}}}}


def pod_group(name: str, min_count: int) -> Object:
    return {"metadata": {"name": name}} | gang(min_count)


def min_count(group: Object) -> int:
    return int(group["spec"]["schedulingPolicy"]["gang"]["minCount"])


def pod(name: str, group: str) -> Object:
    container = {"name": "worker", "image": "none", "resources": {"requests": {"cpu": "1"}}}
    spec: Object = {"containers": [container], "schedulingGroup": {"podGroupName": group}}
    return {"metadata": {"name": name}, "spec": spec}


def lws(name: str, replicas: int) -> Object:
    template = {"spec": {"containers": [{"name": "worker", "image": "none"}]}}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "leaderWorkerTemplate": {"size": 2, "workerTemplate": template}},
    }


def from_to(old: int, new: int) -> list[dict[str, Any]]:
    """A JSON patch of replicas that applies only when the old value still holds."""
    return [
        {"op": "test", "path": "/spec/replicas", "value": old},
        {"op": "replace", "path": "/spec/replicas", "value": new},
    ]


def test_it_is_ready_and_of_the_version_that_we_speak_of(control_plane: ControlPlane) -> None:
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"
    server = json.loads(control_plane.kubectl("version", "--output=json"))["serverVersion"]
    assert (server["major"], server["minor"]) == ("1", "37")


async def test_a_minimum_can_be_moved_but_not_to_none(admin: KubeClient, namespace: str) -> None:
    await admin.create(PODGROUP, pod_group("decode", 2), namespace)
    assert min_count(await admin.patch(PODGROUP, "decode", namespace, gang(4))) == 4
    with pytest.raises(Invalid, match="minCount: Required value"):
        await admin.patch(PODGROUP, "decode", namespace, gang(0))
    assert min_count(await admin.get(PODGROUP, "decode", namespace)) == 4


@pytest.mark.usefixtures("controller_manager")
async def test_a_pod_group_goes_when_its_last_pod_has_gone(admin: KubeClient, namespace: str) -> None:
    await admin.create(PODGROUP, pod_group("decode", 1), namespace)
    await admin.create(POD, pod("a", "decode"), namespace)
    await admin.delete(PODGROUP, "decode", namespace)
    kept = await admin.get(PODGROUP, "decode", namespace)
    assert kept["metadata"]["finalizers"] == ["scheduling.k8s.io/podgroup-protection"]
    await admin.delete(POD, "a", namespace, grace_period_s=0)
    async with asyncio.timeout(20):
        while (await admin.list(PODGROUP, namespace)).items:
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("lws_crd")
async def test_scale_moves_only_from_the_value_that_was_seen(admin: KubeClient, namespace: str) -> None:
    await admin.create(LWS, lws("decode", 1), namespace)
    scaled = await admin.patch(LWS, "decode", namespace, from_to(1, 3), patch_type="json", subresource="scale")
    assert scaled["spec"]["replicas"] == 3
    with pytest.raises(Invalid, match=f"PATCH .*/{namespace}/leaderworkersets/decode/scale: the server rejected"):
        await admin.patch(LWS, "decode", namespace, from_to(1, 5), patch_type="json", subresource="scale")
    held = await admin.get(LWS, "decode", namespace)
    assert held["spec"]["replicas"] == 3
    owner = next(entry for entry in held["metadata"]["managedFields"] if entry.get("subresource") == "scale")
    assert owner["manager"] == "test"
    assert owner["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


async def test_a_name_is_taken_once(admin: KubeClient, namespace: str) -> None:
    await admin.create(PODGROUP, pod_group("decode", 2), namespace)
    with pytest.raises(AlreadyExists, match='"decode" already exists'):
        await admin.create(PODGROUP, pod_group("decode", 2), namespace)


async def test_a_stale_version_or_another_uid_is_a_conflict(admin: KubeClient, namespace: str) -> None:
    made = await admin.create(PODGROUP, pod_group("decode", 2), namespace)
    await admin.patch(PODGROUP, "decode", namespace, gang(3))
    with pytest.raises(Conflict, match="the object has been modified"):
        await admin.update(PODGROUP, made, namespace)
    with pytest.raises(Conflict, match="precondition"):
        await admin.delete(PODGROUP, "decode", namespace, uid="another")


async def test_a_dry_run_is_checked_and_not_kept(admin: KubeClient, namespace: str) -> None:
    made = await admin.create(PODGROUP, pod_group("decode", 2), namespace, dry_run=True)
    assert min_count(made) == 2
    with pytest.raises(Invalid, match="minCount"):
        await admin.create(PODGROUP, pod_group("decode", -1), namespace, dry_run=True)
    with pytest.raises(NotFound):
        await admin.get(PODGROUP, "decode", namespace)


async def test_a_kind_that_is_not_there_is_named(admin: KubeClient, namespace: str) -> None:
    with pytest.raises(NotFound, match=r"GET /apis/roleratio\.dev/v1alpha1/.*roleratioautoscalers: 404 page not found"):
        await admin.list(RRA, namespace)


async def test_a_list_is_whole_over_several_pages(admin: KubeClient, namespace: str) -> None:
    for index in range(5):
        await admin.create(LEASE, {"metadata": {"name": f"l{index}"}}, namespace)
    listed = await admin.list(LEASE, namespace, page=2)
    assert [item["metadata"]["name"] for item in listed.items] == ["l0", "l1", "l2", "l3", "l4"]


async def test_a_cache_follows_the_server(admin: KubeClient, namespace: str) -> None:
    changes: list[WatchEvent] = []
    await admin.create(LEASE, {"metadata": {"name": "a"}}, namespace)
    cache = Cache(admin, LEASE, namespace, on_change=changes.append)
    task = asyncio.create_task(cache.run())
    async with asyncio.timeout(20):
        await cache.synced.wait()
        await admin.create(LEASE, {"metadata": {"name": "b"}}, namespace)
        await admin.delete(LEASE, "a", namespace)
        while set(cache.items) != {(namespace, "b")}:
            await asyncio.sleep(0.01)
    task.cancel()
    assert [(event.type, event.object["metadata"]["name"]) for event in changes] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]
    assert cache.error is None


async def test_a_watch_ends_when_told_with_a_bookmark_to_go_on_from(admin: KubeClient, namespace: str) -> None:
    begin = (await admin.list(LEASE, namespace)).resource_version
    await admin.create(LEASE, {"metadata": {"name": "seen", "labels": {"watched": ""}}}, namespace)
    events: list[WatchEvent] = []
    # The server sends a bookmark two seconds before the end of a watch.
    async for event in admin.watch(LEASE, namespace, resource_version=begin, label_selector="watched", timeout_s=4):
        events.append(event)
        if event.type == "ADDED":
            # This moves the server's version on without an event for this watch: only a bookmark can say it.
            other = await admin.create(LEASE, {"metadata": {"name": "other"}}, namespace)
    assert [event.type for event in events[:2]] == ["ADDED", "BOOKMARK"]
    assert int(events[-1].object["metadata"]["resourceVersion"]) >= int(other["metadata"]["resourceVersion"])


async def test_a_service_account_may_do_what_its_role_says(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "reader", "--namespace", namespace)
    config = load_config(control_plane.kubeconfig_for(namespace, "reader"))
    async with KubeClient(config, field_manager="test") as reader:
        with pytest.raises(Forbidden, match=f"system:serviceaccount:{namespace}:reader.*cannot list resource"):
            await reader.list(POD, namespace)
        create = partial(control_plane.kubectl, "create", "--namespace", namespace)
        create("role", "reader", "--verb=list", "--resource=pods")
        create("rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader")
        async with asyncio.timeout(20):
            while not await allowed(reader, namespace):
                await asyncio.sleep(0.05)
        with pytest.raises(Forbidden, match="cannot create resource"):
            await reader.create(POD, pod("a", "decode"), namespace)


async def allowed(reader: KubeClient, namespace: str) -> bool:
    try:
        await reader.list(POD, namespace)
    except Forbidden:
        return False
    return True


async def test_a_token_that_nobody_issued_is_unauthorized(control_plane: ControlPlane, namespace: str) -> None:
    known = load_config(control_plane.kubeconfig)
    config = Config(known.server, lambda: "Bearer wrong", known.ssl_context)
    async with KubeClient(config, field_manager="test") as stranger:
        with pytest.raises(Unauthorized, match=f"/namespaces/{namespace}/pods: Unauthorized"):
            await stranger.list(POD, namespace)


@pytest.mark.usefixtures("kube_scheduler")
async def test_kube_scheduler_binds_a_gang_whole_or_not_at_all(admin: KubeClient, namespace: str) -> None:
    room = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    taint = {"key": "test", "value": namespace, "effect": "NoSchedule"}
    node = {"metadata": {"name": f"node-{namespace}"}, "spec": {"taints": [taint]}}
    await admin.create(NODE, node)
    try:
        status = {
            "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]}
        }
        await admin.patch(NODE, f"node-{namespace}", None, status, subresource="status")
        # The API server's admission gives a new node `not-ready`, which a kubelet's heartbeat would take off.
        await admin.patch(NODE, f"node-{namespace}", None, {"spec": {"taints": [taint]}})
        await admin.create(PODGROUP, pod_group("large", 5), namespace)
        await admin.create(PODGROUP, pod_group("fits", 4), namespace)
        for group, size in (("large", 5), ("fits", 4)):
            for index in range(size):
                tolerant = pod(f"{group}-{index}", group)
                tolerant["spec"]["tolerations"] = [{"key": "test", "value": namespace}]
                await admin.create(POD, tolerant, namespace)
        async with asyncio.timeout(30):
            while len(bound := await bound_pods(admin, namespace)) < 4 or not await refused(admin, namespace, "large"):
                await asyncio.sleep(0.1)
        assert bound == {f"fits-{index}" for index in range(4)}
    finally:
        await admin.delete(NODE, f"node-{namespace}")


async def bound_pods(admin: KubeClient, namespace: str) -> set[str]:
    pods = (await admin.list(POD, namespace)).items
    return {item["metadata"]["name"] for item in pods if item["spec"].get("nodeName")}


async def refused(admin: KubeClient, namespace: str, group: str) -> bool:
    conditions = (await admin.get(PODGROUP, group, namespace)).get("status", {}).get("conditions", [])
    return any(condition["reason"] == "Unschedulable" for condition in conditions)
