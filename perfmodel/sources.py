"""Reads the three public tables that profiles are made of: aiconfigurator's, Splitwise's and SageServe's.

Rules:
1. A reader gives what its table says of one model, card and TP width as `Measured`, in milliseconds; the rest is
   `convert`'s.
2. aiconfigurator (ai-dynamo/aiconfigurator): modelled, batch by context. Bytes per token are the slope of its own
   memory column over the tokens in the cache; weights are its least memory. Prefill takes the rows of batch 1.
3. Splitwise (Mutinifni/splitwise-sim) and SageServe (shashwatj07/SageServe) measured a cross: batches at prompts of
   512 tokens, and prompts of other lengths at batch 1, 128 output tokens each. Splitwise's `token_time` is ms of one
   token, SageServe's is seconds of all tokens after the first. Medians of the repetitions. The other decode cells add,
   for each further sequence, the reading of its KV at the cards' full bandwidth: a lower bound. A prompt behind cached
   tokens takes what the whole prompt takes beyond the cached part, and no less than it takes alone.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NoReturn

from perfmodel.convert import GIB, Cells, Measured, interpolate
from perfmodel.profile import ProfileError

OUTPUT_TOKENS = 128
CROSS_PROMPT = 512
CACHED_TOKENS = (2048, 4096)
KV_GRAIN_BYTES = 256

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Card:
    """Datasheet values of one GPU; `link_gb_per_s` is its usual network card (200 or 400 Gb/s)."""

    gib: float
    memory_gb_per_s: float
    link_gb_per_s: float


CARDS = {
    "a100_sxm": Card(80, 2039, 25),
    "h100_sxm": Card(80, 3350, 50),
    "h200_sxm": Card(141, 4800, 50),
    "b200_sxm": Card(180, 8000, 50),
    "a100-80gb": Card(80, 2039, 25),
    "h100-80gb": Card(80, 3350, 50),
    "h100-80gb-pcap": Card(80, 3350, 50),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Published parameters, two bytes each, and KV bytes of a token: layers x (K and V) x KV heads x dimensions x 2."""

    parameters: float
    kv_bytes_per_token: int


MEASURED_MODELS = {
    "llama2-70b": Weights(68.98e9, 80 * 2 * 8 * 128 * 2),
    "bloom-176b": Weights(176.25e9, 70 * 2 * 112 * 128 * 2),
    "Llama-3.1-8B": Weights(8.03e9, 32 * 2 * 8 * 128 * 2),
    "Llama-3.2-3B": Weights(3.21e9, 28 * 2 * 8 * 128 * 2),
}


def read_aic(path: Path, model: str, system: str, tp: int) -> Measured:
    """aiconfigurator's surfaces. Raises ProfileError."""
    rows = _rows(path, ("model", "system", "tp"), (model, system, str(tp)), AIC_NUMBERS)
    decode: Cells = {}
    memory_gib: Cells = {}
    prefill: Cells = {}
    for row in rows:
        batch, tokens = int(row["batch"]), int(row["tokens_per_seq"])
        if row["phase"] == "decode":
            decode[batch, tokens], memory_gib[batch, tokens] = float(row["latency_ms"]), float(row["mem_gb"])
        elif batch == 1:
            prefill[tokens, int(row["prefix"])] = float(row["latency_ms"])
    if not decode or not prefill:
        raise ProfileError(f"{path}: {model}, {system}, tp {tp}: expected rows of both phases, prefill and decode")
    full = sum(row["oom"] == "1" for row in rows if row["phase"] == "decode")
    notes = [f"decode_ms: {full} of {len(decode)} cells do not fit into memory; their modelled times are kept"]
    card = CARDS[system] if system in CARDS else _unknown(path, "system", system, CARDS)
    return Measured(
        provenance={
            "source": "modelled by aiconfigurator 0.12.0 (ai-dynamo/aiconfigurator) from measured kernels",
            "licence": "Apache-2.0",
            "model": model,
            "gpu": system,
            "backend": rows[0]["backend"],
            "backend_version": rows[0]["backend_version"],
        },
        tp=tp,
        prefill=prefill,
        decode=decode,
        kv_bytes_per_token=_kv_bytes(memory_gib, tp),
        weights_gib=min(float(row["mem_gb"]) for row in rows),
        card_gib=card.gib,
        link_gb_per_s=card.link_gb_per_s,
        notes=notes if full else [],
    )


def _kv_bytes(memory_gib: Cells, tp: int) -> int:
    """Bytes that one token takes in the cache of the whole group, from the row that spans the most tokens."""
    spans = [
        (batch * (context - first), memory_gib[batch, context] - memory_gib[batch, first])
        for batch, context in memory_gib
        for first in (min(other for row, other in memory_gib if row == batch),)
    ]
    tokens, gib = max(spans)
    if tokens <= 0 or gib <= 0:
        raise ProfileError("mem_gb: expected memory that grows with context in at least one batch")
    return round(gib * GIB * tp / tokens / KV_GRAIN_BYTES) * KV_GRAIN_BYTES


def read_splitwise(path: Path, model: str, system: str, tp: int) -> Measured:
    """Splitwise's measurements: milliseconds of the prompt, and of one token. Raises ProfileError."""
    source = "measured for Splitwise (Mutinifni/splitwise-sim, commit 8f99e7dc9b40)"
    return _cross(path, (model, system, tp), source, 1.0, 1.0)


def read_sageserve(path: Path, model: str, system: str, tp: int) -> Measured:
    """SageServe's measurements: seconds of the prompt, and of all tokens after the first. Raises ProfileError."""
    source = "measured for SageServe (shashwatj07/SageServe, commit 0b95ca2d615b)"
    return _cross(path, (model, system, tp), source, 1e3, 1e3 / (OUTPUT_TOKENS - 1))


