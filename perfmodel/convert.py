"""Makes a profile document of what a table measured of one model, on one kind of card, at one TP width; pure.

How a table becomes a profile; what was done is said in `provenance.notes`:
1. Prefill is known behind cached tokens at a few prompt lengths only. For the others the extra time is proportional to
   new tokens times a rate per new token, interpolated between the lengths that have it and held beyond them.
2. Decode rows that lack their last contexts go on linearly along the row, as reading the KV cache is. Cells that do
   not fit into memory are kept where a table models them: they are the corners of cells that fit.
3. Times that fall in a coordinate are moved by `monotone`, and how many and how far is said.
4. KV capacity: 0.9 of the cards' memory less the weights, by the bytes of a token, in whole blocks of 16 tokens.
5. A limit beyond what the table covers is an error, as is a table without enough of it; all problems at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from perfmodel.monotone import monotone
from perfmodel.profile import FORMAT, ProfileError, parse_profile

BLOCK_TOKENS = 16
MEMORY_SHARE = 0.9
MAX_BATCH = 256
GIB = 2**30

Cells = dict[tuple[int, int], float]
"""Milliseconds at (new tokens, cached tokens), or at (batch, context tokens)."""
Grid = list[list[float]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a table does not say of the engine; None is the most that the table covers."""

    max_model_len: int | None = None
    max_num_seqs: int | None = None
    prefill_chunk_tokens: int = 4096
    transfer_gb_per_s: float | None = None
    kv_capacity_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a table says, and what is known of its model and cards. `weights_gib` and `card_gib` are of one card."""

    provenance: Mapping[str, str]
    tp: int
    prefill: Cells
    decode: Cells
    kv_bytes_per_token: int
    weights_gib: float
    card_gib: float
    link_gb_per_s: float
    notes: list[str] = field(default_factory=list)


def convert(measured: Measured, limits: Limits) -> dict[str, Any]:
    """The profile document. Raises ProfileError with every reason why the table cannot give it."""
    check_support(measured, limits)
    notes = list(measured.notes)
    news, cacheds, prefill = _prefill(measured.prefill, notes)
    most = limits.max_num_seqs or min(MAX_BATCH, max(batch for batch, _ in measured.decode))
    batches, contexts, decode = _decode(measured.decode, max(most, MAX_BATCH), notes)
    if limits.transfer_gb_per_s is None:
        notes.append(f"transfer_gb_per_s: not in the table; one link of {measured.link_gb_per_s:g} GB/s is assumed")
    document = {
        "format": FORMAT,
        "provenance": {**measured.provenance, "notes": notes},
        "tp": measured.tp,
        "gpus": measured.tp,
        "kv_bytes_per_token": measured.kv_bytes_per_token,
        "kv_capacity_tokens": limits.kv_capacity_tokens or kv_capacity_tokens(measured),
        "max_model_len": limits.max_model_len or min(news[-1], contexts[-1]),
        "max_num_seqs": most,
        "prefill_chunk_tokens": limits.prefill_chunk_tokens,
        "transfer_gb_per_s": limits.transfer_gb_per_s or measured.link_gb_per_s,
        "prefill_ms": {"new_tokens": news, "cached_tokens": cacheds, "ms": prefill},
        "decode_ms": {"batch": batches, "context_tokens": contexts, "ms": decode},
    }
    parse_profile(document, "made")
    return document


def kv_capacity_tokens(measured: Measured) -> int:
    """Tokens that one TP group holds; 0 or less if the weights alone do not fit."""
    free_bytes = (MEMORY_SHARE * measured.card_gib - measured.weights_gib) * GIB * measured.tp
    return int(free_bytes / measured.kv_bytes_per_token) // BLOCK_TOKENS * BLOCK_TOKENS


def check_support(measured: Measured, limits: Limits) -> None:
    """Raises ProfileError where a table is too small for a profile, or for the limits asked for."""
    problems = []
    for cells, names in (
        (measured.prefill, ("prefill: new_tokens", "prefill: cached_tokens")),
        (measured.decode, ("decode: batch", "decode: context_tokens")),
    ):
        for axis, name in enumerate(names):
            found = sorted({cell[axis] for cell in cells})
            if len(found) < 2:
                problems.append(f"{name} = {_listed(found) or 'none'}: expected at least 2 values in the table")
    if problems:
        raise ProfileError(*problems)
    covered = {
        "max_model_len": min(max(new for new, _ in measured.prefill), max(context for _, context in measured.decode)),
        "max_num_seqs": max(batch for batch, _ in measured.decode),
    }
    for name, most in covered.items():
        asked = getattr(limits, name)
        if asked and asked > most:
            problems.append(f"{name} = {asked}: expected at most {most}, which the table covers")
    if not limits.kv_capacity_tokens and kv_capacity_tokens(measured) <= 0:
        problems.append(
            f"kv_capacity_tokens: weights of {measured.weights_gib:.1f} GiB a card leave no room in "
            f"{MEMORY_SHARE} of {measured.card_gib:g} GiB; choose a larger tp"
        )
    if problems:
        raise ProfileError(*problems)


def _prefill(cells: Cells, notes: list[str]) -> tuple[list[int], list[int], Grid]:
    """New tokens, cached tokens, milliseconds."""
    news = sorted({new for new, cached in cells if cached == 0})
    cacheds = sorted({cached for _, cached in cells})
    extra_per_token = {
        cached: [(n, (ms - cells[n, 0]) / n) for (n, c), ms in sorted(cells.items()) if c == cached and (n, 0) in cells]
        for cached in cacheds
    }
    grid = [[cells[new, 0] + new * interpolate(extra_per_token[cached], new) for cached in cacheds] for new in news]
    if lacking := len(news) * len(cacheds) - len(cells):
        known = sorted({new for new, cached in cells if cached})
        notes.append(
            f"prefill_ms: {lacking} of {len(news) * len(cacheds)} cells have no measurement behind cached tokens; from "
            f"{_listed(known)} new tokens by their extra time per new token"
        )
    return news, cacheds, repaired("prefill_ms", grid, notes)


def _decode(cells: Cells, max_batch: int, notes: list[str]) -> tuple[list[int], list[int], Grid]:
    """Batches, contexts, milliseconds."""
    batches = sorted({batch for batch, _ in cells if batch <= max_batch})
    contexts = sorted({context for _, context in cells})
    grid, lacking = [], []
    for batch in batches:
        known = [cells[batch, context] for context in contexts if (batch, context) in cells]
        rows = [context for context in contexts if (batch, context) not in cells]
        if len(known) < 2 or rows != contexts[len(known) :]:
            raise ProfileError(
                f"decode: batch {batch} lacks context_tokens {_listed(rows)}: a gap between measured cells, expected "
                "gaps at the end of a row only"
            )
        lacking += [f"batch {batch} from {rows[0]}"] if rows else []
        grid.append(_continued(known, contexts))
    if lacking:
        count = len(batches) * len(contexts) - sum(batch <= max_batch for batch, _ in cells)
        notes.append(
            f"decode_ms: {count} of {len(batches) * len(contexts)} cells are not in the table and go on linearly in "
            f"context: {_listed(lacking)}"
        )
    return batches, contexts, repaired("decode_ms", grid, notes)


def repaired(name: str, grid: Grid, notes: list[str]) -> Grid:
    """The grid, monotone and rounded; a note says what was moved and how far."""
    width = len(grid[0])
    flat = [cell for row in grid for cell in row]
    clean = monotone(flat, (len(grid), width))
    moved = [abs(new - old) / old for new, old in zip(clean, flat, strict=True) if abs(new - old) > 1e-9 * old]
    if moved:
        notes.append(
            f"{name}: isotonic repair moved {len(moved)} of {len(flat)} cells, by {sum(moved) / len(moved):.1%} on "
            f"average and {max(moved):.1%} at most"
        )
    cells = [round(cell, 3) for cell in clean]
    return [cells[i : i + width] for i in range(0, len(cells), width)]


def _continued(known: Sequence[float], contexts: Sequence[int]) -> list[float]:
    """A row that lacks its last cells, continued along its last segment."""
    last = len(known) - 1
    slope = (known[last] - known[last - 1]) / (contexts[last] - contexts[last - 1])
    return [*known, *(known[last] + slope * (context - contexts[last]) for context in contexts[last + 1 :])]


def interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    """Linear between the points, constant beyond them."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (x - x0) / (x1 - x0) * (y1 - y0)
    return points[0][1] if x < points[0][0] else points[-1][1]


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items))


def as_text(document: Mapping[str, Any]) -> str:
    """JSON with one row of a surface per line."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    # Only lists of numbers: a note may hold brackets of its own.
    return re.sub(r"\[[-+\d.eE,\s]*\]", lambda found: " ".join(found.group().split()), text) + "\n"
