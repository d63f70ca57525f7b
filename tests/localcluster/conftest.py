"""A real API server on a free port, in this process, with a client that is connected to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubeapi.client import KubeClient
from kubeapi.config import load_config
from localcluster.apiserver import ApiServer
from localcluster.kubeconfig import write_kubeconfig


@dataclass(frozen=True)
class Api:
    """What a test needs to know of a running server."""

    server: ApiServer
    url: str
    kubeconfig: Path
    client: KubeClient
    log_dir: Path


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    log_dir = tmp_path / "logs"
    log_dir.mkdir()
    kubeconfig = tmp_path / "kubeconfig"
    async with ApiServer(log_dir=log_dir) as server:
        write_kubeconfig(server.url, kubeconfig)
        async with KubeClient(load_config(kubeconfig), field_manager="test") as client:
            yield Api(server, server.url, kubeconfig, client, log_dir)
