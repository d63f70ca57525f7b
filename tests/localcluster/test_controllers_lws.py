"""LeaderWorkerSet planning: exact steps, and a random life of pods that always settles."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeapi import names
from kubeapi.kinds import POD
from localcluster.controllers.actions import Action, Create, Delete, Note, Patch
from localcluster.controllers.lws import plan_lws
from localcluster.objects import is_terminating, labels_of

NOW = "2026-01-01T00:00:00Z"
Object = dict[str, Any]


def lws_of(replicas: int = 2, size: int = 2, **spec: Any) -> Object:
    container = {"name": "w", "image": "v1", "env": [{"name": "A", "value": "$(LWS_GROUP_SIZE)"}]}
    pod = {
        "containers": [container],
        "schedulerName": names.SCHEDULER_NAME,
        "schedulingGroup": {"podGroupName": "gang"},
        "terminationGracePeriodSeconds": 7,
    }
    template = {"size": size, "workerTemplate": {"metadata": {"labels": {"x": "y"}}, "spec": pod}}
    meta = {"name": "dec", "namespace": "ns", "uid": "lws-uid", "generation": 3}
    return {"metadata": meta, "spec": {"replicas": replicas, "leaderWorkerTemplate": template} | spec}


class Pods:
    """The pods of a cluster that does what it is told: names are unique, owners cascade."""

    def __init__(self) -> None:
        self.by_name: dict[str, Object] = {}
        self._uids = 0

    def apply(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Create):
                owner = self._add(action.body)
                for body in action.dependents:
                    owned = copy.deepcopy(body)
                    owned["metadata"]["ownerReferences"] = [{"uid": owner, "controller": True}]
                    self._add(owned)
            elif isinstance(action, Delete):
                self.delete(action.seen["metadata"]["name"])

    def _add(self, body: Object) -> str:
        pod = copy.deepcopy(body)
        name = pod["metadata"]["name"]
        assert name not in self.by_name, "a name is used while its old pod is there"
        self._uids += 1
        pod["metadata"]["uid"] = f"uid-{self._uids}"
        self.by_name[name] = pod
        return f"uid-{self._uids}"

    def delete(self, name: str) -> None:
        pod = self.by_name[name]
        if pod["spec"].get("nodeName"):
            pod["metadata"]["deletionTimestamp"] = NOW
        else:
            self.remove(name)

    def remove(self, name: str) -> None:
        gone = self.by_name.pop(name)
        for other in list(self.by_name.values()):
            if other["metadata"]["ownerReferences"][0]["uid"] == gone["metadata"]["uid"]:
                self.delete(other["metadata"]["name"])

    def run(self, name: str) -> None:
        pod = self.by_name[name]
        pod["spec"]["nodeName"] = "node"
        pod["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}

    def restart(self, name: str) -> None:
        self.run(name)
        ended = {"terminated": {"exitCode": 9}}
        self.by_name[name]["status"]["containerStatuses"] = [{"name": "w", "restartCount": 1, "lastState": ended}]

    def settle(self, lws: Object) -> None:
        for _ in range(60):
            for pod in list(self.by_name.values()):
                name = pod["metadata"]["name"]
                if name not in self.by_name:
                    continue
                if is_terminating(pod):
                    self.remove(name)
                elif "containerStatuses" not in pod.get("status", {}):
                    self.run(name)
            self.plan(lws)

    def plan(self, lws: Object) -> list[Action]:
        actions = plan_lws(lws, list(self.by_name.values()), NOW)
        self.apply(actions)
        for action in actions:
            if isinstance(action, Patch):
                lws["status"] = action.body["status"]
        return actions

    def names(self) -> list[str]:
        return sorted(self.by_name)


def running(lws: Object) -> Pods:
    pods = Pods()
    pods.settle(lws)
    return pods


def deleted(actions: list[Action]) -> list[str]:
    return [action.seen["metadata"]["name"] for action in actions if isinstance(action, Delete)]


def test_a_group_is_created_whole_with_the_real_names_labels_and_variables() -> None:
    pods = Pods()
    pods.plan(lws_of(replicas=1))
    assert pods.names() == ["dec-0", "dec-0-1"]
    leader, worker = pods.by_name["dec-0"], pods.by_name["dec-0-1"]
    assert leader["metadata"]["ownerReferences"][0]["uid"] == "lws-uid"
    assert worker["metadata"]["ownerReferences"][0]["uid"] == leader["metadata"]["uid"]
    assert labels_of(worker)[names.LWS_GROUP_KEY] == labels_of(leader)[names.LWS_GROUP_KEY]
    assert len(labels_of(leader)[names.LWS_GROUP_KEY]) == 40
    assert {key: labels_of(worker)[key] for key in ("x", names.LWS_NAME, names.LWS_WORKER_INDEX)} == {
        "x": "y",
        names.LWS_NAME: "dec",
        names.LWS_WORKER_INDEX: "1",
    }
    assert worker["metadata"]["annotations"] == {
        names.LWS_SIZE: "2",
        "leaderworkerset.sigs.k8s.io/leader-name": "dec-0",
    }
    assert [(e["name"], e["value"]) for e in worker["spec"]["containers"][0]["env"]] == [
        ("LWS_LEADER_ADDRESS", "dec-0.dec.ns"),
        ("LWS_GROUP_SIZE", "2"),
        ("LWS_WORKER_INDEX", "1"),
        ("A", "$(LWS_GROUP_SIZE)"),
    ]
    passed = {key: worker["spec"][key] for key in ("schedulerName", "schedulingGroup")}
    assert passed == {"schedulerName": names.SCHEDULER_NAME, "schedulingGroup": {"podGroupName": "gang"}}
    assert worker["spec"]["terminationGracePeriodSeconds"] == 7


def test_group_keys_differ_between_groups() -> None:
    pods = running(lws_of(replicas=3))
    assert len({labels_of(pod)[names.LWS_GROUP_KEY] for pod in pods.by_name.values()}) == 3


def test_scaling_down_takes_the_highest_leader_and_workers_outlive_it() -> None:
    lws = lws_of(replicas=3)
    pods = running(lws)
    lws["spec"]["replicas"] = 1
    assert deleted(pods.plan(lws)) == ["dec-2", "dec-1"]
    assert not is_terminating(pods.by_name["dec-2-1"])
    assert deleted(pods.plan(lws)) == []
    assert lws["status"]["replicas"] == 3, "a draining group still holds its GPUs"
    pods.remove("dec-2")
    assert is_terminating(pods.by_name["dec-2-1"])


def test_a_group_is_not_created_again_before_its_last_pod_is_gone() -> None:
    lws = lws_of(replicas=1)
    pods = running(lws)
    pods.delete("dec-0")
    pods.remove("dec-0")
    assert pods.names() == ["dec-0-1"]
    assert not [action for action in pods.plan(lws) if isinstance(action, Create)]
    pods.remove("dec-0-1")
    pods.plan(lws)
    assert pods.names() == ["dec-0", "dec-0-1"]


def _restarted(pods: Pods) -> None:
    pods.restart("dec-1-1")


def _failed(pods: Pods) -> None:
    pods.by_name["dec-1-1"]["status"] = {"phase": "Failed", "message": "node lost"}


def _being_deleted(pods: Pods) -> None:
    pods.delete("dec-1-1")


def _gone(pods: Pods) -> None:
    del pods.by_name["dec-1-1"]


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_restarted, "pod dec-1-1 had a container restart (w, exit code 9)"),
        (_failed, "pod dec-1-1 failed: node lost"),
        (_being_deleted, "pod dec-1-1 is being deleted"),
        (_gone, "pod dec-1-1 is gone"),
    ],
)
def test_a_broken_group_is_recreated_and_says_why(harm: Any, why: str) -> None:
    lws = lws_of()
    pods = running(lws)
    harm(pods)
    actions = pods.plan(lws)
    assert deleted(actions) == ["dec-1"]
    notes = [action for action in actions if isinstance(action, Note)]
    assert [note.message for note in notes] == [f"group 1 is recreated: {why}"]


def test_restart_policy_none_only_fills_the_gap() -> None:
    lws = lws_of()
    lws["spec"]["leaderWorkerTemplate"]["restartPolicy"] = "None"
    pods = running(lws)
    _gone(pods)
    actions = pods.plan(lws)
    assert deleted(actions) == []
    assert pods.names() == ["dec-0", "dec-0-1", "dec-1", "dec-1-1"]
    assert pods.by_name["dec-1-1"]["metadata"]["ownerReferences"][0]["name"] == "dec-1"


def test_leader_ready_waits_with_the_workers() -> None:
    lws = lws_of(replicas=1, startupPolicy="LeaderReady")
    pods = Pods()
    pods.plan(lws)
    pods.plan(lws)
    assert pods.names() == ["dec-0"]
    pods.run("dec-0")
    pods.plan(lws)
    assert pods.names() == ["dec-0", "dec-0-1"]


def test_a_new_template_rolls_one_group_at_a_time_from_the_highest_index() -> None:
    lws = lws_of(replicas=3)
    pods = running(lws)
    lws["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]["image"] = "v2"
    replaced = []
    for _ in range(3):
        victims = deleted(pods.plan(lws))
        replaced += victims
        assert deleted(pods.plan(lws)) == []
        for name in (victims[0], f"{victims[0]}-1"):
            pods.remove(name)
        pods.plan(lws)
        assert deleted(pods.plan(lws)) == [], "the next group waits until this one is ready"
        pods.run(victims[0])
        pods.run(f"{victims[0]}-1")
    assert replaced == ["dec-2", "dec-1", "dec-0"]
    pods.plan(lws)
    assert lws["status"]["updatedReplicas"] == 3


def test_a_broken_rollout_is_replaced_by_a_good_one() -> None:
    lws = lws_of(replicas=2)
    pods = running(lws)
    container = lws["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]
    container["image"] = "bad"
    pods.plan(lws)
    pods.remove("dec-1")
    pods.remove("dec-1-1")
    pods.plan(lws)
    container["image"] = "good"
    assert deleted(pods.plan(lws)) == ["dec-1"], "not the group that still serves"


def test_status_counts_groups_whose_pods_are_all_ready() -> None:
    lws = lws_of(replicas=2)
    pods = Pods()
    pods.plan(lws)
    for name in ("dec-0", "dec-0-1", "dec-1"):
        pods.run(name)
    pods.plan(lws)
    status = lws["status"]
    counts = {key: status[key] for key in ("replicas", "readyReplicas", "updatedReplicas", "observedGeneration")}
    assert counts == {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "observedGeneration": 3}
    assert status["hpaPodSelector"] == f"{names.LWS_NAME}=dec,{names.LWS_WORKER_INDEX}=0"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Available": "False",
        "Progressing": "True",
        "UpdateInProgress": "False",
    }
    assert not [a for a in pods.plan(lws) if isinstance(a, Patch)], "an unchanged status is not written again"


STEPS = st.tuples(
    st.sampled_from(["run", "restart", "delete", "force", "finish", "scale", "template", "size"]),
    st.integers(0, 11),
)


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_life_keeps_the_invariants_and_settles(steps: list[tuple[str, int]]) -> None:
    lws, pods = lws_of(), Pods()
    for what, number in steps:
        _step(lws, pods, what, number)
        actions = pods.plan(lws)
        assert all(action.kind == POD for action in actions if isinstance(action, Create | Delete))
        alive = [p for p in pods.by_name.values() if not is_terminating(p)]
        leaders = [p for p in alive if labels_of(p)[names.LWS_WORKER_INDEX] == "0"]
        assert len(leaders) <= lws["spec"]["replicas"]
        assert all(labels_of(leader)[names.LWS_GROUP_INDEX] < str(lws["spec"]["replicas"]) for leader in leaders)
    pods.settle(lws)
    size, replicas = lws["spec"]["leaderWorkerTemplate"]["size"], lws["spec"]["replicas"]
    wanted = [f"dec-{i}" + (f"-{j}" if j else "") for i in range(replicas) for j in range(size)]
    assert pods.names() == sorted(wanted)
    assert lws["status"]["readyReplicas"] == lws["status"]["updatedReplicas"] == replicas


def _step(lws: Object, pods: Pods, what: str, number: int) -> None:
    template = lws["spec"]["leaderWorkerTemplate"]
    if what == "scale":
        lws["spec"]["replicas"] = number % 4
    elif what == "template":
        template["workerTemplate"]["spec"]["containers"][0]["image"] = f"v{number}"
    elif what == "size":
        template["size"] = 1 + number % 3
    elif pods.by_name:
        name = pods.names()[number % len(pods.by_name)]
        terminating = is_terminating(pods.by_name[name])
        if what == "force" or (what == "finish" and terminating):
            pods.remove(name)
        elif not terminating and what != "finish":
            getattr(pods, what)(name)
