"""What a write means: identity, versions, generation, finalizers, grace and the garbage of owners.

Rules:
1. A write computes the whole new object first and stores it last: a refusal leaves nothing half done.
2. What follows from a deletion (dependents, namespaces) is deferred, so that the answer does not wait.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_hex
from typing import Any

from localcluster.apiserver import managed
from localcluster.apiserver.kinds import BY_OWNER, EVENTS, NAMESPACES, PODS, Served
from localcluster.apiserver.refusal import Object, Refusal, bad_request, conflict, invalid, not_found
from localcluster.apiserver.schema import default, validate
from localcluster.apiserver.store import Entry, Ref, Store

MAX_EVENTS = 2_000
_FOREGROUND = "foregroundDeletion"
_SERVER_META = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
_RESTORED = (*_SERVER_META, "name", "generateName", "namespace", "resourceVersion", "managedFields")


@dataclass(frozen=True, slots=True)
class Write:
    """Who writes, through which subresource, and whether for real."""

    manager: str
    subresource: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Deletion:
    """DeleteOptions; `expected` may hold the uid and resourceVersion that the object must have."""

    grace_s: int | None = None
    propagation: str = "Background"
    expected: Mapping[str, Any] = field(default_factory=dict)


_COLLECTOR = Write("kube-controller-manager")


def timestamp(after_s: int = 0) -> str:
    """RFC 3339 in whole seconds, as in metadata."""
    return (datetime.now(UTC) + timedelta(seconds=after_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Registry:
    """Creates, updates and deletes in a Store. `defer(f)` must call f soon, but not now."""

    def __init__(self, store: Store, defer: Callable[[Callable[[], None]], object]) -> None:
        self.store = store
        self._defer = defer

    def create(self, served: Served, namespace: str, body: Object, write: Write) -> Entry:
        """Store a new object. Refuses with 404 (namespace), 409 (exists) and 422."""
        meta = body["metadata"]
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{token_hex(3)[:5]}"
        if served.kind.namespaced:
            self._enter_namespace(served, namespace, meta)
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        _restore({}, meta, *_SERVER_META)
        if served.status and not served.keeps_status:
            body.pop("status", None)
        default(served, body)
        validate(served, body, None)
        ref = Ref(served, namespace, meta["name"])
        if self.store.find(ref):
            message = f'{served.resource} "{ref.name}" already exists'
            raise Refusal(409, "AlreadyExists", message, name=ref.name, kind=served.resource)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}
        meta |= {"generation": 1} if served.generation else {}
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
        _check_identity(ref, known, new)
        if write.subresource == "status":
            new = {**old.fresh(), "status": new.get("status") or {}}
        elif ref.served.status and not binds:
            _restore(known, new, "status")
        _restore(known["metadata"], new["metadata"], *_RESTORED)
        default(ref.served, new)
        validate(ref.served, new, None if binds else old.obj)
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
        grace_s, waits = _grace_s(ref.served, old.obj, options.grace_s), list(meta.get("finalizers") or [])
        dependents = self.store.dependents(meta["uid"])
        if options.propagation == "Foreground" and dependents and _FOREGROUND not in waits:
            waits.append(_FOREGROUND)
        if options.propagation == "Orphan" and not write.dry_run:
            for dependent in dependents:
                self._disown(dependent, meta["uid"])
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
        meta |= {"deletionTimestamp": timestamp(grace_s), "deletionGracePeriodSeconds": grace_s}
        meta |= {"finalizers": waits} if waits else {}
        meta |= {"generation": meta["generation"] + 1} if ref.served.generation else {}
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
                self._disown(ref, uid)
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

    def _disown(self, ref: Ref, uid: str) -> None:
        self._keep(ref, "ownerReferences", lambda owner: owner["uid"] != uid)

    def _keep(self, ref: Ref, key: str, keeps: Callable[[Any], bool]) -> None:
        """Drop the others from a list in metadata."""
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
    # A binding is recorded as a write to the pod itself: there is no other view of nodeName.
    subresource = "" if write.subresource == "binding" else write.subresource
    return managed.record(old, new, manager=write.manager, subresource=subresource, now=timestamp())


def _check_identity(ref: Ref, old: Object, new: Any) -> None:
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        raise bad_request("the changed object has no metadata")
    meta, known = new["metadata"], old["metadata"]
    same = {key: new.get(key) == old[key] for key in ("apiVersion", "kind")}
    same |= {f"metadata.{key}": meta.get(key, known.get(key)) == known.get(key) for key in ("name", "namespace")}
    for path, is_same in same.items():
        if not is_same:
            raise invalid(ref.served.kind.kind, ref.name, path, "Invalid value: field is immutable")
    _check_expected(ref, known, meta)


def _check_expected(ref: Ref, known: Object, expected: Mapping[str, Any]) -> None:
    for key in ("uid", "resourceVersion"):
        if (expected.get(key) or known[key]) != known[key]:
            why = f"the object has been modified; its {key} is {known[key]}, the request expects {expected[key]}"
            raise conflict(ref.served.resource, ref.name, why)


def _restore(known: Object, target: Object, *keys: str) -> None:
    for key in keys:
        target.pop(key, None)
    target |= {key: known[key] for key in keys if key in known}


def _grace_s(served: Served, obj: Object, asked_s: int | None) -> int:
    """Only a pod that a kubelet may be running is given time."""
    if served is not PODS or not obj["spec"].get("nodeName") or obj["status"]["phase"] in ("Succeeded", "Failed"):
        return 0
    own_s: int = obj["spec"]["terminationGracePeriodSeconds"]
    return own_s if asked_s is None else asked_s
