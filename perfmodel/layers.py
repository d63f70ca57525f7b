"""Layer profiles: step times of a mixed batch from measured times of one layer on one rank.

The three tables are LLMServingSim's (casys-kaist/LLMServingSim): `<stem>_attention.csv.gz`,
`<stem>_dense.csv.gz`, `<stem>_per_sequence.csv.gz`, in microseconds. Rules:
1. A step = layers x (attention + the dense layers, layernorm twice) + once embedding, final_layernorm, lm_head and
   sampler + with TP two all-reduces a layer, each `latency_us` + bytes / bandwidth. Nothing is fitted.
2. The attention table is the union of two grids. It is completed to one grid along one axis at a time (decode context,
   cached tokens, new tokens, sequences), linearly and only between measured points. Beyond the most sequences measured
   together with a prompt, more sequences add what they add without one. A cell that stays empty although a larger batch
   was measured is a gap, and the table is refused; any other is outside of the support.
3. Measured times dip. Each is replaced by the middle between the least monotone table above the measured one and the
   greatest below it, which is monotone in every coordinate; a dip too deep to be noise is refused.
4. Mixed batches are looked up as mixed. The table knows one chunk beside the decode batch; of several, each adds what
   it adds to the decode batch alone. This is a reading, not a measurement: others (one chunk of their total; the
   largest mixed and the rest alone) come out 1 to 4 % lower in TTFT and 0.5 to 1.3 % in ITL on the recorded runs.
5. No answer beyond what was measured. A table with mistakes is refused whole, with one line per mistake.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from math import inf, prod
from pathlib import Path

from perfmodel.models import ModelShape
from perfmodel.monotone import lines, monotone, running
from perfmodel.profile import ProfileError
from perfmodel.steps import Chunk, DecodeLine, outside
from perfmodel.tables import Row, capped, read_table

ATTENTION_KEYS = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
ONCE_A_STEP = {"embedding", "final_layernorm"}
TWICE_A_LAYER = {"layernorm"}
DENSE_LAYERS = {"embedding", "final_layernorm", "layernorm", "qkv_proj", "o_proj"}
MLP_LAYERS, EXPERT_LAYERS = {"gate_up_proj", "down_proj"}, {"moe"}
HEAD_LAYERS = {"lm_head", "sampler"}
ALL_REDUCES_A_LAYER, BYTES_A_VALUE = 2, 2
DEEPEST_DIP = 0.1

_US = 1e-6


@dataclass(frozen=True, slots=True)
class Link:
    """What one all-reduce takes; the defaults are those of the profiles' source."""

    latency_us: float = 20.0
    gb_per_s: float = 16.0

    def all_reduce_us(self, size_bytes: int) -> float:
        """One all-reduce of so many bytes."""
        return self.latency_us + size_bytes / (self.gb_per_s * 1e3)


class LayerSteps:
    """Step times of one model on one TP group, from its layers' tables; a `StepCosts`."""

    def __init__(self, attention: Attention, token_s: Sequence[float], seq_s: Sequence[float], layers: int) -> None:
        """`token_s[n]`, `seq_s[n]`: what n tokens and n sequences take a step, without attention; [0] is 0."""
        self.max_tokens = len(token_s) - 1
        self.max_seqs = min(len(seq_s) - 1, int(attention.axes[2][-1]))
        self.max_context = int(min(attention.axes[1][-1], attention.axes[3][-1]))
        self._attention = attention
        self._token_s, self._seq_s = token_s, seq_s
        self._layers_s = layers * _US
        self._lines: dict[int, DecodeLine] = {}

    def decode_line(self, seqs: int) -> DecodeLine:
        """Piecewise linear at the attention table's contexts. Raises ProfileError outside of the support."""
        line = self._lines.get(seqs)
        if line is None:
            self._check(seqs, seqs)
            base = self._token_s[seqs] + self._seq_s[seqs]
            knots = self._attention.contexts_us(seqs)
            line = DecodeLine(tuple(knots), tuple(base + self._layers_s * us for us in knots.values()))
            self._lines[seqs] = line
        return line

    def mixed_s(self, chunks: Sequence[Chunk], seqs: int, context: float) -> float:
        """A step with chunks. Constant time per chunk. Raises ProfileError outside of the support."""
        attention = self._attention
        new = sum(tokens for tokens, _ in chunks)
        self._check(new + seqs, seqs + len(chunks))
        if len(chunks) == 1:
            us = attention.at_us(*chunks[0], seqs, context)
        else:
            alone = attention.at_us(0, 0, seqs, context)
            us = alone + sum(attention.at_us(*chunk, seqs, context) - alone for chunk in chunks)
        return self._token_s[new + seqs] + self._seq_s[seqs + len(chunks)] + self._layers_s * us

    def _check(self, tokens: int, seqs: int) -> None:
        if tokens > self.max_tokens:
            raise outside("tokens of a step", tokens, self.max_tokens)
        if seqs >= len(self._seq_s):
            raise outside("sequences of a step", seqs, len(self._seq_s) - 1)


