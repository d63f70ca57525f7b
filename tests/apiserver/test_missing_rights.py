"""A right that is missing in one namespace, or for one kind: named with verb and resource, and only that is not done.

Rules:
1. The rights are those of the manifests, less one verb, granted to a service account whose token the controller has.
2. What grants the right is what the message says: it is run as it stands.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.config import Config, load_config
from tests.apiserver.test_rra_api import rra_crd
from tests.apiserver.two_services import Tenant, controller, two_services, until
from tests.controlplane.plane import ControlPlane
from tests.manifests import access
from tests.manifests.access import ACTIVE, CONTROLLER

__all__ = ["rra_crd"]
pytestmark = pytest.mark.usefixtures("rra_crd", "lws_crd", "controller_manager")

LISTED = ("get", "list", "watch")


@dataclass(frozen=True)
class Lack:
    """A right that namespace A lacks, and how it shows: condition and reason, role that stays as it is."""

    verb: str
    resource: str
    condition: str
    reason: str
    stays: str = ""


LACKS = (
    Lack("patch", "leaderworkersets/scale", "AbleToScale", "WriteRefused", "prefill"),
    Lack("patch", "deployments/scale", "AbleToScale", "WriteRefused", "decode"),
    Lack("patch", "podgroups", "AbleToScale", "WriteRefused"),
    Lack("patch", "roleratioautoscalers/status", "Reporting", "ReportFailed"),
    Lack("create", "events", "Reporting", "ReportFailed"),
)


def rules_of_the_manifests() -> list[Object]:
    """What the active overlay grants the controller everywhere."""
    roles = access.of_kind(access.render(ACTIVE), "ClusterRole")
    return [rule for role in roles if role["metadata"]["name"].startswith(CONTROLLER) for rule in role["rules"]]


def without(rules: list[Object], verb: str, resource: str) -> list[Object]:
    """The rules less one verb on one resource."""
    left = []
    for rule in rules:
        others = [name for name in rule["resources"] if name != resource]
        left += [rule | {"resources": others}] if others else []
        verbs = [name for name in rule["verbs"] if name != verb]
        left += [rule | {"resources": [resource], "verbs": verbs}] if resource in rule["resources"] and verbs else []
    return left


def reads(rules: list[Object]) -> list[Object]:
    return [rule for rule in rules if set(rule["verbs"]) == set(LISTED)]


def writes(rules: list[Object]) -> list[Object]:
    return [rule for rule in rules if set(rule["verbs"]) != set(LISTED)]


class Rights:
    """A service account with roles of its own; everything is removed at the end."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self._made: list[tuple[str, ...]] = []

    def grant(self, rules: list[Object], namespace: str = "") -> None:
        """Everywhere, or in one namespace."""
        kind = "Role" if namespace else "ClusterRole"
        meta = {"name": "tested"} | ({"namespace": namespace} if namespace else {})
        api = {"apiVersion": "rbac.authorization.k8s.io/v1"}
        subject = {"kind": "ServiceAccount", "name": "tested", "namespace": "default"}
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "tested"}
        for body in (
            api | {"kind": kind, "metadata": meta, "rules": rules},
            api | {"kind": f"{kind}Binding", "metadata": meta, "roleRef": ref, "subjects": [subject]},
        ):
            self.plane.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(body))

    def config(self) -> Config:
        """The account's, for a client."""
        return load_config(self.plane.kubeconfig_for("default", "tested"))


@pytest.fixture
def rights(control_plane: ControlPlane) -> Iterator[Rights]:
    control_plane.kubectl("create", "serviceaccount", "tested", "--namespace=default")
    yield Rights(control_plane)
    control_plane.kubectl("delete", "clusterrole,clusterrolebinding", "tested", "--ignore-not-found")
    control_plane.kubectl("delete", "serviceaccount", "tested", "--namespace=default")


