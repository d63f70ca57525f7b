"""What the server says about itself: version, groups, resources and just enough OpenAPI. Pure.

Rule: everything here follows from the table in kinds.py.
"""

from __future__ import annotations

from typing import Any

from localcluster.apiserver.kinds import SERVED, Served

Object = dict[str, Any]

_VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.0-localcluster", "platform": "linux/amd64"}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUB_VERBS = {"binding": ["create"], "eviction": ["create"], "log": ["get"]}
_SUB_KINDS: dict[str, Object] = {
    "scale": {"kind": "Scale", "group": "autoscaling", "version": "v1"},
    "eviction": {"kind": "Eviction", "group": "policy", "version": "v1"},
    "binding": {"kind": "Binding"},
}


def documents() -> dict[str, Object]:
    """Every document by its path."""
    roots: dict[str, list[Served]] = {}
    for row in SERVED:
        prefix = "/apis" if row.kind.group else "/api"
        roots.setdefault(f"{prefix}/{row.kind.api_version}", []).append(row)
    groups = [_group(rows[0]) for rows in roots.values() if rows[0].kind.group]
    found: dict[str, Object] = {
        "/version": dict(_VERSION),
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/openapi/v2": {"swagger": "2.0", "info": {"title": "localcluster", "version": "v1.37"}, "paths": {}},
        "/openapi/v3": {"paths": {root[1:]: {"serverRelativeURL": f"/openapi/v3{root}"} for root in roots}},
    }
    found |= {f"/apis/{group['name']}": {"apiVersion": "v1"} | group for group in groups}
    for root, rows in roots.items():
        resources = [_resource(row, sub) for row in rows for sub in row.subresources]
        version = rows[0].kind.api_version
        found[root] = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version}
        found[root]["resources"] = resources
        info = {"title": "localcluster", "version": "v1.37"}
        paths = dict(_patch_operation(row) for row in rows)
        found[f"/openapi/v3{root}"] = {"openapi": "3.0.0", "info": info, "paths": paths}
    return found


def _group(row: Served) -> Object:
    version = {"groupVersion": row.kind.api_version, "version": row.kind.version}
    return {"kind": "APIGroup", "name": row.kind.group, "versions": [version], "preferredVersion": version}


def _resource(row: Served, sub: str) -> Object:
    kind = row.kind
    entry: Object = {"name": f"{kind.plural}/{sub}" if sub else kind.plural, "namespaced": kind.namespaced}
    if sub:
        verbs = _SUB_VERBS.get(sub, ["get", "patch", "update"])
        return entry | {"singularName": "", "kind": kind.kind, "verbs": verbs} | _SUB_KINDS.get(sub, {})
    names = {"singularName": kind.kind.lower(), "shortNames": list(row.short_names)}
    categories = {"categories": ["all"] if kind.plural in ("pods", "services", "deployments") else []}
    return entry | names | categories | {"kind": kind.kind, "verbs": _VERBS}


def _patch_operation(row: Served) -> tuple[str, Object]:
    """kubectl reads one thing from here: that the server validates fields itself."""
    kind = row.kind
    operation = {
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "responses": {"200": {"description": "OK"}},
    }
    return kind.path("{namespace}" if kind.namespaced else None, "{name}"), {"patch": operation}
