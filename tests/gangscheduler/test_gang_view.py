"""What a cycle knows: changes that matter, what is assumed, and who keeps away from whom for how long."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gangscheduler.model import Snapshot
from gangscheduler.place import place
from gangscheduler.view import ANY_NODE, FIRST_AWAY_S, FIRST_REST_S, LONGEST_AWAY_S, View
from tests.gangscheduler.builders import Object, node, pod, podgroup, tp_group

OWNER = [{"kind": "ReplicaSet", "name": "r", "uid": "owner", "controller": True}]


def view_of(nodes: list[Object], pods: list[Object], groups: list[Object]) -> View:
    view = View()
    for one in nodes:
        assert view.node(one)
    for one in groups:
        assert view.group(one)
    for one in pods:
        assert view.pod(one, 0.0)
    return view


def nodes_of(snapshot: Snapshot) -> dict[str, str]:
    return {pod.key: pod.node for pod in snapshot.pods}


def failed(raw: Object, on: str, reason: str = "OutOfnvidia.com/gpu") -> Object:
    return raw | {"spec": raw["spec"] | {"nodeName": on}, "status": {"phase": "Failed", "reason": reason}}


def test_a_heartbeat_is_no_change() -> None:
    view, raw = view_of([node("n0")], [pod("a", 1)], []), node("n0")
    raw["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-01T00:00:10Z"
    raw["metadata"]["resourceVersion"] = "7"
    assert not view.node(raw)
    assert view.node(node("n0", ready=False))
    touched = pod("a", 1)
    touched["status"]["conditions"] = [{"type": "PodScheduled", "status": "False"}]
    assert not view.pod(touched, 0.0)
    assert view.pod(pod("a", 2), 0.0)


def test_objects_come_in_their_order_and_the_same_tuple_while_nothing_changes() -> None:
    view = view_of([node("n1"), node("n0")], [pod("b"), pod("a")], [podgroup("y"), podgroup("x")])
    first = view.snapshot(1.0)
    assert [one.name for one in first.nodes] == ["n0", "n1"]
    assert [one.key for one in first.pods] == ["default/a", "default/b"]
    assert [one.key for one in first.groups] == ["default/x", "default/y"]
    assert view.snapshot(2.0).pods is first.pods
    assert view.pod(pod("a"), 2.0, gone=True)
    assert not view.pod(pod("a"), 2.0, gone=True)
    assert [one.key for one in view.snapshot(3.0).pods] == ["default/b"]


def test_what_was_assumed_stays_until_the_watch_shows_it_or_it_is_forgotten() -> None:
    view = view_of([node("n0")], [pod("a", 1), pod("b", 1)], [])
    view.assume("default/a", "uid-a", "n0")
    view.assume("default/b", "uid-b", "n0")
    assert not view.pod(pod("a", 1), 1.0), "an old word of the watch undoes nothing"
    assert not view.pod(pod("a", 1, on="n0", phase="Pending"), 1.0), "nor is the confirmation news"
    assert view.assumed == {"uid-b": "n0"}
    view.forget("default/b", "uid-b")
    assert nodes_of(view.snapshot(2.0)) == {"default/a": "n0", "default/b": ""}
    view.assume("default/b", "another", "n0")
    assert view.assumed == {}, "a namesake that came since the snapshot"


def test_a_pod_bound_elsewhere_is_where_the_watch_shows_it() -> None:
    view = view_of([node("n0"), node("n1")], [pod("a", 1)], [])
    view.assume("default/a", "uid-a", "n0")
    assert view.pod(pod("a", 1, on="n1"), 1.0)
    assert nodes_of(view.snapshot(1.0)) == {"default/a": "n1"}


def test_a_node_that_refused_one_pod_is_kept_from_its_gang_longer_each_time() -> None:
    pods = tp_group("decode", 0, [8, 8])
    view = view_of([node("n0"), node("n1"), node("n2")], pods, [podgroup("decode", 2)])

    def chosen(now_s: float) -> set[str]:
        return {binding.node for binding in place(view.snapshot(now_s)).bindings}

    assert chosen(0.0) == {"n0", "n1"}
    assert view.pod(failed(pods[0], "n0"), 100.0)
    fresh = pods[0] | {"metadata": pods[0]["metadata"] | {"uid": "new"}}
    assert view.pod(fresh, 100.0)
    assert chosen(100.1) == {"n1", "n2"}
    assert view.due_s(100.1) == 100.0 + FIRST_AWAY_S
    assert chosen(100.0 + FIRST_AWAY_S) == {"n0", "n1"}, "its rest is over"
    again = 100.0 + FIRST_AWAY_S + 1
    view.pod(failed(fresh, "n0"), again)
    assert view.due_s(again) == again + 2 * FIRST_AWAY_S
    view.pod(failed(fresh, "n0"), again + 1)
    assert view.due_s(again + 1) == again + 2 * FIRST_AWAY_S, "a second pod of the same moment is the same refusal"


def test_rests_end_and_are_forgotten() -> None:
    view = View()
    now_s, lengths = 0.0, []
    for _ in range(10):
        lengths.append(view.refused("default/decode", "n0", now_s))
        now_s += lengths[-1]
    assert lengths[:3] == [FIRST_AWAY_S, 2 * FIRST_AWAY_S, 4 * FIRST_AWAY_S]
    assert lengths[-1] == LONGEST_AWAY_S
    view.snapshot(now_s + 2 * LONGEST_AWAY_S)
    assert view.refused("default/decode", "n0", now_s + 2 * LONGEST_AWAY_S) == FIRST_AWAY_S
    assert view.refused("default/decode", ANY_NODE, now_s) == FIRST_REST_S


def test_a_gang_that_the_server_refused_rests_and_others_do_not() -> None:
    pods = [*tp_group("decode", 0, [8]), *tp_group("prefill", 0, [8])]
    view = view_of([node("n0"), node("n1")], pods, [podgroup("decode", 1), podgroup("prefill", 1)])
    view.refused("default/decode", ANY_NODE, 0.0)
    assert {binding.pod for binding in place(view.snapshot(0.1)).bindings} == {"default/prefill-0"}
    (said,) = place(view.snapshot(0.1)).waiting
    assert (said.pod, said.reason) == ("default/decode-0", "BindingRefused")
    assert len(place(view.snapshot(FIRST_REST_S)).bindings) == 2


def test_only_a_failure_before_any_container_ran_is_a_refusal() -> None:
    ran = {"containerStatuses": [{"name": "main", "restartCount": 0, "state": {"terminated": {"exitCode": 1}}}]}
    for change, refused in (
        ({}, True),
        ({"reason": "UnexpectedAdmissionError"}, True),
        ({"reason": "DeadlineExceeded"}, False),
        (ran, False),
        ({"phase": "Succeeded"}, False),
    ):
        view, raw = View(), pod("a", 8, group="decode")
        gone = failed(raw, "n0")
        gone["status"] |= change
        view.pod(gone, 0.0)
        assert view.is_kept_away("default/decode", 0.1) is refused, change
    foreign = failed(pod("a", 8, group="decode", spec={"schedulerName": "default-scheduler"}), "n0")
    view = View()
    view.pod(foreign, 0.0)
    assert not view.is_kept_away("default/decode", 0.1)


def test_a_pod_without_a_gang_shares_its_refusals_with_those_of_its_owner() -> None:
    first, second = pod("web-a", 1), pod("web-b", 1)
    for one in (first, second):
        one["metadata"]["ownerReferences"] = OWNER
    view = view_of([node("n0"), node("n1")], [first], [])
    view.pod(failed(first, "n0"), 0.0)
    view.pod(second, 0.0)
    assert [binding.node for binding in place(view.snapshot(0.1)).bindings] == ["n1"]


def test_a_user_s_affinity_and_a_refusal_both_hold() -> None:
    terms = [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]},
        {"matchExpressions": [{"key": "zone", "operator": "Exists"}]},
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    raw = pod("a", 1, group="decode", spec={"affinity": {"nodeAffinity": required}})
    nodes = [node(name, labels={"zone": "z"}) for name in ("n0", "n1")] + [node("n2")]
    view = view_of(nodes, [raw], [podgroup("decode", 1)])
    view.refused("default/decode", "n0", 0.0)
    assert [binding.node for binding in place(view.snapshot(0.1)).bindings] == ["n1"]
    view.refused("default/decode", "n1", 0.0)
    assert place(view.snapshot(0.1)).bindings == ()


class World:
    """A server, its watch that may lag, and kubelets that may refuse; the view is fed by the watch alone."""

    def __init__(self, sizes: list[int]) -> None:
        self.view, self.now_s, self.made = View(), 0.0, 0
        self.room = {f"n{index}": gpus for index, gpus in enumerate(sizes)}
        self.pods: dict[str, Object] = {}
        self.unseen: list[tuple[Object, bool]] = []
        self.under_way: list[Any] = []
        for name, gpus in self.room.items():
            self.view.node(node(name, gpus))

    def gang(self, gpus: list[int]) -> None:
        name = f"g{self.made}"
        self.made += 1
        self.view.group(podgroup(name, len(gpus)))
        for one in tp_group(name, 0, gpus):
            one["metadata"]["ownerReferences"] = OWNER
            self._store(one)

    def decide(self) -> None:
        for binding in place(self.view.snapshot(self.now_s)).bindings:
            self.view.assume(binding.pod, binding.uid, binding.node)
            self.under_way.append(binding)
        self.check()

    def bind(self, works: bool) -> None:
        if not self.under_way:
            return
        binding = self.under_way.pop(0)
        raw = self.pods.get(binding.uid)
        if raw is None or not works:
            self.view.forget(binding.pod, binding.uid)
        else:
            self._store(raw | {"spec": raw["spec"] | {"nodeName": binding.node}})

    def refuse(self, index: int) -> None:
        """A kubelet lets a pod fail, and its controller replaces it."""
        bound = [raw for raw in self.pods.values() if raw["spec"].get("nodeName")]
        if not bound:
            return
        raw = bound[index % len(bound)]
        self._drop(failed(raw, raw["spec"]["nodeName"]))
        fresh = copy.deepcopy(raw)
        del fresh["spec"]["nodeName"]
        self.made += 1
        fresh["metadata"] |= {"uid": f"again-{self.made}"}
        self._store(fresh)

    def touch(self, index: int) -> None:
        """Somebody writes a condition: the watch shows the pod once more."""
        if self.pods:
            self.unseen.append((list(self.pods.values())[index % len(self.pods)], False))

    def delete(self, index: int) -> None:
        if self.pods:
            self._drop(list(self.pods.values())[index % len(self.pods)])

    def see(self, count: int) -> None:
        for raw, gone in self.unseen[:count]:
            self.view.pod(raw, self.now_s, gone=gone)
        del self.unseen[:count]

    def _store(self, raw: Object) -> None:
        self.pods[raw["metadata"]["uid"]] = raw
        self.unseen.append((raw, False))

    def _drop(self, raw: Object) -> None:
        del self.pods[raw["metadata"]["uid"]]
        self.unseen.append((raw, True))

    def check(self) -> None:
        """Rule: what is bound and what is on its way fit on every node, and nothing is on its way twice."""
        assert len({binding.uid for binding in self.under_way}) == len(self.under_way)
        used: dict[str, int] = defaultdict(int)
        going = {binding.uid: binding.node for binding in self.under_way}
        for uid, raw in self.pods.items():
            on = raw["spec"].get("nodeName") or going.get(uid)
            if on:
                used[on] += int(raw["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"])
        assert all(amount <= self.room[name] for name, amount in used.items()), (used, self.room)


STEPS: dict[str, tuple[Any, Callable[[World, Any], None]]] = {
    "gang": (st.lists(st.integers(1, 8), min_size=1, max_size=4), World.gang),
    "decide": (st.none(), lambda world, _: world.decide()),
    "bind": (st.booleans(), World.bind),
    "see": (st.integers(1, 20), World.see),
    "refuse": (st.integers(0, 9), World.refuse),
    "touch": (st.integers(0, 9), World.touch),
    "delete": (st.integers(0, 9), World.delete),
    "later": (st.sampled_from([0.1, 1.0, 30.0]), lambda world, s: setattr(world, "now_s", world.now_s + s)),
}
# Most of what happens is that pods come, are seen, placed and touched.
OFTEN = ("gang", "see", "see", "decide", "decide", "touch", "touch")
STEP = st.one_of([st.tuples(st.just(name), STEPS[name][0]) for name in (*OFTEN, *STEPS)])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=5), st.lists(STEP, min_size=10, max_size=40))
def test_bound_and_assumed_never_exceed_a_node_whatever_lags_fails_or_moves(
    sizes: list[int], steps: list[tuple[str, Any]]
) -> None:
    world = World(sizes)
    for name, value in steps:
        STEPS[name][1](world, value)
    world.decide()


def test_a_succeeded_pod_counts_towards_the_minimum_until_it_is_gone() -> None:
    done = tp_group("decode", 0, [8], phase="Succeeded")[0]
    view = view_of([node("n0")], tp_group("decode", 1, [8]), [podgroup("decode", 2)])
    assert place(view.snapshot(0.0)).bindings == ()
    assert view.pod(done, 0.0)
    assert not view.pod(done, 0.0)
    assert [binding.pod for binding in place(view.snapshot(0.0)).bindings] == ["default/decode-1"]
    assert view.pod(done, 0.0, gone=True)
    assert place(view.snapshot(0.0)).bindings == ()
