"""An API server of an older Kubernetes, and a CRD of an older roleratio: named once, done without, used once there.

Rules:
1. The server is this release that behaves as an older one (`--emulated-version`). What it serves then is recorded
   here. Releases of that time had PodGroups and Workloads in v1alpha1 and v1alpha2, which 1.37 no longer knows;
   to us all of them are the same: no v1beta1.
2. Both processes run as installed, under their own service accounts. There is no controller manager.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from autoscaler.crd import crd
from autoscaler.drivers.doctor import DoctorOptions, diagnose
from kubeapi import kinds, names
from kubeapi.client import KubeClient, Object
from kubeapi.config import load_config
from tests.apiserver.conftest import LWS_CRD
from tests.apiserver.gangs import until
from tests.apiserver.installed import Pod
from tests.apiserver.small_service import SERVICE, Service, service_in
from tests.controlplane import start
from tests.controlplane.plane import ControlPlane
from tests.manifests.access import ACTIVE, CONTROLLER, MANIFESTS, SCHEDULER
from tests.shared_data import shared

pytestmark = pytest.mark.apiserver

V136, V135 = "v1.36", "v1.35"
FLAGS = {
    V136: (
        "--emulated-version=1.36",
        "--feature-gates=GenericWorkload=true",
        "--runtime-config=scheduling.k8s.io/v1alpha3=true",
    ),
    V135: ("--emulated-version=1.35",),
}
SERVED = {
    V136: {"v1": {"priorityclasses"}, "v1alpha3": {"podgroups", "podgroups/status", "workloads"}},
    V135: {"v1": {"priorityclasses"}},
}
NAMED = {
    V136: "podgroups.scheduling.k8s.io/v1beta1 is not served by Kubernetes v1.36, which serves v1alpha3",
    V135: "podgroups.scheduling.k8s.io/v1beta1 is not served by Kubernetes v1.35",
}
only_once = pytest.mark.parametrize("version", [V135], indirect=True)
OUR_CRD = f"{kinds.RRA.plural}.{kinds.RRA.group}"
NAMESPACE = "team-a"


@pytest.fixture(scope="module", params=[V136, V135])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def old(version: str, programs: start.Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server that behaves as that version, with everything installed."""
    alone = {name: program for name, program in programs.items() if name != start.CONTROLLER_MANAGER}
    with start.control_plane(alone, tmp_path_factory.mktemp(version), FLAGS[version]) as plane:
        plane.install_crds(shared(LWS_CRD))
        plane.kubectl("apply", "--server-side", "-k", str(MANIFESTS / ACTIVE))
        yield plane


@pytest.fixture
async def client(old: ControlPlane) -> AsyncIterator[KubeClient]:
    async with KubeClient(load_config(old.kubeconfig), field_manager="test") as made:
        yield made


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, plane: ControlPlane, account: str, folder: Path) -> Pod:
    """A process that is ended with the test."""
    pod = Pod(plane, ACTIVE, account, folder)
    stack.callback(pod.stop)
    return pod


@pytest.fixture
async def service(old: ControlPlane, client: KubeClient) -> AsyncIterator[Service]:
    """The small service, without PodGroups, in a namespace that nobody could clear away."""
    namespace = f"{NAMESPACE}-{len((await client.list(kinds.NAMESPACE)).items)}"
    await client.create(kinds.NAMESPACE, {"metadata": {"name": namespace}})
    old.kubectl("wait", "--for=condition=Established", f"crd/{OUR_CRD}", "--timeout=30s")
    async with service_in(client, namespace, podgroups=False) as made:
        yield made


async def events(service: Service, reason: str) -> list[Object]:
    """Those about the rra, by reason."""
    found = (await service.client.list(kinds.EVENT, service.namespace)).items
    return [one for one in found if one["reason"] == reason and one["involvedObject"]["kind"] == kinds.RRA.kind]


async def test_what_it_serves_of_scheduling(client: KubeClient, version: str) -> None:
    served = {}
    for one in (await client.read("/apis/scheduling.k8s.io"))["versions"]:
        resources = (await client.read(f"/apis/{one['groupVersion']}"))["resources"]
        served[one["version"]] = {resource["name"] for resource in resources}
    assert served == SERVED[version]
    assert await client.version() == version


