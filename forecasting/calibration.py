"""How far quantiles must move so that they cover what they promise.

Adaptive conformal inference (Gibbs and Candès, 2021): a quantile moves up by its level of a small step when the actual
value was above it, down by the rest when not, so that its long-run coverage is right whatever the models do.

Rules:
1. A slow move stays; a quick one is forgotten within some twenty targets, for what a new level brings.
2. The median is not moved: its coverage is nobody's promise, and moving it would only cost.
3. A young series is not moved quickly: a few targets say little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

SLOW, QUICK = 0.02, 0.15
"""Scales by which a quantile at the outermost level moves when it was wrong."""
QUICK_KEPT = 0.95
"""What is kept of the quick move at every target."""
YOUNG = 200
"""Targets at which quick moves are half of what they will be."""


class Calibration:
    """Moves per quantile, in scales of the error; shape (quantiles,)."""

    __slots__ = ("quantiles", "quick", "quickness", "seen", "slow", "weight")

    def __init__(self, quantiles: Values, steps: int) -> None:
        import numpy as np

        self.quantiles, self.seen = quantiles, 0
        # Errors `steps` ahead overlap: what moves them is seen late, and again and again.
        self.quickness = QUICK / steps**0.5
        self.weight = 2 * np.abs(quantiles - 0.5)
        self.slow, self.quick = np.zeros(len(quantiles)), np.zeros(len(quantiles))

    def at(self) -> Values:
        """By how much to move each quantile, in scales."""
        return self.slow + self.quick

    def learn(self, actual: float, said: Values) -> None:
        """Take what came for the quantiles that were said."""
        wrong = self.weight * ((actual > said) - (1 - self.quantiles))
        self.seen += 1
        self.slow = self.slow + SLOW * wrong
        self.quick = QUICK_KEPT * self.quick + self.quickness * self.seen / (self.seen + YOUNG) * wrong
