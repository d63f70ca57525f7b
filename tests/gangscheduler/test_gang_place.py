"""What `place` and `how_many_fit` decide, case by case."""

from __future__ import annotations

import pytest

from gangscheduler.cycle import UNKNOWN_FLOOR_WAIT_S
from gangscheduler.model import Reason
from gangscheduler.place import how_many_fit, place
from tests.gangscheduler.builders import (
    T0_S,
    bound,
    node,
    pod,
    podgroup,
    see,
    shape_notes,
    template,
    tp_group,
    verdict,
)

EARLIER, LATER = "2025-12-31T00:00:00Z", "2026-01-02T00:00:00Z"


def test_a_tp_group_is_placed_whole_or_not_at_all() -> None:
    groups = [podgroup("decode", 2)]
    pods = [*tp_group("decode", 0, [8, 8]), *tp_group("decode", 1, [8, 8])]
    found = place(see([node("n0"), node("n1"), node("n2")], pods, groups))
    assert bound(found) == {"decode-0": "n0", "decode-0-1": "n1"}
    said = verdict(found, "decode")
    assert (said.desired, said.admitted, said.placeable_now, said.reason, said.limiting_resource) == (
        2, 1, 1, Reason.INSUFFICIENT_RESOURCE, "nvidia.com/gpu",
    )  # fmt: skip


def test_an_incomplete_tp_group_waits() -> None:
    pods = tp_group("decode", 0, [8, 8], only=1)
    found = place(see([node("n0"), node("n1")], pods, [podgroup("decode", 2)]))
    assert not found.bindings
    assert verdict(found, "decode").reason == Reason.INCOMPLETE_GROUP
    assert [one.reason for one in found.waiting] == [Reason.INCOMPLETE_GROUP]


def test_a_minimum_is_all_or_nothing_and_says_how_many_would_fit() -> None:
    pods = [one for index in range(3) for one in tp_group("decode", index, [8])]
    found = place(see([node("n0"), node("n1")], pods, [podgroup("decode", 3)]))
    assert not found.bindings
    said = verdict(found, "decode")
    assert (said.admitted, said.placeable_now, said.floor, said.reason) == (0, 2, 3, Reason.INSUFFICIENT_RESOURCE)
    assert said.message.startswith("0 of 3 TP groups admitted, 2 placeable now, floor 3")


def test_a_minimum_with_too_few_pods_waits_and_says_so() -> None:
    found = place(see([node("n0")], tp_group("decode", 0, [1]), [podgroup("decode", 2)]))
    assert not found.bindings
    assert verdict(found, "decode").reason == Reason.MINIMUM_NOT_MET


def test_one_podgroup_for_each_tp_group_works_by_itself() -> None:
    pods = [*tp_group("decode-0", 0, [8, 8]), *tp_group("decode-1", 0, [8, 8])]
    groups = [podgroup("decode-0", 2), podgroup("decode-1", 2)]
    found = place(see([node("n0"), node("n1"), node("n2")], pods, groups))
    assert set(bound(found)) == {"decode-0-0", "decode-0-0-1"}


@pytest.mark.parametrize("gpus", range(2, 9))
def test_neither_role_takes_what_the_other_ones_floor_needs(gpus: int) -> None:
    pods = [one for role in "pd" for index in range(4) for one in tp_group(role, index, [1])]
    groups = [podgroup("p", 1, service="s"), podgroup("d", 1, service="s", created=LATER)]
    found = place(see([node("n0", gpus)], pods, groups))
    admitted = {name: verdict(found, name).admitted for name in "pd"}
    assert sum(admitted.values()) == gpus
    assert admitted["p"] - admitted["d"] in (0, 1), "extras go in turn"


