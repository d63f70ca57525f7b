"""The API RoleRatioAutoscaler on the real server: what it fills in, refuses, explains and prints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from autoscaler.adapters.rra import SETTLE_S, refusal, settings_of, status_of, switched_off, write_status
from autoscaler.errors import UserError
from autoscaler.model import Fleet, Forecast
from autoscaler.settings import Settings, Spec
from kubeapi.client import KubeClient, Object
from kubeapi.errors import Invalid
from kubeapi.kinds import RRA
from policies.model import Missing
from tests.autoscaler.told import NOW_S, a_decision, an_observation
from tests.controlplane.plane import ControlPlane, KubectlError
from tests.manifests.access import ROOT

CRD = ROOT / "manifests" / "base" / "crd.yaml"
pytestmark = pytest.mark.usefixtures("rra_crd")

SPEC: Mapping[str, Any] = {"service": "chat", "profile": "qwen3-32b-a100-tp2", "gpuBudget": 16}


@pytest.fixture(scope="module")
def rra_crd(control_plane: ControlPlane) -> Iterator[None]:
    """The CRD as people install it, and gone again for whoever counts on its absence."""
    control_plane.install_crds(CRD)
    deadline_s = time.monotonic() + 30
    while "FIELD" not in explained(control_plane):
        assert time.monotonic() < deadline_s, "the API server publishes no schema"
        time.sleep(0.1)
    yield
    control_plane.kubectl("delete", "--filename", str(CRD))


def explained(plane: ControlPlane) -> str:
    """`kubectl explain` of one field; the schema is published a little after the resource is served."""
    try:
        return plane.kubectl("explain", "rra.spec.gpuBudget")
    except KubectlError:
        return ""


def rra(name: str = "chat", **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {**SPEC, **spec}}


async def test_the_server_fills_in_the_defaults_of_the_model(admin: KubeClient, namespace: str) -> None:
    made = await admin.create(RRA, rra(decode={"maxGroups": 6}), namespace)
    assert made["spec"] == Spec.model_validate({**SPEC, "decode": {"maxGroups": 6}}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    assert settings_of(made).spec.mode == "DryRun"


MISTAKES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "bounds": ({"prefill": {"minGroups": 5, "maxGroups": 3}}, "minGroups 5 is above maxGroups 3: raise maxGroups"),
    "band": ({"ratioBand": {"min": 2.5, "max": 1}}, "min 2.5 is above max 1: swap them or widen the band"),
    "scrape": ({"syncPeriodS": 1}, "metrics.scrapeTimeoutS 2 is not below syncPeriodS 1: lower it, or a pod that"),
    "budget": ({"gpuBudget": 1}, "gpuBudget 1 cannot hold prefill.minGroups 1 and decode.minGroups 1 at one GPU"),
    "mode": ({"mode": "live"}, "spec.mode: Unsupported value"),
    "quantile": ({"forecastQuantile": 0.5}, "spec.forecastQuantile"),
    "url": ({"metrics": {"prometheusUrl": "prom"}}, "spec.metrics.prometheusUrl"),
    "service": ({"service": "-chat"}, "spec.service"),
    "type": ({"gpuBudget": "all"}, "spec.gpuBudget"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_refused_by_the_server_and_by_us(admin: KubeClient, namespace: str, mistake: str) -> None:
    change, message = MISTAKES[mistake]
    with pytest.raises(Invalid) as refused:
        await admin.create(RRA, rra(**change), namespace)
    assert message in refused.value.message
    with pytest.raises(UserError) as ours:
        settings_of({**rra(**change), "metadata": {"name": "chat", "namespace": namespace}})
    # What spans fields is said in the same words; for the rest the server has its own.
    assert ("spec." in message and message.partition(":")[0] in str(ours.value)) or message in str(ours.value)


async def test_a_rule_also_guards_an_update(admin: KubeClient, namespace: str) -> None:
    await admin.create(RRA, rra(), namespace)
    with pytest.raises(Invalid, match="minGroups 9 is above maxGroups 8"):
        await admin.patch(RRA, "chat", namespace, {"spec": {"decode": {"minGroups": 9}}})


def test_kubectl_refuses_a_key_that_is_not_there(control_plane: ControlPlane, namespace: str) -> None:
    body = json.dumps({"apiVersion": RRA.api_version, "kind": RRA.kind, **rra(gpus=3)})
    with pytest.raises(KubectlError, match=r'unknown field "spec\.gpus"'):
        control_plane.kubectl("create", "--namespace", namespace, "--filename=-", stdin=body)


def test_explain_has_a_text_for_every_field(control_plane: ControlPlane) -> None:
    text = control_plane.kubectl("explain", "rra", "--recursive")
    assert "minGroups" in text
    for path in ("rra.spec", "rra.spec.decode", "rra.spec.metrics", "rra.status.roles", "rra.status.conditions"):
        page = control_plane.kubectl("explain", path)
        assert "<no description>" not in page, path
    assert "GPUs that both roles together may use" in control_plane.kubectl("explain", "rra.spec.gpuBudget")


async def test_status_is_written_once_on_the_version_that_was_seen(admin: KubeClient, namespace: str) -> None:
    seen = await admin.create(RRA, rra(mode="Active"), namespace)
    settings = settings_of(seen)
    status = status_of(settings, an_observation(), a_decision(), None, NOW_S, seen["metadata"]["generation"])
    assert await write_status(admin, seen, status)
    assert not await write_status(admin, seen, status | {"ratio": "9:1"}), "an old version is left alone"
    kept = await admin.get(RRA, "chat", namespace)
    assert kept["status"] == status
    assert kept["metadata"]["generation"] == seen["metadata"]["generation"]
    version = kept["metadata"]["resourceVersion"]
    again = status_of(settings, an_observation(), a_decision(), kept["status"], NOW_S + 2 * SETTLE_S, 1)
    assert not await write_status(admin, kept, again)
    assert (await admin.get(RRA, "chat", namespace))["metadata"]["resourceVersion"] == version


STATUSES: Mapping[str, Callable[[Settings], Object]] = {
    "off": lambda settings: switched_off(None, NOW_S, 1),
    "refused": lambda settings: refusal(["spec.profile: no such file"], None, NOW_S, 1),
    "blind": lambda settings: status_of(
        settings,
        replace(an_observation(), fleet=Fleet(Missing("no workload"), Missing("no workload"))),
        replace(a_decision(None, None, ()), forecast=Forecast(Missing("no workload"), Missing("no workload"))),
        None,
        NOW_S,
        1,
    ),
}


@pytest.mark.parametrize("what", STATUSES)
async def test_every_kind_of_status_fits_the_schema(admin: KubeClient, namespace: str, what: str) -> None:
    made = await admin.create(RRA, rra(mode="Active"), namespace)
    status = STATUSES[what](settings_of(made))
    assert await write_status(admin, made, status)
    assert (await admin.get(RRA, "chat", namespace))["status"] == status


async def test_status_is_not_settable_with_the_spec(admin: KubeClient, namespace: str) -> None:
    made = await admin.create(RRA, rra() | {"status": {"ratio": "9:1"}}, namespace)
    assert "status" not in made


async def test_one_line_says_what_it_is_doing_and_why(
    control_plane: ControlPlane, admin: KubeClient, namespace: str
) -> None:
    seen = await admin.create(RRA, rra(mode="Active"), namespace)
    status = status_of(settings_of(seen), an_observation(), a_decision(), None, NOW_S, 1)
    await write_status(admin, seen, status)
    head, row = control_plane.kubectl("get", "rra", "--namespace", namespace).splitlines()
    assert head.split() == ["NAME", "SERVICE", "MODE", "PREFILL", "DECODE", "RATIO", "ACTIVE", "WHY", "AGE"]
    assert row.split()[:-1] == ["chat", "chat", "Active", "1/1", "1/3", "1:3", "True", "decode", "Grow"]
    wide = control_plane.kubectl("get", "rra", "--namespace", namespace, "--output=wide")
    assert wide.splitlines()[0].split()[9:] == ["READY", "BUDGET", "BOTTLENECK", "LIMITED", "BLIND", "FOREIGN", "STEP"]
    assert "decode replicas 1 -> 3" in wide
