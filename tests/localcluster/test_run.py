"""The whole local cluster as a process of its own, as the demo starts it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kubeapi.client import KubeClient
from kubeapi.config import load_config
from kubeapi.kinds import LWS, NODE
from localcluster.options import LocalClusterOptions
from tests.localcluster.living import NAMESPACE, SLEEP, Seen, eventually, is_alive, lws_of, pid_of

STALE = "from an earlier run"
PROGRAM = """
import asyncio, logging, sys
from pathlib import Path
from localcluster.options import LocalClusterOptions
from localcluster.run import run
logging.basicConfig(level="INFO")
home = Path(sys.argv[1])
options = LocalClusterOptions(state_dir=home / "state", kubeconfig_out=home / "out" / "kubeconfig", nodes=3)
asyncio.run(run(options))
"""


@asynccontextmanager
async def cluster_process(home: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Seen]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(home), stderr=asyncio.subprocess.PIPE
    )
    kubeconfig = home / "out" / "kubeconfig"

    async def ready() -> bool:
        assert process.returncode is None
        return kubeconfig.exists() and kubeconfig.read_text() != STALE

    try:
        await eventually(ready)
        async with KubeClient(load_config(kubeconfig), field_manager="test") as client:
            yield process, Seen(client)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def started(seen: Seen) -> list[int]:
    await seen.client.create(LWS, lws_of("dec", 2, 2, SLEEP), NAMESPACE)
    pods = await seen.ready("dec-0", "dec-0-1", "dec-1", "dec-1-1")
    return [pid_of(pod) for pod in pods.values()]


async def test_the_kubeconfig_means_ready_and_sigterm_leaves_no_process(tmp_path: Path) -> None:
    async with cluster_process(tmp_path) as (process, seen):
        assert len((await seen.client.list(NODE)).items) == 3
        pids = await started(seen)
        assert (tmp_path / "state" / "logs" / "default_dec-0_c.log").exists()
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert not any(map(is_alive, pids))
        lines = errors.decode().splitlines()
        assert sum("localcluster: ready in" in line and "http://127.0.0.1:" in line for line in lines) == 1
        assert not [line for line in lines if "Traceback" in line or "WARNING" in line]


async def test_a_killed_cluster_leaves_no_process(tmp_path: Path) -> None:
    async with cluster_process(tmp_path) as (process, seen):
        pids = await started(seen)
        process.kill()
        await process.wait()

        async def all_dead() -> bool:
            return not any(map(is_alive, pids))

        await eventually(all_dead)


async def test_a_stale_kubeconfig_is_replaced_and_sigint_ends_it_too(tmp_path: Path) -> None:
    stale = tmp_path / "out" / "kubeconfig"
    stale.parent.mkdir()
    stale.write_text(STALE)
    async with cluster_process(tmp_path) as (process, seen):
        assert len((await seen.client.list(NODE)).items) == 3
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"nodes": 0}, "localcluster option nodes: 0 is too small; give a whole number of at least 1"),
        (
            {"gpus_per_node": -1},
            "localcluster option gpus_per_node: -1 is too small; give a whole number of at least 0",
        ),
        ({"port": 70000}, "localcluster option port: 70000 is no port; give 1 to 65535, or 0 for a free one"),
    ],
)
def test_a_wrong_option_is_one_clear_line(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        LocalClusterOptions(state_dir=Path("s"), kubeconfig_out=Path("k"), **wrong)
