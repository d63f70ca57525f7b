"""Deployment, ReplicaSet and default scheduler planning."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubeapi import names
from kubeapi.kinds import DEPLOYMENT, POD, REPLICASET
from localcluster.controllers.actions import Action, Bind, Create, Delete, Note, Patch
from localcluster.controllers.deployment import plan_deployment, rollout_of
from localcluster.controllers.replicaset import plan_replicaset
from localcluster.controllers.scheduling import plan_bindings, quantity
from localcluster.nodes import node_status, nodes_of
from localcluster.objects import is_ready

NOW = "2026-01-01T00:00:00Z"
Object = dict[str, Any]


def deployment_of(replicas: int, strategy: Object | None = None) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}
    spec: Object = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    if strategy:
        spec["strategy"] = strategy
    return {"metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1}, "spec": spec}


def pod_of(name: str, *, ready: bool = True, cost: str | None = None, born: int = 0, **spec: Any) -> Object:
    meta: Object = {"name": name, "namespace": "ns", "uid": name}
    meta["creationTimestamp"] = f"2026-01-01T00:00:{born:02}Z"
    if cost is not None:
        meta["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": cost}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    containers = [{"name": "c", "image": "i", "resources": spec.pop("resources", {})}]
    return {"metadata": meta, "spec": {"nodeName": "node-0", "containers": containers} | spec, "status": status}


class Workload:
    """A Deployment with its ReplicaSets and pods, all in memory."""

    def __init__(self, deployment: Object) -> None:
        self.deployment = deployment
        self.sets: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self._born = 0

    def step(self) -> list[Action]:
        actions = plan_deployment(self.deployment, list(self.sets.values()), NOW)
        for action in actions:
            self._apply(action)
        for uid, replicaset in list(self.sets.items()):
            pods = [p for p in self.pods.values() if p["metadata"]["ownerReferences"][0]["uid"] == uid]
            for action in plan_replicaset(replicaset, pods):
                self._apply(action)
        return actions

    def _apply(self, action: Action) -> None:
        if isinstance(action, Patch):
            target = self.deployment if action.kind == DEPLOYMENT else action.seen
            for key, value in action.body.items():
                target[key] = target.get(key, {}) | value
        elif isinstance(action, Create) and action.kind == REPLICASET:
            body = copy.deepcopy(action.body)
            body["metadata"]["uid"] = body["metadata"]["name"]
            self.sets[body["metadata"]["uid"]] = body
        elif isinstance(action, Create):
            self._born += 1
            pod = pod_of(f"{action.body['metadata']['generateName']}{self._born}", ready=False)
            pod["metadata"]["ownerReferences"] = action.body["metadata"]["ownerReferences"]
            self.pods[pod["metadata"]["name"]] = pod
        elif isinstance(action, Delete):
            (self.pods if action.kind == POD else self.sets).pop(action.seen["metadata"]["uid"])

    def make_one_ready(self) -> None:
        waiting = [pod for pod in self.pods.values() if not is_ready(pod)]
        if waiting:
            waiting[0]["status"]["conditions"][0]["status"] = "True"

    def settle(self) -> None:
        for _ in range(40):
            self.step()
            self.make_one_ready()


def test_one_replicaset_per_template_with_the_hash_in_its_pods() -> None:
    web = Workload(deployment_of(2))
    web.settle()
    (replicaset,) = web.sets.values()
    hashed = replicaset["metadata"]["labels"]["pod-template-hash"]
    assert replicaset["metadata"]["name"] == f"web-{hashed}"
    assert replicaset["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": hashed}
    assert len(web.pods) == 2
    status = web.deployment["status"]
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (2, 2, 2)


@pytest.mark.parametrize(
    ("strategy", "most", "least"),
    [
        (None, 5, 3),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, 4, 3),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}, 6, 4),
    ],
)
def test_a_rollout_stays_within_surge_and_unavailable(strategy: Object | None, most: int, least: int) -> None:
    web = Workload(deployment_of(4, strategy))
    web.settle()
    web.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "v2"
    seen: set[tuple[int, int]] = set()
    for _ in range(60):
        web.step()
        ready = sum(map(is_ready, web.pods.values()))
        seen.add((len(web.pods), ready))
        web.make_one_ready()
    assert max(total for total, _ in seen) == most
    assert min(ready for _, ready in seen) == least
    status = web.deployment["status"]
    assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (4, 4, 4)
    assert len(web.sets) == 2, "the old one stays as history"


def test_recreate_ends_all_old_pods_first() -> None:
    web = Workload(deployment_of(2, {"type": "Recreate"}))
    web.settle()
    (old,) = web.sets
    web.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "v2"
    for _ in range(20):
        web.step()
        owners = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in web.pods.values()}
        assert len(owners) <= 1
        web.make_one_ready()
    assert old not in owners
    assert len(web.pods) == 2


def test_old_replicasets_are_forgotten_beyond_the_history_limit() -> None:
    web = Workload(deployment_of(1))
    web.deployment["spec"]["revisionHistoryLimit"] = 1
    for version in range(4):
        web.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = f"v{version}"
        web.settle()
    revisions = [rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for rs in web.sets.values()]
    assert revisions == ["3", "4"]


def test_percentages_round_surge_up_and_unavailable_down() -> None:
    rollout = rollout_of({"replicas": 5})
    assert (rollout.surge, rollout.unavailable) == (2, 1)
    zero = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}
    assert rollout_of({"replicas": 5, "strategy": zero}).unavailable == 1, "a rollout must be able to move"


def test_victims_are_unbound_then_not_ready_then_cheap_then_new() -> None:
    replicaset = {"metadata": {"name": "rs", "namespace": "ns", "uid": "rs"}, "spec": {"replicas": 5}}
    pods = [
        pod_of("old"),
        pod_of("new", born=9),
        pod_of("dear", cost="10", born=9),
        pod_of("cheap", cost="-5"),
        pod_of("broken", ready=False),
        pod_of("unbound", nodeName=""),
    ]
    order = []
    for left in range(5, -1, -1):
        replicaset["spec"]["replicas"] = left
        (victim,) = (a for a in plan_replicaset(replicaset, pods) if isinstance(a, Delete))
        order.append(victim.seen["metadata"]["name"])
        pods.remove(victim.seen)
    assert order == ["unbound", "broken", "cheap", "new", "old", "dear"]


def nodes(count: int, gpus: int = 4, tmp: Any = None) -> list[Object]:
    from pathlib import Path

    from localcluster.options import LocalClusterOptions

    options = LocalClusterOptions(
        state_dir=Path("s"), kubeconfig_out=Path("k"), nodes=count, gpus_per_node=gpus, cpu_per_node=8
    )
    return [node | {"status": node_status(options, node, NOW)} for node in nodes_of(options)]


def waiting(name: str, **spec: Any) -> Object:
    return pod_of(name, ready=False, nodeName="", **spec)


def bindings(actions: list[Action]) -> dict[str, str]:
    return {a.pod["metadata"]["name"]: a.node for a in actions if isinstance(a, Bind)}


def test_the_node_with_most_free_room_gets_the_pod() -> None:
    gpus = {"requests": {names.GPU: 2}}
    bound = bindings(plan_bindings([waiting(n, resources=gpus) for n in "abcd"], nodes(2), NOW))
    assert sorted(bound.values()) == ["node-0", "node-0", "node-1", "node-1"]


def test_a_pod_that_fits_nowhere_says_so_once() -> None:
    pod = waiting("big", resources={"limits": {names.GPU: "5", "cpu": "500m"}})
    patch, note = plan_bindings([pod], nodes(2), NOW)
    assert isinstance(note, Note)
    assert note.message == "0 of 2 nodes fit: the pod needs cpu 0.5, nvidia.com/gpu 5"
    assert isinstance(patch, Patch)
    pod["status"] = pod["status"] | patch.body["status"]
    assert plan_bindings([pod], nodes(2), NOW) == []


def test_node_selector_and_other_schedulers_are_respected() -> None:
    picky = waiting("picky", nodeSelector={names.HOSTNAME: "node-1"})
    other = waiting("other", schedulerName=names.SCHEDULER_NAME)
    gated = waiting("gated", schedulingGates=[{"name": "wait"}])
    assert bindings(plan_bindings([picky, other, gated], nodes(3), NOW)) == {"picky": "node-1"}


@pytest.mark.parametrize(
    ("tolerations", "node"),
    [
        ([], "node-1"),
        ([{"key": "other", "operator": "Exists"}], "node-1"),
        ([{"key": "a/b", "value": "w", "effect": "NoSchedule"}], "node-1"),
        ([{"key": "a/b", "operator": "Exists", "effect": "NoExecute"}], "node-1"),
        ([{"key": "a/b", "value": "v", "effect": "NoSchedule"}], "node-0"),
        ([{"operator": "Exists"}], "node-0"),
    ],
)
def test_a_taint_keeps_pods_away_that_do_not_tolerate_it(tolerations: list[Object], node: str) -> None:
    tainted, full = nodes(2)
    tainted["spec"]["taints"] = [{"key": "a/b", "value": "v", "effect": "NoSchedule"}]
    full["spec"]["taints"] = [{"key": "a/b", "effect": "PreferNoSchedule"}]
    full["status"]["allocatable"] = full["status"]["allocatable"] | {"cpu": "1"}
    pod = waiting("p", tolerations=tolerations)
    assert bindings(plan_bindings([pod], [tainted, full], NOW)) == {"p": node}


def test_room_taken_by_pods_of_any_scheduler_counts() -> None:
    full = pod_of("full", resources={"requests": {names.GPU: 4}}, schedulerName=names.SCHEDULER_NAME)
    pod = waiting("next", resources={"requests": {names.GPU: 1}})
    assert bindings(plan_bindings([full, pod], nodes(2), NOW)) == {"next": "node-1"}


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("2", 2.0), (3, 3.0), ("1Gi", 2.0**30), ("1k", 1000.0), ("1.5M", 1.5e6)]
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


def test_nodes_are_placed_rack_by_rack_with_full_paths() -> None:
    places = [
        (n["metadata"]["labels"][names.TOPOLOGY_BLOCK], n["metadata"]["labels"][names.TOPOLOGY_RACK]) for n in nodes(9)
    ]
    assert places[0] == places[1] == ("zone-0.block-0", "zone-0.block-0.rack-0")
    assert places[3] == ("zone-0.block-0", "zone-0.block-0.rack-1")
    assert places[4] == ("zone-0.block-1", "zone-0.block-1.rack-0")
    assert places[8] == ("zone-1.block-0", "zone-1.block-0.rack-0")
