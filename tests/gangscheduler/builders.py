"""Raw Kubernetes objects for tests, as small as the scheduler allows.

Rule: a builder fills in what a test does not care about, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gangscheduler.model import Snapshot, Template, Verdict, Verdicts
from gangscheduler.snapshot import build, pod_shape
from kubeapi import names

Object = dict[str, Any]

NAMESPACE = "default"
T0 = "2026-01-01T00:00:00Z"
T0_S = 1767225600.0


def node(name: str, gpu: int = 8, *, place: str = "", ready: bool = True, **extra: Any) -> Object:
    """A node; `place` is "zone/block/rack". Extra: labels, taints, unschedulable, allocatable."""
    levels = (names.TOPOLOGY_ZONE, names.TOPOLOGY_BLOCK, names.TOPOLOGY_RACK)
    labels = dict(zip(levels, place.split("/"), strict=False)) if place else {}
    allocatable = {"cpu": "64", "memory": "256Gi", "pods": "110"} | extra.get("allocatable", {})
    if gpu:
        allocatable[names.GPU] = str(gpu)
    return {
        "metadata": {"name": name, "labels": labels | extra.get("labels", {})},
        "spec": {"taints": extra.get("taints", []), "unschedulable": extra.get("unschedulable", False)},
        "status": {
            "allocatable": allocatable,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def pod_spec(gpu: int = 0, cpu: str = "", **spec: Any) -> Object:
    """A pod's spec with one container."""
    requests = ({names.GPU: str(gpu)} if gpu else {}) | ({"cpu": cpu} if cpu else {})
    return {"containers": [{"name": "main", "resources": {"requests": requests}}]} | spec


def pod(name: str, gpu: int = 0, *, group: str = "", on: str = "", **extra: Any) -> Object:
    """A pod of ours. Extra: spec, labels, annotations, created, phase, terminating, cpu."""
    spec = pod_spec(gpu, extra.get("cpu", "")) | {"schedulerName": names.SCHEDULER_NAME}
    if group:
        spec["schedulingGroup"] = {"podGroupName": group}
    if on:
        spec["nodeName"] = on
    meta = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "creationTimestamp": extra.get("created", T0),
        "labels": extra.get("labels", {}),
        "annotations": extra.get("annotations", {}),
    }
    if extra.get("terminating"):
        meta["deletionTimestamp"] = T0
    phase = extra.get("phase", "Running" if on else "Pending")
    return {"metadata": meta, "spec": spec | extra.get("spec", {}), "status": {"phase": phase}}


def tp_group(podgroup: str, index: int, gpus: Iterable[int], *, on: Iterable[str] = (), **extra: Any) -> list[Object]:
    """The pods of one TP group of an LWS, leader first, with the GPUs of each; `on` their nodes.

    `only` keeps the first so many, as while a controller creates them.
    """
    gpus, on = list(gpus), list(on)
    made = []
    for worker, gpu in list(enumerate(gpus))[: extra.pop("only", None)]:
        labels = {
            names.LWS_GROUP_KEY: f"{podgroup}-{index}",
            names.LWS_GROUP_INDEX: str(index),
            names.LWS_WORKER_INDEX: str(worker),
        }
        made.append(
            pod(
                f"{podgroup}-{index}" + (f"-{worker}" if worker else ""),
                gpu,
                group=podgroup,
                on=on[worker] if worker < len(on) else "",
                labels=labels,
                annotations={names.LWS_SIZE: str(len(gpus))},
                **extra,
            )
        )
    return made


def podgroup(name: str, min_count: int = 0, *, service: str = "", role: str = "", **extra: Any) -> Object:
    """A PodGroup. Extra: created, priority, annotations."""
    labels = {names.LABEL_SERVICE: service, names.LABEL_ROLE: role}
    spec: Object = {"schedulingPolicy": {"gang": {"minCount": min_count}} if min_count else {"basic": {}}}
    if "priority" in extra:
        spec["priority"] = extra["priority"]
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "creationTimestamp": extra.get("created", T0),
            "labels": {key: value for key, value in labels.items() if value},
            "annotations": extra.get("annotations", {}),
        },
        "spec": spec,
    }


def shape_notes(pods: int, gpus: int) -> dict[str, str]:
    """The annotations that tell a PodGroup's shape."""
    return {names.ANNOTATION_PODS_PER_GROUP: str(pods), names.ANNOTATION_GPUS_PER_POD: str(gpus)}


def see(
    nodes: Iterable[Object], pods: Iterable[Object] = (), groups: Iterable[Object] = (), now_s: float = T0_S
) -> Snapshot:
    """The snapshot of raw objects."""
    return build(now_s, nodes, pods, groups)


def template(*gpus: int) -> Template:
    """A TP group's template by the GPUs of its pods."""
    return tuple(pod_shape(pod_spec(gpu)) for gpu in gpus)


def bound(verdicts: Verdicts) -> dict[str, str]:
    """Pod name -> node of this cycle's bindings."""
    return {binding.pod.split("/")[1]: binding.node for binding in verdicts.bindings}


def verdict(verdicts: Verdicts, name: str) -> Verdict:
    """The verdict of a PodGroup."""
    return next(one for one in verdicts.groups if one.name == f"{NAMESPACE}/{name}")
