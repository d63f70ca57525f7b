"""What the server says about itself: version, groups, resources and just enough OpenAPI. Pure."""

from localcluster.apiserver.kinds import SERVED, Served
from localcluster.apiserver.refusal import Object

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
    """Every document by its path; all follow from the table of kinds."""
    roots: dict[str, list[Served]] = {}
    for row in SERVED:
        roots.setdefault(row.kind.path().rpartition("/")[0], []).append(row)
    groups = [_group(rows[0]) for rows in roots.values() if rows[0].kind.group]
    found: dict[str, Object] = {
        "/version": _VERSION,
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/openapi/v2": {"swagger": "2.0", "info": _INFO, "paths": {}},
        "/openapi/v3": {"paths": {root[1:]: {"serverRelativeURL": f"/openapi/v3{root}"} for root in roots}},
    }
    found |= {f"/apis/{group['name']}": {"apiVersion": "v1"} | group for group in groups}
    for root, rows in roots.items():
        head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": rows[0].kind.api_version}
        found[root] = head | {"resources": [_resource(row, sub) for row in rows for sub in row.subresources]}
        found[f"/openapi/v3{root}"] = {"openapi": "3.0.0", "info": _INFO, "paths": _patches(rows)}
    return found


def _group(row: Served) -> Object:
    version = {"groupVersion": row.kind.api_version, "version": row.kind.version}
    return {"kind": "APIGroup", "name": row.kind.group, "versions": [version], "preferredVersion": version}


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
    return {kind.path("{ns}", "{n}"): {"patch": patch | {_GVK: gvk}} for kind, gvk in kinds.items()}


_GVK = "x-kubernetes-group-version-kind"
