"""The gang corpus through the loop, on the embedded API server; its core alone has tests of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from gangscheduler.conformance import is_not_yet
from kubeapi import kinds
from kubeapi.client import KubeClient
from kubeapi.config import Config
from localcluster.apiserver import ApiServer
from tests.gangscheduler.served import Object, Served, cannot_be_told
from tests.shared_data import shared

CORPUS = "data/gang/scenarios.json"
# They wait more than they compute: for the loop to come round once more and bind nothing.
AT_ONCE = 20


def scenarios() -> Iterator[Object]:
    """What this scheduler does and Kubernetes can say."""
    for scenario in json.loads(shared(CORPUS).read_text(encoding="utf-8"))["scenarios"]:
        if not is_not_yet(scenario) and not cannot_be_told(scenario):
            yield scenario


@pytest.mark.timeout(170)
async def test_every_scenario_that_kubernetes_can_express_ends_as_expected() -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def play(scenario: Object) -> list[str]:
        async with places, ApiServer() as server, KubeClient(Config(server.url), field_manager="test") as client:
            await client.create(kinds.NAMESPACE, {"metadata": {"name": scenario["id"]}})
            problems = await Served(client, scenario["id"], scenario).play()
        return [f"{scenario['id']}: {problem}" for problem in problems]

    found = await asyncio.gather(*(play(scenario) for scenario in scenarios()))
    assert len(found) > 70
    assert [problem for problems in found for problem in problems] == []
