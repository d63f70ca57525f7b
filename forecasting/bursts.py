"""Bursts: told by two samples, answered by what has been seen, left slowly.

Rules:
1. One sample far above everything recent may be a glitch; a second one is a burst.
2. In a burst no high quantile lies below the envelope: the highest recent value, then a share of it that halves its
   distance to what is now every RELEASE steps. The median stays the forecaster's.
3. A burst is over when the envelope has come down to what is usual.
"""

from __future__ import annotations

import math

FAR = 6.0
"""Usual movements above the recent mean beyond which a sample is far."""
GROWN = 1.5
"""... and this many times the mean."""
RELEASE = 6.0
USUAL_RATE = 0.03
OVER = 1.05
TINY = 1e-9


class Bursts:
    """A few numbers per series."""

    __slots__ = ("envelope", "last", "mean", "move", "run")

    def __init__(self) -> None:
        self.mean = self.move = self.last = math.nan
        self.run = 0
        """How many samples in a row were far above what is usual."""
        self.envelope = 0.0
        """What high quantiles must reach; 0 outside a burst."""

    @property
    def active(self) -> bool:
        """Whether a burst is on or being left."""
        return self.envelope > 0

    def see(self, value: float) -> None:
        """Take the next known value."""
        if math.isnan(self.mean):
            self.mean, self.move, self.last = value, 0.0, value
            return
        far = value > GROWN * self.mean and value - self.mean > FAR * self.move + TINY and self.move > 0
        self.run = self.run + 1 if far else 0
        if self.run >= 2:
            self.envelope = max(self.envelope, value, self.last)
        elif self.active:
            self.envelope = value + (self.envelope - value) * 0.5 ** (1 / RELEASE) if value < self.envelope else value
            if self.envelope <= OVER * max(value, self.mean):
                self.envelope = 0.0
        self._usual(value)

    def _usual(self, value: float) -> None:
        """What is usual follows slowly, so that what lasts becomes usual; a single sample moves it little."""
        moved = min(abs(value - self.last), 5 * self.move) if self.move > 0 else abs(value - self.last)
        self.move += USUAL_RATE * (moved - self.move)
        reach = FAR * self.move if self.move > 0 else math.inf
        self.mean += USUAL_RATE * 5 * min(max(value - self.mean, -reach), reach)
        self.last = value
