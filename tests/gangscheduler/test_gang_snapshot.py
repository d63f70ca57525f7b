"""Raw Kubernetes objects are read as Kubernetes means them."""

from __future__ import annotations

from typing import Any

import pytest

from gangscheduler.eligibility import admits, rule_of
from gangscheduler.snapshot import BadQuantity, build, group_shape, pod_requests, pod_shape, quantity, uses_claims
from kubeapi import names
from tests.gangscheduler.builders import node, pod, pod_spec, podgroup, see, shape_notes, tp_group


@pytest.mark.parametrize(
    ("text", "resource", "amount"),
    [
        ("2", "cpu", 2000),
        ("500m", "cpu", 500),
        ("1.5", "cpu", 1500),
        ("100n", "cpu", 1),
        ("1Gi", "memory", 2**30),
        ("1G", "memory", 10**9),
        ("1e3", "memory", 1000),
        ("0.5Ki", "memory", 512),
        ("8", "nvidia.com/gpu", 8),
        ("2k", "pods", 2000),
    ],
)
def test_quantities(text: str, resource: str, amount: int) -> None:
    assert quantity(text, resource) == amount


@pytest.mark.parametrize("text", ["", "many", "1Zi", "1 Gi", "--1"])
def test_a_bad_quantity_names_the_resource_the_value_and_what_is_expected(text: str) -> None:
    with pytest.raises(BadQuantity, match=r"memory=.*expected a Kubernetes quantity"):
        quantity(text, "memory")


def container(requests: dict[str, str], limits: dict[str, str] | None = None, **extra: Any) -> dict[str, Any]:
    return {"resources": {"requests": requests, "limits": limits or {}}} | extra


@pytest.mark.parametrize(
    ("spec", "requests"),
    [
        ({"containers": [container({"cpu": "1"}), container({"cpu": "500m", "memory": "1Ki"})]},
         {"cpu": 1500, "memory": 1024}),
        ({"containers": [container({}, {names.GPU: "2"})]}, {names.GPU: 2}),
        ({"containers": [container({"cpu": "1"}, {"cpu": "2"})]}, {"cpu": 1000}),
        ({"containers": [container({"cpu": "1"})], "initContainers": [container({"cpu": "3"})]}, {"cpu": 3000}),
        ({"containers": [container({"cpu": "1"})],
          "initContainers": [container({"cpu": "1"}, restartPolicy="Always"), container({"cpu": "2"})]},
         {"cpu": 3000}),
        ({"containers": [container({"cpu": "1"})], "overhead": {"cpu": "250m"}}, {"cpu": 1250}),
        ({"containers": [{}]}, {}),
    ],
)  # fmt: skip
def test_pod_requests(spec: dict[str, Any], requests: dict[str, int]) -> None:
    assert pod_requests(spec) == requests


def test_claims_are_seen() -> None:
    assert uses_claims({"resourceClaims": [{"name": "gpu"}]})
    assert not uses_claims(pod_spec(8))


def test_the_shape_of_an_lws_group_and_of_a_deployment() -> None:
    worker, leader = {"spec": pod_spec(8)}, {"spec": pod_spec(0, "4")}
    lws = {"spec": {"leaderWorkerTemplate": {"size": 3, "workerTemplate": worker}}}
    assert group_shape(lws) == (pod_shape(pod_spec(8)),) * 3
    lws["spec"]["leaderWorkerTemplate"]["leaderTemplate"] = leader
    assert group_shape(lws) == (pod_shape(pod_spec(0, "4")), *[pod_shape(pod_spec(8))] * 2)
    assert group_shape({"spec": {"template": worker}}) == (pod_shape(pod_spec(8)),)


def test_finished_pods_are_left_out_and_terminating_ones_marked() -> None:
    pods = [pod("done", phase="Succeeded"), pod("broken", phase="Failed"), pod("leaving", terminating=True, on="n")]
    assert [(one.key, one.terminating) for one in see([], pods).pods] == [("default/leaving", True)]


def test_pods_of_a_tp_group_and_without_one() -> None:
    grouped, single = see([], [*tp_group("d", 1, [1, 1])[1:], pod("router")]).pods
    assert (grouped.group, grouped.tp_group, grouped.size, grouped.order) == ("default/d", "d-1", 2, (1, 1))
    assert (single.group, single.tp_group, single.size) == ("", "default/router", 1)


