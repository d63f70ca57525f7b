"""The recent past of one series: its last values on the grid, running means of them, and whether there is a burst.

Rules:
1. A moment is a whole number of steps since the first value; HISTORY of them are kept.
2. Work is done on square roots: a demand's scatter grows about like the root of its level, and a zero stays finite.
3. A missing value is stored as the last known one and marked: it may be looked at, never learned from.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

from forecasting.bursts import Bursts
from forecasting.smoothing import DampedTrend, KalmanBank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

HISTORY = 2016
"""Two weeks of steps of 600 s."""

SPANS = (4, 12, 36)
"""Spans of the exponential means, in steps."""


class History:
    """Values and running means up to the last moment; all sizes bounded."""

    __slots__ = ("bursts", "count", "kalman", "known", "means", "roots", "since_known", "trend")

    def __init__(self) -> None:
        self.count = 0
        """How many moments have been seen."""
        self.roots = array("d")
        self.known = bytearray()
        self.means = [0.0] * len(SPANS)
        self.since_known = 0
        """Steps since the last known value."""
        self.trend, self.kalman, self.bursts = DampedTrend(), KalmanBank(), Bursts()

    @property
    def now(self) -> int:
        """The last moment."""
        return self.count - 1

    def add(self, value: float) -> None:
        """Take the next value; NaN is missing. The first value must be known."""
        known = not math.isnan(value)
        root = math.sqrt(value) if known else self.root(self.now)
        self.since_known = 0 if known else self.since_known + 1
        if len(self.roots) < HISTORY:
            self.roots.append(root)
            self.known.append(known)
        else:
            self.roots[self.count % HISTORY] = root
            self.known[self.count % HISTORY] = known
        for i, span in enumerate(SPANS):
            self.means[i] = root if self.count == 0 else self.means[i] + 2 / (span + 1) * (root - self.means[i])
        if known:
            self.trend.add(root)
            self.kalman.add(root)
            self.bursts.see(value)
        self.count += 1

    def holds(self, moment: int) -> bool:
        """Whether a value of that moment is kept."""
        return max(0, self.count - HISTORY) <= moment < self.count

    def root(self, moment: int) -> float:
        """The square root of the value at a moment that is kept."""
        return self.roots[moment % HISTORY]

    def is_known(self, moment: int) -> bool:
        """Whether the value at a moment that is kept was seen, not filled."""
        return bool(self.known[moment % HISTORY])

    def quantiles(self, moments: int, levels: Values) -> Values:
        """Quantiles of the last values, of at most so many moments; shape (levels,)."""
        import numpy as np

        ordered = np.sort(self.last(moments))
        place = levels * (len(ordered) - 1)
        low = place.astype(int)
        roots: Values = ordered[low] + (place - low) * (ordered[np.minimum(low + 1, len(ordered) - 1)] - ordered[low])
        return roots * roots

    def last(self, moments: int) -> Values:
        """The last roots, oldest first, of at most so many moments."""
        import numpy as np

        kept = np.frombuffer(self.roots)
        end = self.count % HISTORY if self.count > HISTORY else len(kept)
        moments = min(moments, len(kept))
        tail = kept[max(0, end - moments) : end]
        if len(tail) < moments:
            tail = np.concatenate((kept[len(tail) - moments :], tail))
        # A copy: an array that is looked at cannot grow.
        return np.array(tail)
