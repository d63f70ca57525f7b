"""What the demo applies: the objects that a user of a real cluster would write.

Rules:
1. Pure: a `Shape` in, Kubernetes objects out.
2. A TP group is a leader and a rank, one GPU each; each role has one PodGroup, named in its pod template.
3. In somebody else's cluster everything is marked with a label, and the pods run on the demo's own nodes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kubeapi import kinds, names
from kubeapi.kinds import Kind
from serving.options import DEFAULT_MODEL, DEFAULT_PROFILE

NAMESPACE = "roleratio-demo"
SERVICE = "demo"
MARK = {names.DEMO: NAMESPACE}
MODEL = DEFAULT_MODEL
HTTP_PORT = 8000
RANK_PORT = 8001
RANK_READY_PORT = 8002
PODS_PER_GROUP = 2
GPUS_PER_POD = 1
GPUS_PER_GROUP = PODS_PER_GROUP * GPUS_PER_POD
DECODE_MAX_NUM_SEQS = 16
DRAIN_LIMIT_S = 120
IMAGE = "roleratio/serving:local"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between two demos. The cold start is spent by pulling the image, then by loading weights."""

    prefill_groups: int = 1
    decode_groups: int = 1
    cold_start_s: float = 8.0

    @property
    def pull_s(self) -> float:
        """The part of the cold start that pulls the image."""
        return round(self.cold_start_s * 0.375, 3)

    @property
    def load_s(self) -> float:
        """The rest: loading weights."""
        return round(self.cold_start_s - self.pull_s, 3)


def objects(shape: Shape) -> list[tuple[Kind, Object]]:
    """Everything to create, in order."""
    return [
        (kinds.NAMESPACE, {"metadata": {"name": NAMESPACE}}),
        (kinds.PODGROUP, _pod_group(names.ROLE_PREFILL)),
        (kinds.PODGROUP, _pod_group(names.ROLE_DECODE)),
        (kinds.LWS, _leader_worker_set(names.ROLE_PREFILL, shape.prefill_groups, shape)),
        (kinds.LWS, _leader_worker_set(names.ROLE_DECODE, shape.decode_groups, shape)),
        (kinds.SERVICE, _service()),
        (kinds.DEPLOYMENT, _router()),
    ]


def guest_namespace() -> Object:
    """The namespace in somebody else's cluster; its label says that it is the demo's to delete."""
    return {"metadata": {"name": NAMESPACE, "labels": MARK}}


def guest_objects(shape: Shape) -> list[tuple[Kind, Object]]:
    """Everything to create in that namespace, in order.

    Without the Service, whose endpoints a real API server refuses: the pods' addresses are the loopback's.
    """
    left_out = (kinds.NAMESPACE, kinds.SERVICE)
    return [(kind, _with_guest_pods(body)) for kind, body in objects(shape) if kind not in left_out]


def _with_guest_pods(body: Object) -> Object:
    """The object with every pod template in it, at whatever depth, made fit for the demo's own nodes."""
    changed = {key: _with_guest_pods(value) if isinstance(value, dict) else value for key, value in body.items()}
    if "containers" not in changed.get("spec", {}):
        return changed
    meta = changed["metadata"] | {"labels": changed["metadata"]["labels"] | MARK}
    spec = changed["spec"] | {
        "nodeSelector": MARK,
        "tolerations": [{"key": names.DEMO, "operator": "Exists", "effect": "NoSchedule"}],
        "automountServiceAccountToken": False,
    }
    return changed | {"metadata": meta, "spec": spec}


def leader_worker_set_crd() -> Object:
    """LeaderWorkerSet as far as the demo needs it, for a cluster that has none."""
    number = {"type": "integer", "minimum": 0}
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = anything | {"properties": {"replicas": number | {"default": 1}}}
    kind = kinds.LWS
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"},
            {"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"},
        ],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": anything}}},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.hpaPodSelector",
            },
        },
    }
    return {
        "metadata": {"name": f"{kind.plural}.{kind.group}", "labels": MARK},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower(), "shortNames": ["lws"]},
            "versions": [version],
        },
    }


