"""Groups and pods that contradict each other are named before anything is placed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gangscheduler.layout import checked
from gangscheduler.model import Group, Snapshot
from gangscheduler.snapshot import build
from kubeapi import names
from tests.gangscheduler.builders import Object, node, pod, podgroup, tp_group

T0_S = 1767225600.0


def composite(name: str, minimum: int = 1, **spec: Any) -> Object:
    """A CompositePodGroup; spec: parent, topology."""
    raw = podgroup(name) | {"kind": "CompositePodGroup"}
    policy = {"gang": {"minGroupCount": minimum}} if minimum else {"basic": {}}
    raw["spec"] = {"schedulingPolicy": policy} | _in_tree(**spec)
    return raw


def leaf(name: str, minimum: int = 1, **spec: Any) -> Object:
    """A PodGroup in a tree."""
    raw = podgroup(name, minimum)
    raw["spec"] |= _in_tree(**spec)
    return raw


def _in_tree(parent: str = "", topology: str = "") -> Object:
    spec: Object = {"parentCompositePodGroupName": parent} if parent else {}
    return spec | ({"schedulingConstraints": {"topology": [{"key": topology}]}} if topology else {})


def problems(groups: list[Object], pods: list[Object] | None = None) -> dict[str, str]:
    snapshot = build(T0_S, [node("n0")], pods or [], groups)
    return {group.key: group.problem for group in snapshot.groups if group.problem}


def test_a_sound_tree_is_read_as_it_is() -> None:
    groups = [
        composite("s", 2),
        composite("decode", 1, parent="s"),
        leaf("d-0", 2, parent="decode", topology=names.HOSTNAME),
    ]
    snapshot = build(T0_S, [], [], groups)
    found = {group.key: group for group in snapshot.groups}
    assert not any(group.problem for group in snapshot.groups)
    root, role, tp = (found[key] for key in ("default/composite/s", "default/composite/decode", "default/d-0"))
    assert (root.composite, root.min_count, root.parent) == (True, 2, "")
    assert (role.composite, role.min_count, role.parent) == (True, 1, root.key)
    assert (tp.composite, tp.min_count, tp.parent, tp.required_level) == (False, 2, role.key, names.HOSTNAME)


def test_a_podgroup_and_a_composite_of_the_same_name_are_two() -> None:
    snapshot = build(T0_S, [], [], [composite("decode"), leaf("decode", parent="decode")])
    assert [group.key for group in snapshot.groups] == ["default/composite/decode", "default/decode"]
    assert not any(group.problem for group in snapshot.groups)


def test_a_circle_is_a_problem_of_all_in_it_and_below() -> None:
    groups = [composite("a", parent="b"), composite("b", parent="a"), leaf("x", parent="a"), leaf("fine")]
    found = problems(groups)
    assert found.keys() == {"default/composite/a", "default/composite/b", "default/x"}
    assert "is its own ancestor" in found["default/x"]
    assert "is its own ancestor" in problems([composite("self", parent="self")])["default/composite/self"]


def test_a_parent_that_does_not_exist_is_named() -> None:
    found = problems([leaf("x", parent="lost"), leaf("y", parent="lost")])
    assert found["default/x"] == "the parent default/composite/lost of default/x does not exist"
    assert found["default/y"] == found["default/x"], "one tree, one problem"


def test_a_tree_that_is_too_deep() -> None:
    chain = [composite("c0"), *(composite(f"c{index}", parent=f"c{index - 1}") for index in range(1, 4))]
    assert problems(chain) == {}
    found = problems([*chain, leaf("x", parent="c3")])
    assert found["default/composite/c0"] == "default/x is 5 levels deep; at most 4 are allowed"
    assert len(found) == 5


def test_a_topology_key_that_no_level_has() -> None:
    found = problems([composite("s"), leaf("x", parent="s", topology="example.com/aisle"), leaf("y", parent="s")])
    assert found.keys() == {"default/composite/s", "default/x", "default/y"}
    assert "example.com/aisle; this scheduler knows topology.kubernetes.io/zone" in found["default/y"]
    annotated = podgroup("z")
    annotated["metadata"]["annotations"] = {names.ANNOTATION_GROUP_TOPOLOGY: "rack"}
    assert "topology key rack" in problems([annotated])["default/z"]


def test_pods_of_one_tree_with_different_schedulers() -> None:
    groups = [composite("s", 2), leaf("x", parent="s"), leaf("y", parent="s"), leaf("other")]
    mine = pod("a", 1, group="x")
    foreign = pod("b", 1, group="y", spec={"schedulerName": "default-scheduler"})
    found = problems(groups, [mine, foreign, pod("c", 1, group="other")])
    assert found.keys() == {"default/composite/s", "default/x", "default/y"}
    assert "different schedulers" in found["default/x"]
    leaving = foreign | {"metadata": foreign["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert problems(groups, [mine, leaving]) == {}


def test_pods_beyond_the_size_of_their_tp_group_are_not_placed() -> None:
    pods = tp_group("decode", 0, [1, 1, 1], on=["n0"])
    for one in pods:
        one["metadata"]["annotations"][names.LWS_SIZE] = "2"
    pods[2]["spec"]["nodeName"] = "n0"
    snapshot = build(T0_S, [node("n0")], pods, [podgroup("decode", 1)])
    said = {one.key: one.unsupported for one in snapshot.pods if one.unsupported}
    assert said == {"default/decode-0-1": "TP group decode-0 has 3 pods and a size of 2"}


def test_nothing_wrong_is_the_same_snapshot() -> None:
    snapshot = build(T0_S, [node("n0")], tp_group("decode", 0, [1, 1]), [podgroup("decode", 2)])
    assert checked(snapshot) is snapshot


@given(st.lists(st.integers(-1, 7), min_size=1, max_size=8))
def test_whatever_the_parents_are_it_ends_and_blames_whole_trees(parents: list[int]) -> None:
    groups = tuple(
        Group(f"g{index}", "", composite=True, parent=f"g{parent}" if parent >= 0 else "")
        for index, parent in enumerate(parents)
    )
    found = {group.key: group for group in checked(Snapshot(0.0, (), (), groups)).groups}
    for group in groups:
        if group.parent in found:
            assert bool(found[group.parent].problem) == bool(found[group.key].problem)
        elif group.parent:
            assert found[group.key].problem
    assert all(not group.parent for group in found.values() if group.problem)