async def test_the_controller_scales_names_the_api_and_leaves_minimums_alone(
    old: ControlPlane, version: str, service: Service, processes: ExitStack, tmp_path: Path
) -> None:
    await service.ask()
    pod = started(processes, old, CONTROLLER, tmp_path)

    async def grown() -> bool:
        return {await service.replicas(role) for role in ("prefill", "decode")} == {2}

    await until(grown)
    said = await until(lambda: service.message("Served", "False"))
    assert said == f"PodGroupsNotServed (why={NAMED[version]}: minimums are left alone)"
    assert await service.message("AbleToScale", "True") == ""
    assert await pod.page("/readyz") == (200, "ok")

    await until(lambda: events(service, "PodGroupsNotServed"))
    (event,) = await events(service, "PodGroupsNotServed")
    assert event["message"] == f"Served=False: {said}"
    assert event["count"] == 1
    assert pod.said().count("WARNING roleratio.cluster") == 1
    assert "podgroups/" not in pod.said(), "nothing is sent to a PodGroup"


async def test_the_scheduler_binds_what_names_no_podgroup_and_says_what_the_rest_waits_for(
    old: ControlPlane, version: str, service: Service, processes: ExitStack, tmp_path: Path
) -> None:
    pod = started(processes, old, SCHEDULER, tmp_path)
    await until(pod.is_healthy)
    await until(lambda: _answers(pod, f"ok, but {NAMED[version]}"))
    assert pod.said().count(f"{NAMED[version]}: pods are placed one by one; one that names a PodGroup waits") == 1

    async def prefill() -> Object:
        return await service.client.get(kinds.POD, "prefill-0", service.namespace)

    if "schedulingGroup" not in (await prefill())["spec"]:
        # Without its feature gate the server takes the field away: there is no gang to wait for.
        assert version == V135
        await until(lambda: _is(prefill, lambda seen: "nodeName" in seen["spec"]))
        return
    text = f"the PodGroup that the pod names does not exist: {NAMED[version]}"
    await until(lambda: _is(prefill, lambda seen: text in str(seen["status"].get("conditions"))))
    assert "nodeName" not in (await prefill())["spec"]


async def _answers(pod: Pod, text: str) -> bool:
    return await pod.page("/readyz") == (200, text)


async def _is(get: Callable[[], Any], true: Callable[[Object], bool]) -> bool:
    return true(await get())


# --- our own CRD


def older() -> Object:
    """As it could have been a version ago."""
    made = copy.deepcopy(crd())
    properties = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    del properties["spec"]["properties"]["ratioBand"]
    del properties["spec"]["properties"]["decode"]["default"]
    del properties["spec"]["properties"]["decode"]["properties"]["coldStartS"]
    del properties["status"]["properties"]["roles"]["items"]["properties"]["placeable"]
    return made


def without_status() -> Object:
    made = copy.deepcopy(crd())
    made["spec"]["versions"][0]["subresources"] = {}
    return made


def of_another_version() -> Object:
    made = copy.deepcopy(crd())
    made["spec"]["versions"][0]["name"] = "v1alpha0"
    return made


def replace_crd(plane: ControlPlane, wanted: Object | None) -> None:
    plane.kubectl("delete", "crd", OUR_CRD, "--ignore-not-found")
    if wanted is not None:
        plane.kubectl("create", "--filename=-", stdin=json.dumps(wanted))
        plane.kubectl("wait", "--for=condition=Established", f"crd/{OUR_CRD}", "--timeout=30s")


@pytest.fixture
def crds(old: ControlPlane) -> Iterator[Callable[[Object | None], None]]:
    """Put another CRD, or none, in the place of ours."""
    yield lambda wanted: replace_crd(old, wanted)
    replace_crd(old, crd())


Replace = Callable[[Object | None], None]


@only_once
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (lambda: None, "v1alpha1 is not served by Kubernetes v1.35; apply the CRD: kubectl apply --server-side -k"),
        (of_another_version, "v1alpha1 is not served by Kubernetes v1.35, which serves v1alpha0; apply the CRD"),
    ],
    ids=["no CRD", "another version"],
)
def test_without_its_kind_the_controller_ends_with_one_line(
    old: ControlPlane,
    crds: Replace,
    wanted: Callable[[], Object | None],
    said: str,
    processes: ExitStack,
    tmp_path: Path,
) -> None:
    crds(wanted())
    pod = started(processes, old, CONTROLLER, tmp_path)
    assert pod.wait() == 2
    assert f"roleratioautoscalers.roleratio.dev/{said}" in pod.said().splitlines()[-1]
    assert "Traceback" not in pod.said()


