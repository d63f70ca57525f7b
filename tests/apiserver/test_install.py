"""The manifests on a real API server: accepted, exactly the rights that are needed, and both processes do with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from autoscaler.drivers.doctor import DoctorOptions, diagnose
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.config import load_config
from kubeapi.errors import NotFound
from kubeapi.kinds import Kind
from tests.apiserver.installed import Pod
from tests.apiserver.small_service import SERVICE, Service, service_in
from tests.controlplane.plane import ControlPlane
from tests.manifests import access
from tests.manifests.access import ACCOUNTS, ACTIVE, BASE, CONTROLLER, DRY_RUN, INSTALLS, MANIFESTS, SYSTEM, Access

SAR = Kind("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False)
ROLE = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False)
ROLES = {kind.kind: kind for kind in (ROLE, CLUSTER_ROLE)}
OUR_CRD = f"{kinds.RRA.plural}.{kinds.RRA.group}"
BEFORE = {"prefill": 1, "decode": 1, "prefill minimum": 1, "decode minimum": 1}
AFTER = dict.fromkeys(BEFORE, 2)


@pytest.fixture(scope="module", autouse=True)
def _other_tests_keep_their_crd(control_plane: ControlPlane) -> Iterator[None]:
    had = OUR_CRD in control_plane.kubectl("get", "crd", "--output=name")
    yield
    if had:
        control_plane.install_crds(MANIFESTS / "base" / "crd.yaml")


@pytest.fixture(scope="module", params=INSTALLS)
def install(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """Installed as docs/install.md says."""
    name = str(request.param)
    try:
        apply(control_plane, name)
        control_plane.kubectl("wait", "--for=condition=Established", f"crd/{OUR_CRD}", "--timeout=30s")
        yield name
    finally:
        uninstall(control_plane, name)


@pytest.fixture
async def service(
    control_plane: ControlPlane, lws_crd: None, admin: KubeClient, namespace: str
) -> AsyncIterator[Service]:
    async with service_in(admin, namespace) as made:
        yield made


def apply(plane: ControlPlane, install: str) -> None:
    plane.kubectl("apply", "--server-side", "-k", str(MANIFESTS / install))


def uninstall(plane: ControlPlane, install: str) -> None:
    """Delete it all. There is no kubelet here, so what kube-scheduler has bound is finished by hand."""
    plane.kubectl("delete", "-k", str(MANIFESTS / install), "--ignore-not-found", "--wait=false")
    deadline_s = time.monotonic() + 50.0
    while plane.kubectl("get", "namespace", SYSTEM, "--ignore-not-found", "-o", "name").strip():
        assert time.monotonic() < deadline_s, f"namespace {SYSTEM} is not gone"
        plane.kubectl("delete", "pods", "--all", "-n", SYSTEM, "--grace-period=0", "--force", "--wait=false")
        time.sleep(0.5)
    plane.kubectl("wait", "--for=delete", f"crd/{OUR_CRD}", "--timeout=30s")


async def until(
    true: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 30.0, *, said: Callable[[], str] = str
) -> None:
    """Wait for something; the message says what did not come, and what a process said meanwhile."""
    deadline_s = time.monotonic() + timeout_s
    while not await true():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}\n{said()}"
        await asyncio.sleep(0.1)


async def exists(client: KubeClient, kind: Kind, name: str, namespace: str | None = None) -> bool:
    try:
        await client.get(kind, name, namespace)
    except NotFound:
        return False
    return True


# --- accepted


async def test_its_pods_are_admitted(admin: KubeClient, install: str) -> None:
    async def both_have_pods() -> bool:
        pods = (await admin.list(kinds.POD, SYSTEM)).items
        return {pod["spec"]["serviceAccountName"] for pod in pods} == set(ACCOUNTS)

    await until(both_have_pods, "pods that Pod Security and the priority class let through")


async def test_an_upgrade_to_the_same_changes_nothing(
    control_plane: ControlPlane, admin: KubeClient, install: str
) -> None:
    before = [await admin.get(kinds.DEPLOYMENT, name, SYSTEM) for name in ACCOUNTS]
    apply(control_plane, install)
    after = [await admin.get(kinds.DEPLOYMENT, name, SYSTEM) for name in ACCOUNTS]
    assert [one["metadata"]["generation"] for one in after] == [one["metadata"]["generation"] for one in before]


# --- rights


async def allowed(client: KubeClient, wanted: Access) -> bool:
    """What the API server says."""
    group, _, path = wanted.resource.partition("/")
    resource, _, subresource = path.partition("/")
    attributes = {
        "verb": wanted.verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": wanted.namespace,
        "name": wanted.name,
    }
    user = f"system:serviceaccount:{SYSTEM}:{wanted.account}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{SYSTEM}", "system:authenticated"]
    answer = await client.create(SAR, {"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}})
    return bool(answer["status"].get("allowed", False))


async def those_allowed(client: KubeClient, wanted: set[Access]) -> set[Access]:
    ordered = sorted(wanted)
    verdicts = await asyncio.gather(*(allowed(client, one) for one in ordered))
    return {one for one, verdict in zip(ordered, verdicts, strict=True) if verdict}


async def exactly(client: KubeClient, granted: set[Access], of: set[Access], what: str) -> None:
    """The API server's authorizer follows a change of roles a moment later."""

    async def is_so() -> bool:
        return await those_allowed(client, of) == granted

    await until(is_so, what, 5)


async def test_all_that_is_needed_is_allowed_and_the_rest_denied(admin: KubeClient, install: str) -> None:
    needed = access.needed(install)
    await exactly(admin, needed, needed, "every need is allowed")
    assert await those_allowed(admin, access.refused(install)) == set()


