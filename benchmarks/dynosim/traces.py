"""The traces that are replayed, made from a seed: Mooncake JSON lines with prefix blocks of 512 tokens.

Rule: prompts share a prefix only where the recorded trace says so; every other block is somebody's own.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.dynosim.scenarios import TRACE_BLOCK_TOKENS, Load
from benchmarks.shared import shared
from roleratio import traces as recordings
from simulator import servegen
from simulator.arrivals import Request, copied, gaps, recorded, renewals, wave

LOW_RPS, HIGH_RPS, PERIOD_S = 1.0, 24.0, 900.0
SINE_PROMPT, SINE_OUTPUT = 8000, 1000

Hashed = tuple[float, int, int, list[int]]


def write(load: Load, seed: int, path: Path) -> int:
    """Write the trace; how many requests it has. Raises BenchmarkError where a recording is absent."""
    hashed = _mooncake(load, seed) if load.kind == "mooncake" else _hashed(requests(load, seed))
    count = 0
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as out:
        for at_s, prompt, output, blocks in hashed:
            line = {"timestamp": at_s * 1e3, "input_length": prompt, "output_length": output, "hash_ids": blocks}
            out.write(json.dumps(line) + "\n")
            count += 1
    partial.replace(path)
    return count


def requests(load: Load, seed: int) -> Iterator[Request]:
    """The requests of a load without their prefix blocks, in order of time."""
    if load.kind == "sine":
        return _sine(load, seed)
    if load.kind == "servegen":
        return _servegen(load, seed)
    if load.kind == "mooncake":
        return ((at_s, prompt, output) for at_s, prompt, output, _ in _mooncake(load, seed))
    trace = recordings.read(shared(f"data/traces/{load.file}"))
    sent = recorded(((one.at_s, one.input_tokens, one.output_tokens) for one in trace.arrivals), speed=load.speed)
    return copied(sent, load.copies, load.within_s, _rng(seed, "copies")) if load.copies > 1 else sent


def _sine(load: Load, seed: int) -> Iterator[Request]:
    """The wave from its lowest point on, as Dynamo's own load generator begins it."""
    quarter = 0.75 * PERIOD_S
    windows = wave(LOW_RPS, HIGH_RPS, PERIOD_S, load.duration_s + quarter)
    times = renewals(((window, gaps("poisson")) for window in windows), _rng(seed, "arrivals"))
    return recorded(((at_s, SINE_PROMPT, SINE_OUTPUT) for at_s in times), start_s=quarter, duration_s=load.duration_s)


def _servegen(load: Load, seed: int) -> Iterator[Request]:
    """The clients' demand at another mean rate. Thinned requests would lose the clients' burstiness; these keep it."""
    stem = f"data/traces/{load.file}"
    with (
        gzip.open(shared(f"{stem}_client_windows.csv.gz"), "rt", encoding="utf-8") as windows,
        gzip.open(shared(f"{stem}_client_lengths.jsonl.gz"), "rt", encoding="utf-8") as lengths,
    ):
        found = servegen.parse(windows, lengths)
    end_s = load.start_s + load.duration_s
    inside = [row for rows in found.rows.values() for row in rows if load.start_s <= row.t_s < end_s]
    mean_rps = sum(row.rate_rps for row in inside) * servegen.WINDOW_S / load.duration_s
    return found.requests(
        lambda name: _rng(seed, name), load.start_s, load.duration_s, load.mean_rps / mean_rps, stretch=True
    )


def _mooncake(load: Load, seed: int) -> Iterator[Hashed]:
    """The recorded requests with their prefix blocks, each anywhere within the `within_s` that its time stands for."""
    rng = _rng(seed, "spread")
    with gzip.open(shared(f"data/traces/{load.file}"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    moved = [
        (
            row["timestamp"] / 1e3 + rng.random() * load.within_s,
            row["input_length"],
            row["output_length"],
            row["hash_ids"],
        )
        for row in rows
    ]
    return iter(sorted(moved, key=lambda row: row[0]))


def _hashed(sent: Iterable[Request]) -> Iterator[Hashed]:
    first = 0
    for at_s, prompt, output in sent:
        after = first + -(-prompt // TRACE_BLOCK_TOKENS)
        yield at_s, prompt, output, list(range(first, after))
        first = after


def _rng(seed: int, name: str) -> random.Random:
    return random.Random(f"{seed} {name}")
