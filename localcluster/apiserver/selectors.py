"""Label and field selectors: text in, predicate out; one that cannot be read is a 400, never "all". Pure."""

import re
from collections.abc import Callable, Collection
from typing import Any

from localcluster.apiserver.refusal import Object, bad_request

Predicate = Callable[[Object], bool]

_KEY = r"(?P<key>[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?)"
_SET = re.compile(rf"{_KEY}\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUAL = re.compile(rf"{_KEY}\s*(?P<op>==|!=|=)\s*(?P<values>[A-Za-z0-9._-]*)")
_EXISTS = re.compile(rf"(?P<no>!?)\s*{_KEY}")
_FIELD = re.compile(r"(?P<key>[A-Za-z.]+)\s*(?P<op>==|!=|=)\s*(?P<value>.*)")


def predicate(labels: str, fields: str, known_fields: Collection[str]) -> Predicate | None:
    """`a=b,c!=d,e in (f,g),h notin (i),j,!k` and `metadata.name=a` as one test; None means everything."""
    tests = [_label_test(part.strip()) for part in re.split(r",(?![^(]*\))", labels) if part.strip()]
    tests += [_field_test(part.strip(), known_fields) for part in fields.split(",") if part.strip()]
    return (lambda obj: all(test(obj) for test in tests)) if tests else None


def selector_text(selector: Object) -> str:
    words = {"In": "{} in ({})", "NotIn": "{} notin ({})", "Exists": "{}", "DoesNotExist": "!{}"}
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for rule in selector.get("matchExpressions") or []:
        parts.append(words[rule["operator"]].format(rule["key"], ",".join(rule.get("values") or [])))
    return ",".join(parts)


def at(obj: Any, path: str) -> Any:
    for step in path.split("."):
        obj = obj.get(step) if isinstance(obj, dict) else None
    return obj


def _label_test(part: str) -> Predicate:
    if found := _SET.fullmatch(part) or _EQUAL.fullmatch(part):
        key, wanted = found["key"], found["op"] in ("in", "=", "==")
        values = {value.strip() for value in found["values"].split(",")}
        return lambda obj: ((obj["metadata"].get("labels") or {}).get(key) in values) is wanted
    if not (found := _EXISTS.fullmatch(part)):
        raise bad_request(f"unable to parse the label selector requirement {part!r}")
    key, wanted = found["key"], not found["no"]
    return lambda obj: (key in (obj["metadata"].get("labels") or {})) is wanted


def _field_test(part: str, known: Collection[str]) -> Predicate:
    found = _FIELD.fullmatch(part)
    if not found or found["key"] not in known:
        expected = ", ".join(sorted(known))
        raise bad_request(f"field label not supported: {part!r}; expected one of {expected} with =, == or !=")
    path, wanted, value = found["key"], found["op"] != "!=", found["value"]
    # Absent is the empty string, as in the real server's field sets.
    return lambda obj: (str(at(obj, path) or "").replace("True", "true") == value) is wanted
