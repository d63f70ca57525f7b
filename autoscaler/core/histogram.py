"""Cumulative histograms: difference, sum, percentile, share within a target.

Rule: interpolation inside a bucket is linear, as Prometheus' histogram_quantile does it; a percentile that falls
into the last, unbounded bucket is that bucket's lower bound.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from autoscaler.model import Histogram, Number
from policies.model import Missing

NO_TRAFFIC = Missing("no traffic in the window")


def increase(before: Histogram | Missing | None, after: Histogram | Missing) -> Histogram | Missing:
    """What was added between two samples of one source; a reset or a changed layout counts from zero."""
    if isinstance(after, Missing) or before is None or isinstance(before, Missing):
        return after
    if before.bounds_s != after.bounds_s or after.counts[-1] < before.counts[-1]:
        return after
    counts = tuple([new - old if new > old else 0.0 for new, old in zip(after.counts, before.counts, strict=True)])
    return Histogram(after.bounds_s, counts, max(0.0, after.sum_s - before.sum_s))


def add(left: Histogram | Missing, right: Histogram | Missing) -> Histogram | Missing:
    """The sum of two; a layout that changed keeps the newer one alone."""
    if isinstance(right, Missing):
        return left
    if isinstance(left, Missing) or left.bounds_s != right.bounds_s:
        return right
    # Where nothing came, the number stays the same object: a history of sums holds thousands of them.
    counts = tuple([a + b if b else a for a, b in zip(left.counts, right.counts, strict=True)])
    return Histogram(right.bounds_s, counts, left.sum_s + right.sum_s)


def percentile_s(histogram: Histogram | Missing, percent: float) -> Number:
    """The value that `percent` % of the observations do not exceed, in seconds."""
    if isinstance(histogram, Missing):
        return histogram
    total = histogram.counts[-1]
    if total <= 0:
        return NO_TRAFFIC
    rank = total * percent / 100
    index = min(bisect_left(histogram.counts, rank), len(histogram.counts) - 1)
    low = histogram.bounds_s[index - 1] if index else 0.0
    if index == len(histogram.bounds_s) - 1:
        return low
    below = histogram.counts[index - 1] if index else 0.0
    inside = histogram.counts[index] - below
    share = (rank - below) / inside if inside > 0 else 0.0
    return low + share * (histogram.bounds_s[index] - low)


def share_within(histogram: Histogram | Missing, target_s: float) -> Number:
    """The share of the observations that are at most `target_s`, 0..1."""
    if isinstance(histogram, Missing):
        return histogram
    total = histogram.counts[-1]
    if total <= 0:
        return NO_TRAFFIC
    index = bisect_right(histogram.bounds_s, target_s)
    below = histogram.counts[index - 1] if index else 0.0
    low = histogram.bounds_s[index - 1] if index else 0.0
    if index == len(histogram.bounds_s) or index == len(histogram.bounds_s) - 1:
        return below / total
    share = (target_s - low) / (histogram.bounds_s[index] - low)
    return (below + share * (histogram.counts[index] - below)) / total
