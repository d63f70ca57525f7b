"""The profile: how long prefill, transfer and decode of one model on one TP group take.

Rules:
1. Pure Python and small: every serving worker imports this file.
2. Both surfaces are monotone in both coordinates and are interpolated bilinearly. Below the first knot
   the first knot holds (a step never costs less than its launch). Above the last knot is an error,
   except in `cached_tokens`, where the last segment goes on: attention over cached tokens is linear.
3. A file with mistakes is refused whole, with one line per mistake: key, value, what is expected. Of a table with
   many gaps or dips the first SHOWN are named, and how many more there are.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

FORMAT = "roleratio.dev/profile/v1"
DEFAULT_PROFILE = "qwen3-32b-a100-tp2"
SHOWN = 10

_SHIPPED = Path(__file__).parent / "profiles"


class ProfileError(ValueError):
    """A profile that cannot be used, or a question outside of its support; one line per problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the numbers come from, under which licence, and what was done to them (`notes`)."""

    source: str
    licence: str
    model: str
    gpu: str
    backend: str
    backend_version: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Surface:
    """Milliseconds over two coordinates: `ms[i][j] * factor` at `xs[i]`, `ys[j]`; monotone in both.

    `factor` is what an online correction learned; a file has none.
    """

    x_name: str
    y_name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    ms: tuple[tuple[float, ...], ...]
    extrapolate_y: bool = False
    factor: float = 1.0

    def at(self, x: float, y: float) -> float:
        """The interpolated value. Logarithmic in the number of knots. Raises ProfileError outside support."""
        i, u = _segment(self.xs, self._checked(self.x_name, x, self.xs[-1]))
        y_limit = math.inf if self.extrapolate_y else self.ys[-1]
        j, v = _segment(self.ys, self._checked(self.y_name, y, y_limit))
        low = _mix(self.ms[i], j, v)
        return self.factor * (low if u == 0.0 else low + u * (_mix(self.ms[i + 1], j, v) - low))

    @staticmethod
    def _checked(name: str, value: float, limit: float) -> float:
        if not 0 <= value <= limit:
            raise ProfileError(f"{name} = {value:g}: outside of the profile, which covers 0 to {limit:g}")
        return value


@dataclass(frozen=True)
class Profile:
    """One model on one kind of TP group. Its hash is computed once: what is made from it is remembered by it."""

    name: str
    provenance: Provenance
    tp: int
    gpus: int
    kv_bytes_per_token: int
    kv_capacity_tokens: int
    max_model_len: int
    max_num_seqs: int
    prefill_chunk_tokens: int
    transfer_gb_per_s: float
    prefill: Surface
    decode: Surface
    transfer_latency_ms: float | None = None
    """What a transfer takes beside its bytes; None where that was not measured."""

    @cached_property
    def _hash(self) -> int:
        return hash(tuple([getattr(self, part.name) for part in fields(self)]))

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        """Without the hash: those of texts differ from process to process."""
        return {name: value for name, value in vars(self).items() if name != "_hash"}

    def prefill_ms(self, new_tokens: float, cached_tokens: float = 0.0) -> float:
        """One prefill step over `new_tokens` behind `cached_tokens` already in the KV cache."""
        return 0.0 if new_tokens == 0 else self.prefill.at(new_tokens, cached_tokens)

    def decode_ms(self, batch: float, mean_context_tokens: float) -> float:
        """One decode step of `batch` sequences (the ITL), 0 for an empty batch."""
        return 0.0 if batch == 0 else self.decode.at(batch, mean_context_tokens)

    def transfer_ms(self, tokens: float) -> float:
        """Moving the KV of `tokens` over an idle link; its bytes alone where the latency is not known."""
        return (self.transfer_latency_ms or 0.0) + tokens * self.kv_bytes_per_token / (self.transfer_gb_per_s * 1e6)

    def max_decode_batch(self, mean_context_tokens: float, itl_ms: float) -> int:
        """The largest batch within `max_num_seqs` whose ITL and KV fit; 0 if none. Logarithmic."""
        low, high = 0, self.max_num_seqs
        if mean_context_tokens > 0:
            high = min(high, int(self.kv_capacity_tokens // mean_context_tokens))
        while low < high:
            middle = (low + high + 1) // 2
            if self.decode_ms(middle, mean_context_tokens) <= itl_ms:
                low = middle
            else:
                high = middle - 1
        return low


def load_profile(path_or_name: str | Path = DEFAULT_PROFILE) -> Profile:
    """A shipped profile by its name, or any by its path. Raises ProfileError."""
    path = _find(path_or_name)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"profile {path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"profile {path}: not JSON: {error}") from error
    try:
        return parse_profile(raw, path.stem)
    except ProfileError as error:
        raise ProfileError(*(f"profile {path}: {problem}" for problem in error.problems)) from None


def shipped_profiles() -> tuple[str, ...]:
    """The names that `load_profile` knows."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.json")))


def parse_profile(raw: Any, name: str) -> Profile:
    """The profile in a decoded JSON document. Raises ProfileError with every problem at once."""
    if not isinstance(raw, Mapping) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, Mapping) else type(raw).__name__
        raise ProfileError(f"format = {found!r}: expected {FORMAT!r}")
    read = _Reader(raw)
    max_model_len = read.whole("max_model_len")
    max_num_seqs = read.whole("max_num_seqs")
    prefill = read.surface("prefill_ms", "new_tokens", "cached_tokens", max_model_len, extrapolate_y=True)
    decode = read.surface("decode_ms", "batch", "context_tokens", max_num_seqs)
    if decode and max_model_len > decode.ys[-1]:
        read.problem("max_model_len", max_model_len, f"at most decode_ms.context_tokens' {decode.ys[-1]:g}")
    values: dict[str, Any] = {
        "provenance": read.provenance(),
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "transfer_gb_per_s": read.positive("transfer_gb_per_s"),
        "transfer_latency_ms": read.positive("transfer_latency_ms") if "transfer_latency_ms" in raw else None,
    }
    for key in ("tp", "gpus", "kv_bytes_per_token", "kv_capacity_tokens", "prefill_chunk_tokens"):
        values[key] = read.whole(key)
    if read.problems or prefill is None or decode is None:
        raise ProfileError(*read.problems)
    return Profile(name=name, prefill=prefill, decode=decode, **values)


