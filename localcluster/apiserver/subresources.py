"""The views of an object that are not the object: `/scale` and `/binding`; each writes its own field only. Pure."""

from typing import Any

from localcluster.apiserver.kinds import Served
from localcluster.apiserver.refusal import Object, bad_request, conflict, invalid
from localcluster.apiserver.selectors import at, selector_text


def scale_of(served: Served, obj: Object) -> Object:
    """The autoscaling/v1 Scale of a workload."""
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    meta = {key: obj["metadata"][key] for key in kept if key in obj["metadata"]}
    selector = at(obj, served.scale_selector) or ""
    text = selector_text(selector) if isinstance(selector, dict) else selector
    status = {"replicas": at(obj, "status.replicas") or 0, "selector": text}
    spec = {"replicas": at(obj, "spec.replicas") or 0}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def with_scale(obj: Object, scale: Any) -> Object:
    """The workload with the replicas and, for locking, the version and uid of a Scale."""
    name, meta, replicas = obj["metadata"]["name"], at(scale, "metadata"), at(scale, "spec.replicas")
    if replicas is not None and (type(replicas) is not int or replicas < 0):
        why = f"Invalid value: {replicas!r}: must be an integer greater than or equal to 0"
        raise invalid("Scale.autoscaling", name, "spec.replicas", why)
    if not isinstance(meta, dict) or meta.get("name", name) != name:
        raise bad_request(f"metadata.name of the Scale must be {name}")
    obj["metadata"] |= {key: meta[key] for key in ("resourceVersion", "uid") if meta.get(key)}
    obj["spec"]["replicas"] = replicas or 0
    return obj


def with_binding(pod: Object, binding: Any, now: str) -> Object:
    """The pod on the node that a Binding names."""
    meta, node, taken = pod["metadata"], at(binding, "target.name"), pod["spec"].get("nodeName")
    if not isinstance(node, str) or not node:
        raise bad_request("a Binding needs target.name, the name of a node")
    if taken or meta.get("deletionTimestamp"):
        why = f'already assigned to node "{taken}"' if taken else "being deleted, cannot be assigned to a host"
        raise conflict("pods", meta["name"], f"pod {meta['name']} is {why}")
    meta["uid"] = at(binding, "metadata.uid") or meta["uid"]
    if annotations := at(binding, "metadata.annotations"):
        meta["annotations"] = (meta.get("annotations") or {}) | annotations
    pod["spec"]["nodeName"] = node
    others = [item for item in at(pod, "status.conditions") or [] if item["type"] != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    pod["status"]["conditions"] = [*others, scheduled]
    return pod
