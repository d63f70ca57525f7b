"""The client against a real API server, and against things that are none."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kubeapi.cache import Cache, key_of
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config, load_config
from kubeapi.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    error_for,
)
from kubeapi.kinds import LEASE, LWS, NODE, POD, PODGROUP
from localcluster.apiserver import ApiServer
from localcluster.kubeconfig import write_kubeconfig

NS = "default"


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    async with ApiServer() as server, KubeClient(Config(server.url), field_manager="test") as made:
        yield made


@pytest.fixture
async def stranger() -> AsyncIterator[str]:
    """The URL of a web server that is no API server."""

    async def answer(request: web.Request) -> web.Response:
        status = 503 if request.path.endswith("/broken") else 200
        return web.Response(text="<html>\nwelcome</html>", status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def lease(name: str, **meta: Any) -> Object:
    return {"metadata": {"name": name} | meta, "spec": {"holderIdentity": name}}


@pytest.mark.parametrize(
    ("kind", "arguments", "path"),
    [
        (POD, (), "/api/v1/pods"),
        (POD, ("ns", "a", "log"), "/api/v1/namespaces/ns/pods/a/log"),
        (NODE, (None, "n"), "/api/v1/nodes/n"),
        (LWS, ("ns", "l", "scale"), "/apis/leaderworkerset.x-k8s.io/v1/namespaces/ns/leaderworkersets/l/scale"),
        (PODGROUP, ("ns",), "/apis/scheduling.k8s.io/v1beta1/namespaces/ns/podgroups"),
    ],
)
def test_paths(kind: Any, arguments: tuple[Any, ...], path: str) -> None:
    assert kind.path(*arguments) == path


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (401, "", Unauthorized),
        (403, "", Forbidden),
        (404, "", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "", Gone),
        (422, "", Invalid),
        (429, "", TooManyRequests),
        (500, "", ApiError),
    ],
)
def test_one_class_per_thing_that_a_caller_does_differently(status: int, reason: str, expected: type[ApiError]) -> None:
    error = error_for(status, reason, "why")
    assert type(error) is expected
    assert (error.status, error.reason, str(error)) == (status, reason, "why")


async def test_write_read_and_delete(client: KubeClient) -> None:
    made = await client.create(LEASE, lease("a"), NS)
    assert (made["apiVersion"], made["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert await client.get(LEASE, "a", NS) == made
    made["spec"]["holderIdentity"] = "other"
    updated = await client.update(LEASE, made, NS)
    assert updated["spec"]["holderIdentity"] == "other"
    operation = [{"op": "replace", "path": "/spec/holderIdentity", "value": "third"}]
    patched = await client.patch(LEASE, "a", NS, operation, patch_type="json")
    assert patched["spec"]["holderIdentity"] == "third"
    assert [entry["manager"] for entry in patched["metadata"]["managedFields"]] == ["test"]
    with pytest.raises(Conflict):
        await client.delete(LEASE, "a", NS, uid="other")
    await client.delete(LEASE, "a", NS, uid=made["metadata"]["uid"])
    with pytest.raises(NotFound, match=r'leases\.coordination\.k8s\.io "a" not found'):
        await client.get(LEASE, "a", NS)


async def test_a_list_follows_its_pages(client: KubeClient) -> None:
    for index in range(11):
        await client.create(LEASE, lease(f"l{index:02}"), NS)
    listed = await client.list(LEASE, NS, page=4)
    assert [item["metadata"]["name"] for item in listed.items] == [f"l{index:02}" for index in range(11)]
    assert int(listed.resource_version) > 0


async def test_a_watch_carries_objects_of_any_size(client: KubeClient) -> None:
    note = "x" * 400_000
    listed = await client.list(LEASE, NS)
    await client.create(LEASE, lease("big", annotations={"note": note}), NS)
    async with asyncio.timeout(10):
        async for event in client.watch(LEASE, NS, resource_version=listed.resource_version):
            assert event.object["metadata"]["annotations"]["note"] == note
            break


async def test_a_watch_from_a_time_that_is_forgotten_is_gone(client: KubeClient) -> None:
    with pytest.raises(Gone):
        async for _ in client.watch(LEASE, NS, resource_version="999999"):
            pass


async def test_a_watch_ends_when_it_was_told_to(client: KubeClient) -> None:
    listed = await client.list(LEASE, NS)
    async with asyncio.timeout(10):
        events = [event async for event in client.watch(LEASE, resource_version=listed.resource_version, timeout_s=1)]
    assert events == []


async def test_a_watch_whose_server_fell_silent_is_unreachable() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silence = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with silence, asyncio.timeout(10):
        url = f"http://127.0.0.1:{silence.sockets[0].getsockname()[1]}"
        async with KubeClient(Config(url), field_manager="test", timeout_s=0.1) as client:
            with pytest.raises(Unreachable):
                async for _ in client.watch(LEASE, resource_version="1", timeout_s=1):
                    pass


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with KubeClient(Config(url), field_manager="test") as client:
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
                await client.get(LEASE, "a", NS)
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
                async for _ in client.watch(LEASE, resource_version="0"):
                    pass


async def test_a_server_that_is_no_api_server_is_one_line(stranger: str) -> None:
    async with KubeClient(Config(stranger), field_manager="test") as client:
        with pytest.raises(ApiError, match="not from an API server: <html> welcome") as wrong:
            await client.get(LEASE, "a", NS)
        assert wrong.value.reason == "NotJSON"
        with pytest.raises(ApiError, match=r"^GET /apis/coordination.*/leases/broken: <html> welcome") as broken:
            await client.get(LEASE, "broken", NS)
        assert broken.value.status == 503
        with pytest.raises(ApiError, match="not from an API server"):
            async for _ in client.watch(LEASE, resource_version="0"):
                pass


async def test_the_client_is_used_inside_its_context() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await KubeClient(Config("http://127.0.0.1:1"), field_manager="test").get(LEASE, "a", NS)


def test_a_kubeconfig_as_kubectl_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    write_kubeconfig("http://127.0.0.1:4711", path)
    loaded = load_config(path)
    assert (loaded.server, loaded.authorization(), loaded.ssl_context) == ("http://127.0.0.1:4711", None, None)
    config = json.loads(path.read_text())
    config["users"][0]["user"] = {"token": "secret"}
    path.write_text(json.dumps(config))
    assert load_config(path).authorization() == "Bearer secret"


def test_no_kubeconfig_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match=r"no usable kubeconfig at .*missing") as error:
        load_config(tmp_path / "missing")
    assert error.value.reason == "NoConfig"
    assert "\n" not in str(error.value)


async def test_a_cache_shows_what_there_is(client: KubeClient) -> None:
    changes: list[WatchEvent] = []
    await client.create(LEASE, lease("a"), NS)
    cache = Cache(client, LEASE, on_change=changes.append)
    task = asyncio.create_task(cache.run())
    async with asyncio.timeout(5):
        await cache.synced.wait()
        assert set(cache.items) == {(NS, "a")}
        second = await client.create(LEASE, lease("b"), NS)
        await client.delete(LEASE, "a", NS)
        while set(cache.items) != {key_of(second)}:
            await asyncio.sleep(0.01)
    task.cancel()
    assert [(event.type, event.object["metadata"]["name"]) for event in changes] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]
    assert cache.error is None


async def test_a_cache_keeps_what_its_reader_needs(client: KubeClient) -> None:
    """Listed and watched objects alike."""

    def slim(raw: Object) -> Object:
        meta = {key: raw["metadata"][key] for key in ("namespace", "name", "resourceVersion")}
        return {"metadata": meta, "holder": raw["spec"]["holderIdentity"]}

    changes: list[WatchEvent] = []
    await client.create(LEASE, {"metadata": {"name": "first"}, "spec": {"holderIdentity": "a"}}, NS)
    cache = Cache(client, LEASE, on_change=changes.append, slim=slim)
    task = asyncio.create_task(cache.run())
    await cache.synced.wait()
    await client.create(LEASE, {"metadata": {"name": "second"}, "spec": {"holderIdentity": "b"}}, NS)
    async with asyncio.timeout(10):
        while len(cache.items) < 2:
            await asyncio.sleep(0.01)
    task.cancel()
    assert {name: one["holder"] for (_, name), one in cache.items.items()} == {"first": "a", "second": "b"}
    assert all(one.keys() == {"metadata", "holder"} for one in cache.items.values())
    assert [event.object["holder"] for event in changes] == ["a", "b"]


async def test_whether_there_is_any(client: KubeClient) -> None:
    assert not await client.some(LEASE, NS)
    await client.create(LEASE, lease("a"), NS)
    assert await client.some(LEASE, NS)
    assert not await client.some(LEASE, NS, field_selector="metadata.name=b")


async def test_a_cache_says_why_it_is_not_fresh() -> None:
    async with KubeClient(Config("http://127.0.0.1:9"), field_manager="test") as client:
        cache = Cache(client, LEASE)
        task = asyncio.create_task(cache.run(retry_s=0.01))
        async with asyncio.timeout(5):
            while cache.error is None:
                await asyncio.sleep(0.01)
        assert isinstance(cache.error, Unreachable)
        assert not cache.synced.is_set()
        task.cancel()
