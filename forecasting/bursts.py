"""Bursts: told by two samples, answered by what has been seen, left slowly.

Rules:
1. One sample far above everything recent may be a glitch; a second one is a burst.
2. In a burst no high quantile lies below the envelope: the highest recent value, then a share of it that halves its
   distance to what is now every RELEASE steps. The median stays the forecaster's.
3. Where bursts come again and again, lifting must pay: a quantile that lost clearly more lifted is left as it is.
4. A burst is over when the envelope has come down to what is usual; what lasts becomes usual within a dozen steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

FAR = 6.0
"""Usual movements above the recent mean beyond which a sample is far."""
GROWN = 1.5
"""... and this many times the mean."""
RELEASE = 3.0
USUAL_RATE = 0.03
OVER = 1.05
TINY = 1e-9
LIFT_KEPT = 0.99
"""What is kept of past losses at every target forecast in a burst."""
CHANCE = 0.005
"""Share of a tail that is believed to lose more lifted by chance."""


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
        if self.active:
            self.envelope = max(value, value + (self.envelope - value) * 0.5 ** (1 / RELEASE))
        if self.run == 2:
            self.envelope = max(self.envelope, value, self.last)
        elif self.run == 0 and self.envelope <= OVER * max(value, self.mean):
            self.envelope = 0.0
        self._usual(value)

    def _usual(self, value: float) -> None:
        """What is usual follows slowly; a single sample moves it little, a burst that lasts becomes usual."""
        moved = min(abs(value - self.last), 5 * self.move) if self.move > 0 else abs(value - self.last)
        self.move += USUAL_RATE * (moved - self.move)
        # Where nothing has moved for long no few movements reach a new level.
        reach = FAR * self.move if self.move > 0 and self.run < 2 else math.inf
        self.mean += USUAL_RATE * 5 * min(max(value - self.mean, -reach), reach)
        self.last = value


class Lift:
    """Whether quantiles are lifted in a burst: by what lifting and leaving them has cost in bursts."""

    __slots__ = ("lifting", "losses", "quantiles", "upper")

    def __init__(self, quantiles: Values) -> None:
        import numpy as np

        self.quantiles, self.upper = quantiles, quantiles > 0.5
        self.losses = np.zeros((2, len(quantiles)))
        self.lifting = self.upper.copy()

    def lifted(self, plain: Values, envelope: float) -> Values:
        """The quantiles, those above the median no lower than the envelope where that pays."""
        import numpy as np

        return np.where(self.lifting, np.maximum(plain, envelope), plain)

    def learn(self, actual: float, plain: Values, envelope: float) -> None:
        """Compare what lifting and leaving cost, if there was an envelope (above 0)."""
        import numpy as np

        if envelope <= 0:
            return
        error = actual - np.stack((np.where(self.upper, np.maximum(plain, envelope), plain), plain))
        loss = np.maximum(self.quantiles * error, (self.quantiles - 1) * error)
        self.losses = LIFT_KEPT * self.losses + loss
        favour = np.maximum(0.0, 1 - CHANCE / np.minimum(self.quantiles, 1 - self.quantiles))
        self.lifting = self.upper & (favour * self.losses[0] <= self.losses[1])
