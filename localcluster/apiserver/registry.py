"""What a write means: identity, versions, generation, finalizers, grace and the garbage of owners.

A write computes the whole new object first and stores it last: a refusal leaves nothing half done. What follows from
a deletion (dependents, namespaces) is deferred, so that the answer does not wait.
"""

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_hex
from typing import Any, NamedTuple

from localcluster.apiserver import managed
from localcluster.apiserver.kinds import BY_OWNER, EVENTS, NAMESPACES, PODS, Served
from localcluster.apiserver.refusal import Object, Refusal, bad_request, conflict, invalid, not_found
from localcluster.apiserver.schema import Models, check
from localcluster.apiserver.selectors import at, selector_text
from localcluster.apiserver.store import Entry, Ref, Store

MAX_EVENTS = 2_000
_FOREGROUND = "foregroundDeletion"


class Write(NamedTuple):
    manager: str
    subresource: str = ""
    dry_run: bool = False
    replaces: bool = False


class Deletion(NamedTuple):
    """DeleteOptions; `expected` may hold the uid and resourceVersion that the object must have."""

    grace_s: int | None = None
    propagation: str = "Background"
    expected: Mapping[str, Any] = {}


_COLLECTOR = Write("kube-controller-manager")


def timestamp(after_s: int = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=after_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Registry:
    """Creates, updates and deletes in a Store. `defer(f)` must call f soon, but not now."""

    def __init__(self, store: Store, defer: Callable[[Callable[[], None]], object], models: Models) -> None:
        self.store, self._defer, self._models = store, defer, models

    def create(self, served: Served, namespace: str, body: Object, write: Write) -> Entry:
        """Store a new object. Refuses with 404 (namespace), 409 (exists) and 422."""
        meta = body["metadata"]
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{token_hex(3)[:5]}"
        if served.kind.namespaced:
            self._enter_namespace(served, namespace, meta)
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        _restore({}, meta, *managed.SERVER_META)
        if served.status and not served.keeps_status:
            body.pop("status", None)
        check(served, body, None, self._models)
        ref = Ref(served, namespace, meta["name"])
        if self.store.find(ref):
            message = f'{served.resource} "{ref.name}" already exists'
            raise Refusal(409, "AlreadyExists", message, name=ref.name, kind=served.resource)
        identity: Object = {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}
        meta |= identity | {"generation": 1} if served.generation else identity
        meta["managedFields"] = _recorded(None, body, write)
        if write.dry_run:
            return Entry(body)
        if served is EVENTS and len(events := self.store.scan(EVENTS)) >= MAX_EVENTS:
            self._remove(min(events, key=lambda row: int(row[1].obj["metadata"]["resourceVersion"]))[0])
        if meta.get("ownerReferences"):
            self._defer(partial(self._check_owners, ref, meta["uid"]))
        return self.store.put(ref, body)

    def update(self, ref: Ref, change: Callable[[Object], Any], write: Write) -> Entry:
        """Store `change(copy of the object)`. Refuses with 404, 409 (stale) and 422."""
        old = self.store.get(ref)
        new, known, binds = change(old.fresh()), old.fresh(), write.subresource == "binding"
        _check_identity(ref, known, new, write)
        if write.subresource == "status":
            kept = old.fresh() if ref.served.custom else old.fresh() | {"metadata": new["metadata"]}
            new = kept | {"status": new.get("status") or {}}
        elif ref.served.status and not binds:
            _restore(known, new, "status")
        _restore(known, new, "apiVersion", "kind")
        _restore(known["metadata"], new["metadata"], *managed.FIXED_META)
        check(ref.served, new, None if binds else old.obj, self._models)
        if new == old.obj:
            return old
        meta = new["metadata"]
        if ref.served.generation and not binds and new.get("spec") != old.obj.get("spec"):
            meta["generation"] += 1
        meta["managedFields"] = _recorded(old.obj, new, write)
        if write.dry_run:
            return Entry(new)
        entry = self.store.put(ref, new)
        waits = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds") or ref.served is NAMESPACES
        return entry if "deletionTimestamp" not in meta or waits else self._remove(ref)

    def delete(self, ref: Ref, options: Deletion, write: Write) -> tuple[Entry, bool]:
        """Delete or begin to; returns the last state and whether the object is gone."""
        old = self.store.get(ref)
        meta = old.obj["metadata"]
        _check_expected(ref, meta, options.expected)
        spec, waits, grace_s = old.obj.get("spec") or {}, list(meta.get("finalizers") or []), 0
        # Only a pod that a kubelet may be running is given time.
        if ref.served is PODS and spec.get("nodeName") and old.obj["status"]["phase"] not in ("Succeeded", "Failed"):
            grace_s = spec["terminationGracePeriodSeconds"] if options.grace_s is None else options.grace_s
        dependents = self.store.dependents(meta["uid"])
        if options.propagation == "Foreground" and dependents and _FOREGROUND not in waits:
            waits.append(_FOREGROUND)
        if options.propagation == "Orphan" and not write.dry_run:
            for dependent in dependents:
                self._keep(dependent, "ownerReferences", lambda owner: owner["uid"] != meta["uid"])
        if not waits and not grace_s and ref.served is not NAMESPACES:
            return (old if write.dry_run else self._remove(ref)), True
        sooner = grace_s < meta.get("deletionGracePeriodSeconds", grace_s + 1)
        if not sooner and waits == (meta.get("finalizers") or []):
            return old, False
        return self._begin_deletion(ref, old.fresh(), grace_s, waits, write), False

    def _enter_namespace(self, served: Served, namespace: str, meta: Object) -> None:
        if meta.setdefault("namespace", namespace) != namespace:
            raise bad_request(f"metadata.namespace must be {namespace}, as in the path: {meta['namespace']!r}")
        home = self.store.find(Ref(NAMESPACES, "", namespace))
        if home is None:
            raise not_found("namespaces", namespace)
        if "deletionTimestamp" in home.obj["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise Refusal(403, "Forbidden", f'{served.resource} "{meta.get("name")}" is forbidden: {why}')

    def _begin_deletion(self, ref: Ref, obj: Object, grace_s: int, waits: list[str], write: Write) -> Entry:
        meta = obj["metadata"]
        meta |= {"generation": meta["generation"] + ("deletionTimestamp" not in meta)} if ref.served.generation else {}
        meta |= {"deletionTimestamp": timestamp(grace_s), "deletionGracePeriodSeconds": grace_s}
        meta |= {"finalizers": waits} if waits else {}
        if ref.served is NAMESPACES:
            obj["status"] = {"phase": "Terminating"}
        if write.dry_run:
            return Entry(obj)
        if ref.served is NAMESPACES:
            self._defer(partial(self._empty_namespace, ref.name))
        if _FOREGROUND in waits:
            self._defer(partial(self._collect, meta["uid"], "Foreground"))
        return self.store.put(ref, obj)

    def _remove(self, ref: Ref) -> Entry:
        entry = self.store.remove(ref)
        meta = entry.obj["metadata"]
        self._defer(partial(self._collect, meta["uid"], "Background"))
        for owner in meta.get("ownerReferences") or []:
            self._defer(partial(self._finish_owner, owner["uid"]))
        self._finish_namespace(ref.namespace)
        return entry

    def _collect(self, uid: str, propagation: str) -> None:
        """The dependents of an owner go, unless another owner of theirs lives."""
        for ref in self.store.dependents(uid):
            owners = self.store.get(ref).obj["metadata"]["ownerReferences"]
            if any(owner["uid"] != uid and self._lives(owner) for owner in owners):
                self._keep(ref, "ownerReferences", lambda owner: owner["uid"] != uid)
            else:
                self.delete(ref, Deletion(propagation=propagation), _COLLECTOR)

    def _check_owners(self, ref: Ref, uid: str) -> None:
        """An object that was created for owners that are all gone is garbage from the start."""
        owners = self.store.get(ref).obj["metadata"].get("ownerReferences") if self.store.by_uid.get(uid) else None
        if owners and not any(map(self._lives, owners)):
            self.delete(ref, Deletion(), _COLLECTOR)

    def _lives(self, owner: Object) -> bool:
        """Whether an owner may exist; of kinds not served here nothing is known."""
        return (owner["apiVersion"], owner["kind"]) not in BY_OWNER or owner["uid"] in self.store.by_uid

    def _keep(self, ref: Ref, key: str, keeps: Callable[[Any], bool]) -> None:
        kept = list(filter(keeps, self.store.get(ref).obj["metadata"].get(key) or []))
        self.update(ref, lambda obj: {**obj, "metadata": {**obj["metadata"], key: kept}}, _COLLECTOR)

    def _finish_owner(self, uid: str) -> None:
        """The last dependent of a foreground deletion lets the owner go."""
        ref = self.store.by_uid.get(uid)
        if ref and not self.store.dependents(uid):
            self._keep(ref, "finalizers", lambda name: name != _FOREGROUND)

    def _empty_namespace(self, namespace: str) -> None:
        for ref in self.store.in_namespace(namespace):
            self.delete(ref, Deletion(), _COLLECTOR)
        self._finish_namespace(namespace)

    def _finish_namespace(self, namespace: str) -> None:
        entry = self.store.find(home := Ref(NAMESPACES, "", namespace))
        if entry and "deletionTimestamp" in entry.obj["metadata"] and not self.store.in_namespace(namespace):
            self._remove(home)


def _recorded(old: Object | None, new: Object, write: Write) -> list[Object]:
    subresource = "" if write.subresource == "binding" else write.subresource
    return managed.record(old, new, manager=write.manager, subresource=subresource, now=timestamp())


def _check_identity(ref: Ref, old: Object, new: Any, write: Write) -> None:
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        raise bad_request("the changed object has no metadata")
    patched = write.subresource in ("", "status") and not write.replaces
    for path in ("apiVersion", "kind", "metadata.name", "metadata.namespace") + ("metadata.uid",) * patched:
        if at(new, path) not in (at(old, path), None):
            raise invalid(ref.served.kind.kind, ref.name, path, "Invalid value: field is immutable")
    # Only the kinds of the oldest groups may be replaced without naming the version that is replaced.
    if write.replaces and "." in ref.served.kind.group and not at(new, "metadata.resourceVersion"):
        why = "Invalid value: 0: must be specified for an update"
        raise invalid(ref.served.resource, ref.name, "metadata.resourceVersion", why)
    _check_expected(ref, old["metadata"], new["metadata"])


def _check_expected(ref: Ref, known: Object, expected: Mapping[str, Any]) -> None:
    for key in ("uid", "resourceVersion"):
        if (expected.get(key) or known[key]) != known[key]:
            why = f"the object has been modified; its {key} is {known[key]}, the request expects {expected[key]}"
            raise conflict(ref.served.resource, ref.name, why)


def _restore(known: Object, target: Object, *keys: str) -> None:
    for key in keys:
        target.pop(key, None)
    target |= {key: known[key] for key in keys if key in known}


def scale_of(served: Served, obj: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    meta = {key: obj["metadata"][key] for key in kept if key in obj["metadata"]}
    selector = at(obj, served.scale_selector) or ""
    text = selector_text(selector) if isinstance(selector, dict) else selector
    status = {"replicas": at(obj, "status.replicas") or 0, "selector": text}
    spec = {"replicas": replicas} if (replicas := at(obj, "spec.replicas")) else {}  # 0 is left out, as there
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def with_scale(served: Served, change: Callable[[Object], Any], obj: Object) -> Object:
    """The workload with the replicas and, for locking, the version and uid of its changed Scale."""
    scale = change(scale_of(served, obj))
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
    gates = pod["spec"].get("schedulingGates")
    if not isinstance(node, str) or not node:
        raise bad_request("a Binding needs target.name, the name of a node")
    if taken or gates or meta.get("deletionTimestamp"):
        why = f'already assigned to node "{taken}"' if taken else "gated" if gates else "being deleted"
        raise conflict("pods", meta["name"], f"pod {meta['name']} is {why}")
    meta["uid"] = at(binding, "metadata.uid") or meta["uid"]
    if annotations := at(binding, "metadata.annotations"):
        meta["annotations"] = (meta.get("annotations") or {}) | annotations
    pod["spec"]["nodeName"] = node
    others = [item for item in at(pod, "status.conditions") or [] if item["type"] != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    pod["status"]["conditions"] = [*others, scheduled]
    return pod
