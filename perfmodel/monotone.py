"""Monotone repair of a grid of times, with any number of coordinates; pure.

Rule: each time becomes the middle between the least monotone grid above the measured one and the greatest below it.
That is isotonic regression under the largest change: no monotone grid stays closer to all cells at once (Ubhaya 1974).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import prod


def monotone(values: Sequence[float], shape: Sequence[int]) -> list[float]:
    """The row-major grid, repaired: never falling along any axis. Linear in the cells per axis."""
    above = running(values, shape, max, backwards=False)
    below = running(values, shape, min, backwards=True)
    return [(high + low) / 2 for high, low in zip(above, below, strict=True)]


def running(
    values: Sequence[float], shape: Sequence[int], best: Callable[[float, float], float], *, backwards: bool
) -> list[float]:
    """The best of all values up to (or from) each cell, in every coordinate."""
    out = list(values)
    turn = -1 if backwards else 1
    for axis in range(len(shape)):
        for line in lines(shape, axis):
            out[line] = list(accumulate(out[line][::turn], best))[::turn]
    return out


def lines(shape: Sequence[int], axis: int) -> Iterator[slice]:
    """The lines of a row-major grid along one axis."""
    stride = prod(shape[axis + 1 :])
    length = stride * shape[axis]
    for outer in range(0, prod(shape), length):
        for start in range(outer, outer + stride):
            yield slice(start, outer + length, stride)
