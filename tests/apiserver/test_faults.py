"""A controller of two services behind a real API server that refuses, fails, says nothing, or forgets its watches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from kubeapi.client import KubeClient
from kubeapi.config import Config
from tests.apiserver.test_rra_api import rra_crd
from tests.apiserver.two_services import Controller, Tenant, controller, two_services, until
from tests.controlplane.plane import ControlPlane
from tests.kubeapi.misbehaving import Fault, Proxy, before

__all__ = ["rra_crd"]
pytestmark = pytest.mark.usefixtures("rra_crd", "lws_crd", "controller_manager")

LINES_MOST = 32
"""Of two services, growth included: a line a tick would be more within seconds."""


def every(http: web.Request) -> bool:
    return True


def writes(http: web.Request) -> bool:
    return http.method != "GET"


def scales(http: web.Request) -> bool:
    return http.path.endswith("/scale")


def watches(http: web.Request) -> bool:
    return "watch" in http.query


@dataclass(frozen=True)
class Row:
    """A fault, for how long it lasts, and the condition that it shows as: none if work goes on meanwhile."""

    fault: Fault | None
    concerns: Callable[[web.Request], bool]
    shows: tuple[str, str, str] | None = None
    once: bool = False
    muted: bool = False


BLIND = ("Blind", "True", "WatchFailed")
UNABLE = ("AbleToScale", "False", "WriteFailed")
FAULTS = {
    "too many requests": Row(Fault(429, retry_after="1"), every, BLIND),
    "unavailable": Row(Fault(503), every, BLIND),
    "says nothing": Row(Fault(hang=True), every, BLIND),
    "an error for every write": Row(Fault(500), writes, UNABLE),
    "too many writes": Row(Fault(429, retry_after="1"), writes, UNABLE),
    "no answer to a write that was done": Row(Fault(lost=True), scales, once=True),
    "watches are cut": Row(Fault(cut=True), watches),
    "watches are too old": Row(Fault(410), watches),
    "watches say nothing more": Row(None, watches, muted=True),
}


@dataclass
class Credentials:
    """A token that can be replaced, as in a file."""

    current: str
    next: str = ""
    refreshed: int = field(default=0)

    def header(self) -> str:
        return f"Bearer {self.current}"

    def refresh(self) -> None:
        self.refreshed += 1
        self.current = self.next or self.current


@pytest.fixture
def other_namespace(control_plane: ControlPlane) -> Iterator[str]:
    name = "faults-b"
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=20s")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


def admin_token(plane: ControlPlane) -> str:
    """A token of a service account that may do everything; each call makes another one."""
    account = ("serviceaccount", "everything", "--namespace=default")
    if not plane.kubectl("get", *account, "--ignore-not-found").strip():
        plane.kubectl("create", *account)
        binding = ("clusterrolebinding", "everything", "--clusterrole=cluster-admin")
        plane.kubectl("create", *binding, "--serviceaccount=default:everything")
    return plane.token_for("default", "everything")


async def test_each_fault_is_told_once_and_leaves_nothing_behind(
    control_plane: ControlPlane,
    admin: KubeClient,
    namespace: str,
    other_namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    credentials = Credentials(admin_token(control_plane))
    async with (
        two_services(admin, namespace, other_namespace) as services,
        before(control_plane.url, control_plane.ca_file) as proxy,
        controller(
            Config(proxy.url, credentials.header, refresh=credentials.refresh), timeout_s=0.8, quiet_s=2.0
        ) as ours,
    ):
        await until(lambda: content(ours, services), "both services are scaled")
        for groups, (name, row) in enumerate(FAULTS.items(), start=2):
            caplog.clear()
            await one_fault(ours, proxy, services, name, row, groups)
            lines = [record.getMessage() for record in caplog.records if record.name.startswith(("roleratio", "kube"))]
            assert len(lines) <= LINES_MOST, f"{name}: {lines}"
        await expired_token(control_plane, ours, proxy, services, credentials, len(FAULTS) + 2)


async def one_fault(
    ours: Controller, proxy: Proxy, services: tuple[Tenant, Tenant], name: str, row: Row, groups: int
) -> None:
    """Prefill should grow by one group while the fault is there."""
    generations = [await service.generation("prefill") for service in services]
    told = [await service.told(row.shows[2]) for service in services] if row.shows else []
    proxy.concerns, proxy.faults = row.concerns, [row.fault] * 2 if row.once and row.fault else []
    proxy.always, proxy.muted = (None if row.once else row.fault), row.concerns if row.muted else proxy.muted
    if row.concerns is every:
        proxy.cut_streams()
    for service in services:
        await service.ask(prefill=groups)
    if shows := row.shows:
        await until(lambda: shown(ours, services, shows), f"{name}: metrics and readiness say so")
        assert (await ours.page("/healthz"))[0] == 200
    else:
        await until(lambda: grown(services, groups), f"{name}: both services grow all the same")
    proxy.always, proxy.muted = None, lambda http: False
    await until(lambda: grown(services, groups), f"{name}: both services have grown")
    await until(lambda: content(ours, services), f"{name}: conditions and readiness recover")
    assert [await service.generation("prefill") - 1 for service in services] == generations, f"{name}: written once"
    for service, counts in zip(services, told, strict=bool(told)):
        now = await service.told(row.shows[2] if row.shows else "")
        assert sum(now) == sum(counts) + 1, f"{name}: {counts} -> {now}: one event more"
        assert len(now) == 1, f"{name}: of one object"


async def grown(services: tuple[Tenant, Tenant], groups: int) -> bool:
    return all([await service.has("prefill", groups) for service in services])


async def shown(ours: Controller, services: tuple[Tenant, Tenant], condition: tuple[str, str, str]) -> bool:
    """Where the server can be read by nobody, the controller's own pages must say it."""
    kind, status, _ = condition
    for service in services:
        labels = (f'target_namespace="{service.namespace}"', f'type="{kind}"', f'status="{status}"')
        if await ours.metric("condition", *labels) != "1.0":
            return False
    code, text = await ours.page("/readyz")
    return (
        code == 503
        and ("watch of" in text or "writes fail" in text)
        and await ours.metric("cluster_reachable") == "0.0"
    )


async def content(ours: Controller, services: tuple[Tenant, Tenant]) -> bool:
    if await ours.page("/readyz") != (200, "ok\n") or await ours.metric("cluster_reachable") != "1.0":
        return False
    wanted = {"AbleToScale": "True", "Blind": "False", "ForeignWriter": "False", "Reporting": "True"}
    found = [(await service.condition(kind))[0] == status for service in services for kind, status in wanted.items()]
    return all(found)


async def expired_token(
    plane: ControlPlane,
    ours: Controller,
    proxy: Proxy,
    services: tuple[Tenant, Tenant],
    credentials: Credentials,
    groups: int,
) -> None:
    """The server wants another token; the file brings it a little later."""
    proxy.token = fresh = admin_token(plane)
    proxy.cut_streams()
    await until(lambda: shown(ours, services, BLIND), "an expired token is seen")
    credentials.next = fresh
    for service in services:
        await service.ask(prefill=groups)
    await until(lambda: grown(services, groups), "both services grow with the new token")
    await until(lambda: content(ours, services), "conditions recover with the new token")
    assert credentials.refreshed >= 2
