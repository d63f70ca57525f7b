"""How far a forecast will be off: the scale of its error, from what can be seen at its origin.

A regression of the logarithm of the absolute error on logarithms of candidate scales (recent errors at three memories,
errors at this phase of hours and days, the level, recent movement), shrunk to the middle memory; Harvey's
multiplicative heteroscedasticity (Econometrica, 1976). Errors above the median count more: high quantiles are what
capacity is bought for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from forecasting.history import History
from forecasting.seasons import PhaseMeans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

RATES = (0.05, 0.15, 0.01)
CLIP, NEAR = 6.0, 5.0
MEMORY, RIDGE, UPPER_WEIGHT, FLOOR = 0.998, 100.0, 3.0, 0.2
FAR = 1e3
CANDIDATES = 9
"""Scales beside the middle memory; a constant and the level go with them."""
TINY = 1e-9
HOUR_RATE, DAY_RATE, MOVE_RATE, LEVEL_RATE = 0.1, 0.4, 0.2, 0.01


class Spread:
    """Scales of the errors of one forecaster; all in the unit of the values."""

    __slots__ = ("beta", "day", "errors", "gram", "hour", "last", "level", "moment", "move", "move_slow", "ready")

    def __init__(self, hour: int, day: int) -> None:
        import numpy as np

        self.errors = [0.0] * len(RATES)
        self.hour = PhaseMeans(hour, HOUR_RATE) if hour else None
        self.day = PhaseMeans(day, DAY_RATE) if day else None
        self.move = self.move_slow = self.level = self.last = 0.0
        self.ready = 0
        size = CANDIDATES + 2
        self.gram: Values = np.zeros((size, size))
        self.moment: Values = np.zeros(size)
        self.beta: Values = np.zeros(size)

    def see(self, value: float, before: float) -> None:
        """Take the movement of one step."""
        move = abs(value - before)
        self.move_slow += MOVE_RATE / 10 * (move - self.move_slow)
        self.move += MOVE_RATE * (min(move, CLIP * self.move_slow + TINY) - self.move)
        self.level = value if not self.level else self.level + LEVEL_RATE * (value - self.level)

    def at(self, history: History, median: float) -> Values:
        """The logarithms of the candidate scales at the origin: the middle memory, then the others' ratios to it."""
        import numpy as np

        base = self.errors[0] + TINY
        value, before = history.root(history.now) ** 2, history.root(max(0, history.now - 1)) ** 2
        now = history.now
        candidates = (
            self.errors[1],
            self.errors[2],
            self.move,
            self.hour.at(now, base) if self.hour else base,
            self.day.at(now, base) if self.day else base,
            self.last,
            abs(value - before),
            abs(value - history.means[1] ** 2),
            abs(median - value),
        )
        near = [math.log(min(max(candidate, base / NEAR), base * NEAR) / base) for candidate in candidates]
        level = math.log(max(median, TINY) / max(self.level, TINY))
        return np.array([math.log(base), *near, min(max(level, -2.0), 2.0)])

    def scale(self, seen: Values) -> float:
        """The scale of the error of the forecast of which `seen` are the candidates."""
        return math.exp(seen[0] + self.beta[0] + float(self.beta[1:] @ seen[1:]))

    def learn(self, moment: int, error: float, seen: Values) -> None:
        """Take the error (actual - median) of the forecast from `moment`."""
        import numpy as np

        size = abs(error)
        self.ready += 1
        for i, rate in enumerate(RATES):
            capped = size if self.ready == 1 else min(size, CLIP * self.errors[i] + TINY)
            self.errors[i] += max(rate, 1.0 / self.ready) * (capped - self.errors[i])
        capped = min(size, CLIP * self.errors[0] + TINY)
        self.last = size
        for phases in (self.hour, self.day):
            if phases:
                phases.add(moment, capped)
        if self.ready > 20:
            row = np.concatenate(([1.0], seen[1:]))
            target = math.log(min(size / math.exp(seen[0]), FAR) + FLOOR)
            weight = UPPER_WEIGHT if error > 0 else 1.0
            self.gram = MEMORY * self.gram + weight * np.outer(row, row)
            self.moment = MEMORY * self.moment + weight * target * row
            ridge = np.full(len(row), RIDGE)
            ridge[0] = 1.0
            solved = np.linalg.solve(self.gram + np.diag(ridge), self.moment)
            self.beta = np.asarray(solved, dtype=np.float64)