def settings(shape: Shape, gpu_budget: int, prometheus_url: str | None = None) -> Object:
    """The RoleRatioAutoscaler of the demo; without a Prometheus the controller asks the pods."""
    source = {"prometheusUrl": prometheus_url} if prometheus_url else {}
    role = {
        "minGroups": 1,
        "maxGroups": 8,
        "scaleDown": {"stabilizationS": 20},
        "coldStartS": max(1.0, shape.cold_start_s),
    }
    return {
        "apiVersion": kinds.RRA.api_version,
        "kind": kinds.RRA.kind,
        "metadata": {"name": SERVICE, "namespace": NAMESPACE},
        "spec": {
            "service": SERVICE,
            "mode": "Active",
            "profile": DEFAULT_PROFILE,
            "slo": {
                "ttft": {"percentile": 95, "targetMs": 2000},
                "itl": {"percentile": 95, "targetMs": 60},
            },
            "gpuBudget": gpu_budget,
            "ratioBand": {"min": 0.2, "max": 5},
            "prefill": role,
            "decode": role | {"maxNumSeqs": DECODE_MAX_NUM_SEQS},
            "metrics": source | {"windowS": 10, "scrapeTimeoutS": 0.8},
            "forecastQuantile": 0.8,
            "syncPeriodS": 1,
        },
    }


def _labels(role: str) -> dict[str, str]:
    return {names.LABEL_SERVICE: SERVICE, names.LABEL_ROLE: role}


def _pod_group(role: str) -> Object:
    return {
        "metadata": {
            "name": role,
            "namespace": NAMESPACE,
            "labels": _labels(role),
            "annotations": {
                names.ANNOTATION_PODS_PER_GROUP: str(PODS_PER_GROUP),
                names.ANNOTATION_GPUS_PER_POD: str(GPUS_PER_POD),
            },
        },
        "spec": {"schedulingPolicy": {"gang": {"minCount": PODS_PER_GROUP}}},
    }


def _leader_worker_set(role: str, groups: int, shape: Shape) -> Object:
    return {
        "metadata": {"name": role, "namespace": NAMESPACE, "labels": _labels(role)},
        "spec": {
            "replicas": groups,
            "leaderWorkerTemplate": {
                "size": PODS_PER_GROUP,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _worker_template(role, shape, _http_probe()),
                "workerTemplate": _worker_template(role, shape, {"tcpSocket": {"port": RANK_READY_PORT}}),
            },
        },
    }


def _worker_template(role: str, shape: Shape, probe: Object) -> Object:
    arguments = ["serve", role, "--service", f"{NAMESPACE}/{SERVICE}", "--model", MODEL]
    arguments += ["--load-s", f"{shape.load_s:g}"]
    if role == names.ROLE_DECODE:
        arguments += ["--max-num-seqs", str(DECODE_MAX_NUM_SEQS)]
    container = _container("worker", arguments, probe) | {"resources": {"limits": {names.GPU: str(GPUS_PER_POD)}}}
    return {
        "metadata": {
            "labels": _labels(role),
            "annotations": {names.ANNOTATION_IMAGE_PULL_S: f"{shape.pull_s:g}"},
        },
        "spec": {
            "schedulerName": names.SCHEDULER_NAME,
            "schedulingGroup": {"podGroupName": role},
            "terminationGracePeriodSeconds": DRAIN_LIMIT_S,
            "containers": [container],
        },
    }


def _service() -> Object:
    return {
        "metadata": {"name": "router", "namespace": NAMESPACE, "labels": _labels(names.ROLE_ROUTER)},
        "spec": {
            "selector": _labels(names.ROLE_ROUTER),
            "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": HTTP_PORT}],
        },
    }


def _router() -> Object:
    arguments = ["serve", "router", "--service", f"{NAMESPACE}/{SERVICE}", "--model", MODEL]
    labels = _labels(names.ROLE_ROUTER)
    return {
        "metadata": {"name": "router", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "schedulerName": names.SCHEDULER_NAME,
                    "terminationGracePeriodSeconds": DRAIN_LIMIT_S,
                    "containers": [_container("router", arguments, _http_probe())],
                },
            },
        },
    }


def _container(name: str, arguments: list[str], probe: Object) -> Object:
    return {
        "name": name,
        "image": IMAGE,
        "command": ["python", "-m", "roleratio"],
        "args": arguments,
        "ports": [{"name": "http", "containerPort": HTTP_PORT}, {"name": "rank", "containerPort": RANK_PORT}],
        "env": [
            _field("POD_NAME", "metadata.name"),
            _field("POD_NAMESPACE", "metadata.namespace"),
            _field("POD_UID", "metadata.uid"),
            _field("POD_IP", "status.podIP"),
        ],
        "readinessProbe": probe | {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3},
    }


def _http_probe() -> Object:
    return {"httpGet": {"path": "/ready", "port": HTTP_PORT}}


def _field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
