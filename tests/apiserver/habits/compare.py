"""Makes two servers' answers comparable and names every place where they differ.

Rules:
1. Identity is compared, not its text: a uid is the how-manyth of its object's name, a version the how-manyth of its
   uid, as far as only the table writes to such objects.
2. Times are compared by their form, generated names by their prefix, the owners of numbers that we scale by name.
3. An empty value and none are the same, as for every typed client; lists of named things are compared by name.
4. Of a refusal, its code, its reason and the fields that it blames are compared. Its text is for people; for NotFound
   and AlreadyExists, which name the object, the text and all details are compared too.
5. Nothing else is left out here: what may differ stands in `known.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.apiserver.habits.play import Answer, at

ABSENT = "(absent)"
# A cluster's own controllers write to objects of all other kinds.
_QUIET = ("Pod", "Lease", "LeaderWorkerSet", "Event", "Service", "RoleRatioAutoscaler")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?P<fraction>\.\d+)?Z")
_AGE = re.compile(r"(?:\d+[smhdy])+\Z")
_NAMED = {"resources": "name", "groups": "name", "versions": "version", "conditions": "type"}
_SCALED = (("spec", "replicas"), ("spec", "schedulingPolicy", "gang", "minCount"))


class Difference(NamedTuple):
    """One place: its dotted path, what the real server says and what the embedded one."""

    path: str
    real: Any
    embedded: Any


class Reader:
    """Reads one server's answers in order; remembers which uids and versions it has seen."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._uids: dict[str, str] = {}
        self._versions: dict[tuple[str, str], int] = {}

    def read(self, answer: Answer) -> dict[str, Any]:
        """The comparable form of an answer."""
        return {"code": answer.code, "body": self._value(answer.body)}

    def _value(self, value: Any, kind: str = "") -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._value(item, kind) for item in value]
        if not isinstance(value, dict):
            return value
        # Items of a list of a built-in kind do not say their kind.
        own = value.get("kind")
        kind = own.removesuffix("List") if isinstance(own, str) else kind
        read = {key: self._field(key, item, kind) for key, item in value.items()}
        if kind == "Status" and value.get("status") == "Failure" and not _names(value):
            causes = at(value, "details.causes") or []
            blamed = [f"{cause['reason']} {cause['field']}" for cause in causes if "field" in cause]
            read = {key: value[key] for key in ("kind", "reason", "code") if key in value} | {"blames": blamed}
        return {key: item for key, item in read.items() if item not in (None, "", [], {})}

    def _field(self, key: str, item: Any, kind: str) -> Any:
        if key in _NAMED and isinstance(item, list) and all(isinstance(entry, dict) for entry in item):
            return {entry[_NAMED[key]]: self._value(entry) for entry in item}
        if key == "verbs":
            return " ".join(sorted(item))
        if key == "metadata" and isinstance(item, dict):
            return self._metadata(item, kind)
        if key == "uid" and isinstance(item, str):
            return self._uids.get(item, item)
        return self._value(item, kind if key == "items" else "")

    def _metadata(self, meta: dict[str, Any], kind: str) -> dict[str, Any]:
        read = {key: self._value(item) for key, item in meta.items() if key not in ("managedFields", "uid")}
        if "uid" in meta:
            read["uid"] = self._uid(meta["uid"], f"uid of {meta.get('generateName') or meta.get('name')}")
        if meta.get("resourceVersion"):
            quiet = kind in _QUIET and "uid" in meta
            read["resourceVersion"] = self._version(meta["uid"], meta["resourceVersion"]) if quiet else "<version>"
        if meta.get("continue"):
            read["continue"] = "<token>"
        if "generateName" in meta and "name" in meta:
            # From the raw name: a random end may look like an age.
            read["name"] = re.sub(r"[a-z0-9]{5}$", "*****", meta["name"].replace(self._namespace, "NS"))
        if "managedFields" in meta:
            read["managedFields"] = sorted(_owners(meta["managedFields"]))
        return {key: item for key, item in read.items() if item not in (None, "", [], {})}

    def _uid(self, uid: str, title: str) -> str:
        count = sum(known.startswith(f"{title}, ") for known in self._uids.values())
        return self._uids.setdefault(uid, f"{title}, {count + 1}")

    def _version(self, uid: str, version: str) -> str:
        count = sum(owner == uid for owner, _ in self._versions)
        return f"version {self._versions.setdefault((uid, version), count + 1)}"

    def _text(self, text: str) -> str:
        text = _AGE.sub("<age>", text.replace(self._namespace, "NS"))
        found = _TIME.fullmatch(text)
        return ("<time with fraction>" if found["fraction"] else "<time>") if found else text


def _names(status: dict[str, Any]) -> bool:
    return status.get("reason") in ("NotFound", "AlreadyExists") and bool(at(status, "details.name"))


def _owners(entries: list[Any]) -> Iterator[str]:
    """Who owns one of the numbers that we scale: `manager operation subresource: field`."""
    for entry in entries:
        for path in _SCALED:
            if at(entry["fieldsV1"], ".".join(f"f:{step}" for step in path)) is not None:
                writer = f"{entry['manager']} {entry['operation']} {entry.get('subresource', '')}".strip()
                yield f"{writer}: {'.'.join(path)}"


def compare(real: dict[str, Any], embedded: dict[str, Any]) -> list[Difference]:
    """Where two read answers differ; whether it was allowed counts before all else."""
    codes = differences(real["code"], embedded["code"], "code")
    return list(codes) or list(differences(real, embedded))


def differences(real: Any, embedded: Any, path: str = "") -> Iterator[Difference]:
    """Every place where two comparable values differ, deepest first named."""
    if isinstance(real, dict) and isinstance(embedded, dict):
        for key in sorted(real.keys() | embedded.keys()):
            yield from differences(real.get(key, ABSENT), embedded.get(key, ABSENT), f"{path}.{key}".lstrip("."))
    elif isinstance(real, list) and isinstance(embedded, list):
        for index in range(max(len(real), len(embedded))):
            pair = [side[index] if index < len(side) else ABSENT for side in (real, embedded)]
            yield from differences(pair[0], pair[1], f"{path}.{index}")
    elif real != embedded:
        yield Difference(path, real, embedded)
