"""The gang corpus through the loop on a real API server: each scenario in a namespace and on nodes of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from kubeapi import kinds
from kubeapi.client import KubeClient
from kubeapi.errors import NotFound
from kubeapi.kinds import Kind
from tests.controlplane.plane import ControlPlane
from tests.gangscheduler.served import Object, Served, priorities, priority_class
from tests.gangscheduler.test_gang_corpus_served import scenarios

PRIORITY_CLASS = Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False)
AT_ONCE = 12

pytestmark = [pytest.mark.usefixtures("controller_manager"), pytest.mark.timeout(170)]


@pytest.fixture
async def classes(admin: KubeClient) -> AsyncIterator[None]:
    """A PriorityClass for every priority of the corpus."""
    values = sorted({value for scenario in scenarios() for value in priorities(scenario)})
    for value in values:
        await admin.create(PRIORITY_CLASS, {"metadata": {"name": priority_class(value)}, "value": value})
    yield
    for value in values:
        with suppress(NotFound):
            await admin.delete(PRIORITY_CLASS, priority_class(value))


@pytest.mark.usefixtures("classes")
async def test_every_scenario_that_kubernetes_can_express_ends_as_expected(
    admin: KubeClient, control_plane: ControlPlane
) -> None:
    places, run = asyncio.Semaphore(AT_ONCE), secrets.token_hex(2)

    async def play(scenario: Object) -> list[str]:
        name = f"{scenario['id']}-{run}"
        async with places, KubeClient(admin.config, field_manager="test") as client:
            await client.create(kinds.NAMESPACE, {"metadata": {"name": name}})
            await _until_accounts(client, name)
            served = Served(client, name, scenario, has_classes=True)
            try:
                problems = await served.play()
            finally:
                await served.clear()
                await client.delete(kinds.NAMESPACE, name)
        return [f"{scenario['id']}: {problem}" for problem in problems]

    found = await asyncio.gather(*(play(scenario) for scenario in scenarios()))
    assert len(found) > 70
    assert [problem for problems in found for problem in problems] == []


async def _until_accounts(client: KubeClient, namespace: str) -> None:
    """No pod is admitted before its namespace has the default service account."""
    async with asyncio.timeout(30):
        while True:
            with suppress(NotFound):
                await client.get(kinds.SERVICE_ACCOUNT, "default", namespace)
                return
            await asyncio.sleep(0.1)
