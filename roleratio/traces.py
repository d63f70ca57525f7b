"""Recorded request traces: when requests arrived and how long they were.

Rules:
1. Parsing is pure (`parse`, `select`); `read` is the only function that opens a file.
2. A trace is read and checked whole before anything starts; the first bad line stops it, named by number. One that
   comes before the line above it is bad: whether times or lines are wrong cannot be told.
3. Two formats, told apart by their first line; compression is told by magic bytes, never by file name:
   - Azure CSV: TIMESTAMP,ContextTokens,GeneratedTokens (UTC date and time)
   - Mooncake JSONL: {"timestamp": ms, "input_length": n, "output_length": n, ...}
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from autoscaler.errors import UserError

_AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to send: seconds after the start, prompt tokens, tokens to generate."""

    at_s: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole trace in order of arrival, the first request at 0 s."""

    format: str
    arrivals: tuple[Arrival, ...]

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last arrival."""
        return self.arrivals[-1].at_s


def read(path: Path) -> Trace:
    """The trace in a file. Raises UserError with one line."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw.startswith(_GZIP_MAGIC) else raw).decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"trace {path}: no such file; give the path of an Azure CSV or a Mooncake JSONL") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"trace {path}: cannot be read: {error}") from error
    except UnicodeDecodeError:
        raise UserError(f"trace {path}: not text; expected an Azure CSV or a Mooncake JSONL, gzip or not") from None
    return parse(text.splitlines(), str(path))


def parse(lines: Iterable[str], name: str) -> Trace:
    """Arrivals in order, the first at 0 s. Raises UserError naming `name`, the line and its value."""
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(f"trace {name}: empty; expected an Azure CSV or a Mooncake JSONL")
    first = numbered[0][1].lstrip("\ufeff")
    if first.startswith("{"):
        label, body, parse_line = "Mooncake JSONL", numbered, _mooncake
    elif first == _AZURE_HEADER:
        label, body, parse_line = "Azure CSV", numbered[1:], _azure
    else:
        raise UserError(
            f"trace {name}: line {numbered[0][0]}: {_short(first)}: expected the header {_AZURE_HEADER} "
            "or a JSON object with timestamp, input_length and output_length"
        )
    if not body:
        raise UserError(f"trace {name}: a header and no request after it")
    arrivals = [_line(name, number, line, parse_line) for number, line in body]
    for (before, after), (number, line) in zip(pairwise(arrivals), body[1:], strict=True):
        if after.at_s < before.at_s:
            early_s = before.at_s - after.at_s
            raise UserError(
                f"trace {name}: line {number}: {_short(line)}: {early_s:g} s before the line above; sort it by time"
            )
    origin_s = arrivals[0].at_s
    return Trace(label, tuple(Arrival(a.at_s - origin_s, a.input_tokens, a.output_tokens) for a in arrivals))


def select(
    trace: Trace, *, start_s: float = 0.0, speed: float = 1.0, duration_s: float | None = None
) -> tuple[Arrival, ...]:
    """What to send: from `start_s` of the trace on, `speed` times as fast, for `duration_s` of real time."""
    end_s = math.inf if duration_s is None else start_s + duration_s * speed
    return tuple(
        Arrival((a.at_s - start_s) / speed, a.input_tokens, a.output_tokens)
        for a in trace.arrivals
        if start_s <= a.at_s < end_s
    )


def _line(name: str, number: int, line: str, parse_line: Callable[[str], Arrival]) -> Arrival:
    try:
        arrival = parse_line(line)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"trace {name}: line {number}: {_short(line)}: {_why(error)}") from None
    return arrival


def _azure(line: str) -> Arrival:
    fields = line.split(",")
    if len(fields) != 3:
        raise ValueError(f"expected 3 fields ({_AZURE_HEADER}), found {len(fields)}")
    try:
        moment = datetime.fromisoformat(fields[0])
    except ValueError:
        raise ValueError(f"TIMESTAMP {fields[0]!r} is not a date and time") from None
    # A time without a zone is UTC in this data set; the local zone would shift it, and twice a year break it.
    at_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return Arrival(at_s, _tokens("ContextTokens", fields[1]), _tokens("GeneratedTokens", fields[2]))


def _mooncake(line: str) -> Arrival:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}") from None
    if not isinstance(row, dict):
        raise ValueError("expected a JSON object")
    at_ms = row["timestamp"]
    if isinstance(at_ms, bool) or not isinstance(at_ms, int | float) or not 0 <= at_ms < math.inf:
        raise ValueError(f"timestamp {at_ms!r} is not a number of milliseconds, at least 0")
    return Arrival(
        at_ms / 1000.0,
        _tokens("input_length", row["input_length"]),
        _tokens("output_length", row["output_length"]),
    )


def _tokens(field: str, value: object) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    digits = isinstance(value, str) and value.strip().isascii() and value.strip().isdigit()
    count = int(str(value)) if whole or digits else 0
    if count < 1:
        raise ValueError(f"{field} {value!r} is not a whole number, at least 1")
    return count


def _why(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else str(error)


def _short(line: str, limit: int = 80) -> str:
    return line if len(line) <= limit else line[: limit - 3] + "..."
