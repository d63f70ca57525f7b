"""The static table of kinds, and discovery, which follows from it: version, resources and a little OpenAPI. Pure."""

from dataclasses import dataclass

from kubeapi import kinds
from kubeapi.kinds import Kind
from localcluster.apiserver.refusal import Object


@dataclass(frozen=True, slots=True)
class Served:
    """How one kind is served. `fields`: what a field selector may name beside name and namespace. `scale_selector`:
    the dotted path of the selector that `/scale` publishes (empty: no `/scale`). `custom`: a custom resource in a real
    cluster, without strategic merge patch. `generation`: counts changes of spec. `keeps_status`: also on create.
    """

    kind: Kind
    short_names: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    status: bool = True
    keeps_status: bool = False
    generation: bool = True
    custom: bool = False
    scale_selector: str = ""

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}.{self.kind.group}".rstrip(".")

    @property
    def subresources(self) -> tuple[str, ...]:
        own = ("binding", "eviction", "log") if self.kind == kinds.POD else ()
        return ("",) + ("status",) * self.status + ("scale",) * bool(self.scale_selector) + own


_POD_FIELDS = ("spec.nodeName", "spec.schedulerName", "spec.restartPolicy", "status.phase", "status.podIP")
_OBJECT_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT_FIELDS = ("type", "reason", "reportingComponent", *(f"involvedObject.{name}" for name in _OBJECT_FIELDS))

NAMESPACES = Served(kinds.NAMESPACE, ("ns",), ("status.phase",), keeps_status=True, generation=False)
PODS = Served(kinds.POD, ("po",), _POD_FIELDS)
SERVICES = Served(kinds.SERVICE, ("svc",), ("spec.type",), generation=False)
EVENTS = Served(kinds.EVENT, ("ev",), _EVENT_FIELDS, status=False, generation=False)
SERVED = (
    *(NAMESPACES, PODS, SERVICES, EVENTS),
    Served(kinds.NODE, ("no",), ("spec.unschedulable",), keeps_status=True, generation=False),
    Served(kinds.LEASE, status=False, generation=False),
    Served(kinds.REPLICASET, ("rs",), scale_selector="spec.selector"),
    Served(kinds.DEPLOYMENT, ("deploy",), scale_selector="spec.selector"),
    Served(kinds.LWS, ("lws",), custom=True, scale_selector="status.hpaPodSelector"),
    Served(kinds.PODGROUP, generation=False),
    Served(kinds.COMPOSITE_PODGROUP, generation=False),
    Served(kinds.RRA, ("rra",), custom=True),
)
BY_PATH = {(row.kind.group, row.kind.version, row.kind.plural): row for row in SERVED}
BY_OWNER = {(row.kind.api_version, row.kind.kind): row for row in SERVED}

_VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.0-localcluster", "platform": "linux/amd64"}
_VERSION |= dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler"), "")
_INFO = {"title": "localcluster", "version": "v1.37"}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBRESOURCES: dict[str, Object] = {
    "status": {"verbs": ["get", "patch", "update"]},
    "scale": {"verbs": ["get", "patch", "update"], "kind": "Scale", "group": "autoscaling", "version": "v1"},
    "eviction": {"verbs": ["create"], "kind": "Eviction", "group": "policy", "version": "v1"},
    "binding": {"verbs": ["create"], "kind": "Binding"},
    "log": {"verbs": ["get"]},
}


def documents() -> dict[str, Object]:
    roots: dict[str, list[Served]] = {}
    for row in SERVED:
        roots.setdefault(row.kind.path().rpartition("/")[0], []).append(row)
    lists: dict[str, list[Object]] = {}
    for name, kind in {row.kind.api_version: row.kind for row in SERVED if row.kind.group}.items():
        lists.setdefault(kind.group, []).append({"groupVersion": name, "version": kind.version})
    groups = [{"name": name, "versions": its, "preferredVersion": its[0]} for name, its in lists.items()]
    found: dict[str, Object] = {
        "/version": _VERSION,
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/openapi/v3": {"paths": {root[1:]: {"serverRelativeURL": f"/openapi/v3{root}"} for root in roots}},
    }
    found |= {f"/apis/{group['name']}": {"kind": "APIGroup", "apiVersion": "v1"} | group for group in groups}
    for root, rows in roots.items():
        head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": rows[0].kind.api_version}
        found[root] = head | {"resources": [_resource(row, sub) for row in rows for sub in row.subresources]}
        found[f"/openapi/v3{root}"] = {"openapi": "3.0.0", "info": _INFO, "paths": _patches(rows)}
    return found


def _resource(row: Served, sub: str) -> Object:
    kind = row.kind
    entry: Object = {"namespaced": kind.namespaced, "kind": kind.kind, "singularName": ""}
    if sub:
        return entry | {"name": f"{kind.plural}/{sub}"} | _SUBRESOURCES[sub]
    names = {"name": kind.plural, "singularName": kind.kind.lower(), "shortNames": list(row.short_names)}
    categories = ["all"] if kind.plural in ("pods", "services", "deployments", "replicasets") else []
    return entry | names | {"verbs": _VERBS, "categories": categories}


def _patches(rows: list[Served]) -> Object:
    """kubectl reads one thing from OpenAPI: that the server validates fields itself."""
    patch = {"parameters": [{"name": "fieldValidation", "in": "query"}], "responses": {}}
    kinds = {row.kind: {"group": row.kind.group, "version": row.kind.version, "kind": row.kind.kind} for row in rows}
    key = "x-kubernetes-group-version-kind"
    return {kind.path("{ns}", "{n}"): {"patch": patch | {key: gvk}} for kind, gvk in kinds.items()}
