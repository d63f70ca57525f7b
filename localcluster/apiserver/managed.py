"""managedFields: a record of who last changed what. Pure.

Rules:
1. A manager's entry holds the leaf fields that it last changed; whoever changes a field takes it from all others.
2. A list is one leaf. What the server itself writes (uid, versions, times) belongs to nobody.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
Path = tuple[str, ...]

_SERVER_OWNED = frozenset(
    [("apiVersion",), ("kind",)]
    + [("metadata", key) for key in ("name", "generateName", "namespace", "uid", "resourceVersion", "generation")]
    + [("metadata", key) for key in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")]
    + [("metadata", "managedFields")]
)


def record(old: Object | None, new: Object, *, manager: str, subresource: str, now: str) -> list[Object]:
    """The managedFields of `new`, given who wrote it over `old`."""
    before, after = leaves(old or {}), leaves(new)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    same = after.keys() - changed
    entries: list[Object] = []
    mine, time = changed, now
    for entry in (old or {}).get("metadata", {}).get("managedFields") or []:
        kept = leaves(entry["fieldsV1"]).keys() & {tuple(f"f:{step}" for step in path) for path in same}
        fields = {tuple(step.removeprefix("f:") for step in path) for path in kept}
        if (entry["manager"], entry.get("subresource", "")) == (manager, subresource):
            time = now if changed or len(fields) < len(leaves(entry["fieldsV1"])) else entry["time"]
            mine = changed | fields
        elif fields:
            entries.append(entry | {"fieldsV1": fields_v1(fields)})
    if mine:
        entry = {"manager": manager, "operation": "Update", "apiVersion": new["apiVersion"], "time": time}
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields_v1(mine)}
        entries.append(entry | {"subresource": subresource} if subresource else entry)
    return entries


def leaves(tree: Object) -> dict[Path, Any]:
    """Every leaf's path and value: what is not an object, or is an empty one."""
    found: dict[Path, Any] = {}

    def walk(node: Object, path: Path) -> None:
        for key, child in node.items():
            here = (*path, key)
            if isinstance(child, dict) and child:
                walk(child, here)
            elif here not in _SERVER_OWNED:
                found[here] = child

    walk(tree, ())
    return found


def fields_v1(paths: set[Path]) -> Object:
    """`{("spec", "replicas")}` as `{"f:spec": {"f:replicas": {}}}`."""
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(f"f:{step}", {})
    return tree
