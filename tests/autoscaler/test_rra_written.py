"""An rra's status through the embedded API server: written on the version that was seen, printed as one line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from autoscaler.adapters.rra import settings_of, status_of, write_status
from autoscaler.crd import crd
from kubeapi.client import KubeClient, Object
from kubeapi.config import Config
from kubeapi.errors import NotFound
from kubeapi.kinds import NAMESPACE, RRA
from localcluster.apiserver import ApiServer
from tests.autoscaler.told import NOW_S, a_decision, an_observation

SPEC = {"service": "chat", "mode": "Active", "profile": "qwen3-32b-a100-tp2", "gpuBudget": 16}


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    async with ApiServer() as server, KubeClient(Config(server.url), field_manager="test") as made:
        await made.create(NAMESPACE, {"metadata": {"name": "ns"}})
        yield made


async def told(client: KubeClient) -> tuple[Object, Object]:
    """An rra and the status that it should have."""
    made = await client.create(RRA, {"metadata": {"name": "chat"}, "spec": SPEC}, "ns")
    generation = made["metadata"]["generation"]
    return made, status_of(settings_of(made), an_observation(), a_decision(), None, NOW_S, generation)


async def test_it_is_written_once(client: KubeClient) -> None:
    made, status = await told(client)
    assert await write_status(client, made, status)
    kept = await client.get(RRA, "chat", "ns")
    assert kept["status"] == status
    assert kept["spec"] == made["spec"]
    assert not await write_status(client, kept, dict(status))
    assert (await client.get(RRA, "chat", "ns"))["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]


async def test_what_is_no_longer_known_goes(client: KubeClient) -> None:
    made, status = await told(client)
    await write_status(client, made, status)
    less = {key: value for key, value in status.items() if key not in ("ratio", "bottleneck")}
    assert await write_status(client, await client.get(RRA, "chat", "ns"), less)
    assert (await client.get(RRA, "chat", "ns"))["status"] == less


async def test_an_object_that_has_moved_on_is_left_alone(client: KubeClient) -> None:
    made, status = await told(client)
    await client.patch(RRA, "chat", "ns", {"spec": {"gpuBudget": 8}})
    assert not await write_status(client, made, status)
    assert not (await client.get(RRA, "chat", "ns")).get("status")


async def test_an_object_that_is_gone_is_an_error(client: KubeClient) -> None:
    made, status = await told(client)
    await client.delete(RRA, "chat", "ns")
    with pytest.raises(NotFound):
        await write_status(client, made, status)


async def table(client: KubeClient) -> Any:
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    url = client.config.server + RRA.path("ns")
    async with aiohttp.ClientSession(headers=accept) as session, session.get(url) as response:
        return await response.json()


async def test_the_columns_are_the_crds(client: KubeClient) -> None:
    made, status = await told(client)
    empty = await table(client)
    await write_status(client, made, status)
    printed = await table(client)
    declared = crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [(column["name"], column["priority"]) for column in printed["columnDefinitions"]] == [
        ("Name", 0),
        *((column["name"], column["priority"]) for column in declared),
    ]
    age = printed["rows"][0]["cells"][8]
    assert printed["rows"][0]["cells"] == [
        *("chat", "chat", "Active", "1/1", "1/3", "1:3", "True", "decode Grow", age),
        *("CanScale", 16, "decode", "DesiredWithinRange", "False", "False", "decode replicas 1 -> 3"),
    ]
    nothing = [None] * 6
    assert empty["rows"][0]["cells"] == ["chat", "chat", *nothing, age, None, 16, *nothing[:5]]
