"""Requests to come: when they arrive and how long they are, one after the other, as iterators in order of time.

Rules:
1. A rate that changes is a list of windows. A renewal process runs in operational time (one unit per expected request)
   and is mapped through them, so that its burstiness stays and its rate follows.
2. What is drawn comes from generators that are passed in. Nothing is held in memory that is not needed for the order.
3. `keep` below 1 thins a process to that share of its requests: what a smaller share of the same users would send. The
   sum of a geometric number of gaps is drawn as one Gamma variable (exact for Gamma and exponential gaps, of equal mean
   and variance for Weibull ones).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate
from math import gamma, inf, log, pi, sin
from typing import Literal, NamedTuple

from simulator.rng import Rng, geometric, weibull_cv, weibull_shape

Request = tuple[float, int, int]
"""(arrival in seconds, prompt tokens, output tokens)."""
Process = Literal["poisson", "gamma", "weibull"]


class Window(NamedTuple):
    """A stretch of time with one rate (requests/s)."""

    start_s: float
    end_s: float
    rate_rps: float


Gap = Callable[[Rng], float]
"""Draws the time to the next request, in units of its mean."""


def gaps(process: Process, cv: float = 1.0, keep: float = 1.0) -> Gap:
    """Gaps of mean 1 / keep. `cv` is their coefficient of variation before thinning; a Poisson process has 1."""
    if process == "poisson":
        return lambda rng: rng.expovariate(keep)
    if keep < 1.0 or process == "gamma":
        shape = 1 / cv**2
        return lambda rng: rng.gammavariate(shape * geometric(rng, keep), 1 / shape)
    shape = weibull_shape(cv)
    scale = 1 / gamma(1 + 1 / shape)
    return lambda rng: rng.weibullvariate(scale, shape)


def gaps_of_shape(process: Process, shape: float, keep: float = 1.0) -> Gap:
    """The same, of a Gamma or Weibull distribution that is known by its shape."""
    return gaps(process, shape**-0.5 if process == "gamma" else weibull_cv(shape), keep)


def renewals(windows: Iterable[tuple[Window, Gap]], rng: Rng) -> Iterator[float]:
    """Arrival times. The first one comes somewhere within its gap: the process has run before."""
    left: float | None = None
    for (start_s, end_s, rate_rps), gap in windows:
        if left is None:
            left = rng.random() * gap(rng)
        at_s, expected = start_s, rate_rps * (end_s - start_s)
        while left <= expected and rate_rps > 0:
            at_s += left / rate_rps
            expected -= left
            yield at_s
            left = gap(rng)
        left -= expected


def wave(low_rps: float, high_rps: float, period_s: float, duration_s: float, steps: int = 240) -> Iterator[Window]:
    """A sine between two rates that begins in the middle and rises, in `steps` windows a period."""
    width_s = period_s / steps
    middle, height = (high_rps + low_rps) / 2, (high_rps - low_rps) / 2
    for index in range(int(duration_s / width_s) + 1):
        start_s = index * width_s
        if start_s < duration_s:
            rate_rps = middle + height * sin(2 * pi * (index + 0.5) / steps)
            yield Window(start_s, min(start_s + width_s, duration_s), rate_rps)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Token counts of a mean, clipped to [low, high]; sigma 0 is a constant."""

    mean: float
    sigma: float = 0.0
    low: int = 1
    high: float = inf

    def draw(self, rng: Rng, factor: float = 1.0) -> int:
        """One count; the mean and the upper clip grow by `factor`."""
        mu = log(self.mean * factor) - self.sigma**2 / 2
        return round(min(max(rng.lognormvariate(mu, self.sigma), self.low), self.high * factor))


class Binned:
    """Token counts by a histogram: bin i holds [edges[i], edges[i + 1])."""

    def __init__(self, edges: Sequence[int], shares: Sequence[tuple[int, float]]) -> None:
        self._edges = edges
        self._bins = [index for index, _ in shares]
        self._up_to = list(accumulate(share for _, share in shares))

    def draw(self, rng: Rng) -> int:
        """One count, even within its bin. Logarithmic."""
        index = bisect_right(self._up_to, rng.random() * self._up_to[-1])
        one = self._bins[min(index, len(self._bins) - 1)]
        return int(rng.uniform(self._edges[one], self._edges[one + 1]))


def recorded(
    requests: Iterable[Request], *, start_s: float = 0.0, speed: float = 1.0, duration_s: float = inf
) -> Iterator[Request]:
    """A trace from `start_s` on, `speed` times as fast, for `duration_s` of simulated time."""
    for at_s, prompt_tokens, output_tokens in requests:
        moment_s = (at_s - start_s) / speed
        if moment_s >= duration_s:
            return
        if moment_s >= 0:
            yield moment_s, prompt_tokens, output_tokens


def copied(requests: Iterable[Request], copies: int, within_s: float, rng: Rng) -> Iterator[Request]:
    """Each request `copies` times, each within +-`within_s` of its time, none before 0."""
    heap: list[tuple[float, int, int, int]] = []
    entered = 0
    for at_s, prompt_tokens, output_tokens in requests:
        while heap and heap[0][0] < at_s - within_s:
            yield _request(heappop(heap))
        for _ in range(copies):
            entered += 1
            moment_s = max(0.0, at_s + rng.uniform(-within_s, within_s))
            heappush(heap, (moment_s, entered, prompt_tokens, output_tokens))
    while heap:
        yield _request(heappop(heap))


def _request(entry: tuple[float, int, int, int]) -> Request:
    return entry[0], entry[2], entry[3]
