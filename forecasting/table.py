"""A series from a table: time in the first column, the value in the second.

Rules:
1. A header line comes first; more columns are ignored. Times are seconds or ISO 8601, UTC where no zone is said.
2. An empty value, or one that says NaN or null, is missing; anything else that is no number is an error of its line.
3. Compression is told by its magic bytes, not by a name.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from datetime import UTC, datetime

from forecasting.series import SeriesError

GZIP_MAGIC = b"\x1f\x8b"
MISSING = frozenset({"", "nan", "null", "none", "na", "n/a"})


def read_points(raw: bytes, name: str) -> list[tuple[float, float]]:
    """Points (time in s, value; NaN is missing) as they stand. Raises SeriesError with one line naming `name`."""
    try:
        text = (gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SeriesError(f"{name}: cannot be read as text: {error}; expected CSV in UTF-8, gzip or not") from None
    try:
        rows = [(number, row) for number, row in enumerate(csv.reader(text.splitlines()), 1) if any(row)]
    except csv.Error as error:
        raise SeriesError(f"{name}: no CSV: {error}") from None
    if not rows:
        raise SeriesError(f"{name}: empty; expected a header and lines of time and value")
    if _is_data(rows[0][1]):
        raise SeriesError(f"{name}: line {rows[0][0]}: no header; expected the names of the columns first")
    if len(rows) == 1:
        raise SeriesError(f"{name}: a header and no line after it")
    return [_point(name, number, row) for number, row in rows[1:]]


def _is_data(row: list[str]) -> bool:
    try:
        _time(row[0])
    except ValueError:
        return False
    return True


def _point(name: str, number: int, row: list[str]) -> tuple[float, float]:
    if len(row) < 2:
        raise SeriesError(f"{name}: line {number}: {row[0]!r}: expected two columns, time and value")
    try:
        return _time(row[0]), _value(row[1])
    except ValueError as error:
        raise SeriesError(f"{name}: line {number}: {error}") from None


def _time(text: str) -> float:
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"time {text!r}: expected seconds or ISO 8601") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _value(text: str) -> float:
    text = text.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"value {text!r}: expected a number") from None
