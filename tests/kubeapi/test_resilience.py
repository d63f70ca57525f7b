"""An API server that answers 429, 500 or nothing, drops watches, loses answers and expires tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kubeapi.cache import Cache
from kubeapi.client import KubeClient, Object, WatchEvent
from kubeapi.config import Config, load_config
from kubeapi.errors import ApiError, Conflict, NotFound, TooManyRequests, Unauthorized, Unreachable
from kubeapi.kinds import LEASE
from kubeapi.retry import Backoff, RetryPolicy
from tests.kubeapi.misbehaving import Fault, Proxy, misbehaving

NS = "default"
QUICK = RetryPolicy(attempts=4, first_s=0.01, longest_s=0.05)
WAIT_S = 10.0

Call = Callable[[KubeClient, Object], Awaitable[object]]


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with misbehaving() as made:
        yield made


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[KubeClient]:
    async with KubeClient(Config(proxy.url), field_manager="test", timeout_s=3.0, retry=QUICK) as made:
        yield made


@pytest.fixture
async def there(client: KubeClient, proxy: Proxy) -> Object:
    """An object to work on."""
    made = await client.create(LEASE, lease("there"), NS)
    proxy.seen.clear()
    return made


def lease(name: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"holderIdentity": name}}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.01)


REPEATED: dict[str, Call] = {
    "get": lambda client, there: client.get(LEASE, "there", NS),
    "list": lambda client, there: client.list(LEASE, NS),
    "update": lambda client, there: client.update(LEASE, there, NS),
    "delete of a uid": lambda client, there: client.delete(LEASE, "there", NS, uid=there["metadata"]["uid"]),
    "merge patch": lambda client, there: client.patch(LEASE, "there", NS, {"spec": {"holderIdentity": "b"}}),
}
ONCE: dict[str, Call] = {
    "create": lambda client, there: client.create(LEASE, lease("new"), NS),
    "binding": lambda client, there: client.create_sub(LEASE, "there", NS, "binding", {}),
    "json patch": lambda client, there: client.patch(
        LEASE, "there", NS, [{"op": "remove", "path": "/spec/holderIdentity"}], patch_type="json"
    ),
    "delete without uid": lambda client, there: client.delete(LEASE, "there", NS),
}
PASSING = [Fault(429), Fault(500), Fault(502), Fault(503), Fault(504), Fault(0)]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.status or 'closed'}")
@pytest.mark.parametrize("call", REPEATED.values(), ids=REPEATED.keys())
async def test_what_may_be_done_twice_is_tried_again(
    client: KubeClient, proxy: Proxy, there: Object, call: Call, fault: Fault
) -> None:
    proxy.faults = [fault, fault, fault]
    await call(client, there)
    assert (len(proxy.seen), len(set(proxy.seen))) == (4, 1)


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.status or 'closed'}")
@pytest.mark.parametrize("call", ONCE.values(), ids=ONCE.keys())
async def test_what_may_not_is_not(client: KubeClient, proxy: Proxy, there: Object, call: Call, fault: Fault) -> None:
    # On a connection that was open before, aiohttp itself sends a DELETE again that got no answer.
    proxy.faults = [fault, fault]
    with pytest.raises(ApiError) as error:
        await call(client, there)
    assert error.value.status == fault.status
    assert len(proxy.seen) == (2 if fault.status == 0 and proxy.seen[0].startswith("DELETE") else 1)


async def test_attempts_are_bounded(client: KubeClient, proxy: Proxy, there: Object) -> None:
    proxy.always = Fault(503)
    with pytest.raises(ApiError, match="by a test") as error:
        await client.get(LEASE, "there", NS)
    assert (error.value.status, len(proxy.seen)) == (503, 4)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 422, 501])
async def test_what_will_not_pass_is_not_tried_again(
    client: KubeClient, proxy: Proxy, there: Object, status: int
) -> None:
    proxy.faults = [Fault(status)]
    with pytest.raises(ApiError) as error:
        await client.get(LEASE, "there", NS)
    assert (error.value.status, len(proxy.seen)) == (status, 1)


async def test_retry_after_is_the_least_wait(client: KubeClient, proxy: Proxy, there: Object) -> None:
    proxy.faults = [Fault(429, retry_after="1")]
    began_s = asyncio.get_running_loop().time()
    await client.get(LEASE, "there", NS)
    assert asyncio.get_running_loop().time() - began_s >= 1.0
    assert len(proxy.seen) == 2


async def test_a_wait_longer_than_the_callers_patience_is_left_to_the_caller(
    client: KubeClient, proxy: Proxy, there: Object
) -> None:
    proxy.faults = [Fault(429, retry_after="3600")]
    with pytest.raises(TooManyRequests) as error:
        await client.get(LEASE, "there", NS)
    assert (error.value.retry_after_s, len(proxy.seen)) == (3600.0, 1)


async def test_a_server_that_says_nothing_costs_one_timeout_not_four(proxy: Proxy) -> None:
    proxy.always = Fault(hang=True)
    async with KubeClient(Config(proxy.url), field_manager="test", timeout_s=0.3, retry=QUICK) as client:
        with pytest.raises(Unreachable):
            await client.get(LEASE, "there", NS)
    assert len(proxy.seen) == 1


async def test_a_write_whose_answer_was_lost_says_that_someone_was_faster(
    client: KubeClient, proxy: Proxy, there: Object
) -> None:
    proxy.faults = [Fault(lost=True)]
    with pytest.raises(Conflict):
        await client.update(LEASE, there | {"spec": {"holderIdentity": "b"}}, NS)
    assert (await client.get(LEASE, "there", NS))["spec"]["holderIdentity"] == "b"
    proxy.faults = [Fault(lost=True)]
    with pytest.raises(NotFound):
        await client.delete(LEASE, "there", NS, uid=there["metadata"]["uid"])


async def test_an_expired_token_is_read_again_once(proxy: Proxy, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    write_token(path, proxy.url, "old")
    config = load_config(path)
    async with KubeClient(config, field_manager="test", retry=QUICK) as client:
        proxy.token = "old"
        await client.create(LEASE, lease("a"), NS)
        proxy.token = "new"
        with pytest.raises(Unauthorized):
            await client.get(LEASE, "a", NS)
        write_token(path, proxy.url, "new")
        proxy.seen.clear()
        await asyncio.gather(*(client.get(LEASE, "a", NS) for _ in range(3)))
        assert len(proxy.seen) <= 6, "each was refused at most once"
        await client.create(LEASE, lease("b"), NS)
        proxy.token, text = "newer", path.read_text()
        path.write_text("no kubeconfig")
        with pytest.raises(Unauthorized):
            await client.get(LEASE, "a", NS)
        path.write_text(text.replace('"new"', '"newer"'))
        await client.create(LEASE, lease("c"), NS)


def write_token(path: Path, url: str, token: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))


async def test_a_cache_survives_everything(client: KubeClient, proxy: Proxy) -> None:
    """Lists and watches fail in every way in turn; afterwards the cache shows what there is, and has missed nothing."""
    changes: list[WatchEvent] = []
    kinds_of_fault = [Fault(500), Fault(0), Fault(cut=True), Fault(429), Fault(410), Fault(cut=True)]
    proxy.concerns = lambda http: "watch" in http.query
    proxy.faults = list(kinds_of_fault)
    cache = Cache(client, LEASE, on_change=changes.append)
    task = asyncio.create_task(cache.run(retry_s=0.02, longest_s=0.1))
    names = [f"l{index:02}" for index in range(20)]
    for name in names:
        await client.create(LEASE, lease(name), NS)
        await asyncio.sleep(0.03)
    await until(lambda: not proxy.faults and cache.error is None and len(cache.items) == len(names))
    task.cancel()
    assert [event.object["metadata"]["name"] for event in changes] == names, "each seen once, in order"


async def test_a_cache_knocks_less_and_less_often(client: KubeClient, proxy: Proxy) -> None:
    proxy.always = Fault(404)
    cache = Cache(client, LEASE)
    task = asyncio.create_task(cache.run(retry_s=0.1, longest_s=60.0))
    await until(lambda: len(proxy.seen) == 4)
    await asyncio.sleep(0.15)
    task.cancel()
    assert len(proxy.seen) == 4, "the fourth wait is at least 0.4 s"
    assert isinstance(cache.error, NotFound)


async def test_watches_that_end_at_once_are_not_opened_in_a_storm(client: KubeClient, proxy: Proxy) -> None:
    proxy.concerns = lambda http: "watch" in http.query
    proxy.always = Fault(410)
    cache = Cache(client, LEASE)
    task = asyncio.create_task(cache.run(retry_s=0.2, longest_s=60.0))
    await cache.synced.wait()
    await asyncio.sleep(0.5)
    task.cancel()
    assert 2 <= len(proxy.seen) <= 6


@pytest.mark.parametrize("line", ["[]", "{}", '{"type": 1, "object": {}}', '{"type": "ADDED", "object": null}', "{"])
async def test_a_watch_line_that_is_no_event_is_an_error(line: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(line) + 1}\r\n\r\n{line}\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, KubeClient(Config(url), field_manager="test") as client:
        with pytest.raises(ApiError) as error:
            async for _ in client.watch(LEASE, NS, resource_version="1"):
                pass
    assert error.value.reason in ("NotAnEvent", "NotJSON")


def test_waits_grow_up_to_a_bound_and_are_never_alike() -> None:
    policy = RetryPolicy(attempts=6, first_s=1.0, longest_s=5.0)
    rows = [list(policy.waits()) for _ in range(50)]
    for full_s, drawn in zip([1.0, 2.0, 4.0, 5.0, 5.0], zip(*rows, strict=True), strict=True):
        assert all(full_s / 2 <= wait_s <= full_s for wait_s in drawn)
        assert len(set(drawn)) > 1
    assert list(RetryPolicy(attempts=1).waits()) == []


def test_a_backoff_starts_again_when_things_went_well() -> None:
    backoff = Backoff(1.0, 4.0)
    for full_s in (1.0, 2.0, 4.0, 4.0):
        assert full_s / 2 <= backoff.next_s() <= full_s
    backoff.reset()
    assert backoff.next_s() <= 1.0
