"""One HTTP request, read: which object, which verb, which options; what is not understood is refused. Pure."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from localcluster.apiserver.kinds import BY_PATH, Served
from localcluster.apiserver.refusal import Object, Refusal, bad_request
from localcluster.apiserver.registry import Deletion, Write
from localcluster.apiserver.selectors import at
from localcluster.apiserver.store import Ref


class Target(NamedTuple):
    """The path of a request: a collection (`name` empty), an object or a subresource."""

    served: Served
    namespace: str
    name: str
    subresource: str

    @property
    def ref(self) -> Ref:
        return Ref(self.served, self.namespace, self.name)


def parse_path(path: str) -> Target:
    """`/api/v1/namespaces/a/pods/b/log` as a Target. Refuses with 404."""
    root, *parts = path.strip("/").split("/")
    group = parts.pop(0) if root == "apis" and parts else "" if root == "api" else root
    version, namespace, parts = parts[0] if parts else "", "", parts[1:]
    # `namespaces/a` and `namespaces/a/status` are the Namespace itself; what else is below is inside it.
    if parts[:1] == ["namespaces"] and len(parts) > 2 and parts[2] not in ("status", "finalize"):
        _, namespace, *parts = parts
    plural, name, subresource, *rest = [*parts, "", "", ""]
    served = BY_PATH.get((group, version, plural))
    wrong_scope = served and (name or namespace) and bool(namespace) != served.kind.namespaced
    if served is None or any(rest) or wrong_scope or subresource not in served.subresources:
        raise Refusal(404, "NotFound", f"path {path} not found")
    return Target(served, namespace, name, subresource)


def parse_write(query: Mapping[str, str], user_agent: str, subresource: str, body: Any) -> Write:
    """Who writes and whether for real; dryRun may also be in DeleteOptions, also in those of an Eviction."""
    dry_run = query.get("dryRun") or at(body, "deleteOptions.dryRun") or at(body, "dryRun") or ""
    if dry_run not in ("", "All", ["All"]):
        raise Refusal(422, "Invalid", f"dryRun must be All, found {dry_run!r}")
    manager = query.get("fieldManager") or user_agent.split("/")[0] or "unknown"
    return Write(manager, subresource, bool(dry_run))


def parse_deletion(query: Mapping[str, str], body: Any) -> Deletion:
    options: Object = dict(query) | (body if isinstance(body, dict) else {})
    propagation = options.get("propagationPolicy") or "Background"
    if propagation not in ("Background", "Foreground", "Orphan"):
        raise Refusal(422, "Invalid", f"propagationPolicy must be Background, Foreground or Orphan: {propagation!r}")
    return Deletion(parse_int(options, "gracePeriodSeconds"), propagation, options.get("preconditions") or {})


def parse_int(query: Mapping[str, Any], key: str) -> int | None:
    """A non-negative integer, from JSON or from a query; None when there is none."""
    text = "" if query.get(key) is None else str(query[key])
    if text and not (text.isascii() and text.isdigit()):
        raise bad_request(f"{key} must be a non-negative integer, found {text!r}")
    return int(text) if text else None


def parse_token(text: str) -> tuple[int, tuple[str, str]]:
    """A continue token: the revision of the first page, and the last object of the one before."""
    revision, *last = text.split("/")
    if not revision.isdigit() or len(last) != 2:
        raise bad_request("the continue token is not one of this server's")
    return int(revision), (last[0], last[1])


def parse_body(raw: bytes, content_type: str) -> Any:
    content_type = content_type.partition(";")[0].strip()
    if content_type.startswith("application/apply-patch"):
        raise Refusal(501, "NotImplemented", "the embedded API server does not serve server-side apply")
    if raw and content_type != "application/json" and not content_type.endswith("-patch+json"):
        raise Refusal(415, "UnsupportedMediaType", f"the body must be application/json, found {content_type}")
    try:
        return json.loads(raw) if raw else None
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from error


def check_object(target: Target, body: Any) -> Object:
    """A body that claims to be an object of the path's kind and name; what it leaves out is filled in."""
    kind = target.served.kind
    if not isinstance(body, dict) or not isinstance(body.setdefault("metadata", {}), dict):
        raise bad_request(f"the body must be a {kind.kind} with metadata")
    for key, wanted in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if body.setdefault(key, wanted) != wanted:
            raise bad_request(f"{key} must be {wanted}, found {body[key]!r}")
    if target.name and body["metadata"].get("name") != target.name:
        raise bad_request(f"metadata.name must be {target.name}, as in the path")
    return body
