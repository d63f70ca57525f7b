"""Raw Kubernetes objects for tests: as an API server would send them, no more fields than are read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kubeapi import names

Object = dict[str, Any]


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def container(gpus: int | str | None = 1, **extra: Any) -> Object:
    resources = {} if gpus is None else {"requests": {names.GPU: str(gpus)}}
    return {"name": "main", "image": "worker", "resources": resources, **extra}


def lws(
    role: str, *, replicas: int = 1, size: int = 2, gpus: int | str | None = 1, name: str = "", **spec: Any
) -> Object:
    pod_spec = {
        "containers": [container(gpus)],
        "schedulerName": names.SCHEDULER_NAME,
        "schedulingGroup": {"podGroupName": role},
        **spec,
    }
    labels = {names.LABEL_SERVICE: "demo", names.LABEL_ROLE: role}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {
            "name": name or role,
            "namespace": "ns",
            "uid": f"uid-{name or role}",
            "labels": labels,
            "creationTimestamp": at(0),
        },
        "spec": {
            "replicas": replicas,
            "leaderWorkerTemplate": {
                "size": size,
                "workerTemplate": {"metadata": {"labels": labels}, "spec": pod_spec},
            },
        },
    }


def podgroup(role: str, minimum: int, **meta: Any) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1beta1",
        "kind": "PodGroup",
        "metadata": {
            "name": role,
            "namespace": "ns",
            "labels": {names.LABEL_SERVICE: "demo", names.LABEL_ROLE: role},
            **meta,
        },
        "spec": {"schedulingPolicy": {"gang": {"minCount": minimum}}},
    }


def node(name: str, gpus: int, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {names.HOSTNAME: name}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110", names.GPU: str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(role: str, group: int, worker: int, *, ready: bool = True, ip: str = "127.0.0.1", **meta: Any) -> Object:
    name = f"{role}-{group}" + (f"-{worker}" if worker else "")
    labels = {
        names.LABEL_SERVICE: "demo",
        names.LABEL_ROLE: role,
        names.LWS_GROUP_KEY: f"{role}-{group}",
        names.LWS_GROUP_INDEX: str(group),
        names.LWS_WORKER_INDEX: str(worker),
    }
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": at(108 + worker)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "labels": labels,
            "annotations": {names.LWS_SIZE: "2"},
            "creationTimestamp": at(100),
            **meta,
        },
        "spec": {
            "containers": [container(ports=[{"containerPort": 8000}])],
            "nodeName": "n1",
            "schedulerName": names.SCHEDULER_NAME,
        },
        "status": {"phase": "Running", "podIP": ip, "conditions": [condition]},
    }


def group(role: str, index: int, **kwargs: Any) -> list[Object]:
    return [pod(role, index, 0, **kwargs), pod(role, index, 1, **kwargs)]
