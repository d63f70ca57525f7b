"""Compare a page with what the corpus expects: words exactly, numbers to rounding, with its other right answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

OF_THE_TEST = ("traps", "accept", "must_report_error", "must_not_be_an_engine")


def same(expected: Any, got: Any) -> bool:
    """Whether two JSON values say the same."""
    match expected, got:
        case dict(), dict():
            return expected.keys() == got.keys() and all(same(expected[key], got[key]) for key in expected)
        case list(), list():
            return len(expected) == len(got) and all(map(same, expected, got))
        case int() | float(), int() | float():
            return math.isclose(expected, got, rel_tol=1e-9, abs_tol=1e-12)
    return bool(expected == got)


def differences(expected: Mapping[str, Any], got: Mapping[str, Any]) -> Iterator[str]:
    """Every path at which a page is not what is expected, nor one of the other answers that are right."""
    accept = expected.get("accept", {})
    for path, right in _flat({key: value for key, value in expected.items() if key not in OF_THE_TEST}):
        said = _at(got, path)
        if not any(same(one, said) for one in (right, *accept.get(path, ()))):
            yield f"{path}: expected {right}, got {said}"
    for path, said in _flat(got):
        if _at(expected, path) is ABSENT and said is not None:
            yield f"{path}: not expected, got {said}"


ABSENT = object()


def _flat(page: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of a page by their paths, as far down as the corpus names them."""
    for key, value in page.items():
        if key == "totals" and value is not None:
            yield from ((f"totals.{name}", each) for name, each in value.items())
        elif key == "units":
            yield "units", len(value)
            yield from ((f"units.{index}.{name}", unit[name]) for index, unit in enumerate(value) for name in unit)
        else:
            yield key, value


def _at(page: Mapping[str, Any], path: str) -> Any:
    if path == "units":
        return len(page["units"])
    found: Any = page
    for step in path.split("."):
        if isinstance(found, list):
            found = found[int(step)] if int(step) < len(found) else ABSENT
        elif isinstance(found, dict):
            found = found.get(step, ABSENT)
        else:
            return ABSENT
    return found
