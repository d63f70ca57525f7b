"""Kubernetes objects to a Fleet: counts by identity, unknown never zero, every problem named."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.adapters.act import patch_for
from autoscaler.adapters.fleet import Seen, World, look
from autoscaler.model import RoleFleet, Step, Writer
from kubeapi import names
from policies.model import Missing, Role
from tests.autoscaler.objects import Object, at, container, group, lws, node, podgroup


def see(
    *,
    workloads: list[Object] | None = None,
    pods: list[Object] | None = None,
    podgroups: list[Object] | None = None,
    nodes: list[Object] | None = None,
) -> Seen:
    world = World(
        [lws("prefill"), lws("decode")] if workloads is None else workloads,
        pods or [],
        [podgroup("prefill", 2), podgroup("decode", 2)] if podgroups is None else podgroups,
        [node("n1", 8), node("n2", 8)] if nodes is None else nodes,
    )
    return look(world, "ns", "demo", 200.0)


def role(seen: Seen, name: Role = Role.PREFILL) -> RoleFleet:
    fleet = seen.fleet[name]
    assert isinstance(fleet, RoleFleet)
    return fleet


def test_groups_are_counted_by_their_pods() -> None:
    half = group("prefill", 1)
    half[1]["status"]["conditions"][0]["status"] = "False"
    leaving = group("prefill", 2, deletionTimestamp=at(190))
    fleet = role(see(pods=[*group("prefill", 0), *half, *leaving]))
    assert (fleet.ready, fleet.present) == (1, 3)
    assert [group.pods[0] for group in fleet.groups] == ["prefill-0", "prefill-1", "prefill-2"]


def test_a_cold_start_lasts_until_the_last_rank_is_ready() -> None:
    assert role(see(pods=group("prefill", 0))).ready_after_s == (9.0,)


def test_the_wait_for_a_node_is_no_part_of_a_cold_start() -> None:
    pods = group("prefill", 0)
    pods[1]["status"]["conditions"].append({"type": "PodScheduled", "status": "True", "lastTransitionTime": at(104)})
    assert role(see(pods=pods)).ready_after_s == (5.0,)


def test_groups_that_have_no_place_are_told_by_their_ordinals_unless_they_leave() -> None:
    waits, leaves = group("prefill", 1, ready=False), group("prefill", 10, ready=False, deletionTimestamp=at(190))
    for pod in (waits[1], leaves[1]):
        del pod["spec"]["nodeName"]
    fleet = role(
        see(workloads=[lws("prefill", replicas=4), lws("decode")], pods=[*group("prefill", 0), *waits, *leaves])
    )
    assert {(one.ordinal, one.waits) for one in fleet.groups} == {(0, False), (1, True), (10, False)}
    assert (fleet.present, fleet.unborn, fleet.unplaced, fleet.held) == (3, 2, 3, 5)


def test_only_ready_leaders_and_routers_have_metrics() -> None:
    loading = group("decode", 0, ready=False)
    seen = see(pods=[*group("prefill", 0), *loading])
    assert [(target.pod, target.role, target.url) for target in seen.targets] == [
        ("prefill-0", "prefill", "http://127.0.0.1:8000/metrics")
    ]


def test_every_pod_of_a_group_that_names_its_metrics_port_is_read_and_joined_by_its_labels() -> None:
    pods = group("decode", 0)
    for pod in pods:
        pod["spec"]["containers"][0]["ports"][0]["name"] = "metrics"
    targets = see(pods=pods).targets
    assert [(target.pod, target.uid, target.group, target.leader) for target in targets] == [
        ("decode-0", "uid-decode-0", "decode-0", True),
        ("decode-0-1", "uid-decode-0-1", "decode-0", False),
    ]
    assert {target.start_s for target in targets} == {100.0}
    assert [target.ready_s for target in targets] == [108.0, 109.0]


def test_a_router_that_is_not_ready_is_a_failure() -> None:
    router = group("router", 0, ready=False)[:1]
    assert see(pods=router).failures == {"router-0": "the router is not ready"}


def led(name: str, leader: Object, worker: Object) -> Object:
    """A workload whose leader has a template of its own."""
    made = lws(name, containers=[worker])
    template = made["spec"]["leaderWorkerTemplate"]
    template["leaderTemplate"] = {**template["workerTemplate"], "spec": {"containers": [leader]}}
    return made


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        pytest.param(led("prefill", container(None), container(8)), 8, id="a leader without GPUs"),
        pytest.param(lws("prefill", gpus=2), 4, id="per pod times pods"),
        pytest.param(lws("prefill", gpus=0), 0, id="an explicit zero"),
        pytest.param(lws("prefill", containers=[container(None), container(4)]), 8, id="second container"),
        pytest.param(lws("prefill", initContainers=[container(1, restartPolicy="Always")]), 4, id="sidecar"),
        pytest.param(
            lws("prefill", containers=[{"name": "x", "resources": {"limits": {names.GPU: "1"}}}]), 2, id="limits only"
        ),
    ],
)
def test_gpu_cost(workload: Object, expected: int) -> None:
    assert role(see(workloads=[workload, lws("decode")])).gpus_per_group == expected


@pytest.mark.parametrize(
    "workload",
    [
        lws("prefill", gpus=None),
        lws("prefill", gpus=None, resourceClaims=[{"name": "gpu"}]),
        lws("prefill", gpus="many"),
        led("prefill", leader=container(0), worker=container(None)),
    ],
    ids=["nothing is said", "a claim", "no number", "only the leader says none"],
)
def test_unknown_cost_is_missing_and_a_problem(workload: Object) -> None:
    seen = see(workloads=[workload, lws("decode")])
    assert isinstance(role(seen).gpus_per_group, Missing)
    assert any("LeaderWorkerSet prefill" in problem for problem in seen.fleet.problems)


def test_an_unknown_role_label_is_named_with_the_valid_ones() -> None:
    seen = see(workloads=[lws("prefill"), lws("decode"), lws("prefil", name="typo")])
    assert seen.fleet.problems == (
        "LeaderWorkerSet typo: label roleratio.dev/role='prefil' is not a role; use one of prefill, decode, router",
    )


def test_two_workloads_on_one_role_are_no_workload() -> None:
    seen = see(workloads=[lws("prefill"), lws("prefill", name="other"), lws("decode")])
    fleet = seen.fleet[Role.PREFILL]
    assert isinstance(fleet, Missing)
    assert "LeaderWorkerSet other and LeaderWorkerSet prefill both claim" in fleet.missing


@pytest.mark.parametrize(
    ("podgroups", "why"),
    [
        ([], "PodGroup prefill does not exist"),
        (
            [podgroup("prefill", 2, ownerReferences=[{"kind": "LeaderWorkerSet", "name": "x", "controller": True}])],
            "belongs to LeaderWorkerSet x",
        ),
    ],
)
def test_minimums_that_are_not_ours(podgroups: list[Object], why: str) -> None:
    minimum = role(see(podgroups=podgroups)).min_pods
    assert isinstance(minimum, Missing)
    assert why in minimum.missing


def managed(manager: str, time_s: float, field: str = "f:replicas") -> Object:
    return {"manager": manager, "operation": "Update", "time": at(time_s), "fieldsV1": {"f:spec": {field: {}}}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], None),
        ([managed("kubectl", 50)], Writer("kubectl", 50.0)),
        ([managed(names.MANAGER_CONTROLLER, 60)], None),
        ([managed("helm", 40), managed("kubectl", 50)], Writer("kubectl", 50.0)),
        ([managed("argocd", 50, "f:template")], Writer("argocd", 50.0)),
    ],
)
def test_who_wrote_replicas(fields: list[Object], expected: Writer | None) -> None:
    workload = lws("prefill")
    workload["metadata"]["managedFields"] = fields
    fleet = role(see(workloads=[workload, lws("decode")]))
    assert fleet.writer == expected
    assert (fleet.owner == "nobody") == (fields == [managed("argocd", 50, "f:template")])


def test_fit_is_in_whole_groups_and_counts_no_cordoned_node() -> None:
    nodes = [node("n1", 3), node("n2", 4), node("n3", 8, unschedulable=True)]
    fleet = role(see(nodes=nodes, podgroups=[]))
    assert fleet.fit == 3


def test_other_services_and_namespaces_are_not_ours() -> None:
    foreign: dict[str, Any] = lws("prefill", name="foreign")
    foreign["metadata"]["namespace"] = "elsewhere"
    assert role(see(workloads=[lws("prefill"), foreign, lws("decode")])).name == "prefill"


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (
            Step("replicas", Role.PREFILL, 1, 3),
            "PATCH /apis/leaderworkerset.x-k8s.io/v1/namespaces/ns/leaderworkersets/prefill/scale "
            '[{"op":"test","path":"/spec/replicas","value":1},{"op":"replace","path":"/spec/replicas","value":3}]',
        ),
        (
            Step("min_count", Role.PREFILL, 2, 4),
            "PATCH /apis/scheduling.k8s.io/v1beta1/namespaces/ns/podgroups/prefill "
            '[{"op":"test","path":"/spec/schedulingPolicy/gang/minCount","value":2},'
            '{"op":"replace","path":"/spec/schedulingPolicy/gang/minCount","value":4}]',
        ),
    ],
)
def test_patches(step: Step, text: str) -> None:
    assert str(patch_for(step, role(see()))) == text
