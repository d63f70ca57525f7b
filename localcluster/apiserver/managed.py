"""managedFields: a record of who last changed what. Pure.

A manager's entry holds the leaf fields that it last changed; whoever changes a field takes it from all others. A list
is one leaf. What the server itself writes (uid, versions, times) belongs to nobody.
"""

from typing import Any

from localcluster.apiserver.refusal import Object

Path = tuple[str, ...]
_REPLICAS = ("spec", "replicas")

SERVER_META = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
FIXED_META = (*SERVER_META, "name", "generateName", "namespace", "resourceVersion", "managedFields")
_SERVER_OWNED = {("apiVersion",), ("kind",), *(("metadata", key) for key in FIXED_META)}


def record(old: Object | None, new: Object, *, manager: str, subresource: str, now: str) -> list[Object]:
    """The managedFields of `new`, given who wrote it over `old`."""
    before, after = leaves(old or {}), leaves(new)
    known_before = [(entry, _paths(entry)) for entry in (old or {}).get("metadata", {}).get("managedFields") or []]
    # In the real server, too, `/scale` to 0 leaves the number to nobody, and so do later writes through `/scale`.
    if subresource == "scale" and not (after[_REPLICAS] and any(_REPLICAS in known for _, known in known_before)):
        del after[_REPLICAS]
    mine = {path for path, value in after.items() if path not in before or before[path] != value}
    unchanged, time = after.keys() - mine, now
    entries: list[Object] = []
    for entry, known in known_before:
        kept = known & unchanged
        if (entry["manager"], entry.get("subresource", "")) == (manager, subresource):
            time = now if mine or kept != known else entry["time"]
            mine |= kept
        elif kept:
            entries.append(entry | {"fieldsV1": fields_v1(kept)})
    if mine:
        entry = {"manager": manager, "operation": "Update", "apiVersion": new["apiVersion"], "time": time}
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields_v1(mine)}
        entries.append(entry | ({"subresource": subresource} if subresource else {}))
    return entries


def _paths(entry: Object) -> set[Path]:
    return {tuple(step.removeprefix("f:") for step in path) for path in leaves(entry["fieldsV1"])}


def leaves(tree: Object, path: Path = ()) -> dict[Path, Any]:
    """Every leaf's path and value: what is not an object, or is an empty one."""
    found: dict[Path, Any] = {}
    for key, child in tree.items():
        here = (*path, key)
        if isinstance(child, dict) and child:
            found |= leaves(child, here)
        elif here not in _SERVER_OWNED:
            found[here] = child
    return found


def fields_v1(paths: set[Path]) -> Object:
    """`{("spec", "replicas")}` as `{"f:spec": {"f:replicas": {}}}`."""
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(f"f:{step}", {})
    return tree