class Attention:
    """Microseconds of one layer's attention over (new, cached, sequences, context); linear in each."""

    def __init__(self, axes: Sequence[Sequence[int]], values_us: Sequence[float]) -> None:
        """`values_us` in row-major order of the axes; infinity outside of the support."""
        self.axes = tuple(tuple(map(float, axis)) for axis in axes)
        self._values = list(values_us)
        self._strides = tuple(prod(len(axis) for axis in self.axes[i + 1 :]) for i in range(4))

    def at_us(self, new: float, cached: float, seqs: float, context: float) -> float:
        """The interpolated time; below the first context it holds. Raises ProfileError outside of the support."""
        values = self._values
        by_new, by_cached, by_seqs, _ = self._strides
        i, u = self._segment(0, new)
        j, v = self._segment(1, cached)
        k, w = self._segment(2, seqs)
        n, x = self._segment(3, context)

        def line(start: int) -> float:
            return values[start] + x * (values[start + 1] - values[start]) if x else values[start]

        def edge(start: int) -> float:
            low = line(start)
            return low + w * (line(start + by_seqs) - low) if w else low

        start = i * by_new + j * by_cached + k * by_seqs + n
        low = edge(start)
        if v:
            low += v * (edge(start + by_cached) - low)
        if u:
            start += by_new
            high = edge(start)
            if v:
                high += v * (edge(start + by_cached) - high)
            low += u * (high - low)
        if not low < inf:
            raise ProfileError(
                f"{_named((new, cached, seqs, context))}: outside of the profile, no larger was measured"
            )
        return low

    def contexts_us(self, seqs: int) -> dict[float, float]:
        """The times of pure decode over the contexts that are known, from 0 on."""
        contexts = (0.0, *self.axes[3])
        k, w = self._segment(2, seqs)
        by_seqs = self._strides[2]
        known = {}
        for n, context in enumerate(contexts):
            start = k * by_seqs + max(0, n - 1)
            low = self._values[start]
            us = low + w * (self._values[start + by_seqs] - low) if w else low
            if us < inf:
                known[context] = us
        return known

    def _segment(self, axis: int, value: float) -> tuple[int, float]:
        knots = self.axes[axis]
        if value <= knots[0]:
            return 0, 0.0
        i = bisect_right(knots, value) - 1
        if i == len(knots) - 1:
            if value > knots[-1]:
                raise outside(ATTENTION_KEYS[axis], value, knots[-1])
            i -= 1
        return i, (value - knots[i]) / (knots[i + 1] - knots[i])


def load_layer_steps(stem: str | Path, shape: ModelShape, tp: int, link: Link | None = None) -> LayerSteps:
    """The step times in `<stem>_{attention,dense,per_sequence}.csv.gz`. Raises ProfileError with every problem."""
    problems: list[str] = []

    def table(kind: str, keys: Sequence[str]) -> list[Row]:
        rows, found = read_table(Path(f"{stem}_{kind}.csv.gz"), keys)
        problems.extend(found)
        return rows

    attention_rows = table("attention", ATTENTION_KEYS)
    dense = _by_layer(table("dense", ("layer", "tokens")))
    heads = _by_layer(table("per_sequence", ("layer", "sequences")))
    if problems:
        raise ProfileError(*problems)
    mlp = EXPERT_LAYERS if shape.experts else MLP_LAYERS
    problems += _missing(f"{stem}_dense", dense, DENSE_LAYERS | mlp)
    problems += _missing(f"{stem}_per_sequence", heads, HEAD_LAYERS)
    attention = _attention(f"{stem}_attention", attention_rows, problems)
    problems += _dips(f"{stem}_dense", dense) + _dips(f"{stem}_per_sequence", heads)
    if problems or attention is None:
        raise ProfileError(*problems)
    token_us = _summed(dense, lambda name: 1 if name in ONCE_A_STEP else shape.layers * (1 + (name in TWICE_A_LAYER)))
    if tp > 1:
        wire = link or Link()
        for tokens in range(1, len(token_us)):
            size_bytes = tokens * shape.hidden * BYTES_A_VALUE
            token_us[tokens] += ALL_REDUCES_A_LAYER * shape.layers * wire.all_reduce_us(size_bytes)
    seq_us = _summed(heads, lambda _: 1)
    return LayerSteps(attention, [us * _US for us in token_us], [us * _US for us in seq_us], shape.layers)


Points = list[tuple[int, float]]


def _by_layer(rows: Sequence[Row]) -> dict[str, Points]:
    layers: dict[str, Points] = {}
    for (name, count), us in rows:
        layers.setdefault(str(name), []).append((int(count), us))
    return {name: sorted(points) for name, points in layers.items()}


