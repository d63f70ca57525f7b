"""The API server over HTTP, through the project's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config
from kubeapi.errors import AlreadyExists, ApiError, Conflict, Gone, Invalid, NotFound
from kubeapi.kinds import DEPLOYMENT, EVENT, LEASE, LWS, NAMESPACE, NODE, POD, PODGROUP, REPLICASET, Kind
from localcluster.apiserver import ApiServer, store, streams

NS = "default"


def pod(name: str, **meta: Any) -> Object:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    return {"metadata": {"name": name} | meta, "spec": spec}


def deployment(name: str, replicas: int = 1) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod(name)["spec"]}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def owned_by(owner: Object, **more: Any) -> Object:
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
    return {"ownerReferences": [reference | {"uid": owner["metadata"]["uid"]} | more]}


async def bind(client: KubeClient, name: str, node: str = "n0") -> None:
    target = {"kind": "Node", "name": node}
    await client.create_sub(POD, name, NS, "binding", {"metadata": {"name": name}, "target": target})


async def exists(client: KubeClient, kind: Kind, name: str) -> bool:
    try:
        await client.get(kind, name, NS)
    except NotFound:
        return False
    return True


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await look():
            await asyncio.sleep(0.01)


async def take(events: AsyncIterator[WatchEvent], count: int) -> list[tuple[str, str]]:
    """The next events, without bookmarks."""
    seen: list[tuple[str, str]] = []
    async with asyncio.timeout(5):
        async for event in events:
            if event.type != "BOOKMARK":
                seen.append((event.type, event.object["metadata"]["name"]))
            if len(seen) == count:
                break
    return seen


async def test_create_fills_in_what_belongs_to_the_server(api: Any) -> None:
    made = await api.client.create(POD, pod("a", uid="mine", generation=7), NS)
    meta = made["metadata"]
    assert meta["uid"] != "mine"
    assert meta["generation"] == 1
    assert meta["namespace"] == NS
    assert made["status"] == {"phase": "Pending"}
    assert [entry["manager"] for entry in meta["managedFields"]] == ["test"]
    assert await api.client.get(POD, "a", NS) == made
    with pytest.raises(AlreadyExists):
        await api.client.create(POD, pod("a"), NS)


async def test_generate_name(api: Any) -> None:
    body = pod("") | {"metadata": {"generateName": "w-"}}
    names = {(await api.client.create(POD, dict(body), NS))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("w-") for name in names)


async def test_namespaces_must_exist_and_match(api: Any) -> None:
    with pytest.raises(NotFound, match='namespaces "none" not found'):
        await api.client.create(POD, pod("a"), "none")
    with pytest.raises(ApiError, match="as in the path"):
        await api.client.create(POD, pod("a", namespace="kube-system"), NS)
    assert {item["metadata"]["name"] for item in (await api.client.list(NAMESPACE)).items} == {
        "default",
        "kube-node-lease",
        "kube-system",
    }


async def test_versions_rise_and_a_stale_one_is_a_conflict(api: Any) -> None:
    first = await api.client.create(DEPLOYMENT, deployment("d"), NS)
    second = await api.client.patch(DEPLOYMENT, "d", NS, {"spec": {"replicas": 2}})
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in (first, second)]
    assert versions[0] < versions[1]
    assert second["metadata"]["generation"] == 2
    with pytest.raises(Conflict, match="has been modified"):
        await api.client.update(DEPLOYMENT, first, NS)
    locked = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "spec": {"replicas": 3}}
    with pytest.raises(Conflict):
        await api.client.patch(DEPLOYMENT, "d", NS, locked)
    assert (await api.client.get(DEPLOYMENT, "d", NS))["spec"]["replicas"] == 2


async def test_a_write_that_changes_nothing_is_not_a_new_version(api: Any) -> None:
    first = await api.client.create(DEPLOYMENT, deployment("d"), NS)
    assert await api.client.patch(DEPLOYMENT, "d", NS, {"spec": {"replicas": 1}}) == first


async def test_spec_and_status_are_written_through_their_own_doors(api: Any) -> None:
    await api.client.create(DEPLOYMENT, deployment("d"), NS)
    both = {"spec": {"replicas": 5}, "status": {"readyReplicas": 4}}
    by_main = await api.client.patch(DEPLOYMENT, "d", NS, both)
    assert (by_main["spec"]["replicas"], by_main.get("status")) == (5, None)
    other = {"spec": {"replicas": 9}, "status": {"readyReplicas": 4}}
    by_status = await api.client.patch(DEPLOYMENT, "d", NS, other, subresource="status")
    assert (by_status["spec"]["replicas"], by_status["status"]) == (5, {"readyReplicas": 4})
    assert by_status["metadata"]["generation"] == 2
    entries = by_status["metadata"]["managedFields"]
    assert [entry.get("subresource") for entry in entries] == [None, "status"]


async def test_metadata_of_the_server_cannot_be_written(api: Any) -> None:
    made = await api.client.create(POD, pod("a"), NS)
    patch = {"metadata": {"creationTimestamp": None, "generation": 9, "managedFields": [], "labels": {"x": "y"}}}
    after = await api.client.patch(POD, "a", NS, patch)
    for key in ("creationTimestamp", "generation", "uid"):
        assert after["metadata"][key] == made["metadata"][key]
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await api.client.patch(POD, "a", NS, {"metadata": {"name": "b"}})
    with pytest.raises(Invalid, match=r"metadata\.uid"):
        await api.client.patch(POD, "a", NS, {"metadata": {"uid": "other"}})
    with pytest.raises(Conflict, match="uid"):
        await api.client.update(POD, after | {"metadata": after["metadata"] | {"uid": "other"}}, NS)


@pytest.mark.parametrize("kind", [DEPLOYMENT, LWS], ids=lambda kind: kind.kind)
async def test_scale(api: Any, kind: Kind) -> None:
    lws = {"leaderWorkerTemplate": {"workerTemplate": {"spec": pod("p")["spec"]}}}
    body = deployment("d") if kind is DEPLOYMENT else {"metadata": {"name": "d"}, "spec": lws}
    made = await api.client.create(kind, body, NS)
    if kind is LWS:
        status = {"status": {"hpaPodSelector": "app=d", "replicas": 1}}
        await api.client.patch(LWS, "d", NS, status, subresource="status")
    scale = await api.client.get(kind, "d", NS, subresource="scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"], scale["status"]["selector"]) == ({"replicas": 1}, "app=d")
    scaled = await api.client.patch(kind, "d", NS, {"spec": {"replicas": 3}}, subresource="scale")
    assert scaled["spec"]["replicas"] == 3
    after = await api.client.get(kind, "d", NS)
    assert after["spec"]["replicas"] == 3
    assert after["metadata"]["generation"] == made["metadata"]["generation"] + 1
    writer = next(entry for entry in after["metadata"]["managedFields"] if entry.get("subresource") == "scale")
    assert writer["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    stale = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 4}}
    with pytest.raises(Conflict):
        await api.client.patch(kind, "d", NS, stale, subresource="scale")
    with pytest.raises(Invalid, match=r"spec\.replicas"):
        await api.client.patch(kind, "d", NS, {"spec": {"replicas": -1}}, subresource="scale")
    scaled["spec"]["replicas"] = 0
    scaled["metadata"]["resourceVersion"] = after["metadata"]["resourceVersion"]
    assert "replicas" not in (await api.client.update(kind, scaled, NS, subresource="scale")).get("spec", {})
    again = await api.client.patch(kind, "d", NS, {"spec": {"replicas": 2}}, subresource="scale")
    assert again["spec"] == {"replicas": 2}
    managers = (await api.client.get(kind, "d", NS))["metadata"]["managedFields"]
    assert not [entry for entry in managers if "f:replicas" in entry["fieldsV1"].get("f:spec", {})]


async def test_the_name_of_who_scaled_by_hand_is_on_record(api: Any) -> None:
    await api.client.create(DEPLOYMENT, deployment("d"), NS)
    async with KubeClient(api.client.config, field_manager="roleratio-controller") as controller:
        await controller.patch(DEPLOYMENT, "d", NS, {"spec": {"replicas": 2}}, subresource="scale")
    async with KubeClient(api.client.config, field_manager="kubectl-edit") as person:
        after = await person.patch(DEPLOYMENT, "d", NS, {"spec": {"replicas": 7}})
    writers = [
        entry["manager"]
        for entry in after["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    assert writers == ["kubectl-edit"]


async def test_binding_happens_once(api: Any) -> None:
    await api.client.create(POD, pod("a"), NS)
    await bind(api.client, "a")
    bound = await api.client.get(POD, "a", NS)
    assert bound["spec"]["nodeName"] == "n0"
    assert [(item["type"], item["status"]) for item in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    with pytest.raises(Conflict, match='already assigned to node "n0"'):
        await bind(api.client, "a", "n1")
    with pytest.raises(Invalid):
        await api.client.patch(POD, "a", NS, {"spec": {"nodeName": "n1"}})
    wrong = {"metadata": {"name": "b", "uid": "other"}, "target": {"name": "n0"}}
    await api.client.create(POD, pod("b"), NS)
    with pytest.raises(Conflict):
        await api.client.create_sub(POD, "b", NS, "binding", wrong)


async def test_an_unbound_pod_goes_at_once_a_bound_one_when_the_kubelet_says(api: Any) -> None:
    for name in ("free", "bound"):
        await api.client.create(POD, pod(name), NS)
    await bind(api.client, "bound")
    await api.client.delete(POD, "free", NS)
    assert not await exists(api.client, POD, "free")
    await api.client.delete(POD, "bound", NS)
    meta = (await api.client.get(POD, "bound", NS))["metadata"]
    assert meta["deletionGracePeriodSeconds"] == 30
    assert meta["deletionTimestamp"] > meta["creationTimestamp"]
    await api.client.delete(POD, "bound", NS, grace_period_s=5)
    assert (await api.client.get(POD, "bound", NS))["metadata"]["deletionGracePeriodSeconds"] == 5
    with pytest.raises(Conflict):
        await api.client.delete(POD, "bound", NS, grace_period_s=0, uid="other")
    await api.client.delete(POD, "bound", NS, grace_period_s=0, uid=meta["uid"])
    assert not await exists(api.client, POD, "bound")


async def test_a_gated_pod_is_not_bound(api: Any) -> None:
    body = pod("a")
    await api.client.create(POD, body | {"spec": body["spec"] | {"schedulingGates": [{"name": "x/y"}]}}, NS)
    with pytest.raises(Conflict, match="gated"):
        await bind(api.client, "a")
    await api.client.patch(POD, "a", NS, {"spec": {"schedulingGates": None}})
    await bind(api.client, "a")


async def test_a_lease_is_not_replaced_unseen(api: Any) -> None:
    made = await api.client.create(LEASE, {"metadata": {"name": "a"}, "spec": {"holderIdentity": "x"}}, NS)
    with pytest.raises(Invalid, match=r"metadata\.resourceVersion"):
        await api.client.update(LEASE, made | {"metadata": {"name": "a"}}, NS)


async def test_eviction_is_a_deletion(api: Any) -> None:
    await api.client.create(POD, pod("a"), NS)
    await bind(api.client, "a")
    dry = {"metadata": {"name": "a"}, "deleteOptions": {"dryRun": ["All"]}}
    await api.client.create_sub(POD, "a", NS, "eviction", dry)
    assert "deletionTimestamp" not in (await api.client.get(POD, "a", NS))["metadata"]
    with pytest.raises(ApiError, match="as in the path"):
        await api.client.create_sub(POD, "a", NS, "eviction", {"metadata": {"name": "b"}})
    body = {"metadata": {"name": "a"}, "deleteOptions": {"gracePeriodSeconds": 3}}
    await api.client.create_sub(POD, "a", NS, "eviction", body)
    assert (await api.client.get(POD, "a", NS))["metadata"]["deletionGracePeriodSeconds"] == 3


async def test_dependents_follow_their_owner(api: Any) -> None:
    owner = await api.client.create(DEPLOYMENT, deployment("d"), NS)
    middle = deployment("rs") | {"metadata": {"name": "rs"} | owned_by(owner)}
    replicaset = await api.client.create(REPLICASET, middle, NS)
    await api.client.create(POD, pod("a", **owned_by(replicaset)), NS)
    await api.client.delete(DEPLOYMENT, "d", NS)

    async def gone() -> bool:
        return not await exists(api.client, REPLICASET, "rs") and not await exists(api.client, POD, "a")

    await until(gone)


async def test_foreground_waits_for_the_dependents(api: Any) -> None:
    owner = await api.client.create(DEPLOYMENT, deployment("d"), NS)
    await api.client.create(POD, pod("a", **owned_by(owner)), NS)
    await bind(api.client, "a")
    await api.client.delete(DEPLOYMENT, "d", NS, propagation="Foreground")
    assert (await api.client.get(DEPLOYMENT, "d", NS))["metadata"]["finalizers"] == ["foregroundDeletion"]

    async def dying() -> bool:
        return "deletionTimestamp" in (await api.client.get(POD, "a", NS))["metadata"]

    await until(dying)
    await api.client.delete(POD, "a", NS, grace_period_s=0)

    async def gone() -> bool:
        return not await exists(api.client, DEPLOYMENT, "d")

    await until(gone)


async def test_orphans_lose_their_owner_and_live(api: Any) -> None:
    owner = await api.client.create(DEPLOYMENT, deployment("d"), NS)
    await api.client.create(POD, pod("a", **owned_by(owner)), NS)
    await api.client.delete(DEPLOYMENT, "d", NS, propagation="Orphan")
    await asyncio.sleep(0.05)
    assert (await api.client.get(POD, "a", NS))["metadata"]["ownerReferences"] == []


async def test_a_second_owner_keeps_a_dependent(api: Any) -> None:
    owners = [await api.client.create(DEPLOYMENT, deployment(name), NS) for name in ("one", "two")]
    both = {"ownerReferences": [owned_by(owner)["ownerReferences"][0] for owner in owners]}
    await api.client.create(POD, pod("a", **both), NS)
    await api.client.delete(DEPLOYMENT, "one", NS)

    async def one_left() -> bool:
        return len((await api.client.get(POD, "a", NS))["metadata"]["ownerReferences"]) == 1

    await until(one_left)


async def test_an_object_of_a_dead_owner_is_garbage(api: Any) -> None:
    owner = await api.client.create(DEPLOYMENT, deployment("d"), NS)
    await api.client.delete(DEPLOYMENT, "d", NS)
    await api.client.create(POD, pod("late", **owned_by(owner)), NS)

    async def gone() -> bool:
        return not await exists(api.client, POD, "late")

    await until(gone)


async def test_finalizers_hold_an_object(api: Any) -> None:
    await api.client.create(POD, pod("a", finalizers=["x/y"]), NS)
    await api.client.delete(POD, "a", NS)
    assert "deletionTimestamp" in (await api.client.get(POD, "a", NS))["metadata"]
    await api.client.patch(POD, "a", NS, {"metadata": {"finalizers": None}})
    assert not await exists(api.client, POD, "a")


async def test_a_namespace_takes_its_contents_along(api: Any) -> None:
    await api.client.create(NAMESPACE, {"metadata": {"name": "team"}})
    await api.client.create(POD, pod("a"), "team")
    await api.client.create(PODGROUP, {"metadata": {"name": "g"}, "spec": {"schedulingPolicy": {"basic": {}}}}, "team")
    await api.client.delete(NAMESPACE, "team")

    async def gone() -> bool:
        return "team" not in {item["metadata"]["name"] for item in (await api.client.list(NAMESPACE)).items}

    await until(gone)
    assert (await api.client.list(POD, "team")).items == []


async def test_dry_run_writes_nothing(api: Any) -> None:
    made = await api.client.create(POD, pod("a"), NS, dry_run=True)
    assert made["metadata"]["uid"]
    assert not await exists(api.client, POD, "a")
    before = await api.client.create(DEPLOYMENT, deployment("d"), NS)
    tried = await api.client.patch(DEPLOYMENT, "d", NS, {"spec": {"replicas": 4}}, dry_run=True)
    assert tried["spec"]["replicas"] == 4
    assert await api.client.get(DEPLOYMENT, "d", NS) == before
    with pytest.raises(Invalid):
        await api.client.patch(DEPLOYMENT, "d", NS, {"spec": {"replicas": -4}}, dry_run=True)


async def test_lists_select_and_page(api: Any) -> None:
    for index in range(7):
        await api.client.create(POD, pod(f"p{index}", labels={"odd": str(index % 2)}), NS)
    await bind(api.client, "p3")
    assert len((await api.client.list(POD, NS, page=3)).items) == 7
    odd = await api.client.list(POD, NS, label_selector="odd=1", page=2)
    assert [item["metadata"]["name"] for item in odd.items] == ["p1", "p3", "p5"]
    bound = await api.client.list(POD, field_selector="spec.nodeName=n0")
    assert [item["metadata"]["name"] for item in bound.items] == ["p3"]
    with pytest.raises(ApiError, match="field label not supported"):
        await api.client.list(POD, NS, field_selector="spec.colour=red")


async def test_a_watch_goes_on_from_a_list(api: Any) -> None:
    await api.client.create(POD, pod("before"), NS)
    listed = await api.client.list(POD, NS)
    await api.client.create(POD, pod("after"), NS)
    await api.client.patch(POD, "after", NS, {"metadata": {"labels": {"a": "b"}}})
    await api.client.delete(POD, "before", NS)
    events = api.client.watch(POD, NS, resource_version=listed.resource_version)
    assert await take(events, 3) == [("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "before")]


async def test_a_watch_from_nothing_begins_with_what_there_is(api: Any) -> None:
    await api.client.create(POD, pod("a"), NS)
    events = api.client.watch(POD, NS, resource_version="0")
    assert await take(events, 1) == [("ADDED", "a")]


async def test_a_selecting_watch_sees_objects_come_and_go(api: Any) -> None:
    listed = await api.client.list(POD, NS)
    await api.client.create(POD, pod("a"), NS)
    await api.client.patch(POD, "a", NS, {"metadata": {"labels": {"seen": "yes"}}})
    await api.client.patch(POD, "a", NS, {"metadata": {"labels": {"more": "yes"}}})
    await api.client.patch(POD, "a", NS, {"metadata": {"labels": {"seen": None}}})
    await api.client.delete(POD, "a", NS)
    await api.client.create(POD, pod("b", labels={"seen": "yes"}), NS)
    events = api.client.watch(POD, NS, resource_version=listed.resource_version, label_selector="seen")
    assert await take(events, 4) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b")]


async def test_bookmarks_move_a_quiet_watch_on(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BOOKMARK_S", 0.02)
    listed = await api.client.list(LEASE, NS)
    await api.client.create(POD, pod("elsewhere"), NS)
    async with asyncio.timeout(5):
        async for event in api.client.watch(LEASE, NS, resource_version=listed.resource_version):
            assert event.type == "BOOKMARK"
            if int(event.object["metadata"]["resourceVersion"]) > int(listed.resource_version):
                break


async def test_history_that_is_too_old_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "HISTORY_EVENTS", 3)
    async with ApiServer() as server, KubeClient(Config(server.url), field_manager="test") as client:
        listed = await client.list(POD, NS)
        for index in range(4):
            await client.create(POD, pod(f"p{index}"), NS)
        with pytest.raises(Gone, match="too old resource version"):
            await take(client.watch(POD, NS, resource_version=listed.resource_version), 1)
        with pytest.raises(Gone):
            await take(client.watch(POD, NS, resource_version="99999"), 1)
        first = await client.list(POD, NS)
        assert len(first.items) == 4


async def test_a_cache_follows_and_survives_a_restart_of_its_server() -> None:
    changes: list[tuple[str, str]] = []

    def note(event: WatchEvent) -> None:
        changes.append((event.type, event.object["metadata"]["name"]))

    async with ApiServer() as server:
        port = server.port
        config = Config(server.url)
        client = await KubeClient(config, field_manager="test").__aenter__()
        cache = Cache(client, POD, NS, on_change=note)
        task = asyncio.create_task(cache.run(retry_s=0.02))
        await cache.synced.wait()
        await client.create(POD, pod("old"), NS)

        async def seen() -> bool:
            return (NS, "old") in cache.items

        await until(seen)
    async with ApiServer(port=port):
        await client.create(POD, pod("new"), NS)

        async def replaced() -> bool:
            return set(cache.items) == {(NS, "new")}

        await until(replaced)
        assert changes == [("ADDED", "old"), ("DELETED", "old"), ("ADDED", "new")]
        task.cancel()
        await client.__aexit__(None, None, None)


async def test_delete_collection(api: Any) -> None:
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        await api.client.create(POD, pod(name, labels={"l": label}), NS)
    url = f"{api.url}/api/v1/namespaces/{NS}/pods?labelSelector=l%3Dx"
    async with aiohttp.ClientSession() as session, session.delete(url) as response:
        assert response.status == 200
    assert [item["metadata"]["name"] for item in (await api.client.list(POD, NS)).items] == ["c"]


async def test_logs(api: Any) -> None:
    await api.client.create(POD, pod("a"), NS)
    url = f"{api.url}/api/v1/namespaces/{NS}/pods/a/log"
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert (response.status, (await response.json())["message"]) == (
                400,
                'container "c" in pod "a" is waiting to start',
            )
        log = api.log_dir / f"{NS}_a_c.log"
        log.write_text("one\ntwo\nthree\n")
        for query, text in (("", "one\ntwo\nthree\n"), ("?tailLines=2", "two\nthree\n"), ("?tailLines=0", "")):
            async with session.get(url + query) as response:
                assert await response.text() == text
        async with session.get(url, params={"container": "other"}) as response:
            assert response.status == 400
        async with session.get(url, params={"follow": "true", "tailLines": "1"}) as response:
            assert await response.content.readline() == b"three\n"
            with log.open("a") as file:
                file.write("four\n")
            assert await response.content.readline() == b"four\n"
            await api.client.delete(POD, "a", NS)
            assert await response.content.read() == b""


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code", "words"),
    [
        ("GET", "/api/v1/pods?limit=x", None, {}, 400, "limit must be"),
        ("GET", "/api/v1/pods?continue=x", None, {}, 400, "continue token"),
        ("GET", "/api/v1/pods?labelSelector=a%3D%3D%3D", None, {}, 400, "label selector"),
        ("GET", "/apis/batch/v1/jobs", None, {}, 404, "not found"),
        ("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", None, {}, 404, "not found"),
        ("POST", "/api/v1/namespaces/default/pods/a/exec", None, {}, 404, "pods/a/exec not found"),
        ("POST", "/api/v1/namespaces/default/pods", "{", {}, 400, "not JSON"),
        ("POST", "/api/v1/namespaces/default/pods", "[]", {}, 400, "must be a Pod"),
        ("POST", "/api/v1/namespaces/default/pods", '{"kind": "Node"}', {}, 400, "kind must be Pod"),
        ("POST", "/api/v1/namespaces/default/pods?dryRun=Some", "{}", {}, 422, "dryRun must be All"),
        ("POST", "/api/v1/namespaces/default/pods", "{}", {"Content-Type": "text/plain"}, 415, "application/json"),
        ("POST", "/api/v1/nodes", '{"metadata": {"name": "A"}}', {}, 422, "metadata.name"),
        ("PATCH", "/api/v1/nodes/a", "{}", {"Content-Type": "application/apply-patch+yaml"}, 501, "server-side"),
        ("PATCH", "/api/v1/nodes/a", "{}", {}, 415, "patch type"),
        ("PUT", "/api/v1/nodes/a", '{"metadata": {"name": "b"}}', {}, 400, "must be a, as in the path"),
        ("DELETE", "/api/v1/nodes/a?propagationPolicy=Never", None, {}, 422, "propagationPolicy"),
        ("GET", "/api/v1/nodes", None, {"Host": "rebound.example:80"}, 403, "rebound.example"),
        ("POST", "/api/v1/nodes", "{}", {"Origin": "http://evil.example"}, 403, "web pages"),
    ],
)
async def test_a_bad_request_is_one_line(
    api: Any, method: str, path: str, body: str | None, headers: dict[str, str], code: int, words: str
) -> None:
    headers = {"Content-Type": "application/json"} | headers
    url = api.url + path
    async with aiohttp.ClientSession() as session, session.request(method, url, data=body, headers=headers) as response:
        status = await response.json()
    assert (response.status, status["code"], status["kind"]) == (code, code, "Status")
    assert words in status["message"]
    assert "\n" not in status["message"]


async def test_strategic_merge_is_for_the_built_in_kinds(api: Any) -> None:
    lws = {"leaderWorkerTemplate": {"workerTemplate": {"spec": pod("p")["spec"]}}}
    await api.client.create(LWS, {"metadata": {"name": "l"}, "spec": lws}, NS)
    with pytest.raises(ApiError, match="use a merge patch") as error:
        await api.client.patch(LWS, "l", NS, {"spec": {}}, patch_type="strategic")
    assert error.value.status == 415
    await api.client.create(NODE, {"metadata": {"name": "n"}})
    condition = {"type": "Ready", "status": "True"}
    for status in ("False", "True"):
        patch = {"status": {"conditions": [condition | {"status": status}]}}
        node = await api.client.patch(NODE, "n", None, patch, patch_type="strategic", subresource="status")
    assert node["status"]["conditions"] == [condition]


async def test_old_events_make_room(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localcluster.apiserver.registry.MAX_EVENTS", 2)
    for name in ("e3", "e1", "e2"):
        await api.client.create(EVENT, {"metadata": {"name": name}, "involvedObject": {"kind": "Pod"}}, NS)
    assert [item["metadata"]["name"] for item in (await api.client.list(EVENT, NS)).items] == ["e1", "e2"]


async def test_a_taken_port_is_an_os_error() -> None:
    async with ApiServer() as first:
        with pytest.raises(OSError, match="in use"):
            async with ApiServer(port=first.port):
                pass


async def test_the_server_stops_with_open_watches() -> None:
    async with ApiServer() as server, KubeClient(Config(server.url), field_manager="test") as client:
        events = client.watch(POD, NS, resource_version="0")
        await client.create(POD, pod("a"), NS)
        assert await take(events, 1) == [("ADDED", "a")]
        open_watch = asyncio.create_task(take(client.watch(POD, NS, resource_version="0"), 99))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(3):
            await server.__aexit__(None, None, None)
            with pytest.raises(ApiError):
                await client.get(POD, "a", NS)
        open_watch.cancel()


async def test_a_client_that_leaves_is_forgotten(api: Any) -> None:
    listeners = next(found for served, found in api.server.store.listeners.items() if served.kind == POD)
    await api.client.create(POD, pod("a"), NS)
    url = f"{api.url}/api/v1/pods?watch=true"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert b'"ADDED"' in await response.content.readline()
        assert len(listeners) == 1

    async def forgotten() -> bool:
        return not listeners

    await until(forgotten)


async def test_a_watch_ends_when_its_time_is_over(api: Any) -> None:
    url = f"{api.url}/api/v1/pods?watch=true&timeoutSeconds=1"
    async with asyncio.timeout(5), aiohttp.ClientSession() as session, session.get(url) as response:
        assert await response.read() == b""


async def test_the_initial_events_end_with_a_bookmark(api: Any) -> None:
    await api.client.create(POD, pod("a"), NS)
    url = f"{api.url}/api/v1/pods?watch=true&sendInitialEvents=true&allowWatchBookmarks=true"
    async with asyncio.timeout(5), aiohttp.ClientSession() as session, session.get(url) as response:
        lines = [json.loads(await response.content.readline()) for _ in range(2)]
    assert [line["type"] for line in lines] == ["ADDED", "BOOKMARK"]
    assert lines[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
