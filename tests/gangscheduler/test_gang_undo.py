"""Which half-bound TP groups and gangs give their places back, and which never do."""

from __future__ import annotations

from typing import Any

import pytest

from gangscheduler.place import place
from gangscheduler.undo import stuck
from tests.gangscheduler.builders import Object, node, podgroup, see, tp_group
from tests.gangscheduler.test_gang_layout import composite, leaf

OWNER = [{"kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}]
WAITING_CONTAINER = {"name": "main", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}


def half_bound(podgroup: str = "decode", index: int = 0, *, owners: Any = OWNER, **status: Any) -> list[Object]:
    """Two pods of eight GPUs each, the first on n0, where it has not started."""
    pods = tp_group(podgroup, index, [8, 8], on=["n0"], phase="Pending")
    for one in pods:
        one["metadata"]["ownerReferences"] = owners
    pods[0]["status"] |= status
    return pods


def found(nodes: list[Object], pods: list[Object], groups: list[Object]) -> dict[str, list[str]]:
    snapshot = see(nodes, pods, groups)
    return {name: [pod.key for pod in members] for name, members in stuck(snapshot, place(snapshot)).items()}


def test_a_tp_group_that_finds_no_room_for_its_rest_is_stuck() -> None:
    name = "TP group decode-0 of default/decode"
    assert found([node("n0")], half_bound(), [podgroup("decode")]) == {name: ["default/decode-0"]}


def test_a_gang_below_its_minimum_is_stuck_as_a_whole() -> None:
    """One TP group is whole, the other has no room: the minimum is all or nothing."""
    pods = [*tp_group("decode", 0, [8], on=["n0"], phase="Pending"), *tp_group("decode", 1, [8])]
    for one in pods:
        one["metadata"]["ownerReferences"] = OWNER
    assert found([node("n0")], pods, [podgroup("decode", 2)]) == {"gang default/decode": ["default/decode-0"]}
    assert found([node("n0")], pods, [podgroup("decode", 1)]) == {}, "its minimum is met; the other one is an extra"


def test_what_this_cycle_repairs_is_not_stuck() -> None:
    assert found([node("n0"), node("n1")], half_bound(), [podgroup("decode", 2)]) == {}


def test_a_bound_pod_whose_siblings_do_not_exist_yet_waits_for_its_controller() -> None:
    assert found([node("n0")], half_bound()[:1], [podgroup("decode", 2)]) == {}


def test_a_gated_sibling_is_its_owners_business() -> None:
    pods = half_bound()
    pods[1]["spec"]["schedulingGates"] = [{"name": "x"}]
    assert found([node("n0")], pods, [podgroup("decode")]) == {}


@pytest.mark.parametrize(
    "status",
    [
        {"containerStatuses": [WAITING_CONTAINER | {"state": {"running": {}}}]},
        {"containerStatuses": [WAITING_CONTAINER | {"state": {"terminated": {}}}]},
        {"containerStatuses": [WAITING_CONTAINER | {"lastState": {"terminated": {}}}]},
        {"containerStatuses": [WAITING_CONTAINER | {"restartCount": 1}]},
        {"initContainerStatuses": [WAITING_CONTAINER | {"state": {"running": {}}}]},
        {"phase": "Running"},
    ],
)
def test_what_has_started_stays(status: Object) -> None:
    assert found([node("n0")], half_bound(**status), [podgroup("decode")]) == {}


def test_what_is_still_being_started_does_not_count_as_started() -> None:
    assert found([node("n0")], half_bound(containerStatuses=[WAITING_CONTAINER]), [podgroup("decode")])


@pytest.mark.parametrize("owners", [[], [{"kind": "ReplicaSet", "name": "r", "uid": "u"}]])
def test_what_nobody_would_make_again_stays(owners: list[Object]) -> None:
    assert found([node("n0")], half_bound(owners=owners), [podgroup("decode")]) == {}


def test_one_that_has_started_keeps_all_of_its_tp_group() -> None:
    pods = tp_group("decode", 0, [8, 8, 8], on=["n0", "n1"], phase="Pending")
    for one in pods:
        one["metadata"]["ownerReferences"] = OWNER
    nodes, groups = [node("n0"), node("n1")], [podgroup("decode")]
    assert found(nodes, pods, groups) == {
        "TP group decode-0 of default/decode": ["default/decode-0", "default/decode-0-1"]
    }
    pods[1]["status"]["phase"] = "Running"
    assert found(nodes, pods, groups) == {}


def test_what_another_scheduler_has_bound_is_not_ours_to_take() -> None:
    pods = half_bound()
    pods[0]["spec"]["schedulerName"] = "default-scheduler"
    assert found([node("n0")], pods, [podgroup("decode")]) == {}


def in_a_tree(minimum: int, *bound: str) -> dict[str, list[str]]:
    """Two PodGroups of one pod below a composite; nodes for those that are bound, and no other."""
    pods = []
    for name in ("d-0", "d-1"):
        (one,) = tp_group(name, 0, [8], on=[f"n-{name}"] if name in bound else [], phase="Pending")
        one["metadata"]["ownerReferences"] = OWNER
        pods.append(one)
    groups = [composite("s", minimum), leaf("d-0", parent="s"), leaf("d-1", parent="s")]
    return found([node(f"n-{name}") for name in bound], pods, groups)


def test_a_tree_below_its_minimum_is_stuck_as_a_whole() -> None:
    assert in_a_tree(2, "d-0") == {"gang default/composite/s": ["default/d-0-0"]}
    assert in_a_tree(1, "d-0") == {}, "one is enough; the other one is an extra"
    assert in_a_tree(0, "d-0") == {}, "its children have nothing to do with each other"
