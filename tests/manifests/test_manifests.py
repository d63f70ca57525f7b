"""What the manifests render to: the rights that are needed and no other, pods that may run anywhere, no replicas."""

from __future__ import annotations

from collections import Counter

import pytest

from roleratio.cli import build_parser
from tests.manifests import access
from tests.manifests.access import ACCOUNTS, ACTIVE, CONTROLLER, DRY_RUN, INSTALLS, ROOT, SCHEDULER, SYSTEM

CLUSTER_SCOPED = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


@pytest.fixture(scope="module", params=INSTALLS)
def install(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(install: str) -> list[access.Object]:
    return access.render(install)


def test_it_grants_what_is_needed_once_and_nothing_else(install: str, objects: list[access.Object]) -> None:
    granted = Counter(access.grants(objects))
    assert set(granted) == access.needed(install)
    assert {one: times for one, times in granted.items() if times > 1} == {}


def test_the_two_tables_do_not_contradict_each_other(install: str) -> None:
    assert access.needed(install) & access.refused(install) == set()


def test_only_active_may_change_a_workload_or_a_minimum() -> None:
    changes = {"create", "update", "patch", "delete", "deletecollection"}
    told = {f"{access.RRA}/status", "/events", access.LEASES}
    for install in INSTALLS:
        granted = access.grants(access.render(install))
        writes = {one.resource for one in granted if one.account == CONTROLLER and one.verb in changes} - told
        scales = {f"{access.LWS}/scale", "apps/deployments/scale", access.PODGROUPS}
        assert writes == (scales if install == ACTIVE else set())


def test_subjects_are_service_accounts_of_the_install(objects: list[access.Object]) -> None:
    accounts = {
        (one["metadata"]["namespace"], one["metadata"]["name"]) for one in access.of_kind(objects, "ServiceAccount")
    }
    bindings = access.of_kind(objects, "RoleBinding", "ClusterRoleBinding")
    subjects = [subject for binding in bindings for subject in binding["subjects"]]
    assert {subject["kind"] for subject in subjects} == {"ServiceAccount"}
    assert {(subject["namespace"], subject["name"]) for subject in subjects} == accounts
    assert accounts == {(SYSTEM, name) for name in ACCOUNTS}


def test_everything_is_in_one_namespace_and_labelled(objects: list[access.Object]) -> None:
    for one in objects:
        meta = one["metadata"]
        assert meta.get("namespace") == (None if one["kind"] in CLUSTER_SCOPED else SYSTEM)
        assert meta["labels"]["app.kubernetes.io/part-of"] == "roleratio"


def test_no_replicas_are_rendered_and_no_workload_but_ours(objects: list[access.Object]) -> None:
    deployments = access.of_kind(objects, "Deployment")
    assert sorted(one["metadata"]["name"] for one in deployments) == sorted(ACCOUNTS)
    assert not access.of_kind(objects, "LeaderWorkerSet", "PodGroup", "RoleRatioAutoscaler", "StatefulSet")
    assert [one for one in deployments if "replicas" in one["spec"]] == []


@pytest.mark.parametrize("name", ACCOUNTS)
def test_a_pod_may_do_nothing_on_its_node(objects: list[access.Object], name: str) -> None:
    pod = access.deployment(objects, name)["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == name
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "volumes" not in pod
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


@pytest.mark.parametrize("name", ACCOUNTS)
def test_probes_ports_and_resources(objects: list[access.Object], name: str) -> None:
    one = access.deployment(objects, name)
    (container,) = one["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    (port,) = container["ports"]
    assert f"--port={port['containerPort']}" in container["args"]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert set(container["resources"]["limits"]) == {"memory"}
    service = next(o for o in access.of_kind(objects, "Service") if o["metadata"]["name"] == name)
    assert service["spec"]["selector"] == one["spec"]["selector"]["matchLabels"]
    assert service["spec"]["ports"] == [{"name": "http", "port": port["containerPort"], "targetPort": "http"}]


@pytest.mark.parametrize("name", ACCOUNTS)
def test_the_command_line_knows_every_argument(objects: list[access.Object], name: str) -> None:
    (container,) = access.deployment(objects, name)["spec"]["template"]["spec"]["containers"]
    command, *options = container["args"]
    assert command == container["name"] == name.removeprefix("roleratio-")
    parsed = build_parser(command).parse_args([command, *options])
    assert parsed.leader_elect is True
    assert parsed.lease_namespace == "$(POD_NAMESPACE)"


def test_only_the_dry_run_forbids_what_an_rra_may_ask_for(install: str, objects: list[access.Object]) -> None:
    (container,) = access.deployment(objects, CONTROLLER)["spec"]["template"]["spec"]["containers"]
    assert ("--dry-run" in container["args"]) is (install == DRY_RUN)


def test_the_scheduler_is_not_preempted_by_what_it_places(objects: list[access.Object]) -> None:
    pods = {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in access.of_kind(objects, "Deployment")}
    assert pods[SCHEDULER]["priorityClassName"] == "system-cluster-critical"
    assert "priorityClassName" not in pods[CONTROLLER]


def test_the_docs_say_what_each_permission_is_for() -> None:
    rows = [
        line for line in (ROOT / "docs" / "install.md").read_text(encoding="utf-8").splitlines() if line[:3] == "| `"
    ]
    said = {tuple(cell.strip(" `") for cell in row.strip("|").split("|")) for row in rows}
    expected = {
        (
            need.account.removeprefix("roleratio-"),
            need.resource.removeprefix("/"),
            need.verbs.replace(" ", ", "),
            need.why,
        )
        for need in access.NEEDS
    }
    assert expected <= {row[:4] for row in said}
