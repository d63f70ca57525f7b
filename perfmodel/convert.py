"""Makes a profile from a table of latencies: `python -m perfmodel.convert TABLE.csv.gz > PROFILE.json`.

The table is aiconfigurator's (columns model, system, backend, backend_version, tp, phase, batch,
tokens_per_seq, prefix, latency_ms, mem_gb, oom). How it is cleaned:
1. Prefill takes the rows of batch 1. The table has cached prefixes for a few prompt lengths only; for the
   others the extra time of a prefix is proportional to new tokens times a rate per new token, which is
   interpolated between the lengths that it has and held beyond them (measured: it varies by under 10 %).
2. Decode keeps the modelled latencies of cells that are out of memory, because they are the corners of
   cells that fit; `kv_capacity_tokens` keeps the engine out of them. Cells that the table lacks go on
   along their row, linear in context, as reading the KV cache is.
3. Dips: each cell becomes the least latency of all cells that are at least as large in both coordinates,
   since a smaller step could be padded to the larger one.
4. KV capacity: 0.9 of the card's memory less the weights (the least `mem_gb` of the table, which is in
   GiB), over all cards, divided by the bytes per token, in whole blocks of 16 tokens.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from perfmodel.profile import FORMAT, parse_profile

_BLOCK_TOKENS = 16
_MEMORY_SHARE = 0.9
_GIB = 2**30

Row = Mapping[str, str]
Grid = list[list[float]]


@dataclass(frozen=True, slots=True)
class Card:
    """What the table does not say of model and hardware; the defaults are Qwen3-32B's on A100-80GB.

    Bytes per token: 64 layers x (K and V) x 8 KV heads x 128 dimensions x 2 bytes.
    """

    model: str = "Qwen/Qwen3-32B"
    system: str = "a100_sxm"
    tp: int = 2
    card_gib: int = 80
    kv_bytes_per_token: int = 64 * 2 * 8 * 128 * 2
    max_model_len: int = 131_072
    max_num_seqs: int = 128
    prefill_chunk_tokens: int = 4096
    transfer_gb_per_s: float = 25.0
    max_batch: int = 256


def convert(rows: Iterable[Row], card: Card) -> dict[str, Any]:
    """The profile document for one model, card and TP width. Raises ValueError if the table lacks it."""
    mine = [row for row in rows if _matches(row, card)]
    if not mine:
        raise ValueError(f"the table has no rows for {card.model}, {card.system}, tp {card.tp}")
    weights_gib = min(float(row["mem_gb"]) for row in mine)
    free_bytes = (_MEMORY_SHARE * card.card_gib - weights_gib) * _GIB * card.tp
    capacity_tokens = int(free_bytes / card.kv_bytes_per_token) // _BLOCK_TOKENS * _BLOCK_TOKENS
    return {
        "format": FORMAT,
        "provenance": {
            "source": "modelled by aiconfigurator 0.12.0 (ai-dynamo/aiconfigurator) from measured kernels",
            "licence": "Apache-2.0",
            "model": card.model,
            "gpu": card.system,
            "backend": mine[0]["backend"],
            "backend_version": mine[0]["backend_version"],
        },
        "tp": card.tp,
        "gpus": card.tp,
        "kv_bytes_per_token": card.kv_bytes_per_token,
        "kv_capacity_tokens": capacity_tokens,
        "max_model_len": card.max_model_len,
        "max_num_seqs": card.max_num_seqs,
        "prefill_chunk_tokens": card.prefill_chunk_tokens,
        "transfer_gb_per_s": card.transfer_gb_per_s,
        "prefill_ms": _prefill(mine),
        "decode_ms": _decode(mine, card.max_batch),
    }


def _matches(row: Row, card: Card) -> bool:
    return row["model"] == card.model and row["system"] == card.system and int(row["tp"]) == card.tp


def _prefill(rows: Sequence[Row]) -> dict[str, Any]:
    cells = {
        (int(row["tokens_per_seq"]), int(row["prefix"])): float(row["latency_ms"])
        for row in rows
        if row["phase"] == "prefill" and row["batch"] == "1"
    }
    news = sorted({new for new, cached in cells if cached == 0})
    cacheds = sorted({cached for _, cached in cells})
    extra_per_token = {
        cached: [(n, (ms - cells[n, 0]) / n) for (n, c), ms in sorted(cells.items()) if c == cached]
        for cached in cacheds
    }
    grid = [[cells[new, 0] + new * _interpolate(extra_per_token[cached], new) for cached in cacheds] for new in news]
    return {"new_tokens": news, "cached_tokens": cacheds, "ms": _rounded(_without_dips(grid))}


def _decode(rows: Sequence[Row], max_batch: int) -> dict[str, Any]:
    cells = {
        (int(row["batch"]), int(row["tokens_per_seq"])): float(row["latency_ms"])
        for row in rows
        if row["phase"] == "decode" and int(row["batch"]) <= max_batch
    }
    batches = sorted({batch for batch, _ in cells})
    contexts = sorted({context for _, context in cells})
    grid = [
        _continued([cells[batch, context] for context in contexts if (batch, context) in cells], contexts)
        for batch in batches
    ]
    return {"batch": batches, "context_tokens": contexts, "ms": _rounded(_without_dips(grid))}


def _continued(known: Sequence[float], contexts: Sequence[int]) -> list[float]:
    """A row that lacks its last cells, continued along its last segment."""
    last = len(known) - 1
    slope = (known[last] - known[last - 1]) / (contexts[last] - contexts[last - 1])
    return [*known, *(known[last] + slope * (context - contexts[last]) for context in contexts[last + 1 :])]


def _interpolate(points: Sequence[tuple[int, float]], x: float) -> float:
    """Linear between the points, constant beyond them."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (x - x0) / (x1 - x0) * (y1 - y0)
    return points[0][1] if x < points[0][0] else points[-1][1]


def _without_dips(grid: Grid) -> Grid:
    """The lower envelope: the least of all cells at least as large in both coordinates."""
    clean = [list(row) for row in grid]
    for i in reversed(range(len(clean))):
        for j in reversed(range(len(clean[i]))):
            after = [clean[i + 1][j]] if i + 1 < len(clean) else []
            after += [clean[i][j + 1]] if j + 1 < len(clean[i]) else []
            clean[i][j] = min([clean[i][j], *after])
    return clean


def _rounded(grid: Grid) -> Grid:
    return [[round(cell, 3) for cell in row] for row in grid]


def as_text(document: Mapping[str, Any]) -> str:
    """JSON with one row of a surface per line."""
    text = json.dumps(document, indent=1)
    return re.sub(r"\[[^\[\]]*\]", lambda found: " ".join(found.group().split()), text) + "\n"


def main() -> int:
    """Read the table named on the command line, write the profile to stdout."""
    parser = argparse.ArgumentParser(
        description="Make a profile of Qwen3-32B on 2 x A100-80GB from aiconfigurator's table.",
        epilog="example: python -m perfmodel.convert aic_pd_surfaces_vllm.csv.gz > profile.json",
    )
    parser.add_argument("table", help="CSV file, gzipped")
    table = parser.parse_args().table
    try:
        with gzip.open(table, "rt", encoding="utf-8", newline="") as lines:
            document = convert(csv.DictReader(lines), Card())
    except (OSError, ValueError, KeyError) as error:
        print(f"table {table}: {error}; expected aiconfigurator's surfaces as .csv.gz", file=sys.stderr)
        return 2
    parse_profile(document, "made")
    sys.stdout.write(as_text(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
