"""The controller's nouns as JSON and back, losing nothing. The only place that knows how. Pure.

Rules:
1. Strict JSON: NaN and infinite numbers are an error that names the field. The one exception is the bound of a
   histogram's last bucket, which is infinite by definition and written as "+Inf", as Prometheus does.
2. `decode(T, encode(T, x)) == x` for every value that a tick can see or decide.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_INF = "+Inf"
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
"""Building one takes milliseconds."""


class CodecError(ValueError):
    """A value that cannot be written, or JSON that is not the noun it should be; one line."""


def encode(kind: type[T], value: T) -> Any:
    """`value` as plain JSON data. Raises CodecError for a number that is not finite."""
    return _finite(_adapter(kind).dump_python(value, mode="json"), kind.__name__)


def decode(kind: type[T], data: Any) -> T:
    """The noun in plain JSON data. Raises CodecError."""
    try:
        value: T = _adapter(kind).validate_python(data)
        return value
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (kind.__name__, *first["loc"]))
        raise CodecError(f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _finite(data: Any, path: str) -> Any:
    """The same data with infinite bounds spelled out. Linear in its size."""
    if isinstance(data, dict):
        return {key: _finite(part, f"{path}.{key}") for key, part in data.items()}
    if isinstance(data, list):
        return [_finite(part, path) for part in data]
    if isinstance(data, float) and not math.isfinite(data):
        if data == math.inf and path.endswith(".bounds_s"):
            return _INF
        raise CodecError(f"{path} is {data}: a bug where it was computed, since unknown is Missing")
    return data
