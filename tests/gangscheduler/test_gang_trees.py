"""Trees of groups: levels, siblings, quotas and nominations, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gangscheduler.model import ALL, Choice, Group, Reason
from gangscheduler.place import how_many_fit, place
from tests.gangscheduler.small import GPU, host, leaf, pod, said, seen, where


def test_a_required_level_is_never_broken_and_the_no_names_it() -> None:
    nodes = [host("n0", 3, "b/r0"), host("n1", 3, "b/r1")]
    verdicts = place(seen(nodes, [leaf("a", [1] * 4, required_level="rack")]))
    assert not verdicts.bindings
    verdict = said(verdicts, "a")
    assert (verdict.reason, verdict.limiting_level, verdict.limiting_resource) == (Reason.FRAGMENTED, "rack", GPU)
    assert (verdict.placeable_now, verdict.floor) == (3, 4)


def test_equal_names_of_racks_in_different_blocks_are_different_racks() -> None:
    nodes = [host("n0", 1, "b0/r"), host("n1", 1, "b1/r"), host("n2", 1, "b1/r")]
    verdicts = place(seen(nodes, [leaf("a", [1, 1], required_level="rack")]))
    assert set(where(verdicts).values()) == {"n1", "n2"}


def test_a_node_without_a_name_at_the_required_level_lies_in_no_domain_of_it() -> None:
    nodes = [host("n0", 2, "b/"), host("n1", 1, "b/r1"), host("n2", 1, "b/r1")]
    assert set(where(place(seen(nodes, [leaf("a", [1, 1], required_level="rack")]))).values()) == {"n1", "n2"}


def test_a_level_that_the_cluster_does_not_have_holds_nothing() -> None:
    verdicts = place(seen([host("n0", 8)], [leaf("a", [1], required_level="shelf")]))
    assert not verdicts.bindings
    assert said(verdicts, "a").reason != Reason.FITS


def test_a_preferred_level_climbs_no_higher_than_it_must() -> None:
    nodes = [host("n0", 2, "b0/r0"), host("n1", 2, "b1/r1"), host("n2", 2, "b1/r2")]
    verdicts = place(seen(nodes, [leaf("a", [1] * 4, preferred_level="rack")]))
    assert set(where(verdicts).values()) == {"n1", "n2"}, "one block, as no rack holds four"


def test_siblings_are_tried_in_other_domains_when_the_best_ones_collide() -> None:
    """Best fit gives r1 (4) to the first sibling of 3, so that the one of 4 must send it back to r0."""
    nodes = [host("n0", 5, "b/r0"), host("n1", 4, "b/r1")]
    root = (Group("g", "g", min_count=ALL, composite=True), [])
    children = [
        leaf(key, [1] * size, parent="g", required_level="rack") for key, size in (("a", 3), ("b", 4), ("c", 2))
    ]
    verdicts = place(seen(nodes, [root, *children]))
    assert len(verdicts.bindings) == 9


@pytest.mark.parametrize("level", ["", "rack"])
def test_a_sibling_that_may_go_elsewhere_leaves_the_only_host_to_the_one_that_may_not(level: str) -> None:
    nodes = [host("n0", 1), host("n1", 1), host("n2", 2)]
    root = (Group("g", "g", min_count=ALL, composite=True), [])
    children = [
        leaf("a", [1, 1], parent="g", required_level=level),
        leaf("b", [1, 1], parent="g", required_level="host"),
    ]
    placed = where(place(seen(nodes, [root, *children])))
    assert {placed["b-0"], placed["b-1"]} == {"n2"}
    assert {placed["a-0"], placed["a-1"]} == {"n0", "n1"}


def test_a_child_that_fits_nowhere_gives_its_turn_to_the_next() -> None:
    root = (Group("g", "g", min_count=2, composite=True), [])
    children = [leaf("a", [9, 9], parent="g"), leaf("b", [2, 2], parent="g"), leaf("c", [2, 2], parent="g")]
    verdicts = place(seen([host("n0", 8)], [root, *children]))
    assert set(where(verdicts)) == {"b-0", "b-1", "c-0", "c-1"}
    assert said(verdicts, "g").admitted == 2


def test_a_new_member_joins_the_domain_of_those_that_run() -> None:
    nodes = [host("n0", 2, "b0/r0"), host("n1", 8, "b1/r1")]
    group, pods = leaf("a", [1, 1, 1], required_level="rack")
    pods[0] = replace(pods[0], node="n0")
    verdicts = place(seen(nodes, [(group, pods)]))
    assert not verdicts.bindings
    verdict = said(verdicts, "a")
    assert (verdict.reason, verdict.limiting_level) == (Reason.NO_CAPACITY_NEAR_SIBLINGS, "rack")
    assert (verdict.admitted, verdict.placeable_now) == (1, 2)


def test_members_that_contradict_a_level_are_named_and_left_alone() -> None:
    nodes = [host("n0", 8, "b0/r0"), host("n1", 8, "b1/r1")]
    group, pods = leaf("a", [1, 1, 1], required_level="rack")
    pods[0], pods[1] = replace(pods[0], node="n0"), replace(pods[1], node="n1")
    verdicts = place(seen(nodes, [(group, pods)]))
    assert not verdicts.bindings
    assert said(verdicts, "a").reason is Reason.CONFLICTING_PLACED_SIBLINGS


def test_children_of_a_composite_without_a_minimum_are_gangs_of_their_own_within_its_level() -> None:
    nodes = [host("n0", 4, "b0/r0"), host("n1", 4, "b1/r1")]
    root = (Group("g", "g", min_count=0, composite=True, required_level="block"), [])
    children = [leaf("a", [1] * 3, parent="g"), leaf("b", [1] * 3, parent="g")]
    verdicts = place(seen(nodes, [root, *children]))
    assert len(set(where(verdicts).values())) == 1
    assert len(verdicts.bindings) == 3, "the second child may not leave the block of the first"


@pytest.mark.parametrize(("preemptible", "bound"), [(False, 1), (True, 2)])
def test_only_what_is_not_preemptible_stays_within_its_quota(preemptible: bool, bound: int) -> None:
    groups = [leaf(key, [2], queue="q", preemptible=preemptible) for key in ("a", "b")]
    verdicts = place(seen([host("n0", 8)], groups, quotas=(("q", ((GPU, 3),)),)))
    assert len(verdicts.bindings) == bound
    if bound == 1:
        assert said(verdicts, "b").reason is Reason.OVER_QUOTA


def test_running_pods_count_against_the_quota() -> None:
    group, pods = leaf("a", [2], queue="q", preemptible=False)
    other, more = leaf("b", [2], queue="q", preemptible=False)
    running = [replace(pods[0], node="n0")]
    verdicts = place(seen([host("n0", 8)], [(group, running), (other, more)], quotas=(("q", ((GPU, 3),)),)))
    assert not verdicts.bindings


def test_what_terminating_pods_still_hold_is_promised_and_kept_from_others() -> None:
    leaving = pod("old", 3, on="n0", terminating=True, ours=False)
    first, second = leaf("a", [2, 2], priority=2), leaf("b", [1])
    snapshot = seen([host("n0", 4)], [first, second])
    verdicts = place(replace(snapshot, pods=(*snapshot.pods, leaving)))
    assert not verdicts.bindings, "the one free GPU is a part of what the more urgent gang has been promised"
    assert {one.pod: one.node for one in verdicts.nominations} == {"a-0": "n0", "a-1": "n0"}
    assert said(verdicts, "a").reason is Reason.NOMINATED


def test_nothing_is_promised_on_a_node_that_takes_no_pods() -> None:
    leaving = pod("old", 4, on="n0", terminating=True, ours=False)
    snapshot = seen([host("n0", 4, cordoned=True)], [leaf("a", [2])])
    assert not place(replace(snapshot, pods=(*snapshot.pods, leaving))).nominations


@pytest.mark.parametrize(
    ("choice", "node"),
    [(Choice.PACK, "n1"), (Choice.BEST_FIT, "n1"), (Choice.MOST_ALLOCATED, "n1"), (Choice.SPREAD, "n0")],
)
def test_the_choice_of_a_domain_is_a_policy(choice: Choice, node: str) -> None:
    filler = pod("x", 2, on="n1", ours=False)
    snapshot = seen([host("n0", 4, "b/r0"), host("n1", 4, "b/r1")], [leaf("a", [1])], choice=choice)
    assert where(place(replace(snapshot, pods=(*snapshot.pods, filler)))) == {"a-0": node}


def test_a_whole_rack_is_kept_whole_while_another_one_will_do() -> None:
    """n2 has the least room, but its rack is untouched; n0's is not."""
    nodes = [host("n0", 4, "b/r0"), host("n1", 4, "b/r0"), host("n2", 3, "b/r1"), host("n3", 4, "b/r1")]
    filler = pod("x", 4, on="n1", ours=False)
    for choice, node in ((Choice.PACK, "n0"), (Choice.BEST_FIT, "n2")):
        snapshot = seen(nodes, [leaf("a", [1])], choice=choice)
        assert where(place(replace(snapshot, pods=(*snapshot.pods, filler)))) == {"a-0": node}