def test_a_floor_without_pods_holds_room_by_its_annotations() -> None:
    pods = [one for index in range(4) for one in tp_group("p", index, [2])]
    groups = [
        podgroup("p", 1, service="s"),
        podgroup("d", 2, service="s", annotations=shape_notes(2, 4)),
    ]
    found = place(see([node("n0"), node("n1", 4)], pods, groups))
    assert verdict(found, "p").admitted == 2, "12 GPUs less the 8 of decode's floor"
    assert verdict(found, "p").reason == Reason.SIBLING_FLOOR_FIRST
    assert verdict(found, "d").reason == Reason.MINIMUM_NOT_MET


def test_held_room_is_packed_exactly_not_summed() -> None:
    pods = [one for index in range(3) for one in tp_group("p", index, [2])]
    groups = [podgroup("p", 0, service="s"), podgroup("d", 1, service="s", annotations=shape_notes(1, 4))]
    found = place(see([node("n0", 4), node("n1", 2), node("n2", 2)], pods, groups))
    assert set(bound(found).values()) == {"n1", "n2"}, "only n0 can take decode's pod"


def test_a_floor_of_unknown_shape_makes_siblings_wait_for_a_while() -> None:
    pods = [one for index in range(2) for one in tp_group("p", index, [1])]
    groups = [podgroup("p", 1, service="s"), podgroup("d", 1, service="s")]
    early = place(see([node("n0")], pods, groups, T0_S + UNKNOWN_FLOOR_WAIT_S - 1))
    assert (verdict(early, "p").admitted, verdict(early, "p").reason) == (1, Reason.SIBLING_FLOOR_FIRST)
    late = place(see([node("n0")], pods, groups, T0_S + UNKNOWN_FLOOR_WAIT_S))
    assert verdict(late, "p").admitted == 2


def test_a_floor_that_cannot_be_met_keeps_what_it_could_use_from_extras() -> None:
    pods = [
        *(one for index in range(3) for one in tp_group("p", index, [8])),
        *(one for index in range(3) for one in tp_group("d", index, [8])),
    ]
    groups = [podgroup("p", 1, service="s"), podgroup("d", 3, service="s", created=LATER)]
    found = place(see([node("n0"), node("n1"), node("n2")], pods, groups))
    assert (verdict(found, "p").admitted, verdict(found, "d").admitted) == (1, 0)
    assert (verdict(found, "d").placeable_now, verdict(found, "p").reason) == (2, Reason.SIBLING_FLOOR_FIRST)


def test_running_pods_count_for_the_minimum_and_terminating_ones_only_for_room() -> None:
    pods = [
        *tp_group("d", 0, [8], on=["n0"]),
        *tp_group("d", 1, [8], on=["n1"], terminating=True),
        *tp_group("d", 2, [8]),
    ]
    found = place(see([node("n0"), node("n1")], pods, [podgroup("d", 2)]))
    said = verdict(found, "d")
    assert not found.bindings
    assert (said.desired, said.admitted, said.reason) == (2, 1, Reason.NOMINATED)
    assert [(one.pod, one.node) for one in found.nominations] == [("default/d-2", "n1")]


def test_pods_without_a_podgroup_come_after_the_minimums() -> None:
    pods = [pod("single", 8, created=EARLIER), *tp_group("d", 0, [8])]
    assert bound(place(see([node("n0")], pods, [podgroup("d", 1)]))) == {"d-0": "n0"}


def test_what_is_not_ours_gated_or_without_its_podgroup_is_not_bound() -> None:
    pods = [
        pod("foreign", spec={"schedulerName": "default-scheduler"}),
        pod("gated", spec={"schedulingGates": [{"name": "wait"}]}),
        pod("orphan", group="nowhere"),
        pod("claims", spec={"resourceClaims": [{"name": "gpu"}]}),
        pod("odd", cpu="many"),
    ]
    found = place(see([node("n0")], pods))
    assert not found.bindings
    assert {one.pod: one.reason for one in found.waiting} == {
        "default/orphan": Reason.POD_GROUP_MISSING,
        "default/claims": Reason.UNSUPPORTED_CONSTRAINT,
        "default/odd": Reason.UNSUPPORTED_CONSTRAINT,
    }


