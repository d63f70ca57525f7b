"""Where a quantile lies beside the one that past errors give: quantile regression on the shape of the moment.

A quantile of scaled past errors is the same at every moment; that of the next error is not: above its usual level a
demand falls back, after a dip it returns. Per quantile, the distance of the actual value from such a base quantile,
in scales, is regressed on the features of the median, in scales too, by iteratively reweighted least squares (Koenker
and Bassett, 1978, for the loss; weights as in Hunter and Lange, "Quantile regression via an MM algorithm", 2000), one
pass, forgetting. Without evidence the tilt is zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

SMOOTH = 1.0
"""Errors below this many scales weigh alike: the corner of the loss is rounded."""
FEATURE_MAX, TILT_MAX = 5.0, 3.0


class Tilt:
    """One regression per quantile; shapes (quantiles, features, features) and (quantiles, features)."""

    __slots__ = ("beta", "gram", "memory", "moment", "quantiles", "ridge")

    def __init__(self, features: int, quantiles: Values, memory: float = 0.998, ridge: float = 200.0) -> None:
        """`memory` is what is kept of the past at every target."""
        import numpy as np

        count = len(quantiles)
        self.quantiles, self.memory = quantiles, memory
        # A tail quantile is seldom passed: its weights sum to less, and so must its ridge.
        self.ridge = ridge * np.minimum(quantiles, 1 - quantiles)[:, None, None] * np.eye(features)
        self.gram: Values = np.zeros((count, features, features))
        self.moment: Values = np.zeros((count, features))
        self.beta: Values = np.zeros((count, features))

    def at(self, features: Values) -> Values:
        """The tilt of each quantile, in scales."""
        import numpy as np

        tilts: Values = np.clip(self.beta @ features, -TILT_MAX, TILT_MAX)
        return tilts

    def learn(self, features: Values, distance: Values) -> None:
        """Take how far above each base quantile the actual value was, in scales."""
        import numpy as np

        error = distance - self.beta @ features
        weight: Values = np.where(error > 0, self.quantiles, 1 - self.quantiles) / np.maximum(np.abs(error), SMOOTH)
        self.gram = self.memory * self.gram + weight[:, None, None] * np.outer(features, features)
        self.moment = self.memory * self.moment + (weight * distance)[:, None] * features
        solved = np.linalg.solve(self.gram + self.ridge, self.moment[:, :, None])[:, :, 0]
        self.beta = np.asarray(solved, dtype=np.float64)
