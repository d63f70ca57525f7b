"""Our own kind on the embedded cluster: checked as a real server checks it, and followed by the real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import load_config
from kubeapi.errors import Invalid
from localcluster.apiserver import ApiServer
from localcluster.controllers import controllers
from localcluster.kubeconfig import write_kubeconfig
from roleratio.demo.status import free_ports
from roleratio.embedded import fill_in
from tests.apiserver.small_service import SERVICE, service_in
from tests.localcluster.living import NAMESPACE, eventually

SPEC = {"service": "chat", "profile": "qwen3-32b-a100-tp2", "gpuBudget": 8}


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "kubeconfig"
    async with ApiServer(models={kinds.RRA: fill_in}) as server:
        write_kubeconfig(server.url, path)
        yield path


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with KubeClient(load_config(kubeconfig), field_manager="test") as made:
        yield made


@contextmanager
def process(command: str, kubeconfig: Path) -> Iterator[Path]:
    """`roleratio COMMAND` on that cluster, as its log."""
    log = kubeconfig.with_name(f"{command}.log")
    argv = [
        sys.executable,
        "-m",
        "roleratio",
        command,
        "--kubeconfig",
        str(kubeconfig),
        "--port",
        str(free_ports(1)[0]),
    ]
    with log.open("wb") as output, subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT) as started:
        try:
            yield log
        finally:
            started.terminate()
    assert started.returncode == 0, log.read_text()


async def test_the_controller_follows_what_is_declared_there(kubeconfig: Path, client: KubeClient) -> None:
    async with controllers(load_config(kubeconfig), (names.MANAGER_DEPLOYMENT,)), service_in(client, NAMESPACE) as made:
        await made.ask()
        with process("scheduler", kubeconfig), process("controller", kubeconfig) as log:

            async def grown() -> bool:
                return set((await made.sizes()).values()) == {2}

            assert await eventually(grown, 40), log.read_text()

            async def told() -> bool:
                status = (await client.get(kinds.RRA, SERVICE, NAMESPACE)).get("status", {})
                return [role["groups"] for role in status.get("roles", ())] == ["2/2", "2/2"]

            assert await eventually(told, 40), log.read_text()
    assert "Traceback" not in log.read_text()


async def test_a_rule_is_kept_in_the_words_of_the_crd(client: KubeClient) -> None:
    bounds = {"minGroups": 5, "maxGroups": 3}
    with pytest.raises(Invalid, match="minGroups 5 is above maxGroups 3: raise maxGroups or lower minGroups"):
        await client.create(kinds.RRA, {"metadata": {"name": "a"}, "spec": SPEC | {"prefill": bounds}}, NAMESPACE)
    assert (await client.list(kinds.RRA, NAMESPACE)).items == []
