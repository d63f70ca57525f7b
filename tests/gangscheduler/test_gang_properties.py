"""What must hold for every snapshot: no over-commitment, no halves, minimums first, no luck of the order."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations_with_replacement
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gangscheduler.model import Reason, Snapshot, Template, Verdicts
from gangscheduler.place import how_many_fit, place
from kubeapi import names
from tests.gangscheduler.builders import bound, node, pod, podgroup, see, template, tp_group

Object = dict[str, Any]
World = tuple[list[Object], list[Object], list[Object]]

EXAMPLES = settings(max_examples=150, deadline=None)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A few nodes in racks, two services with two roles each, some TP groups running, some waiting."""
    count = draw(st.integers(1, 5))
    nodes = [
        node(
            f"n{index}",
            draw(st.integers(0, 8)),
            place=f"z/b/r{draw(st.integers(0, 2))}",
            ready=draw(st.integers(0, 9)) > 0,
            unschedulable=draw(st.integers(0, 9)) == 0,
        )
        for index in range(count)
    ]
    pods = [pod("filler", draw(st.integers(0, 4)), on="n0", terminating=draw(st.booleans()))]
    pods += [pod(f"single{index}", draw(st.integers(0, 3))) for index in range(draw(st.integers(0, 2)))]
    groups = []
    for name in ("a-p", "a-d", "b-p", "b-d")[: draw(st.integers(1, 4))]:
        gpus = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
        floor = draw(st.integers(0, 3))
        priority = draw(st.integers(0, 1))
        groups.append(podgroup(name, floor * len(gpus), service=name[0], priority=priority))
        for index in range(draw(st.integers(0, 4))):
            running = draw(st.lists(st.integers(0, count - 1), max_size=len(gpus)))
            only = draw(st.sampled_from([None, None, None, 1]))
            pods += tp_group(name, index, gpus, on=[f"n{host}" for host in running], only=only)
    return nodes, pods, groups


def charged(snapshot: Snapshot, verdicts: Verdicts) -> dict[str, Counter[str]]:
    """What sits on every node after the cycle's bindings."""
    placed = {binding.pod: binding.node for binding in verdicts.bindings}
    use: dict[str, Counter[str]] = {one.name: Counter() for one in snapshot.nodes}
    for one in snapshot.pods:
        where = one.node or placed.get(one.key, "")
        if where in use:
            use[where].update(dict(one.shape.requests))
    return use


@EXAMPLES
@given(worlds())
def test_no_node_is_over_committed_by_a_binding(world: World) -> None:
    snapshot = see(*world)
    verdicts = place(snapshot)
    use = charged(snapshot, verdicts)
    for one in snapshot.nodes:
        if one.name in bound(verdicts).values():
            assert one.ready
            assert not one.cordoned
            room = dict(one.allocatable)
            taken = {binding.pod for binding in verdicts.bindings if binding.node == one.name}
            asked = {name for pod in snapshot.pods if pod.key in taken for name, _ in pod.shape.requests}
            assert all(use[one.name][resource] <= room.get(resource, 0) for resource in asked)


@EXAMPLES
@given(worlds())
def test_tp_groups_are_whole_and_minimums_all_or_nothing(world: World) -> None:
    snapshot = see(*world)
    verdicts = place(snapshot)
    placed = {binding.pod for binding in verdicts.bindings}
    for group in snapshot.groups:
        pods = [one for one in snapshot.pods if one.group == group.key and not one.terminating]
        for key in {one.tp_group for one in pods}:
            members = [one for one in pods if one.tp_group == key]
            touched = [one for one in members if one.key in placed]
            if touched:
                assert all(one.node or one.key in placed for one in members)
                assert len(members) >= members[0].size
        after = sum(1 for one in pods if one.node or one.key in placed)
        if any(one.key in placed for one in pods):
            assert after >= group.min_count