def test_one_bad_tp_group_does_not_stop_the_others_of_its_minimum() -> None:
    pods = [one for index, gpu in enumerate([99, 1, 1]) for one in tp_group("d", index, [gpu])]
    found = place(see([node("n0")], pods, [podgroup("d", 2)]))
    assert set(bound(found)) == {"d-1", "d-2"}


def test_a_minimum_is_packed_jointly_where_the_best_places_collide() -> None:
    """At its best place the first TP group sits whole on n2; both workers need n2, the leaders the rest."""
    pods = [one for index in range(2) for one in tp_group("d", index, [1, 2])]
    found = place(see([node("n0", 1), node("n1", 1), node("n2", 4)], pods, [podgroup("d", 4)]))
    assert bound(found) == {"d-0": "n0", "d-1": "n1", "d-0-1": "n2", "d-1-1": "n2"}


def test_groups_stay_in_one_rack_near_their_siblings_and_leave_large_holes() -> None:
    nodes = [node(f"n{rack}{host}", 4, place=f"z/b{rack // 2}/r{rack}") for rack in range(4) for host in range(2)]
    pods = [*tp_group("d", 0, [4], on=["n20"]), *tp_group("d", 1, [2, 2, 2])]
    found = place(see(nodes, pods, [podgroup("d", 1)]))
    assert {name[:2] for name in bound(found).values()} == {"n3"}, "not r2 (too full), but its block"


def test_a_small_pod_takes_the_fullest_node() -> None:
    pods = [pod("a", 6, on="n1"), pod("b", 1)]
    assert bound(place(see([node("n0"), node("n1")], pods))) == {"b": "n1"}


def test_equal_names_of_racks_in_different_zones_are_different_racks() -> None:
    nodes = [node("a", 1, place="z1/b/r"), node("b", 1, place="z2/b/r"), node("c", 1, place="z2/b/r")]
    assert set(bound(place(see(nodes, tp_group("d", 0, [1, 1]), [podgroup("d", 2)]))).values()) == {"b", "c"}


@pytest.mark.parametrize(
    ("filler_created", "filler_priority", "winner"),
    [(EARLIER, 0, "g"), (LATER, 0, "g"), (EARLIER, 10, "f")],
)
def test_field_case_broken_gang_goes_last(filler_created: str, filler_priority: int, winner: str) -> None:
    pods = [*tp_group("g", 0, [1], on=["n1"]), *tp_group("g", 1, [1]), *tp_group("f", 0, [1])]
    groups = [podgroup("g", 2), podgroup("f", 1, created=filler_created, priority=filler_priority)]
    found = bound(place(see([node("n1", 1), node("n2", 1)], pods, groups)))
    assert found == {{"g": "g-1", "f": "f-0"}[winner]: "n2"}


@pytest.mark.parametrize("b_created", [EARLIER, LATER])
def test_field_case_moved_member_not_charged(b_created: str) -> None:
    pods = [*tp_group("a", 0, [8, 8], on=["n2"]), *tp_group("b", 0, [8])]
    groups = [podgroup("a", 2), podgroup("b", 1, created=b_created)]
    found = place(see([node("n2"), node("n3")], pods, groups))
    assert bound(found) == {"a-0-1": "n3"}
    assert (verdict(found, "b").admitted, verdict(found, "b").placeable_now) == (0, 0)


def test_field_case_leader_is_different() -> None:
    taint = {"key": "leaders", "value": "only", "effect": "NoSchedule"}
    cpu_node = node("cpu", 0, labels={"leader-ok": "true"}, taints=[taint])
    toleration = {"key": "leaders", "operator": "Equal", "value": "only", "effect": "NoSchedule"}
    leader, worker = tp_group("d", 0, [0, 8])
    leader["spec"] |= {"nodeSelector": {"leader-ok": "true"}, "tolerations": [toleration]}
    groups = [podgroup("d", 2)]
    found = place(see([cpu_node, node("g1")], [leader, worker], groups))
    assert bound(found) == {"d-0": "cpu", "d-0-1": "g1"}
    found = place(see([node("g1"), node("g2")], [leader, worker], groups))
    assert not found.bindings
    assert verdict(found, "d").reason == Reason.SELECTOR_MISMATCH


