"""Writers that are not people: a real HorizontalPodAutoscaler, KEDA, an operator. Named, respected, not fought.

Rules:
1. Each writes as it does in a cluster: through kube-controller-manager, through /scale, or the whole object.
2. That nobody fights is seen on the workload: no write of ours and no new generation over TICKS ticks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoscaler.drivers.cluster import Cluster
from autoscaler.drivers.manager import Manager
from autoscaler.drivers.service import Edges
from kubeapi import kinds, names
from kubeapi.client import KubeClient, Object
from kubeapi.config import Config, load_config
from kubeapi.errors import Conflict
from kubeapi.kinds import Kind
from tests.apiserver.gangs import until
from tests.apiserver.small_service import SERVICE, Service, service_in
from tests.controlplane.plane import ControlPlane
from tests.manifests.access import ROOT

CRD = ROOT / "manifests" / "base" / "crd.yaml"
HPA = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
TICKS = 6
OURS, THEIRS = 2, 3
QUICK = {"syncPeriodS": 0.4, "metrics": {"windowS": 2, "scrapeTimeoutS": 0.2}}

pytestmark = pytest.mark.usefixtures("controller_manager", "rra_crd", "lws_crd")


@pytest.fixture(scope="module")
def rra_crd(control_plane: ControlPlane) -> Iterator[None]:
    """The CRD, and gone again for whoever counts on its absence."""
    control_plane.install_crds(CRD)
    yield
    control_plane.kubectl("delete", "--filename", str(CRD))


@dataclass(frozen=True)
class Scene:
    """A service that our controller has grown to OURS, and the journal of its ticks."""

    service: Service
    config: Config
    journal: Path

    async def decode(self) -> Object:
        return await self.service.client.get(kinds.DEPLOYMENT, "decode", self.service.namespace)

    async def replicas(self) -> int:
        return await self.service.replicas("decode")

    async def write(self, manager: str, subresource: str | None, replicas: int) -> None:
        """What a controller with that field manager does: read, change, update."""
        path = ("decode", self.service.namespace)
        async with KubeClient(self.config, field_manager=manager) as client:

            async def written() -> bool:
                seen = await client.get(kinds.DEPLOYMENT, *path, subresource=subresource)
                seen["spec"]["replicas"] = replicas
                with suppress(Conflict):
                    await client.update(kinds.DEPLOYMENT, seen, self.service.namespace, subresource=subresource)
                    return True
                return False

            await until(written)

    async def after_ticks(self) -> None:
        """TICKS more."""
        last = self._lines() + TICKS

        async def enough() -> bool:
            return self._lines() >= last

        await until(enough)

    def _lines(self) -> int:
        return self.journal.read_text(encoding="utf-8").count("\n")

    async def events(self, reason: str) -> list[Object]:
        found = (await self.service.client.list(kinds.EVENT, self.service.namespace)).items
        return [one for one in found if (one["reason"], one["involvedObject"]["name"]) == (reason, "decode")]


@pytest.fixture
async def scene(control_plane: ControlPlane, admin: KubeClient, namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    config, stop, journal = load_config(control_plane.kubeconfig), asyncio.Event(), tmp_path / "decisions.jsonl"
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(service_in(admin, namespace))
        await service.ask()
        await admin.patch(kinds.RRA, SERVICE, namespace, {"spec": QUICK})
        client = KubeClient(config, field_manager=names.MANAGER_CONTROLLER)
        await stack.enter_async_context(client)
        cluster = Cluster(client, kinds.RRA)
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        task = asyncio.create_task(Manager(Edges(client, cluster, journal=journal)).run(stop))
        made = Scene(service, config, journal)
        try:
            await until(lambda: _has(made, OURS))
            yield made
        finally:
            stop.set()
            await task


async def _has(scene: Scene, replicas: int) -> bool:
    return await scene.replicas() == replicas


async def _a_scaler(scene: Scene, **marks: str) -> None:
    """A HorizontalPodAutoscaler without metrics: its minimum alone makes it scale."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "decode"}
    spec = {"scaleTargetRef": target, "minReplicas": THEIRS, "maxReplicas": 5}
    await scene.service.client.create(
        HPA, {"metadata": {"name": "decode", **marks}, "spec": spec}, scene.service.namespace
    )


WRITERS: dict[str, tuple[Callable[[Scene], Awaitable[None]], str]] = {
    "HPA": (_a_scaler, "kube-controller-manager (HorizontalPodAutoscaler)"),
    # KEDA makes a HorizontalPodAutoscaler for what is above one, and writes by itself only from and to zero.
    "KEDA": (lambda scene: scene.write("keda", "scale", THEIRS), "keda"),
    "operator": (lambda scene: scene.write("llm-operator", None, THEIRS), "llm-operator"),
}


@pytest.mark.parametrize("who", WRITERS)
async def test_a_foreign_writer_is_named_respected_and_not_fought(scene: Scene, who: str) -> None:
    write, name = WRITERS[who]
    await write(scene)
    await until(lambda: _has(scene, THEIRS))
    said = await until(lambda: scene.service.message("ForeignWriter", "True"))
    assert said.startswith("decode ManualHold (")
    assert f"writer={name} ours={OURS} theirs={THEIRS}" in said

    before = await scene.decode()
    await scene.after_ticks()
    after = await scene.decode()
    assert after["spec"]["replicas"] == THEIRS
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert [event["count"] for event in await scene.events("ManualHold")] == [1]
    assert await scene.service.replicas("prefill") == OURS, "the other role is still ours"


async def test_a_writer_that_goes_on_writing_is_followed_and_never_answered(scene: Scene) -> None:
    """An operator that changes its mind: every number is kept, and each costs one write, which is its own."""
    first = (await scene.decode())["metadata"]["generation"]
    for number, replicas in enumerate((THEIRS, THEIRS + 1, THEIRS), 1):
        await scene.write("llm-operator", None, replicas)
        await scene.after_ticks()
        seen = await scene.decode()
        assert seen["spec"]["replicas"] == replicas
        assert seen["metadata"]["generation"] == first + number
        assert f"theirs={replicas}" in await scene.service.message("ForeignWriter", "True")
    assert len(await scene.events("ManualHold")) == 1
