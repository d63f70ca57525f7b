"""POST /v1/fit and GET /v1/decision on a real API server: only who it knows, and only with the right to that path."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from gangscheduler.loop import run
from gangscheduler.record import from_json
from kubeapi import names
from kubeapi.client import KubeClient
from kubeapi.config import load_config
from tests.apiserver.gangs import MARK, Stage, stage, until
from tests.controlplane.plane import ControlPlane

pytestmark = pytest.mark.usefixtures("controller_manager")


@pytest.fixture
async def own(admin: KubeClient, namespace: str) -> AsyncIterator[Stage]:
    async with stage(admin, namespace) as made:
        yield made


@pytest.fixture
async def http(control_plane: ControlPlane) -> AsyncIterator[aiohttp.ClientSession]:
    """A running scheduler's pages."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    task = asyncio.create_task(run(load_config(control_plane.kubeconfig), http_port=port))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def ready() -> bool:
            with suppress(aiohttp.ClientConnectorError):
                async with session.get("/readyz") as answer:
                    return answer.status == 200
            return False

        await until(ready)
        yield session
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_who_may_ask_is_answered(own: Stage, control_plane: ControlPlane, http: aiohttp.ClientSession) -> None:
    await own.node("n0", 8)
    await own.node("n1", 8)
    control_plane.kubectl("create", "serviceaccount", "asker", "--namespace", own.namespace)
    headers = {"Authorization": f"Bearer {control_plane.token_for(own.namespace, 'asker')}"}
    limits = {names.GPU: "8", "cpu": "8"}
    spec = {
        "nodeSelector": {MARK: own.name},
        "tolerations": [{"key": MARK, "operator": "Exists"}],
        "containers": [{"name": "main", "image": "worker", "resources": {"limits": limits}}],
    }
    question = {"pods": [spec], "limit": 5}

    async with http.post("/v1/fit", json=question, headers={"Authorization": "Bearer nonsense"}) as answer:
        assert answer.status == 401
        assert "does not know the token" in (await answer.json())["error"]
    async with http.post("/v1/fit", json=question, headers=headers) as answer:
        assert answer.status == 403
        said = (await answer.json())["error"]
        assert f"system:serviceaccount:{own.namespace}:asker may not post /v1/fit" in said
        assert "nonResourceURLs: [/v1/fit], verbs: [post]" in said

    role = f"{own.namespace}-asker"
    rules = [{"nonResourceURLs": ["/v1/fit"], "verbs": ["post"]}]
    body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role}}
    control_plane.kubectl("create", "--filename", "-", stdin=json.dumps(body | {"rules": rules}))
    account = f"--serviceaccount={own.namespace}:asker"
    control_plane.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", account)
    try:

        async def allowed() -> dict[str, object] | None:
            async with http.post("/v1/fit", json=question, headers=headers) as answer:
                found: dict[str, object] = await answer.json()
                return found if answer.status == 200 and found["groups"] == 2 else None

        said = await until(allowed)
        assert (said["limit"], said["reason"], said["limitingResource"]) == (5, "InsufficientResource", names.GPU)
        async with http.post("/v1/fit", json={"pods": []}, headers=headers) as answer:
            assert answer.status == 400
            assert "pods: expected a list" in (await answer.json())["error"]
        async with http.get("/v1/decision", headers=headers) as answer:
            assert answer.status == 403, "another path is another right"
    finally:
        control_plane.kubectl("delete", "clusterrole,clusterrolebinding", role)


async def test_the_last_decision_can_be_fetched_and_read(
    own: Stage, control_plane: ControlPlane, http: aiohttp.ClientSession
) -> None:
    await own.node("n0", 8)
    token = json.loads(control_plane.kubeconfig.read_text())["users"][0]["user"]["token"]

    async def seen() -> bool:
        async with http.get("/v1/decision", headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.status == 200
            snapshot, _ = from_json(await answer.json())
            return f"{own.name}-n0" in [node.name for node in snapshot.nodes]

    await until(seen)
