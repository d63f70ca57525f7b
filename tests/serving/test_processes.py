"""Real processes: signals, ranks, taken ports, and what a process may import."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from perfmodel.profile import DEFAULT_PROFILE
from serving.options import RouterOptions, WorkerOptions

from .conftest import MODEL, Fleet, until, words_of

Process = asyncio.subprocess.Process

WORKER = """
import asyncio, logging
from serving.options import WorkerOptions
from serving.{role} import run
logging.basicConfig(level=logging.INFO)
asyncio.run(run(WorkerOptions(
    host="127.0.0.1", port={port}, rank_port={rank_port}, group_size={size}, model_name={model!r}, profile={profile!r},
    lease_s={lease_s},
)))
"""
RANK = """
import asyncio, logging
from serving.options import RankOptions
from serving.rank import run
logging.basicConfig(level=logging.INFO)
asyncio.run(run(RankOptions(
    host="127.0.0.1", port={port}, leader_address="127.0.0.1", leader_port={leader_port}, index=1, load_s=0.1
)))
"""


class Processes:
    def __init__(self) -> None:
        self.all: list[Process] = []

    async def start(self, code: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.all.append(process)
        return process


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    started = Processes()
    yield started
    for process in started.all:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


async def status_of(client: aiohttp.ClientSession, url: str) -> int:
    try:
        async with client.get(url) as response:
            return response.status
    except aiohttp.ClientError:
        return 0


async def until_status(client: aiohttp.ClientSession, url: str, status: int) -> None:
    async with asyncio.timeout(15):
        while await status_of(client, url) != status:
            await asyncio.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_ranks_outlive_their_leaders_drain(fleet: Fleet, processes: Processes) -> None:
    port, rank_port, ready_port = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    rank = await processes.start(RANK.format(port=ready_port, leader_port=rank_port))
    leader = await processes.start(
        WORKER.format(
            role="decode", port=port, rank_port=rank_port, size=2, model=MODEL, profile=fleet.profile, lease_s=60
        )
    )
    await until_status(fleet.client, f"{url}/ready", 200)
    assert listens(ready_port)
    prefill = await fleet.prefill()
    asked = {"do_remote_decode": True}
    params = (await fleet.complete(prefill.url, [5], 1, kv_transfer_params=asked))["kv_transfer_params"]
    params["do_remote_prefill"] = True
    request = asyncio.ensure_future(fleet.complete(url, [5], 200, kv_transfer_params=params))
    await until(lambda: prefill.idle)

    rank.send_signal(signal.SIGTERM)
    leader.send_signal(signal.SIGTERM)
    await until_status(fleet.client, f"{url}/ready", 503)
    assert rank.returncode is None
    assert (await request)["choices"][0]["text"] == words_of([5], 200)
    assert await asyncio.wait_for(leader.wait(), 5) == 0
    assert await asyncio.wait_for(rank.wait(), 5) == 0


async def test_a_leader_is_ready_only_with_its_rank(fleet: Fleet, processes: Processes) -> None:
    port, rank_port, ready_port = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{port}/ready"
    values = {"role": "prefill", "port": port, "rank_port": rank_port, "size": 2, "lease_s": 60}
    await processes.start(WORKER.format(**values, model=MODEL, profile=fleet.profile))
    await until_status(fleet.client, url, 503)
    assert not listens(ready_port)
    rank = await processes.start(RANK.format(port=ready_port, leader_port=rank_port))
    await until_status(fleet.client, url, 200)
    rank.kill()
    await until_status(fleet.client, url, 503)
    await processes.start(RANK.format(port=ready_port, leader_port=rank_port))
    await until_status(fleet.client, url, 200)


async def test_a_rank_whose_leader_never_came_ends_at_once(processes: Processes) -> None:
    rank = await processes.start(RANK.format(port=free_port(), leader_port=free_port()))
    await asyncio.sleep(0.6)
    rank.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(rank.wait(), 5) == 0


async def test_a_second_signal_ends_a_drain(fleet: Fleet, processes: Processes) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    values = {"role": "prefill", "port": port, "rank_port": 0, "size": 1, "lease_s": 60}
    worker = await processes.start(WORKER.format(**values, model=MODEL, profile=fleet.profile))
    await until_status(fleet.client, f"{url}/ready", 200)
    await fleet.complete(url, [5], 1, kv_transfer_params={"do_remote_decode": True})
    worker.send_signal(signal.SIGTERM)
    await until_status(fleet.client, f"{url}/ready", 503)
    assert worker.returncode is None
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 5) == 0


async def test_a_taken_port_is_one_clear_line(fleet: Fleet) -> None:
    first = await fleet.prefill()
    port = int(first.url.rpartition(":")[2])
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: address already in use"):
        await fleet.decode(port=port)
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: address already in use"):
        await fleet.decode(group_size=2, rank_port=port)
    with pytest.raises(OSError, match="not an address of this machine"):
        await fleet.decode(host="no.such.host.invalid")


def test_the_default_profile_has_one_name() -> None:
    assert WorkerOptions().profile == RouterOptions().profile == DEFAULT_PROFILE


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("rank", ("aiohttp", "prometheus_client", "kubernetes", "kubeapi", "perfmodel", "numpy", "pydantic")),
        ("prefill", ("kubernetes", "kubeapi", "numpy", "pydantic", "rich")),
        ("decode", ("kubernetes", "kubeapi", "numpy", "pydantic", "rich")),
        ("router", ("kubernetes", "kubeapi", "numpy", "pydantic", "rich")),
    ],
)
def test_a_process_imports_only_what_it_needs(module: str, absent: tuple[str, ...]) -> None:
    code = f"import serving.{module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & set(absent)