def _cross(path: Path, which: tuple[str, str, int], source: str, prompt_ms: float, token_ms: float) -> Measured:
    """A table of prompt lengths at batch 1 and batches at one prompt length; `*_ms` turn its units into ms."""
    model, system, tp = which
    rows = _rows(path, ("model", "hardware", "tensor_parallel"), (model, system, str(tp)), CROSS_NUMBERS)
    rows = [row for row in rows if int(row["token_size"]) == OUTPUT_TOKENS]
    card = CARDS[system] if system in CARDS else _unknown(path, "hardware", system, CARDS)
    known = MEASURED_MODELS[model] if model in MEASURED_MODELS else _unknown(path, "model", model, MEASURED_MODELS)
    alone = [row for row in rows if row["batch_size"] == "1"]
    prompts = _medians(alone, "prompt_size", "prompt_time", prompt_ms)
    contexts = _medians(alone, "prompt_size", "token_time", token_ms)
    batches = _medians(
        [row for row in rows if int(row["prompt_size"]) == CROSS_PROMPT], "batch_size", "token_time", token_ms
    )
    kv_ms = known.kv_bytes_per_token / (card.memory_gb_per_s * 1e6) / tp
    measured = Measured(
        provenance={
            "source": source,
            "licence": "MIT",
            "model": model,
            "gpu": system,
            "backend": "not stated",
            "backend_version": "not stated",
        },
        tp=tp,
        prefill=_behind_cached(prompts),
        decode=_filled(contexts, batches, kv_ms),
        kv_bytes_per_token=known.kv_bytes_per_token,
        weights_gib=known.parameters * 2 / GIB / tp,
        card_gib=card.gib,
        link_gb_per_s=card.link_gb_per_s,
    )
    modelled = (len(contexts) - 1) * (len(batches) - 1)
    measured.notes.append(
        f"decode_ms: {modelled} of {len(measured.decode)} cells, above batch 1 away from {CROSS_PROMPT} prompt tokens, "
        f"were not measured; each further sequence adds its KV at {card.memory_gb_per_s:g} GB/s a card, a lower bound"
    )
    measured.notes.append(
        "prefill_ms: cached tokens were not measured; a part of a prompt takes what the whole takes beyond the cached"
    )
    return measured


def _filled(contexts: Mapping[int, float], batches: Mapping[int, float], kv_ms: float) -> Cells:
    """The grid of a measured cross; contexts are those half way through the output."""
    if CROSS_PROMPT not in contexts:
        return {}
    centre = contexts[CROSS_PROMPT]
    half = OUTPUT_TOKENS // 2
    return {
        (batch, prompt + half): column + row - centre + (batch - 1) * (prompt - CROSS_PROMPT) * kv_ms
        for batch, column in batches.items()
        for prompt, row in contexts.items()
    }


def _behind_cached(prompts: Mapping[int, float]) -> Cells:
    """Prefill of the measured lengths, alone and behind a cached part of a longer prompt that was measured too."""
    points = sorted(prompts.items())
    cells = {(new, 0): ms for new, ms in points}
    for new, ms in points:
        for cached in CACHED_TOKENS:
            if new + cached <= points[-1][0]:
                whole = interpolate(points, new + cached) - interpolate(points, cached)
                cells[new, cached] = max(ms, whole)
    return cells


def _medians(rows: Sequence[Row], key: str, value: str, to_ms: float) -> dict[int, float]:
    times: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        times[int(row[key])].append(float(row[value]) * to_ms)
    return {x: median(many) for x, many in sorted(times.items())}


AIC_TEXTS = ("phase", "backend", "backend_version", "oom")
AIC_NUMBERS = ("batch", "tokens_per_seq", "prefix", "latency_ms", "mem_gb")
CROSS_NUMBERS = ("prompt_size", "batch_size", "token_size", "prompt_time", "token_time")


def _rows(path: Path, keys: Sequence[str], wanted: Sequence[str], numbers: Sequence[str]) -> list[Row]:
    """The rows of one model, card and width. Raises ProfileError for what cannot be read or is not there."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            table = list(csv.DictReader(lines))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProfileError(f"{path}: cannot be read: {reason}; expected a gzipped CSV file") from error
    columns = (*keys, *numbers, *(AIC_TEXTS if "phase" in (table[0] if table else ()) else ()))
    missing = [name for name in columns if not table or name not in table[0]]
    if missing:
        raise ProfileError(f"{path}: columns {', '.join(missing)} are missing; is this the table of another source?")
    rows = [row for row in table if tuple(row[key] for key in keys) == tuple(wanted)]
    if not rows:
        asked = ", ".join(f"{key} {value}" for key, value in zip(keys, wanted, strict=True))
        offered = sorted({" ".join(row[key] for key in keys) for row in table})
        raise ProfileError(f"{path}: no rows for {asked}; the table has: {'; '.join(offered)}")
    wrong = [(row, name) for row in rows for name in numbers if not _is_amount(row[name])]
    if wrong:
        raise ProfileError(
            *(f"{path}: {name} = {row[name]!r}: expected a number, 0 or more" for row, name in wrong[:10])
        )
    return list(rows)


def _is_amount(text: str | None) -> bool:
    try:
        return text is not None and 0 <= float(text) < math.inf
    except ValueError:
        return False


def _unknown(path: Path, key: str, value: str, known: Iterable[str]) -> NoReturn:
    raise ProfileError(f"{path}: {key} = {value!r}: its memory is not known here; expected one of {', '.join(known)}")


SOURCES: dict[str, Callable[[Path, str, str, int], Measured]] = {
    "aic": read_aic,
    "splitwise": read_splitwise,
    "sageserve": read_sageserve,
}
