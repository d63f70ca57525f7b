"""A decision as JSON, and back: the snapshot that it was made from, and what it said.

Rules: pure; everything in model.py goes through the same few lines, so a new field needs none here; what a record lacks
has the field's default.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from gangscheduler.model import Snapshot, Verdicts

T = TypeVar("T")
VERSION = 1


class BadRecord(ValueError):
    """Not a decision that this version reads; one line for people."""


def to_json(snapshot: Snapshot, verdicts: Verdicts) -> dict[str, Any]:
    """The decision as plain values."""
    return {"version": VERSION, "snapshot": _plain(snapshot), "verdicts": _plain(verdicts)}


def from_json(raw: object) -> tuple[Snapshot, Verdicts]:
    """The decision of `to_json`. Raises BadRecord."""
    if not isinstance(raw, dict) or raw.get("version") != VERSION:
        version = raw.get("version") if isinstance(raw, dict) else None
        raise BadRecord(f"version={version!r}: expected {VERSION}, a decision of `roleratio scheduler --record`")
    try:
        return _value(Snapshot, raw["snapshot"]), _value(Verdicts, raw["verdicts"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRecord(f"not a decision: {type(error).__name__}: {error}") from error


def _plain(value: Any) -> Any:
    """Dataclasses as objects without their defaults, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((one.name, one.default, getattr(value, one.name)) for one in dataclasses.fields(value))
        return {name: _plain(item) for name, default, item in pairs if item != default}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _value(kind: type[T] | Any, raw: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _value(hints[name], item) for name, item in raw.items()})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        return None if raw is None else _value(next(one for one in arguments if one is not type(None)), raw)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(_value(arguments[0], item) for item in raw)
        return tuple(_value(one, item) for one, item in zip(arguments, raw, strict=True))
    if isinstance(kind, type) and issubclass(kind, tuple):
        return kind(*raw)
    if isinstance(kind, type) and isinstance(raw, bool) is not (kind is bool):
        raise TypeError(f"{raw!r} is no {kind.__name__}")
    return kind(raw)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