@EXAMPLES
@given(worlds())
def test_the_verdict_adds_up(world: World) -> None:
    snapshot = see(*world)
    verdicts = place(snapshot)
    placed = {binding.pod for binding in verdicts.bindings}
    for said in verdicts.groups:
        pods = [one for one in snapshot.pods if one.group == said.name and not one.terminating]
        keys = {one.tp_group: one.size for one in pods}
        whole = [
            key
            for key, size in keys.items()
            if sum(1 for one in pods if one.tp_group == key and (one.node or one.key in placed)) >= size
        ]
        assert (said.desired, said.admitted) == (len(keys), len(whole))
        assert said.admitted <= said.placeable_now <= said.desired
        if said.admitted < said.desired:
            assert said.reason != Reason.FITS
    waiting = {one.pod for one in verdicts.waiting}
    assert waiting | placed == {one.key for one in snapshot.pods if not one.node and not one.terminating}
    assert not waiting & placed


@EXAMPLES
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(world: World, shuffler: random.Random) -> None:
    shuffled = [shuffler.sample(part, len(part)) for part in world]
    assert place(see(*world)) == place(see(*shuffled))


@EXAMPLES
@given(worlds())
def test_a_second_cycle_finds_nothing_new(world: World) -> None:
    """Quiescence: with the bindings done, no TP group is left that the same rules would place."""
    nodes, pods, groups = world
    first = bound(place(see(nodes, pods, groups)))
    for one in pods:
        if one["metadata"]["name"] in first:
            one["spec"]["nodeName"] = first[one["metadata"]["name"]]
    assert bound(place(see(nodes, pods, groups))) == {}


def minimums_met(snapshot: Snapshot) -> set[str]:
    """PodGroups that have at least their minimum of pods on nodes after a cycle."""
    placed = {binding.pod for binding in place(snapshot).bindings}
    pods = Counter(one.group for one in snapshot.pods if not one.terminating and (one.node or one.key in placed))
    return {group.key for group in snapshot.groups if pods[group.key] >= group.min_count}


@EXAMPLES
@given(worlds(), st.integers(1, 6))
def test_minimums_do_not_suffer_from_extras(world: World, extra: int) -> None:
    """Further TP groups of a role whose minimum is met change nothing about the other roles' minimums."""
    nodes, pods, groups = world
    snapshot = see(nodes, pods, groups)
    met = minimums_met(snapshot)
    assume(met)
    first = min(met)
    gpus = [dict(one.shape.requests).get(names.GPU, 0) for one in snapshot.pods if one.group == first] or [1]
    name = first.removeprefix("default/")
    more = [one for index in range(10, 10 + extra) for one in tp_group(name, index, gpus[:3])]
    assert met <= minimums_met(see(nodes, pods + more, groups))


def brute_force(capacities: tuple[int, ...], wanted: Template, limit: int) -> int:
    """The largest number of TP groups that any assignment of pods to nodes can hold."""
    gpus = [dict(shape.requests).get(names.GPU, 0) for shape in wanted]
    count = 0
    while count < limit and _fits(sorted(gpus * (count + 1), reverse=True), list(capacities)):
        count += 1
    return count


def _fits(gpus: list[int], free: list[int]) -> bool:
    if not gpus:
        return True
    for host in range(len(free)):
        if free[host] >= gpus[0]:
            free[host] -= gpus[0]
            if _fits(gpus[1:], free):
                return True
            free[host] += gpus[0]
    return False


def test_how_many_fit_equals_brute_force_on_all_small_cases() -> None:
    wanted = [template(*gpus) for size in (1, 2, 3) for gpus in combinations_with_replacement((1, 2, 3), size)]
    for capacities in combinations_with_replacement((1, 3, 4, 6), 3):
        snapshot = see([node(f"n{index}", gpu) for index, gpu in enumerate(capacities)])
        for one in wanted:
            assert how_many_fit(snapshot, one, 3).groups == brute_force(capacities, one, 3), (capacities, one)
