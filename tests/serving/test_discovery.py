"""Which pods become endpoints, and a router that follows them through a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kubeapi.client import KubeClient
from kubeapi.config import load_config
from kubeapi.kinds import POD
from localcluster.apiserver import ApiServer
from localcluster.kubeconfig import write_kubeconfig
from serving.discovery import Discovery, addresses
from serving.options import RouterOptions
from serving.pool import Address
from serving.router import Router

from .conftest import MODEL, until

INDEX = "leaderworkerset.sigs.k8s.io/worker-index"


def pod(name: str = "p-0", role: str = "prefill", *, ready: str = "True", **changes: Any) -> dict[str, Any]:
    labels = {"roleratio.dev/service": "demo", "roleratio.dev/role": role} | changes.pop("labels", {})
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels, **changes.pop("metadata", {})},
        "status": {
            "podIP": "127.0.0.9",
            "conditions": [{"type": "Ready", "status": ready}],
            **changes.pop("status", {}),
        },
    }


WORKER = Address("uid-p-0", "prefill", "http://127.0.0.9:8000")


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (pod(), [WORKER]),
        (pod(labels={INDEX: "0"}), [WORKER]),
        (pod(role="decode"), [Address("uid-p-0", "decode", "http://127.0.0.9:8000")]),
        (pod(labels={INDEX: "1"}), []),
        (pod(role="router"), []),
        (pod(ready="False"), []),
        (pod(ready="Unknown"), []),
        (pod(status={"conditions": []}), []),
        (pod(status={"podIP": ""}), []),
        (pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), []),
        ({"metadata": {"name": "bare", "uid": "1"}}, []),
    ],
)
def test_ready_leaders_that_stay_are_workers(seen: dict[str, Any], found: list[Address]) -> None:
    assert addresses([seen]) == found


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    async with ApiServer() as server:
        write_kubeconfig(server.url, tmp_path / "kubeconfig")
        yield tmp_path / "kubeconfig"


async def test_a_router_follows_the_pods_of_its_service(kubeconfig: Path, tiny: str) -> None:
    router = Router(
        RouterOptions(
            host="127.0.0.1",
            port=0,
            service="default/demo",
            kubeconfig=str(kubeconfig),
            model_name=MODEL,
            profile=tiny,
        )
    )

    def known() -> set[str]:
        workers = router.endpoints()
        return {endpoint.address.role for endpoint in workers}

    await router.start()
    try:
        async with KubeClient(load_config(kubeconfig), field_manager="test") as client:
            for role in ("prefill", "decode"):
                shape = pod(role, role)
                body = {
                    "metadata": {"name": role, "labels": shape["metadata"]["labels"]},
                    "spec": {"nodeName": "n1", "containers": [{"name": "w", "image": "x"}]},
                }
                await client.create(POD, body, "default")
                assert role not in known()
                status = {"status": shape["status"]}
                await client.patch(POD, role, "default", status, subresource="status")
                await until(lambda role=role: role in known())  # type: ignore[misc]
            await client.delete(POD, "decode", "default")
            await until(lambda: known() == {"prefill"})
    finally:
        await router.stop()


@pytest.mark.parametrize("service", ["demo", "/demo", "default/"])
def test_a_service_without_its_namespace_is_refused(service: str) -> None:
    with pytest.raises(ValueError, match="expected NAMESPACE/NAME"):
        Discovery(service, None, lambda seen: None)


@pytest.mark.parametrize("both", [True, False])
def test_a_router_has_one_source_of_workers(tiny: str, both: bool) -> None:
    from serving.options import StaticEndpoint

    endpoints = (StaticEndpoint(role="decode", url="http://127.0.0.1:1"),) if both else ()
    with pytest.raises(ValueError, match="either service"):
        Router(RouterOptions(service="default/demo" if both else "", endpoints=endpoints, profile=tiny))
