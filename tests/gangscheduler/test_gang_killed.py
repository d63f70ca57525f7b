"""The scheduler killed between two bindings of one TP group: the process that follows it binds the rest."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from tests.gangscheduler.builders import NAMESPACE, node, podgroup, tp_group
from tests.gangscheduler.test_gang_loop import create, places, until
from tests.kubeapi.misbehaving import Fault, misbehaving

pytestmark = pytest.mark.timeout(90)


@asynccontextmanager
async def scheduler(url: str, folder: Path) -> AsyncIterator[None]:
    """The real process, as the one pod that it is through its restarts; it is killed at the end."""
    kubeconfig = folder / "kubeconfig"
    entries = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config"} | entries))
    words = ["--kubeconfig", str(kubeconfig), "--leader-elect", "--lease-namespace", NAMESPACE]
    environment = os.environ | {"POD_NAME": "scheduler-0", "POD_UID": "a"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "roleratio", "scheduler", *words, env=environment
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_its_next_process_binds_the_rest(tmp_path: Path) -> None:
    async with misbehaving() as proxy, KubeClient(Config(proxy.upstream), field_manager="test") as client:
        await create(client, [node("n0"), node("n1")], [podgroup("decode", 2)], tp_group("decode", 0, [8, 8]))
        names_of = sorted(await places(client))
        proxy.concerns = lambda http: http.path.endswith(f"/{names_of[1]}/binding")
        proxy.always = Fault(hang=True)

        async def one_is_bound() -> bool:
            return bool((await places(client))[names_of[0]])

        async def all_are_bound() -> bool:
            return all((await places(client)).values())

        async with scheduler(proxy.url, tmp_path):
            await until(one_is_bound)
        before = await places(client)
        assert before[names_of[1]] == ""
        async with scheduler(proxy.upstream, tmp_path):
            await until(all_are_bound)
        after = await places(client)
        assert after[names_of[0]] == before[names_of[0]]
        lease = await client.get(kinds.LEASE, names.SCHEDULER_NAME, NAMESPACE)
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("scheduler-0_a", 0)