def test_field_case_cordoned_capacity() -> None:
    nodes = [node("n1"), node("n2"), node("n3", ready=False), node("n4", unschedulable=True)]
    pods = [*tp_group("x", 0, [8], on=["n1"]), *tp_group("d", 0, [4], on=["n4"])]
    groups = [podgroup("x", 1), podgroup("d", 1)]
    fit = how_many_fit(see(nodes, pods, groups), template(8), 3)
    assert (fit.groups, fit.blocked_nodes, fit.reason) == (1, 2, Reason.NODES_UNSCHEDULABLE)
    assert verdict(place(see(nodes, pods, groups)), "d").admitted == 1, "the group on n4 is still supply"
    nodes[3]["spec"]["unschedulable"] = False
    assert how_many_fit(see(nodes, pods, groups), template(8), 3).groups == 1


def test_what_if_counts_waiting_pods_and_floors_first_but_not_its_own_floor() -> None:
    nodes = [node("n0"), node("n1"), node("n2")]
    groups = [podgroup("d", 1, service="s", annotations=shape_notes(1, 8)), podgroup("p", 1, service="s")]
    snapshot = see(nodes, tp_group("p", 0, [8]), groups)
    assert how_many_fit(snapshot, template(8), 9).groups == 1
    assert how_many_fit(snapshot, template(8), 9, podgroup="default/d").groups == 2
    assert how_many_fit(snapshot, template(8), 9, podgroup="default/d", reserve=[template(8)]).groups == 1
    assert how_many_fit(snapshot, template(8), 1, podgroup="default/d").reason == Reason.FITS


@pytest.mark.parametrize(
    ("nodes", "reason", "resource"),
    [
        ([node("n0", 4), node("n1", 4)], Reason.POD_TOO_LARGE, "nvidia.com/gpu"),
        ([node("n0", 8, unschedulable=True)], Reason.NODES_UNSCHEDULABLE, ""),
        ([node("n0", taints=[{"key": "a", "effect": "NoExecute"}])], Reason.SELECTOR_MISMATCH, ""),
        ([], Reason.SELECTOR_MISMATCH, ""),
        ([node("n0", 8, allocatable={"pods": "0"})], Reason.POD_TOO_LARGE, "pods"),
    ],
)
def test_the_cause_is_named(nodes: list[dict[str, object]], reason: Reason, resource: str) -> None:
    fit = how_many_fit(see(nodes), template(8), 1)
    assert (fit.groups, fit.reason, fit.limiting_resource) == (0, reason, resource)


def test_enough_in_sum_but_in_pieces_is_fragmented() -> None:
    pods = [pod("a", 4, on="n0"), pod("b", 4, on="n1")]
    fit = how_many_fit(see([node("n0"), node("n1")], pods), template(8), 1)
    assert (fit.groups, fit.reason) == (0, Reason.FRAGMENTED)


def test_a_node_that_shrank_below_its_use_has_no_room() -> None:
    pods = [pod("a", 6, on="n0"), pod("b", 0, cpu="1"), pod("c", 1)]
    assert bound(place(see([node("n0", 4)], pods))) == {"b": "n0"}


def test_an_incomplete_tp_group_does_not_stand_for_one_that_could_be_placed() -> None:
    """The repair of d-1 lacks a pod; d-0 is whole, but no node takes it: that is a no, not an empty yes."""
    pods = [*tp_group("d", 0, [1, 1]), *tp_group("d", 1, [1, 1], on=["n0"], only=1)]
    found = place(see([node("n0", ready=False)], pods, [podgroup("d", 2)]))
    assert not found.bindings
    assert verdict(found, "d").reason is Reason.NODES_UNSCHEDULABLE
    assert set(bound(place(see([node("n0")], pods, [podgroup("d", 2)])))) == {"d-0", "d-0-1"}