@pytest.fixture
def other_namespace(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    name = f"{namespace}-b"
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=20s")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def services(admin: KubeClient, namespace: str, other_namespace: str) -> AsyncIterator[tuple[Tenant, Tenant]]:
    async with two_services(admin, namespace, other_namespace) as made:
        yield made


@pytest.mark.parametrize("lack", LACKS, ids=lambda lack: f"{lack.verb} {lack.resource}")
async def test_a_right_that_is_missing_in_one_namespace(
    control_plane: ControlPlane,
    rights: Rights,
    services: tuple[Tenant, Tenant],
    caplog: pytest.LogCaptureFixture,
    lack: Lack,
) -> None:
    caplog.set_level(logging.INFO)
    one, other = services
    rules = rules_of_the_manifests()
    rights.grant(reads(rules))
    rights.grant(writes(rules), other.namespace)
    rights.grant(without(writes(rules), lack.verb, lack.resource), one.namespace)
    missing = f"cannot {lack.verb} {lack.resource} in namespace {one.namespace}: "
    async with controller(rights.config()) as ours:
        for service in services:
            await service.ask(prefill=2, decode=2)

        async def told() -> bool:
            labels = (f'target_namespace="{one.namespace}"', f'type="{lack.condition}"', 'status="False"')
            return await ours.metric("condition", *labels) == "1.0"

        await until(told, f"metrics: {lack.condition} is False")
        await until(lambda: grown(other), "the other service grows")
        assert (await ours.page("/readyz"))[0] == 200, "one service's right is not the controller's health"
        lines = [record.getMessage() for record in caplog.records if missing in record.getMessage()]
        assert 1 <= len(lines) <= 3, lines
        grant = lines[0].partition("grant it with: ")[2].partition("; said once")[0]
        if "status" not in lack.resource:
            await until(lambda: says(one, lack, missing), "the condition names verb and resource")
        if lack.resource != "events":
            await until(lambda: counted(one, lack.reason, 1), "one event")
        if lack.stays:
            assert (await one.service.sizes())[lack.stays] == 1
        for words in grant.split(" && "):
            assert words.startswith("kubectl create ")
            control_plane.kubectl(*shlex.split(words)[1:])
        await until(lambda: grown(one), "the service grows when the right is granted")
        await until(lambda: fine(one, lack.condition), "the condition recovers")
        if lack.resource != "events":
            assert await one.told(lack.reason) == [1]
        assert (await other.condition("AbleToScale"))[0] == "True"


async def grown(service: Tenant) -> bool:
    return await service.has("prefill", 2) and await service.has("decode", 2)


async def says(service: Tenant, lack: Lack, missing: str) -> bool:
    status, reason, message = await service.condition(lack.condition)
    return (status, reason) == ("False", lack.reason) and missing in message


async def counted(service: Tenant, reason: str, count: int) -> bool:
    return await service.told(reason) == [count]


async def fine(service: Tenant, condition: str) -> bool:
    return (await service.condition(condition))[0] == "True"


UNSEEN = {
    "podgroups": {"prefill": 2, "decode": 2, "prefill minimum": 1, "decode minimum": 1},
    "nodes": {"prefill": 2, "decode": 2, "prefill minimum": 2, "decode minimum": 2},
}


@pytest.mark.parametrize("kind", UNSEEN)
async def test_a_kind_that_may_not_be_listed_is_named_and_the_rest_goes_on(
    rights: Rights, services: tuple[Tenant, Tenant], kind: str
) -> None:
    rules = rules_of_the_manifests()
    for verb in LISTED:
        rules = without(rules, verb, kind)
    rights.grant(rules)
    one, _ = services
    for service in services:
        await service.ask(prefill=2, decode=2)
    async with controller(rights.config(), expect_ready=False) as ours:

        async def scaled() -> bool:
            return all([await service.service.sizes() == UNSEEN[kind] for service in services])

        async def named() -> bool:
            status, reason, message = await one.condition("Blind")
            return (status, reason) == ("True", "WatchFailed") and f"cannot list {kind} in the whole cluster" in message

        await until(scaled, "what can be done without it is done")
        await until(named, "the condition names verb and resource")
        await until(lambda: counted(one, "WatchFailed", 1), "one event")
        code, text = await ours.page("/readyz")
        assert (code, f"cannot list {kind}" in text) == (503, True)


async def test_two_controllers_of_one_object_say_so_once_and_do_not_fight(
    control_plane: ControlPlane, admin: KubeClient, services: tuple[Tenant, Tenant]
) -> None:
    one, other = services
    config = load_config(control_plane.kubeconfig)
    async with controller(config) as first, controller(config) as second:
        for groups in (2, 3, 4):
            await one.ask(prefill=groups)
            await until(partial(one.has, "prefill", groups), f"{groups} groups")

        async def both_know() -> bool:
            labels = (f'target_namespace="{one.namespace}"', 'type="ForeignWriter"', 'status="True"')
            return [await ours.metric("condition", *labels) for ours in (first, second)] == ["1.0", "1.0"]

        await until(both_know, "both controllers know of each other")
        await until(lambda: warned(one), "the condition says so")
        since = await changed_at(one)
        version = (await admin.get(kinds.RRA, "chat", one.namespace))["metadata"]["resourceVersion"]
        generation = await one.generation("prefill")
        await asyncio.sleep(4)
        assert await warned(one)
        assert await changed_at(one) == since, "the condition does not flap"
        now = (await admin.get(kinds.RRA, "chat", one.namespace))["metadata"]["resourceVersion"]
        assert (now, await one.generation("prefill")) == (version, generation), "nobody writes against the other"
        assert await one.told("AnotherController") in ([1], [2]), "one event, told by one or both"
        assert (await other.condition("AbleToScale"))[0] == "True"


async def warned(service: Tenant) -> bool:
    status, reason, message = await service.condition("ForeignWriter")
    return (status, reason) == ("True", "AnotherController") and "another roleratio-controller" in message


async def changed_at(service: Tenant) -> str:
    rra = await service.service.client.get(kinds.RRA, "chat", service.namespace)
    found = [one for one in rra["status"]["conditions"] if one["type"] == "ForeignWriter"]
    return str(found[0]["lastTransitionTime"])
