"""What an engine's metrics page would say at one moment, as data under vLLM's names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# fmt: off
TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)
ITL_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)
QUEUE_BOUNDS_S = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)
# fmt: on
FINE_BOUNDS_S = tuple(round(0.001 * 1.2**step, 6) for step in range(64))
"""Our router's buckets: 1 ms to 97 s, each 1.2 times the one before."""


class Histogram:
    """Counts per bucket (the last one has no bound) and the sum of what was observed."""

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = tuple(bounds_s)
        self.counts = [0] * (len(self.bounds_s) + 1)
        self.sum_s = 0.0

    def bucket(self, value_s: float) -> int:
        """The bucket that a value falls into."""
        return bisect_left(self.bounds_s, value_s)

    def observe(self, value_s: float, times: int = 1) -> None:
        """Add a value `times` times. Logarithmic in the buckets."""
        self.counts[bisect_left(self.bounds_s, value_s)] += times
        self.sum_s += value_s * times

    def add(self, other: Histogram) -> None:
        """Add what another one with the same bounds has observed."""
        self.counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        self.sum_s += other.sum_s

    def copy(self) -> Histogram:
        """As it is now."""
        same = Histogram(self.bounds_s)
        same.counts, same.sum_s = list(self.counts), self.sum_s
        return same


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The names of `values` are vLLM's; the waiting are told apart by `reason`."""

    at_s: float
    values: Mapping[str, float]
    waiting_by_reason: Mapping[str, int]
    histograms: Mapping[str, Histogram]