def test_extras_go_to_the_role_with_the_smaller_share_of_what_it_wants() -> None:
    """4 prefill and 2 decode groups wanted, room for three above the floors of one each: 2 and 1."""
    prefill, decode = leaf("p", [1] * 4, minimum=1, service="s"), leaf("d", [1] * 2, minimum=1, service="s")
    verdicts = place(seen([host("n0", 5)], [prefill, decode]))
    assert {key: said(verdicts, key).admitted for key in ("p", "d")} == {"p": 3, "d": 2}
    verdicts = place(seen([host("n0", 3)], [prefill, decode]))
    assert {key: said(verdicts, key).admitted for key in ("p", "d")} == {"p": 2, "d": 1}


def test_levels_of_every_tp_group_within_one_podgroup() -> None:
    pods = [pod(f"d-{group}-{rank}", 2, "d", tp_group=f"d-{group}", size=2) for group in range(2) for rank in range(2)]
    group = Group("d", "d", min_count=4, each_required_level="rack")
    fits = [host("n0", 4, "b/r0"), host("n1", 2, "b/r1"), host("n2", 2, "b/r1")]
    placed = where(place(seen(fits, [(group, pods)])))
    assert {placed["d-0-0"], placed["d-0-1"]} in ({"n0"}, {"n1", "n2"})
    assert len(placed) == 4
    verdicts = place(seen([host("n0", 4, "b/r0"), host("n1", 2, "b/r1"), host("n2", 2, "b/r2")], [(group, pods)]))
    verdict = said(verdicts, "d")
    assert (verdict.reason, verdict.limiting_level, verdict.placeable_now) == (Reason.FRAGMENTED, "rack", 1)


