"""The largest group that still fits, per shape and level."""

from __future__ import annotations

from gangscheduler.core import Core
from gangscheduler.fragmentation import label, largest, shapes_of
from gangscheduler.model import LEVELS
from kubeapi import names
from tests.gangscheduler.builders import node, pod, podgroup, see, tp_group


def test_the_largest_group_of_every_level() -> None:
    nodes = [node(f"n{index}", place=f"z/b/r{index // 2}") for index in range(4)]
    nodes += [node("far", place="y/b/r0"), node("closed", place="z/b/r0", unschedulable=True), node("nowhere", 4)]
    pods = [*tp_group("decode", 0, [4, 4], on=["n0", "n1"]), *tp_group("decode", 1, [8, 8], on=["n2"])]
    core = Core()
    snapshot = see(nodes, pods, [podgroup("decode", 4)])
    core.decide(snapshot)
    four, eight = sorted(shapes_of(snapshot.pods), key=lambda shape: shape.requests[0][1])
    assert label(four) == f"{names.GPU}=4"
    # Free: n0 4, n1 4, n2 0, n3 8, far 8, nowhere 4 (in no rack, block or zone).
    assert dict(largest(core.cluster, LEVELS, four)) == dict(zip(("cluster", *LEVELS), (7, 4, 4, 2, 2), strict=True))
    assert dict(largest(core.cluster, LEVELS, eight)) == dict(zip(("cluster", *LEVELS), (2, 1, 1, 1, 1), strict=True))


def test_an_empty_cluster_holds_nothing() -> None:
    core, snapshot = Core(), see([], tp_group("decode", 0, [8]), [podgroup("decode", 1)])
    core.decide(snapshot)
    (shape,) = shapes_of(snapshot.pods)
    assert set(dict(largest(core.cluster, LEVELS, shape)).values()) == {0}


def test_only_gangs_of_ours_have_shapes() -> None:
    foreign = pod("x", 3, group="other", spec={"schedulerName": "default-scheduler"})
    assert shapes_of(see([], [pod("alone", 1), foreign], []).pods) == []
