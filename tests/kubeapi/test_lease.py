"""Leader election against a real API server: one leader at a time, whoever dies, stalls or lies about the time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from kubeapi.client import KubeClient, Object
from kubeapi.config import Config
from kubeapi.errors import NotFound, NotLeader, Unreachable
from kubeapi.kinds import LEASE
from kubeapi.lease import Lease, clock_s, own_identity
from localcluster.apiserver import ApiServer

NS, NAME = "default", "elected"
FAST: dict[str, Any] = {"duration_s": 1.0, "renew_s": 0.6, "retry_s": 0.1}
WAIT_S = 20.0

HOLDER = """
import asyncio, sys
from kubeapi.client import KubeClient
from kubeapi.config import Config
from kubeapi.lease import Lease

async def main():
    async with KubeClient(Config(sys.argv[1]), field_manager="child") as client:
        async with Lease(client, "default", "elected", "child", duration_s=1.0, renew_s=0.6, retry_s=0.1) as lease:
            await lease.wait_leader()
            print("leads", flush=True)
            await lease.lost.wait()

asyncio.run(main())
"""


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as made:
        yield made


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[KubeClient]:
    async with KubeClient(Config(server.url), field_manager="test") as made:
        yield made


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.01)


async def leads(lease: Lease) -> None:
    async with asyncio.timeout(WAIT_S):
        await lease.wait_leader()


async def spec(client: KubeClient) -> Object:
    found: Object = (await client.get(LEASE, NAME, NS))["spec"]
    return found


async def held_by(client: KubeClient, holder: str, renew_time: str, duration_s: int = 1) -> None:
    body = {
        "metadata": {"name": NAME},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": duration_s, "renewTime": renew_time},
    }
    await client.create(LEASE, body, NS)


async def test_a_candidate_alone_leads_and_gives_the_lease_back(client: KubeClient) -> None:
    async with Lease(client, NS, NAME, "a", **FAST) as lease:
        await leads(lease)
        first = await spec(client)
        assert (first["holderIdentity"], first["leaseDurationSeconds"], first["leaseTransitions"]) == ("a", 1, 0)
        assert not lease.lost.is_set()
        await asyncio.sleep(0.8)
        again = await spec(client)
        assert lease.is_leader, "it has renewed"
        assert again["renewTime"] > first["renewTime"]
        assert again["acquireTime"] == first["acquireTime"]
    assert not lease.is_leader
    assert lease.lost.is_set()
    assert "holderIdentity" not in await spec(client)


async def test_the_next_one_takes_over_what_was_given_back(client: KubeClient) -> None:
    async with AsyncExitStack() as stack:
        async with Lease(client, NS, NAME, "a", duration_s=600.0, renew_s=400.0, retry_s=0.1) as first:
            await leads(first)
            second = await stack.enter_async_context(Lease(client, NS, NAME, "b", **FAST))
            await until(lambda: second.holder == "a")
            assert not second.is_leader
        await leads(second)
        assert (await spec(client))["leaseTransitions"] == second.transitions == 1


async def test_after_a_kill_one_of_the_others_leads(client: KubeClient, server: ApiServer) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, server.url, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
    )
    assert child.stdout is not None
    assert await asyncio.wait_for(child.stdout.readline(), WAIT_S) == b"leads\n"
    async with Lease(client, NS, NAME, "b", **FAST) as b, Lease(client, NS, NAME, "c", **FAST) as c:
        await until(lambda: b.holder == c.holder == "child")
        child.send_signal(signal.SIGKILL)
        await child.wait()
        await until(lambda: b.is_leader or c.is_leader)
        for _ in range(40):
            assert not (b.is_leader and c.is_leader)
            await asyncio.sleep(0.02)
        winner = "b" if b.is_leader else "c"
        await until(lambda: b.holder == c.holder == winner)
        assert b.transitions == c.transitions == 1


async def test_never_two_at_a_time_while_leaders_come_and_go(client: KubeClient) -> None:
    alive: list[Lease] = []
    two, terms = 0, 0

    async def live(identity: str) -> None:
        nonlocal terms
        for _ in range(3):
            async with Lease(client, NS, NAME, identity, **FAST) as lease:
                alive.append(lease)
                await leads(lease)
                terms += 1
                await asyncio.sleep(0.15)
            alive.remove(lease)

    async def watch() -> None:
        nonlocal two
        while True:
            two += sum(lease.is_leader for lease in alive) > 1
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(asyncio.gather(*(live(name) for name in "abc")), WAIT_S)
    watching.cancel()
    assert (terms, two) == (9, 0)


async def test_without_an_api_server_the_term_ends_in_time_and_goes_on_later(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with ApiServer() as server:
            client = await stack.enter_async_context(KubeClient(Config(server.url), field_manager="test"))
            lease = await stack.enter_async_context(Lease(client, NS, NAME, "a", **FAST))
            await leads(lease)
        await asyncio.wait_for(lease.lost.wait(), WAIT_S)
        assert not lease.is_leader
        await until(lambda: isinstance(lease.error, Unreachable))
        async with ApiServer(port=server.port):
            await leads(lease)
            assert lease.error is None
            assert not lease.lost.is_set()


async def test_an_api_server_that_hangs_ends_the_term_too(client: KubeClient) -> None:
    """Nobody answers, and nobody refuses: the leader is not stuck in its own renewal."""
    hung: list[asyncio.StreamWriter] = []
    async with Lease(client, NS, NAME, "a", **FAST) as lease:
        await leads(lease)

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hung.append(writer)
            await reader.read()

        silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        answering, client.config = client.config, Config(f"http://127.0.0.1:{port}")
        await asyncio.wait_for(lease.lost.wait(), WAIT_S)
        assert not lease.is_leader
        client.config = answering
        await leads(lease)
    for writer in hung:
        writer.close()
    silent.close()
    await silent.wait_closed()


@pytest.mark.parametrize("renew_time", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
async def test_foreign_timestamps_mean_nothing(client: KubeClient, renew_time: str) -> None:
    """A holder whose clock is wrong keeps its Lease as long as it renews, and loses it when it does not."""
    await held_by(client, "other", renew_time)
    shift_s = 0.0
    async with Lease(client, NS, NAME, "a", **FAST, clock=lambda: clock_s() + shift_s) as lease:
        await until(lambda: lease.holder == "other")
        for second in range(5):
            assert not lease.is_leader
            stamp = renew_time.replace(".000000", f".{second + 1:06}")
            await client.patch(LEASE, NAME, NS, {"spec": {"renewTime": stamp}})
            await asyncio.sleep(0.25)
        assert (await spec(client))["holderIdentity"] == "other", "longer than its duration, but it renewed"
        shift_s = 1.0
        await leads(lease)
        assert lease.transitions == 1


async def test_the_holders_own_duration_counts(client: KubeClient) -> None:
    await held_by(client, "other", "2026-01-01T00:00:00.000000Z", duration_s=3600)
    shift_s = 0.0
    async with Lease(client, NS, NAME, "a", **FAST, clock=lambda: clock_s() + shift_s) as lease:
        await until(lambda: lease.holder == "other")
        shift_s = 3500.0
        await asyncio.sleep(0.5)
        assert not lease.is_leader
        shift_s = 3700.0
        await leads(lease)


async def test_a_leader_that_was_asleep_knows_at_once_that_it_leads_no_longer(client: KubeClient) -> None:
    shift_s = 0.0
    async with (
        Lease(client, NS, NAME, "a", **FAST, clock=lambda: clock_s() + shift_s) as lease,
        KubeClient(client.config, field_manager="test", fence=lambda: lease.is_leader) as fenced,
    ):
        await leads(lease)
        body: Object = {"metadata": {"name": "written"}, "spec": {}}
        await fenced.create(LEASE, body, NS)
        shift_s = 0.7
        assert not lease.is_leader, "before any task of the election has run"
        for write in (
            fenced.create(LEASE, {"metadata": {"name": "late"}, "spec": {}}, NS),
            fenced.patch(LEASE, "written", NS, {"metadata": {"labels": {"late": "yes"}}}),
            fenced.update(LEASE, body, NS),
            fenced.delete(LEASE, "written", NS),
            fenced.create_sub(LEASE, "written", NS, "status", {}),
        ):
            with pytest.raises(NotLeader, match="does not hold its Lease"):
                await write
        assert (await fenced.get(LEASE, "written", NS))["metadata"].get("labels") is None, "reading is allowed"
        with pytest.raises(NotFound):
            await client.get(LEASE, "late", NS)
        await leads(lease)


async def test_a_lease_that_a_person_gives_away_is_lost(client: KubeClient) -> None:
    async with Lease(client, NS, NAME, "a", **FAST) as lease:
        await leads(lease)
        given = {"spec": {"holderIdentity": "b", "leaseDurationSeconds": 3600}}
        await client.patch(LEASE, NAME, NS, given)
        await asyncio.wait_for(lease.lost.wait(), WAIT_S)
        assert (lease.is_leader, lease.holder) == (False, "b")
    assert (await spec(client))["holderIdentity"] == "b", "what is not ours is not given back"


async def test_a_lease_that_a_person_deletes_is_made_again(client: KubeClient) -> None:
    async with Lease(client, NS, NAME, "a", **FAST) as lease:
        await leads(lease)
        first = (await client.get(LEASE, NAME, NS))["metadata"]["uid"]
        await client.delete(LEASE, NAME, NS)
        await asyncio.sleep(0.3)
        assert lease.is_leader
        found = await client.get(LEASE, NAME, NS)
        assert (found["spec"]["holderIdentity"], found["metadata"]["uid"] != first) == ("a", True)


async def test_what_stands_in_the_way_is_said(client: KubeClient) -> None:
    async with Lease(client, "absent", NAME, "a", **FAST) as lease:
        await until(lambda: lease.error is not None)
        assert "absent" in str(lease.error)
        assert not lease.is_leader


@pytest.mark.parametrize("times", [(10.0, 10.0, 2.0), (15.0, 2.0, 2.0), (15.0, 10.0, 0.0)])
def test_times_that_leave_no_margin_are_refused(times: tuple[float, float, float]) -> None:
    client = KubeClient(Config("http://127.0.0.1:9"), field_manager="test")
    with pytest.raises(ValueError, match="duration_s > renew_s > retry_s"):
        Lease(client, NS, NAME, "a", duration_s=times[0], renew_s=times[1], retry_s=times[2])


def test_no_two_processes_have_one_name_but_a_container_that_was_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POD_NAME", "POD_UID"):
        monkeypatch.delenv(name, raising=False)
    assert own_identity() != own_identity()
    monkeypatch.setenv("POD_NAME", "scheduler-x")
    assert own_identity() != own_identity(), "a StatefulSet's pods have their name again"
    monkeypatch.setenv("POD_UID", "1234")
    assert own_identity() == own_identity() == "scheduler-x_1234"


async def test_a_restarted_container_goes_on_at_once(client: KubeClient) -> None:
    await held_by(client, "a", "2026-01-01T00:00:00.000000Z", duration_s=3600)
    async with Lease(client, NS, NAME, "a", **FAST) as lease:
        await leads(lease)
        assert lease.transitions == 0
