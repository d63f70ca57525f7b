"""A server that can be made to misbehave, for the tests of the scheduler that want one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kubeapi.client import KubeClient
from kubeapi.config import Config
from tests.kubeapi.misbehaving import Proxy, misbehaving


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with misbehaving() as made:
        yield made


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[KubeClient]:
    """What the test itself does goes past the proxy."""
    async with KubeClient(Config(proxy.upstream), field_manager="test") as made:
        yield made
