"""What is dropped of an object changes nothing of what is read."""

from __future__ import annotations

from typing import Any

from gangscheduler.slim import slim_node, slim_pod
from gangscheduler.snapshot import family_of, read_node, read_pod, refused_by
from kubeapi import names
from tests.gangscheduler.builders import Object, node, tp_group


def rich_pod(**status: Any) -> Object:
    """A pod with all that the scheduler reads, and much that it does not."""
    raw = tp_group("decode", 0, [4, 4])[1]
    heavy = {"image": "i", "command": ["x"] * 50, "env": [{"name": "A", "value": "b" * 100}], "volumeMounts": []}
    raw["spec"]["containers"][0] |= heavy
    raw["spec"] |= {
        "initContainers": [{"name": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}} | heavy],
        "overhead": {"cpu": "250m"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "priority": 7,
        "volumes": [{"name": "v", "emptyDir": {}}],
        "schedulingGates": [{"name": "g"}],
    }
    owners = [{"kind": "Job", "name": "j", "uid": "1"}, {"kind": "LWS", "name": "l", "uid": "2", "controller": True}]
    raw["metadata"] |= {"ownerReferences": owners, "managedFields": [{"manager": "m" * 200}], "resourceVersion": "9"}
    raw["status"] = {"phase": "Pending", "podIP": "10.0.0.1"} | status
    return raw


def test_a_slim_pod_reads_as_the_whole_one() -> None:
    started = {"containerStatuses": [{"name": "main", "restartCount": 1, "state": {"running": {}}, "image": "x" * 99}]}
    for status in ({}, started, {"phase": "Failed", "reason": "OutOfcpu"}):
        raw = rich_pod(**status)
        raw["spec"]["nodeName"] = "n0"
        slim = slim_pod(raw)
        assert read_pod(slim, names.SCHEDULER_NAME) == read_pod(raw, names.SCHEDULER_NAME)
        assert refused_by(slim, names.SCHEDULER_NAME) == refused_by(raw, names.SCHEDULER_NAME)
        assert family_of(slim) == family_of(raw)
        assert len(str(slim)) < len(str(raw)) / 2
        assert slim["metadata"]["resourceVersion"] == "9"


def test_only_the_condition_that_is_compared_is_kept() -> None:
    conditions = [{"type": kind, "status": "False"} for kind in ("PodScheduled", "Ready", "Initialized")]
    assert slim_pod(rich_pod(conditions=conditions))["status"]["conditions"] == conditions[:1]


def test_a_slim_node_reads_as_the_whole_one() -> None:
    taints = [{"key": "k", "effect": "NoSchedule"}]
    raw = node("n0", 8, place="z/b/r", taints=taints, labels={"a": "b"}, unschedulable=True)
    raw["status"] |= {"images": [{"names": ["x" * 200]}] * 50, "nodeInfo": {"osImage": "y" * 100}}
    raw["status"]["conditions"].append({"type": "DiskPressure", "status": "False"})
    slim = slim_node(raw)
    assert read_node(slim) == read_node(raw)
    assert len(str(slim)) < len(str(raw)) / 10