class _Reader:
    """Reads keys and collects what is wrong with them; a wrong value reads as 1 or None meanwhile."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw
        self.problems: list[str] = []

    def problem(self, key: str, value: object, expected: str) -> None:
        self.problems.append(f"{key} = {value!r}: expected {expected}")

    def whole(self, key: str) -> int:
        value = self._raw.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self.problem(key, value, "a whole number above 0")
        return 1

    def positive(self, key: str) -> float:
        value = self._raw.get(key)
        if _is_number(value) and value > 0:
            return float(value)
        self.problem(key, value, "a number above 0")
        return 1.0

    def provenance(self) -> Provenance | None:
        keys = ("source", "licence", "model", "gpu", "backend", "backend_version")
        raw = self._raw.get("provenance")
        texts: dict[str, Any] = {key: raw.get(key) if isinstance(raw, Mapping) else None for key in keys}
        if not all(isinstance(text, str) and text for text in texts.values()):
            self.problem("provenance", raw, f"texts for {', '.join(keys)}")
            return None
        notes = self._raw["provenance"].get("notes", [])
        if not (isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
            self.problem("provenance.notes", notes, "a list of texts")
            return None
        return Provenance(**texts, notes=tuple(notes))

    def surface(
        self, key: str, x_name: str, y_name: str, x_needed: int, *, extrapolate_y: bool = False
    ) -> Surface | None:
        raw = self._raw.get(key)
        if not isinstance(raw, Mapping):
            self.problem(key, raw, f"an object with {x_name}, {y_name} and ms")
            return None
        before = len(self.problems)
        xs = self._knots(f"{key}.{x_name}", raw.get(x_name))
        ys = self._knots(f"{key}.{y_name}", raw.get(y_name))
        rows = raw.get("ms")
        if not xs or not ys:
            return None
        if not _is_grid(rows, len(xs), len(ys)):
            self.problem(f"{key}.ms", type(rows).__name__, f"{len(xs)} rows of {len(ys)} numbers, one per knot")
            return None
        self._cells(key, rows, [f"{x_name} {x:g}" for x in xs], [f"{y_name} {y:g}" for y in ys])
        if xs[-1] < x_needed:
            self.problem(f"{key}.{x_name}", xs[-1], f"knots up to {x_needed}")
        if len(self.problems) > before:
            return None
        cells = tuple(tuple(map(float, row)) for row in rows)
        return Surface(x_name, y_name, xs, ys, cells, extrapolate_y)

    def _cells(self, key: str, rows: Sequence[Sequence[Any]], xs: Sequence[str], ys: Sequence[str]) -> None:
        """Name every gap, and every dip between cells that are there."""
        found = []
        for i, row in enumerate(rows):
            for j, cell in enumerate(row):
                if not (_is_number(cell) and cell > 0):
                    found.append((i, j, "ms above 0; a gap in the table: measure it, or leave out its row or column"))
                    continue
                before = [rows[i - 1][j] if i else None, row[j - 1] if j else None]
                least = max((other for other in before if _is_number(other)), default=0.0)
                if cell < least:
                    found.append((i, j, f"no less than {least:g}, its neighbour at a smaller coordinate"))
        for i, j, expected in found[:SHOWN]:
            self.problem(f"{key}.ms[{i}][{j}] ({xs[i]}, {ys[j]})", rows[i][j], expected)
        if len(found) > SHOWN:
            self.problems.append(f"{key}.ms: and {len(found) - SHOWN} more cells like these")

    def _knots(self, key: str, raw: Any) -> tuple[float, ...]:
        numbers = [cell for cell in raw if _is_number(cell)] if isinstance(raw, list) else []
        rising = all(a < b for a, b in pairwise(numbers))
        if len(numbers) >= 2 and rising and numbers[0] >= 0 and len(numbers) == len(raw):
            return tuple(map(float, numbers))
        self.problem(key, raw, "at least two numbers, rising, none below 0")
        return ()


def _find(path_or_name: str | Path) -> Path:
    text = str(path_or_name)
    if "/" in text or text.endswith(".json"):
        return Path(text)
    if text in shipped_profiles():
        return _SHIPPED / f"{text}.json"
    known = ", ".join(shipped_profiles())
    raise ProfileError(f"profile {text!r}: no such profile; shipped are {known}; or give a path to a .json file")


def _segment(knots: tuple[float, ...], value: float) -> tuple[int, float]:
    """The index of the segment that holds `value`, and how far into it (above 1 beyond the last knot)."""
    if value <= knots[0]:
        return 0, 0.0
    i = min(bisect_right(knots, value) - 1, len(knots) - 2)
    return i, (value - knots[i]) / (knots[i + 1] - knots[i])


def _mix(row: tuple[float, ...], j: int, v: float) -> float:
    return row[j] + v * (row[j + 1] - row[j]) if v else row[j]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_grid(rows: Any, height: int, width: int) -> TypeGuard[list[list[Any]]]:
    return (
        isinstance(rows, list)
        and len(rows) == height
        and all(isinstance(row, list) and len(row) == width for row in rows)
    )
