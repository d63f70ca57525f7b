"""Near misses: what almost belongs to a service, and does not, by a label that is a little off. Pure.

Rules:
1. Only what the selectors do not match is looked at; nothing is guessed to belong.
2. One line per kind of mistake: how many objects, the first of them, what they say, what was expected.
3. What is a whole service of its own (both roles) is near nobody who has any workload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kubeapi import names

if TYPE_CHECKING:
    from autoscaler.adapters.fleet import World

Object = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and service."""

ROLES = (names.ROLE_PREFILL, names.ROLE_DECODE, names.ROLE_ROUTER)
ROUTERS = ("router", "gateway", "frontend", "epp")
"""What people call what stands before the workers."""


def near_misses(world: World, namespace: str, service: str) -> tuple[str, ...]:
    """One line for each mistake. Linear in the cluster's workloads and pods."""
    whole = _whole(world, (namespace, service))
    workloads = [one for one in world.workloads if _key(one) not in whole]
    wrong = {_key(one) for one in workloads if _is_near(one, namespace, service)}
    # Pods whose workload has the same label are told with it.
    pods = [pod for pod in world.pods if _key(pod) not in whole | wrong]
    return (
        *_labels(workloads, "workload", namespace, service),
        *_labels(pods, "pod", namespace, service),
        *_roles(world, namespace, service),
        *_templates(world.workloads, namespace, service),
    )


def likely_routers(world: World, namespace: str, service: str) -> tuple[str, ...]:
    """Where no router bears the labels: what is called like one and bears none, in one line, or nothing."""
    every = [one for one in (*world.workloads, *world.pods) if _meta(one).get("namespace") == namespace]
    if any(_label(one, names.LABEL_ROLE) == names.ROLE_ROUTER and _service(one) == service for one in every):
        return ()
    titles = {
        f"{one.get('kind', 'Pod')} {_meta(one)['name']}"
        for one in every
        if not _service(one) and not _meta(one).get("ownerReferences") and _sounds_like_a_router(_meta(one)["name"])
    }
    labels = f"{names.LABEL_SERVICE}={service} and {names.LABEL_ROLE}={names.ROLE_ROUTER}"
    told = f"{' and '.join(sorted(titles)[:3])}: without labels; if it is the service's router, give its pods {labels}"
    return (told,) if titles else ()


def _sounds_like_a_router(name: str) -> bool:
    return any(word in ROUTERS for word in name.replace("_", "-").casefold().split("-"))


def _whole(world: World, own: Key) -> frozenset[Key]:
    """The other services that have a workload of each role, unless there is none of our own."""
    roles: dict[Key, set[str]] = {}
    for workload in world.workloads:
        roles.setdefault(_key(workload), set()).add(_label(workload, names.LABEL_ROLE))
    both = {names.ROLE_PREFILL, names.ROLE_DECODE}
    return (
        frozenset(key for key, found in roles.items() if both <= found and key != own) if own in roles else frozenset()
    )


def _labels(objects: Iterable[Object], what: str, namespace: str, service: str) -> Iterable[str]:
    found: dict[str, list[Object]] = {}
    elsewhere: dict[str, list[Object]] = {}
    for obj in objects:
        if _is_near(obj, namespace, service):
            found.setdefault(_service(obj), []).append(obj)
        elif _service(obj) == service and _meta(obj).get("namespace") != namespace:
            elsewhere.setdefault(str(_meta(obj).get("namespace")), []).append(obj)
    for value, those in found.items():
        yield f"{_named(those, what)}: label {names.LABEL_SERVICE}={value}; expected {service}"
    for other, those in elsewhere.items():
        label = f"label {names.LABEL_SERVICE}={service}"
        yield f"{_named(those, what)} in namespace {other}: {label}; expected in namespace {namespace}"


def _is_near(obj: Object, namespace: str, service: str) -> bool:
    value = _service(obj)
    if _meta(obj).get("namespace") != namespace or value in ("", service):
        return False
    one, other = value.casefold(), service.casefold()
    return one.startswith(other) or other.startswith(one)


def _roles(world: World, namespace: str, service: str) -> Iterable[str]:
    """Pods of the service whose role is none."""
    wrong: dict[str, list[Object]] = {}
    for pod in world.pods:
        role = _label(pod, names.LABEL_ROLE)
        if _meta(pod).get("namespace") == namespace and _service(pod) == service and role not in ROLES:
            wrong.setdefault(role, []).append(pod)
    for role, pods in wrong.items():
        said = f"label {names.LABEL_ROLE}={role}" if role else f"no label {names.LABEL_ROLE}"
        yield f"{_named(pods, 'pod')}: {said}; expected one of {', '.join(ROLES)}"


def _templates(workloads: Iterable[Object], namespace: str, service: str) -> Iterable[str]:
    """Workloads of the service whose pods will not bear its labels."""
    for workload in workloads:
        if _meta(workload).get("namespace") != namespace or _service(workload) != service:
            continue
        lacking = [
            key
            for key in (names.LABEL_SERVICE, names.LABEL_ROLE)
            if any(_label(template, key) != _label(workload, key) for template in _pod_templates(workload))
        ]
        if lacking:
            yield (
                f"{workload['kind']} {_meta(workload)['name']}: its pod template lacks the label "
                f"{' and '.join(f'{key}={_label(workload, key)}' for key in lacking)}, so its pods are not found"
            )


def _pod_templates(workload: Object) -> list[Object]:
    spec = workload["spec"]
    group = spec.get("leaderWorkerTemplate")
    if group is None:
        return [spec["template"]]
    return [template for key in ("leaderTemplate", "workerTemplate") if (template := group.get(key))]


def _named(objects: Sequence[Object], what: str) -> str:
    first = _meta(objects[0])["name"]
    return f"{what} {first}" if len(objects) == 1 else f"{len(objects)} {what}s ({first}, ...)"


def _key(obj: Object) -> Key:
    return str(_meta(obj).get("namespace")), _service(obj)


def _service(obj: Object) -> str:
    return _label(obj, names.LABEL_SERVICE)


def _label(obj: Object, key: str) -> str:
    return str(((obj.get("metadata") or {}).get("labels") or {}).get(key, ""))


def _meta(obj: Object) -> Any:
    return obj["metadata"]