@pytest.mark.parametrize("install", [ACTIVE], indirect=True)
async def test_each_rule_that_is_taken_away_is_missed(admin: KubeClient, install: str) -> None:
    needed = access.needed(install)
    roles = access.of_kind(access.render(install), *ROLES)
    rules = [(role, rule) for role in roles for rule in role["rules"]]
    assert len(rules) > len(access.ACCOUNTS) * 5
    for role, rule in rules:
        lost = set(access.granted(rule, account_of(role), role["metadata"].get("namespace", "")))
        await set_rules(admin, role, [other for other in role["rules"] if other is not rule])
        await exactly(admin, needed - lost, needed, f"without {rule} of {role['metadata']['name']} it is missed")
        await set_rules(admin, role, role["rules"])


def account_of(role: Object) -> str:
    return next(account for account in ACCOUNTS if role["metadata"]["name"].startswith(account))


async def set_rules(client: KubeClient, role: Object, rules: list[Object]) -> None:
    meta = role["metadata"]
    await client.patch(ROLES[role["kind"]], meta["name"], meta.get("namespace"), {"rules": rules})


# --- one reconciliation


@asynccontextmanager
async def running(plane: ControlPlane, install: str, folder: Path) -> AsyncIterator[dict[str, Pod]]:
    """Both processes, as their probes want them."""
    pods: dict[str, Pod] = {}
    try:
        for account in ACCOUNTS:
            pods[account] = Pod(plane, install, account, folder)
        for pod in pods.values():
            await until(pod.is_healthy, "a process whose probes are content", said=pod.said)
        yield pods
    finally:
        codes = {account: pod.stop() for account, pod in pods.items()}
    assert codes == dict.fromkeys(ACCOUNTS, 0)


@pytest.mark.parametrize("install", [DRY_RUN], indirect=True)
async def test_dry_run_says_what_it_would_do_and_changes_nothing(
    control_plane: ControlPlane, install: str, service: Service, tmp_path: Path
) -> None:
    await service.ask()
    async with running(control_plane, install, tmp_path) as pods:

        async def it_says_so() -> bool:
            return "would PATCH" in pods[CONTROLLER].said()

        await until(it_says_so, "a step that is only told", 60, said=pods[CONTROLLER].said)
    assert refusals(pods) == []
    assert await service.sizes() == BEFORE
    assert CONTROLLER not in await service.writers()


@pytest.mark.parametrize("install", [BASE], indirect=True)
async def test_a_right_that_is_missing_is_told_by_verb_and_resource(
    control_plane: ControlPlane, install: str, service: Service, tmp_path: Path
) -> None:
    await service.ask()
    async with running(control_plane, install, tmp_path) as pods:

        async def it_is_told() -> bool:
            message = await service.message("AbleToScale", "False")
            return 'cannot patch resource "leaderworkersets/scale"' in message

        await until(it_is_told, "a condition of the rra", 60, said=pods[CONTROLLER].said)
    assert await service.sizes() == BEFORE


@pytest.mark.parametrize("install", [DRY_RUN], indirect=True)
async def test_the_doctor_names_the_rights_that_are_missing(
    control_plane: ControlPlane, install: str, service: Service
) -> None:
    service.binds = True
    await service.ask()
    name, account = f"{service.namespace}/{SERVICE}", f"system:serviceaccount:{SYSTEM}:{CONTROLLER}"
    as_it = DoctorOptions(load_config(control_plane.kubeconfig_for(SYSTEM, CONTROLLER)), name)
    of_it = DoctorOptions(load_config(control_plane.kubeconfig), name, user=account)
    for options in (as_it, of_it):
        (found,) = await diagnose(options)
        assert found.cannot.startswith("AbleToScale=False: prefill WriteRefused (why=cannot patch leaderworkersets/sc")
        for right in ("patch leaderworkersets/scale", "patch deployments/scale", "patch podgroups"):
            told = [text for text in found.lacks if text.startswith(f"cannot {right} in namespace {service.namespace}")]
            assert told
            assert all(f"--serviceaccount={SYSTEM}:{CONTROLLER}" in text for text in told)
            assert right in found.cannot
        assert "events" not in found.cannot
    (found,) = await diagnose(DoctorOptions(load_config(control_plane.kubeconfig), name))
    assert (found.cannot, found.lacks) == ("", ()), "the admin has every right"


@pytest.mark.parametrize("install", [ACTIVE], indirect=True)
async def test_active_scales_and_uninstalling_leaves_the_sizes(
    control_plane: ControlPlane, admin: KubeClient, install: str, service: Service, tmp_path: Path
) -> None:
    await service.ask()
    async with running(control_plane, install, tmp_path) as pods:

        async def it_has_grown() -> bool:
            return await service.sizes() == AFTER

        await until(it_has_grown, "replicas and minimums moved", 60, said=pods[CONTROLLER].said)
    assert refusals(pods) == []
    assert CONTROLLER in await service.writers()
    uninstall(control_plane, install)
    gone = [(kinds.CRD, OUR_CRD), (kinds.NAMESPACE, SYSTEM), *((CLUSTER_ROLE, name) for name in ACCOUNTS)]
    assert [name for kind, name in gone if await exists(admin, kind, name)] == []
    assert await service.sizes() == AFTER


def refusals(pods: dict[str, Pod]) -> list[str]:
    """What the API server did not allow."""
    lines = [line for pod in pods.values() for line in pod.said().splitlines()]
    # The namespaces of tests before this one are on their way out; that 403 is of no right.
    return [line for line in lines if "forbidden" in line.lower() and "because it is being terminated" not in line]