def _missing(table: str, layers: Mapping[str, Points], needed: set[str]) -> list[str]:
    return [f"{table}: layer {name!r} is missing" for name in sorted(needed - set(layers))]


def _dips(table: str, layers: Mapping[str, Points]) -> list[str]:
    found = []
    for name, points in layers.items():
        highest = list(accumulate((us for _, us in points), max))
        for (count, us), before in zip(points, highest, strict=True):
            if us < DEEPEST_DIP * before:
                found.append(f"{table}: {name} at {count} = {us:g} us: expected no less than at smaller counts")
    return capped(table, found)


def _summed(layers: Mapping[str, Points], times: Callable[[str], int]) -> list[float]:
    """Microseconds of all layers at 0 (which is 0), 1, 2, ... up to where every layer was measured."""
    last = min(points[-1][0] for points in layers.values())
    total = [0.0] * (last + 1)
    for name, points in layers.items():
        factor = times(name)
        for count, us in enumerate(_at_each(points, last), start=1):
            total[count] += factor * us
    return [0.0, *monotone(total[1:], (last,))]


def _at_each(points: Points, last: int) -> Iterator[float]:
    """The points' times at 1, 2, ..., `last`; below the first point the first holds."""
    yield from (points[0][1] for _ in range(1, points[0][0] + 1))
    for (x0, us0), (x1, us1) in pairwise(points):
        yield from (us0 + (x - x0) / (x1 - x0) * (us1 - us0) for x in range(x0 + 1, min(x1, last) + 1))


def _attention(table: str, rows: Sequence[Row], problems: list[str]) -> Attention | None:
    """The completed, monotone table, or None after naming its gaps and dips."""
    known = {(int(a), int(b), int(c), int(d)): us for (a, b, c, d), us in rows}
    new, cached, seqs, contexts = (sorted({key[i] for key in known} | {0}) for i in range(4))
    contexts.remove(0)
    axes = (new, cached, seqs, contexts)
    if any(len(axis) < 2 for axis in axes):
        problems.append(f"{table}: expected at least two values in each of {', '.join(ATTENTION_KEYS)}")
        return None
    values = _spread(known, axes)
    cells, shape = list(product(*axes)), tuple(map(len, axes))
    # A cell within what was measured has a measured one at or above it in every coordinate.
    within = running([float(value is not None) for value in values], shape, max, backwards=True)
    for axis in (3, 1, 0, 2):
        _fill(values, axes, axis)
    _more_sequences(values, axes)
    gaps = [cell for cell, value, reach in zip(cells, values, within, strict=True) if value is None and reach]
    if gaps:
        first = _named(gaps[0])
        problems.append(f"{table}: {len(gaps)} of {len(cells)} cells are gaps between measured ones, first {first}")
    highest = running([value or 0.0 for value in values], shape, max, backwards=False)
    problems += capped(
        table,
        [
            f"{table}: {_named(cell)}: {known[cell]:g} us: expected no less than smaller batches, {before:g}"
            for cell, before in zip(cells, highest, strict=True)
            if known.get(cell, inf) < DEEPEST_DIP * before
        ],
    )
    return Attention(axes, monotone([inf if value is None else value for value in values], shape))


def _named(cell: Sequence[float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(ATTENTION_KEYS, cell, strict=True))


Axes = tuple[list[int], list[int], list[int], list[int]]


def _spread(known: Mapping[tuple[int, int, int, int], float], axes: Axes) -> list[float | None]:
    """The measured points on the whole grid: without a prompt the cache, without decode the context is any."""

    def value(new: int, cached: int, seqs: int, context: int) -> float | None:
        if new == 0 == seqs:
            return 0.0
        return known.get((new, cached if new else 0, seqs, context if seqs else 0))

    return [value(*cell) for cell in product(*axes)]


def _fill(values: list[float | None], axes: Axes, axis: int) -> None:
    """Complete the lines along one axis between their known points."""
    xs = axes[axis]
    for line in lines([len(one) for one in axes], axis):
        cells = values[line]
        known = [(i, us) for i, us in enumerate(cells) if us is not None]
        if len(known) == len(cells):
            continue
        for (i0, us0), (i1, us1) in pairwise(known):
            for i in range(i0 + 1, i1):
                cells[i] = us0 + (xs[i] - xs[i0]) / (xs[i1] - xs[i0]) * (us1 - us0)
        values[line] = cells


def _more_sequences(values: list[float | None], axes: Axes) -> None:
    """Beyond the most sequences measured together with a prompt: what they add without one."""
    shape = [len(one) for one in axes]
    stride = prod(shape[2:])
    for number, line in enumerate(lines(shape, 2)):
        cells, alone = values[line], values[slice(number % shape[3], stride, shape[3])]
        for i in range(1, len(cells)):
            before, more, fewer = cells[i - 1], alone[i], alone[i - 1]
            if cells[i] is None and before is not None and more is not None and fewer is not None:
                cells[i] = before + more - fewer
        values[line] = cells
