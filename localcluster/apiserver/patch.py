"""The three patches: JSON (RFC 6902), merge (RFC 7386) and Kubernetes' strategic merge. Pure.

The original is never written to; the result may share its unchanged parts. A strategic patch replaces a list unless
_MERGE_KEYS names it, as in the Go types' patch tags.
"""

from copy import deepcopy
from typing import Any

from localcluster.apiserver.refusal import Object, Refusal, bad_request

# Tolerations are not here: the real server replaces them as a whole.
_MERGE_KEYS = {
    **dict.fromkeys(("containers", "initContainers", "env", "volumes", "imagePullSecrets", "schedulingGates"), "name"),
    **dict.fromkeys(("conditions", "addresses"), "type"),
    **dict.fromkeys(("hostAliases", "podIPs"), "ip"),
    **{"ports": "containerPort", "volumeMounts": "mountPath", "volumeDevices": "devicePath"},
    **{"topologySpreadConstraints": "topologyKey", "ownerReferences": "uid"},
}


def merge_patch(original: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(original) if isinstance(original, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge_patch(original: Any, patch: Any) -> Any:
    """A merge patch whose lists merge by key; `$setElementOrder` is not needed: new items go to the end."""
    directive = patch.get("$patch", "merge") if isinstance(patch, dict) else patch
    if directive not in ("merge", "replace", "delete"):
        raise bad_request(f"a strategic merge patch must be an object, its $patch merge, replace or delete: {patch}")
    result = dict(original) if isinstance(original, dict) and directive == "merge" else {}
    for key, value in patch.items() if directive != "delete" else ():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = strategic_merge_patch(result.get(key), value)
        elif isinstance(value, list) and not key.startswith("$"):
            result[key] = _merge_list(key, result.get(key) or [], value)
        elif not key.startswith("$"):
            result[key] = value
    kept = patch.get("$retainKeys", result)
    return {key: value for key, value in result.items() if key in kept}


def _merge_list(field: str, original: Any, patch: list[Any]) -> list[Any]:
    if field == "finalizers":
        return [*patch, *(item for item in original if item not in patch)]
    if field not in _MERGE_KEYS or not all(isinstance(item, dict) for item in [*original, *patch]):
        return patch
    if {"$patch": "replace"} in patch:
        return [item for item in patch if item != {"$patch": "replace"}]
    key = _MERGE_KEYS[field]
    if field == "ports" and any("port" in item for item in [*original, *patch]):
        key = "port"  # a Service's, not a container's
    result = list(original)
    for item in patch:
        if key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        at = next((i for i, old in enumerate(result) if old.get(key) == item[key]), len(result))
        changed = strategic_merge_patch(dict(*result[at : at + 1]), item)
        result[at : at + 1] = [] if item.get("$patch") == "delete" else [changed]
    return result


def json_patch(original: Any, patch: Any) -> Any:
    """RFC 6902: add, remove, replace, move, copy, test; all or nothing."""
    if not isinstance(patch, list) or not all(isinstance(item, dict) for item in patch):
        raise bad_request("a JSON patch must be a list of operations")
    document = {"": deepcopy(original)}  # under one more key, so that the root is a member like others
    for operation in patch:
        _apply(document, operation)
    return document.get("")


def _apply(document: Any, operation: Object) -> None:
    name, value = operation.get("op"), operation.get("value")
    needs = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from", "remove": "path"}
    if name not in needs or needs[name] not in operation:
        raise Refusal(422, "Invalid", f"not a JSON patch operation: {operation}")
    if needs[name] == "from":
        parent, key = _locate(document, operation, "from", adds=False)
        value = deepcopy(parent[key])
        if name == "move":
            del parent[key]
    adds = name in ("add", "move", "copy")
    parent, key = _locate(document, operation, "path", adds, lenient=name in ("replace", "test"))
    if name == "test" and (parent.get(key) if isinstance(parent, dict) else parent[key]) != value:
        raise Refusal(422, "Invalid", f"testing value {operation['path']} of the JSON patch failed")
    if name == "remove":
        del parent[key]
    elif adds and isinstance(parent, list):
        parent.insert(key, value)
    elif name != "test":
        parent[key] = value


def _locate(document: Any, operation: Object, field: str, adds: bool, lenient: bool = False) -> tuple[Any, Any]:
    """Parent and key that a JSON pointer names; with `adds` a new place, `lenient` a member that is absent: null."""
    text = operation.get(field)
    if not isinstance(text, str) or text[:1] not in ("", "/"):
        raise bad_request(f"{field} of a JSON patch operation must be a JSON pointer, found {text!r}")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")]
    for left, step in reversed(list(enumerate(reversed(steps)))):
        key: Any = step
        new = adds and left == 0
        if isinstance(document, list):
            key = int(step) if step.isascii() and step.isdigit() else len(document) if step == "-" else -1
            known = 0 <= key < len(document) + new
        else:
            known = isinstance(document, dict) and (new or (lenient and left == 0) or step in document)
        if not known:
            raise Refusal(422, "Invalid", f"{text} of the JSON patch does not exist")
        if left:
            document = document[key]
    return document, key
