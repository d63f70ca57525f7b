"""Weights for several forecasts of one quantile, learned from what each would have lost.

Bernstein online aggregation (Wintenberger, "Optimal learning with Bernstein online aggregation", 2017) on linearised
pinball losses: the mixture competes with the best fixed mixture, not only with the best single expert.

Rules:
1. Old regret fades, so that a change of regime is forgiven.
2. A young mixture trusts its prior: the rate grows with the number of targets seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

KEPT = 0.995
"""What is kept of the past at every step."""
YOUNG = 30.0
"""Targets seen at which the rate is half of what it will be."""


class Aggregate:
    """One weight per expert and quantile; arrays of shape (experts, quantiles)."""

    __slots__ = ("bound", "prior", "quantiles", "rate", "regret", "seen", "squares", "weights")

    def __init__(self, prior: Values, quantiles: Values, rate: float = 1.0) -> None:
        """`prior`: shape (experts,) or (experts, quantiles), columns that sum to 1."""
        import numpy as np

        shape = (len(prior), len(quantiles))
        self.quantiles, self.rate, self.seen = quantiles, rate, 0
        self.prior = np.broadcast_to(prior if prior.ndim == 2 else prior[:, None], shape)
        self.regret, self.squares = np.zeros(shape), np.full(shape, 1e-12)
        self.bound = np.full(shape, 1e-12)
        self.weights = self.prior.copy()

    def mix(self, forecasts: Values) -> Values:
        """The weighted forecasts; shapes (experts, quantiles) and (quantiles,)."""
        mixed: Values = (self.weights * forecasts).sum(axis=0)
        return mixed

    def learn(self, actual: float, mixed: Values, forecasts: Values) -> None:
        """Compare experts with the mixture that was given for `actual`."""
        import numpy as np

        slope = np.where(actual < mixed, 1 - self.quantiles, -self.quantiles)
        gain = slope * (mixed - forecasts)
        self.seen += 1
        self.bound = np.maximum(self.bound * KEPT, np.abs(gain))
        self.squares = KEPT * self.squares + gain * gain
        rate = np.minimum(0.5 / self.bound, np.sqrt(np.log(len(gain) + 1.0) / self.squares))
        rate *= self.rate * self.seen / (self.seen + YOUNG)
        self.regret = KEPT * self.regret + gain - 0.5 * rate * gain * gain
        drive = rate * self.regret
        weights = self.prior * rate * np.exp(drive - drive.max(axis=0))
        self.weights = weights / weights.sum(axis=0)