def test_what_if_keeps_the_levels_of_the_group_that_would_grow() -> None:
    group, pods = leaf("d", [2], required_level="block")
    nodes = [host("n0", 4, "b0/r0"), host("n1", 8, "b1/r1")]
    snapshot = seen(nodes, [(group, [replace(pods[0], node="n0")])])
    template = (pods[0].shape,)
    assert how_many_fit(snapshot, template, 9).groups == 5
    assert how_many_fit(snapshot, template, 9, podgroup="d").groups == 1


@pytest.mark.parametrize(
    "groups",
    [
        [Group("a", "a", min_count=1, parent="nowhere")],
        [Group("a", "a", min_count=1, parent="a")],
        [Group("a", "a", min_count=1, parent="c"), Group("c", "c", composite=True, parent="e"),
         Group("e", "e", composite=True, parent="c")],
        [Group("a", "a", min_count=1, problem="names a level that does not exist")],
    ],
)  # fmt: skip
def test_a_tree_that_makes_no_sense_is_not_placed(groups: list[Group]) -> None:
    snapshot = seen([host("n0", 8)], [])
    verdicts = place(replace(snapshot, groups=tuple(groups), pods=(pod("a-0", 1, "a"),)))
    assert not verdicts.bindings
    assert said(verdicts, "a").reason is Reason.INVALID_GROUP
    assert said(verdicts, "a").detail