def test_a_podgroup_is_read_with_its_shape_and_bad_annotations_are_unknown() -> None:
    good = podgroup("a", 4, service="s", role="decode", priority=7, annotations=shape_notes(2, 8))
    bad = podgroup("b", annotations={names.ANNOTATION_PODS_PER_GROUP: "two"})
    one, other = see([], [], [good, bad]).groups
    assert (one.min_count, one.service, one.role, one.priority) == (4, "s", "decode", 7)
    assert (one.pods_per_group, one.gpus_per_pod) == (2, 8)
    assert (other.min_count, other.priority, other.pods_per_group, other.gpus_per_pod) == (0, None, None, None)


def test_a_node_without_a_ready_condition_or_a_readable_amount_is_no_room() -> None:
    raw = node("n", allocatable={"memory": "lots"})
    del raw["status"]["conditions"]
    (found,) = build(0.0, [raw], [], []).nodes
    assert not found.ready
    assert "memory" not in dict(found.allocatable)
    raw["spec"] = {"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}
    assert build(0.0, [raw], [], []).nodes[0].cordoned


def term(key: str, operator: str, *values: str) -> dict[str, Any]:
    expression = {"key": key, "operator": operator, "values": list(values)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


def tolerate(**fields: str) -> dict[str, Any]:
    return {"tolerations": [fields]}


TAINTED = node("n", taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])
LABELLED = node("n", labels={"gpu": "h100", "age": "5"})
PREFERRED_ONLY = node("n", taints=[{"key": "team", "value": "a", "effect": "PreferNoSchedule"}])
MET: dict[str, Any] = {"key": "gpu", "operator": "Exists"}
UNMET: dict[str, Any] = {"key": "gpu", "operator": "DoesNotExist"}


def either(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    listed = {"nodeSelectorTerms": [{"matchExpressions": one} if one else {} for one in terms]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": listed}}}


@pytest.mark.parametrize(
    ("raw", "spec", "admitted"),
    [
        (LABELLED, {"nodeSelector": {"gpu": "h100"}}, True),
        (LABELLED, {"nodeSelector": {"gpu": "a100"}}, False),
        (LABELLED, term("gpu", "In", "a100", "h100"), True),
        (LABELLED, term("gpu", "In", "a100"), False),
        (LABELLED, term("gpu", "NotIn", "a100"), True),
        (LABELLED, term("gpu", "NotIn", "h100"), False),
        (LABELLED, term("other", "NotIn", "x"), True),
        (LABELLED, term("gpu", "Exists"), True),
        (LABELLED, term("other", "Exists"), False),
        (LABELLED, term("other", "DoesNotExist"), True),
        (LABELLED, term("gpu", "DoesNotExist"), False),
        (LABELLED, term("age", "Gt", "4"), True),
        (LABELLED, term("age", "Gt", "5"), False),
        (LABELLED, term("age", "Lt", "6"), True),
        (LABELLED, term("gpu", "Lt", "6"), False),
        (LABELLED, term("gpu", "Resembles", "h100"), False),
        (LABELLED, either([UNMET], [MET]), True),
        (LABELLED, either([UNMET, MET]), False),
        (LABELLED, either([]), False),
        (TAINTED, {}, False),
        (TAINTED, tolerate(key="team", value="a", effect="NoSchedule"), True),
        (TAINTED, tolerate(key="team", value="a"), True),
        (TAINTED, tolerate(key="team", value="b"), False),
        (TAINTED, tolerate(key="team", operator="Exists"), True),
        (TAINTED, tolerate(operator="Exists"), True),
        (TAINTED, tolerate(key="team", operator="Exists", effect="NoExecute"), False),
        (PREFERRED_ONLY, {}, True),
    ],
)
def test_which_nodes_admit_a_pod(raw: dict[str, Any], spec: dict[str, Any], admitted: bool) -> None:
    (found,) = see([raw]).nodes
    assert admits(found, rule_of(pod_shape(pod_spec(1, **spec)))) is admitted