@only_once
async def test_without_our_kind_the_doctor_looks_at_what_labels_declare(
    old: ControlPlane, version: str, crds: Replace, service: Service
) -> None:
    service.binds = True
    note = {"metadata": {"annotations": {names.ANNOTATION_PROFILE: "qwen3-32b-a100-tp2"}}}
    await service.client.patch(kinds.LWS, "prefill", service.namespace, note)
    crds(None)
    name = f"{service.namespace}/{SERVICE}"
    (found,) = [one for one in await diagnose(DoctorOptions(load_config(old.kubeconfig))) if one.name == name]
    assert (found.source, found.cannot) == ("labels alone", "")
    said = "\n".join(found.also)
    assert "roleratioautoscalers.roleratio.dev/v1alpha1 is not served by Kubernetes v1.35; apply the CRD" in said
    assert NAMED[version] in said


@only_once
async def test_a_crd_that_lacks_fields_is_named_until_ours_is_applied(
    old: ControlPlane, crds: Replace, service: Service, processes: ExitStack, tmp_path: Path
) -> None:
    crds(older())
    pod = started(processes, old, CONTROLLER, tmp_path)
    await until(lambda: _says(service, pod, "it lacks spec.ratioBand, spec.decode.coldStartS, status.roles.placeable"))
    await service.ask()
    said = await until(lambda: service.message("Ready", "False"))
    assert "CRDOutdated (why=the CRD roleratioautoscalers.roleratio.dev/v1alpha1 is of another version" in said
    assert "apply ours: kubectl apply --server-side -k manifests/" in said
    await until(lambda: events(service, "CRDOutdated"))
    assert [event["count"] for event in await events(service, "CRDOutdated")] == [1]

    old.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=json.dumps(crd()))
    await until(lambda: _answers(pod, "ok"))
    await until(lambda: _no_longer(service))


async def _says(service: Service, pod: Pod, text: str) -> bool:
    status, said = await pod.page("/readyz")
    return status == 503 and text in said


async def _no_longer(service: Service) -> bool:
    return "CRDOutdated" not in await service.message("Ready", "False")


@only_once
async def test_a_crd_without_status_is_named_where_it_can_be(
    old: ControlPlane, crds: Replace, service: Service, processes: ExitStack, tmp_path: Path
) -> None:
    crds(without_status())
    pod = started(processes, old, CONTROLLER, tmp_path)
    await until(lambda: _says(service, pod, "it lacks the subresource status; apply ours"))
    await service.ask()
    (event,) = await until(lambda: events(service, "CRDOutdated"))
    assert "it lacks the subresource status" in event["message"]

    async def grown() -> bool:
        return {await service.replicas(role) for role in ("prefill", "decode")} == {2}

    await until(grown)
    assert f"status of rra {service.namespace}/{SERVICE}" not in pod.said(), "no write is tried that must fail"


# --- an API that comes later


@only_once
async def test_podgroups_of_an_upgraded_cluster_are_used_without_a_restart(
    old: ControlPlane, service: Service, processes: ExitStack, tmp_path: Path
) -> None:
    """The last test of its server: it is started again as what it really is, with the same data."""
    await service.ask()
    started(processes, old, CONTROLLER, tmp_path)
    scheduler = started(processes, old, SCHEDULER, tmp_path)
    await until(lambda: service.message("Served", "False"))
    await until(lambda: _answers(scheduler, f"ok, but {NAMED[V135]}"))

    async def ready() -> bool:
        found = (await service.client.get(kinds.RRA, SERVICE, service.namespace))["status"].get("roles", ())
        return any((role["name"], role.get("ready")) == ("prefill", 2) for role in found)

    await until(ready)
    start.restart_api_server(old, FLAGS[V135], (start.GATES, start.APIS))
    group = {
        "apiVersion": kinds.PODGROUP.api_version,
        "kind": kinds.PODGROUP.kind,
        "metadata": {"name": "prefill"},
        "spec": {"schedulingPolicy": {"gang": {"minCount": 1}}},
    }
    old.kubectl("create", "--namespace", service.namespace, "--filename=-", stdin=json.dumps(group))

    async def moved() -> bool:
        found = await service.client.get(kinds.PODGROUP, "prefill", service.namespace)
        return bool(found["spec"]["schedulingPolicy"]["gang"]["minCount"] == 2)

    await until(moved)
    await until(lambda: _answers(scheduler, "ok"))
    await until(lambda: _served(service))


async def _served(service: Service) -> bool:
    return await service.message("Served", "False") == ""
