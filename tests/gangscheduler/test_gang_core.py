"""What a core keeps never shows: it says of every snapshot what a new one would say."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from gangscheduler.core import Core
from gangscheduler.model import ALL, Group, Node, Pod, Snapshot
from gangscheduler.place import place
from tests.gangscheduler.small import GPU, host, leaf, pod, said, seen, where

EXAMPLES = settings(max_examples=120, deadline=None)

NODES = [host(f"n{at}", size, f"b{at // 3}/r{at // 2}") for at, size in enumerate((4, 4, 2, 4, 3))]


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    """A few of the nodes, groups and pods of one small world; equal draws give equal values."""
    nodes = [
        replace(one, ready=draw(st.integers(0, 5)) > 0, allocatable=((GPU, draw(st.sampled_from([2, 4]))),))
        for one in NODES
        if draw(st.integers(0, 4))
    ]
    groups: list[Group] = []
    pods: list[Pod] = [pod("x", draw(st.integers(1, 3)), on="n0", ours=False, terminating=draw(st.booleans()))]
    if draw(st.booleans()):
        groups.append(Group("g", "g", min_count=draw(st.sampled_from([ALL, 0, 1])), composite=True))
    for key in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        wishes = {
            "required_level": draw(st.sampled_from(["", "", "rack"])),
            "service": draw(st.sampled_from(["", "s"])),
        }
        group, own = leaf(key, [draw(st.integers(1, 2))] * 3, minimum=draw(st.integers(0, 3)), **wishes)
        groups.append(replace(group, parent=draw(st.sampled_from(["", "g"]))))
        pods += [
            replace(one, node=draw(st.sampled_from(["", "", "n0", "n3"]))) for one in own if draw(st.integers(0, 4))
        ]
    pods += [pod("lone", 1)][: draw(st.integers(0, 1))]
    return Snapshot(1e6, tuple(nodes), tuple(pods), tuple(groups), levels=("block", "rack", "host"))


@EXAMPLES
@given(st.lists(worlds(), min_size=2, max_size=4))
def test_a_core_says_of_every_snapshot_what_a_new_one_says(snapshots: list[Snapshot]) -> None:
    core = Core()
    for snapshot in snapshots:
        assert core.decide(snapshot) == place(snapshot)
        assert core.decide(snapshot) == place(snapshot), "a decision leaves nothing behind"


@EXAMPLES
@given(worlds())
def test_what_is_bound_keeps_every_rule(snapshot: Snapshot) -> None:
    """Amounts, readiness, required levels of what had no conflict before, and minimums of PodGroups and composites."""
    placed = where(place(snapshot))
    nodes = {node.name: node for node in snapshot.nodes}
    at = {one.key: placed.get(one.key, one.node) for one in snapshot.pods}
    for name in set(placed.values()):
        used = sum(dict(one.shape.requests)[GPU] for one in snapshot.pods if at[one.key] == name)
        assert used <= dict(nodes[name].allocatable)[GPU]
        assert nodes[name].ready
    met = {}
    for group in snapshot.groups:
        own = [one for one in snapshot.pods if one.group == group.key]
        met[group.key] = group.composite or sum(1 for one in own if at[one.key]) >= group.min_count
        if any(one.key in placed for one in own):
            assert met[group.key], "no pod of a group without its minimum"
            assert _keeps(group, [nodes[at[one.key]] for one in own if at[one.key] in nodes])
    for root in [group for group in snapshot.groups if group.composite and group.min_count]:
        children = [group.key for group in snapshot.groups if group.parent == root.key]
        if any(one.key in placed for one in snapshot.pods if one.group in children):
            wanted = len(children) if root.min_count == ALL else root.min_count
            assert sum(met[key] for key in children) >= wanted


def test_only_what_has_changed_is_read_of_a_long_snapshot() -> None:
    """A change in the middle, a pod more and a pod less are all seen between long equal ends."""
    nodes = [host(f"n{at:03}", 8) for at in range(300)]
    pods = tuple(pod(f"p{at:04}", 1, on=nodes[at % 300].name, ours=False) for at in range(2000))
    core, group = Core(), leaf("z", [8])
    base = replace(seen(nodes, [group]), pods=(*pods, *group[1]))
    assert where(core.decide(base)) == {}, "every node has six or seven GPUs taken"
    middle = replace(base, pods=tuple(one for one in base.pods if one.node != "n150"))
    assert where(core.decide(middle)) == {"z-0": "n150"}
    assert where(core.decide(base)) == {}
    moved = replace(base, pods=tuple(replace(one, node="n001") if one.node == "n000" else one for one in base.pods))
    assert where(core.decide(moved)) == {"z-0": "n000"}


def test_nodes_that_come_go_and_change_are_seen() -> None:
    core, group = Core(), leaf("a", [4])
    assert said(core.decide(seen([host("n0", 2)], [group])), "a").admitted == 0
    assert where(core.decide(seen([host("n0", 4)], [group]))) == {"a-0": "n0"}
    assert where(core.decide(seen([host("n0", 4, cordoned=True), host("n1", 4)], [group]))) == {"a-0": "n1"}
    assert where(core.decide(seen([host("n1", 4)], [group]))) == {"a-0": "n1"}
    other = replace(host("n1", 4), allocatable=((GPU, 4), ("example.com/nic", 1)))
    assert where(core.decide(seen([other], [group]))) == {"a-0": "n1"}


def _assignments(pods: list[Pod], nodes: list[Node]) -> list[tuple[Node, ...]]:
    """Every way to put all pods on nodes that holds them."""
    found = []
    for hosts in product(nodes, repeat=len(pods)):
        used = {node.name: 0 for node in nodes}
        for one, node in zip(pods, hosts, strict=True):
            used[node.name] += dict(one.shape.requests)[GPU]
        if all(used[node.name] <= dict(node.allocatable)[GPU] for node in nodes):
            found.append(hosts)
    return found


def _keeps(group: Group, hosts: list[Node]) -> bool:
    depth = {"": 0, "block": 1, "rack": 2, "host": 3}[group.required_level]
    return len({node.path[:depth] for node in hosts}) <= 1


@st.composite
def trees(draw: st.DrawFn) -> Snapshot:
    """Two or three nodes of racks and blocks, and a composite of two or three leaves that must all be placed."""
    nodes = [
        host(f"n{at}", draw(st.integers(1, 4)), f"b{draw(st.integers(0, 1))}/r{draw(st.integers(0, 1))}")
        for at in range(draw(st.integers(2, 4)))
    ]
    root = Group("g", "g", min_count=ALL, composite=True, required_level=draw(st.sampled_from(["", "block", "rack"])))
    leaves = [
        leaf(
            key,
            draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)),
            parent="g",
            required_level=draw(st.sampled_from(["", "rack", "host"])),
        )
        for key in ("a", "b", "c")[: draw(st.integers(2, 3))]
    ]
    return seen(nodes, [(root, []), *leaves])


@settings(max_examples=250, deadline=None)
@given(trees())
def test_a_tree_is_placed_exactly_when_some_assignment_holds_it(snapshot: Snapshot) -> None:
    """Against brute force, over every assignment of at most six pods to at most four nodes."""
    pods, nodes = list(snapshot.pods), list(snapshot.nodes)
    root, *leaves = snapshot.groups

    def allowed(hosts: tuple[Node, ...]) -> bool:
        at = {one.key: node for one, node in zip(pods, hosts, strict=True)}
        each = [[at[one.key] for one in pods if one.group == group.key] for group in leaves]
        return _keeps(root, list(hosts)) and all(_keeps(group, own) for group, own in zip(leaves, each, strict=True))

    possible = any(allowed(hosts) for hosts in _assignments(pods, nodes))
    placed = where(place(snapshot))
    assert len(placed) == (len(pods) if possible else 0)
    if placed:
        by_name = {node.name: node for node in nodes}
        hosts = tuple(by_name[placed[one.key]] for one in pods)
        assert allowed(hosts)
        assert hosts in _assignments(pods, nodes)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.lists(st.integers(1, 3), min_size=1, max_size=2),
    st.integers(2, 4),
)
def test_the_number_that_would_fit_is_the_largest_that_does(racks: list[int], gpus: list[int], wanted: int) -> None:
    """TP groups that each need one rack: the verdict's count is the best of all assignments, rack by rack."""
    nodes = [host(f"n{at}", size, f"b/r{at}") for at, size in enumerate(racks)]
    root = Group("g", "g", min_count=wanted, composite=True)
    leaves = [leaf(f"l{at}", gpus, parent="g", required_level="rack") for at in range(wanted)]
    verdict = said(place(seen(nodes, [(root, []), *leaves])), "g")
    best = min(wanted, sum(size // sum(gpus) for size in racks))
    assert verdict.placeable_now == best
    assert verdict.admitted == (wanted if best == wanted else 0)
