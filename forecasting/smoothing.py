"""Two classic smoothers of roots: a damped trend, and a bank of Kalman filters of a local level.

Rules:
1. Both are a few numbers per series; a missing value leaves them as they are.
2. A filter's gain comes from its ratio of noises; the bank weights filters by how likely they found the last values.
"""

from __future__ import annotations

import math

LEVEL, TREND, DAMPING = 0.6, 0.1, 0.85
RATIOS = (0.03, 0.2, 1.0, 5.0)
"""Variance of the level's step over that of a reading."""
KEPT = 0.98
TINY = 1e-12


class DampedTrend:
    """Damped additive trend without season (Gardner and McKenzie, 1985)."""

    __slots__ = ("level", "trend")

    def __init__(self) -> None:
        self.level: float | None = None
        self.trend = 0.0

    def add(self, root: float) -> None:
        """Take the next value."""
        if self.level is None:
            self.level = root
            return
        ahead = self.level + DAMPING * self.trend
        level = LEVEL * root + (1 - LEVEL) * ahead
        self.trend = TREND * (level - self.level) + (1 - TREND) * DAMPING * self.trend
        self.level = level

    def at(self, steps: int) -> float:
        """The value so many steps ahead."""
        total = DAMPING * (1 - DAMPING**steps) / (1 - DAMPING)
        return (self.level or 0.0) + total * self.trend


class KalmanBank:
    """Local levels (random walk plus noise; Harvey, 1989), one per ratio, mixed by fading likelihood."""

    __slots__ = ("gains", "levels", "likelihoods", "scales")

    def __init__(self) -> None:
        self.levels: list[float] = []
        # The steady gain of ratio q: k = (sqrt(q^2 + 4q) - q) / 2 ... of the local level model.
        self.gains = [(math.sqrt(q * q + 4 * q) - q) / 2 for q in RATIOS]
        self.scales = [0.0] * len(RATIOS)
        self.likelihoods = [0.0] * len(RATIOS)

    def add(self, root: float) -> None:
        """Take the next value."""
        if not self.levels:
            self.levels = [root] * len(RATIOS)
            return
        for i, gain in enumerate(self.gains):
            error = root - self.levels[i]
            self.levels[i] += gain * error
            self.scales[i] = KEPT * self.scales[i] + (1 - KEPT) * error * error
            # Of a Gaussian whose variance is estimated along, only the logarithm of the variance is left.
            self.likelihoods[i] = -0.5 / (1 - KEPT) * math.log(self.scales[i] + TINY)

    def level(self) -> float:
        """The mixed level, which a local level keeps at every horizon."""
        best = max(self.likelihoods)
        weights = [math.exp(likelihood - best) for likelihood in self.likelihoods]
        return sum(w * level for w, level in zip(weights, self.levels, strict=True)) / sum(weights)
