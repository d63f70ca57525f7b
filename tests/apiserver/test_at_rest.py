"""At rest both processes only watch and renew their Lease; what they ask for beyond it is in proportion to changes.

Rules:
1. Requests are counted by the API server, in its audit log, under the service accounts of the installed overlay.
2. At rest means nothing else for longer than a status may wait to be told: what repeats itself is seen to do so.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from autoscaler.adapters.rra import SETTLE_S
from kubeapi import kinds
from kubeapi.client import KubeClient
from tests.apiserver.installed import Pod
from tests.apiserver.small_service import SERVICE, Service, node_in, service_on_node
from tests.apiserver.test_install import OUR_CRD, apply, uninstall, until
from tests.controlplane import audit
from tests.controlplane.audit import Asked
from tests.controlplane.plane import ControlPlane
from tests.manifests.access import ACCOUNTS, ACTIVE, CONTROLLER, LEASES, PODGROUPS, RRA, SCHEDULER, SYSTEM

REST_S = SETTLE_S + 5
SETTLED_WITHIN_S = 150.0
RSS_MAX_MB = 120.0
SEEN_S = 3.0
CHANGES = 4
# A second one may be refused: it was on its way when the watch brought the first one's version.
PER_CHANGE = 2
# What a pod is worth: told when it is seen and when it is ready; bound, with an event and a word to its PodGroup.
PER_POD = {CONTROLLER: 6, SCHEDULER: 5}
EVENTS = {f"{verb} /events" for verb in ("create", "get", "patch")}
TOLD_BY = {
    CONTROLLER: {f"patch {RRA}/status", *EVENTS},
    SCHEDULER: {"create /pods/binding", f"patch {PODGROUPS}/status", *EVENTS},
}


@dataclass(frozen=True)
class Stage:
    """Two services and both processes; `still` wants nothing, `eager` would grow if it were not for DryRun."""

    still: Service
    eager: Service
    pods: Mapping[str, Pod]
    log: Path

    def beyond_rest(self, account: str, since_s: float) -> list[Asked]:
        """What an account has asked for but watches and its own Lease."""
        rows = audit.asked(self.log, SYSTEM, account, since_s)
        return [row for row in rows if not row.what.startswith("watch ") and not _is_own_lease(row, account)]

    def said(self) -> str:
        return "\n".join(f"{row}" for account in ACCOUNTS for row in self.beyond_rest(account, time.time() - REST_S))


def _is_own_lease(row: Asked, account: str) -> bool:
    return row.what in (f"get {LEASES}", f"update {LEASES}") and row.name == account


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane, audit_log: Path) -> Iterator[None]:
    try:
        apply(control_plane, ACTIVE)
        control_plane.kubectl("wait", "--for=condition=Established", f"crd/{OUR_CRD}", "--timeout=30s")
        yield
    finally:
        uninstall(control_plane, ACTIVE)


@pytest.fixture
async def stage(
    control_plane: ControlPlane,
    installed: None,
    lws_crd: None,
    audit_log: Path,
    admin: KubeClient,
    namespace: str,
    other_namespace: str,
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(node_in(admin))
        still = await stack.enter_async_context(service_on_node(admin, namespace))
        eager = await stack.enter_async_context(service_on_node(admin, other_namespace))
        still.is_used = eager.is_used = False
        await still.ask("Active", groups=1)
        await eager.ask("DryRun", groups=2)
        pods = {}
        for account in ACCOUNTS:
            pods[account] = Pod(control_plane, ACTIVE, account, tmp_path)
            stack.callback(pods[account].stop)
        yield Stage(still, eager, pods, audit_log)


async def test_at_rest_and_then_some_changes(stage: Stage) -> None:
    began_s = time.time()
    await comes_to_rest(stage)
    asked = {account: audit.asked(stage.log, SYSTEM, account, began_s - 60) for account in ACCOUNTS}
    renewals = {account: [row for row in rows if row.what == f"update {LEASES}"] for account, rows in asked.items()}
    assert all(len(rows) > REST_S / 10 for rows in renewals.values()), "the log is of these processes"
    assert stage.beyond_rest(CONTROLLER, began_s - 60), "it has told the rra of the start"
    assert "would PATCH" in stage.pods[CONTROLLER].said()
    for account, pod in stage.pods.items():
        assert psutil.Process(pod.pid).memory_info().rss / 1e6 < RSS_MAX_MB, account
    await changes_of_specs_are_told_one_by_one(stage)
    await a_pod_that_is_added_is_bound_and_told(stage)


async def comes_to_rest(stage: Stage) -> None:
    began_s = time.time()

    async def rests() -> bool:
        since_s = time.time() - REST_S
        return since_s > began_s and not any(stage.beyond_rest(account, since_s) for account in ACCOUNTS)

    await until(rests, "nothing but watches and Leases", SETTLED_WITHIN_S, said=stage.said)


async def changes_of_specs_are_told_one_by_one(stage: Stage) -> None:
    since_s = time.time()
    for number in range(CHANGES):
        await change_budget(stage.still, 7 - number)
    await asyncio.sleep(SEEN_S)
    found = stage.beyond_rest(CONTROLLER, since_s)
    assert {(row.what, row.namespace, row.name) for row in found} == {
        (f"patch {RRA}/status", stage.still.namespace, SERVICE)
    }
    assert CHANGES <= len(found) <= PER_CHANGE * CHANGES
    assert stage.beyond_rest(SCHEDULER, since_s) == []


async def change_budget(service: Service, gpus: int) -> None:
    """A change of the spec, until the controller has told that it knows."""
    patch = {"spec": {"gpuBudget": gpus}}
    changed = await service.client.patch(kinds.RRA, SERVICE, service.namespace, patch)

    async def is_known() -> bool:
        seen = await service.client.get(kinds.RRA, SERVICE, service.namespace)
        return bool(seen["status"]["observedGeneration"] == changed["metadata"]["generation"])

    await until(is_known, "the new generation is observed")


async def a_pod_that_is_added_is_bound_and_told(stage: Stage) -> None:
    since_s = time.time()
    replicas = {"spec": {"replicas": 2}}
    await stage.eager.client.patch(kinds.DEPLOYMENT, "decode", stage.eager.namespace, replicas, subresource="scale")

    async def is_bound() -> bool:
        return any(row.what == "create /pods/binding" for row in stage.beyond_rest(SCHEDULER, since_s))

    await until(is_bound, "a binding")
    await asyncio.sleep(SEEN_S)
    for account in ACCOUNTS:
        found = Counter(row.what for row in stage.beyond_rest(account, since_s))
        assert found.keys() <= TOLD_BY[account], account
        assert 0 < found.total() <= PER_POD[account], found
