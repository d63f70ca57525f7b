"""Histograms of a page: from buckets, count and sum to a distribution, and several added up. Pure.

Rules:
1. `le` is a number: "1" and "1.0" are the same bucket, and may stand on one page.
2. Where buckets fall, lack +Inf, contradict the count, or have other bounds than those they are added to, count and sum
   stay and the buckets are Missing. Without a count or a sum all of it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from autoscaler.adapters.pages.fold import first_missing
from autoscaler.adapters.pages.model import Distribution, Spread
from autoscaler.model import NOT_ON_PAGE, SAYS_NOTHING, Histogram, Number
from policies.model import Missing

LARGEST = 1e100
"""No count, size or time is larger: what is, is damage, and its sums would overflow."""

ABSENT = Missing("")


class RawHistogram:
    """One histogram as it stands on a page."""

    __slots__ = ("buckets", "count", "sum")

    def __init__(self) -> None:
        self.buckets: dict[float, float] = {}
        self.count: Number = ABSENT
        self.sum: Number = ABSENT

    def add(self, bound: float, value: float) -> None:
        """One bucket. `le` is a number: "1" and "1.0" are the same, and may stand on one page."""
        before = self.buckets.get(bound)
        self.buckets[bound] = value if before is None or before == value else math.nan

    def rank(self) -> tuple[float, float, str]:
        """Of several that are repeated, the one that has seen most counts, whatever the order of lines."""
        count, total = (value if isinstance(value, float) else -1.0 for value in (self.count, self.sum))
        return count, total, repr(sorted(self.buckets.items(), key=str))

    def distribution(self, name: str, scale: float) -> Spread:
        """What it says, in seconds; `scale` is how many of them its unit is."""
        bounds = sorted(self.buckets, key=lambda bound: (math.isnan(bound), bound))
        counts = [self.buckets[bound] for bound in bounds]
        count, total = self.count, self.sum
        if count == ABSENT and bounds and bounds[-1] == math.inf and 0 <= counts[-1] <= LARGEST:
            count = counts[-1]
        if isinstance(count, Missing):
            return Missing(count.missing or f"{name}_count {NOT_ON_PAGE}, {SAYS_NOTHING}")
        if isinstance(total, Missing):
            return Missing(total.missing or f"{name}_sum {NOT_ON_PAGE}, {SAYS_NOTHING}")
        if fault := _fault(bounds, counts, count):
            return Distribution(count, total * scale, Missing(f"{name} {fault}, {SAYS_NOTHING}"))
        scaled = _shared(tuple(bound * scale for bound in bounds))
        return Distribution(count, total * scale, Histogram(scaled, tuple(counts), total * scale))


@lru_cache(maxsize=256)
def _shared(bounds_s: tuple[float, ...]) -> tuple[float, ...]:
    """Equal bounds as one object: a fleet has few of them, and keeps them with every histogram."""
    return bounds_s


def _fault(bounds: list[float], counts: list[float], count: float) -> str:
    if not bounds:
        return "has no buckets"
    if math.isnan(bounds[-1]) or bounds[-1] != math.inf:
        return "has no bucket +Inf"
    if not all(map(math.isfinite, counts)) or any(low > high for low, high in pairwise((0.0, *counts))):
        return "has buckets that are not cumulative"
    if counts[-1] != count:
        return f"has {counts[-1]:g} in bucket +Inf and counts {count:g}"
    return ""


def merged(each: Sequence[Spread]) -> Spread:
    """Several histograms of one kind added up."""
    if len(each) == 1:
        return each[0]
    if missing := first_missing(each):
        return missing
    present = [one for one in each if isinstance(one, Distribution)]
    count, sum_s = math.fsum(one.count for one in present), math.fsum(one.sum_s for one in present)
    if missing := first_missing([one.buckets for one in present]):
        return Distribution(count, sum_s, missing)
    histograms = [one.buckets for one in present if isinstance(one.buckets, Histogram)]
    bounds = histograms[0].bounds_s
    if any(one.bounds_s != bounds for one in histograms):
        return Distribution(count, sum_s, Missing("its parts have different buckets"))
    counts = tuple(map(math.fsum, zip(*(one.counts for one in histograms), strict=True)))
    return Distribution(count, sum_s, Histogram(bounds, counts, sum_s))
