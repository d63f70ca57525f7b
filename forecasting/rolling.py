"""Forecasts of every step of a known series, as they would have been made: for scores and pictures.

The learner is that of `online`; nothing looks ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forecasting.learner import MEDIANS, SPREADS
from forecasting.model import QUANTILES, Forecast
from forecasting.online import Online, checked
from forecasting.series import Grid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

POINTS = tuple(MEDIANS)
"""Models of one number, in the order of `Rolled.points`."""
PARTS = tuple(SPREADS)
"""Models of quantiles, in the order of `Rolled.parts`."""


@dataclass(frozen=True, slots=True)
class Rolled:
    """Forecasts from every place of a grid; NaN before the first known value."""

    forecasts: Values
    """Shape (places, quantiles)."""
    points: Values
    """Shape (places, POINTS): the mean of the ridges is one."""
    parts: Values
    """Shape (places, PARTS, quantiles)."""
    burst: NDArray[np.bool_]
    """Whether an envelope lifted a quantile."""
    forecast: Forecast
    """The last one, from the end of the grid."""


def rolled(grid: Grid, steps: int, quantiles: Sequence[float] = QUANTILES) -> Rolled:
    """Run through a grid, forecasting `steps` ahead from every place."""
    import numpy as np

    levels = checked(quantiles)
    online = Online(grid.step_s, levels)
    online.start_s = grid.start_s
    learner = online.follow(steps)
    places = len(grid.values)
    forecasts, burst = np.full((places, len(levels)), np.nan), np.zeros(places, dtype=bool)
    points, parts = np.full((places, len(POINTS)), np.nan), np.full((places, len(PARTS), len(levels)), np.nan)
    alone = len(POINTS) - 1
    for place, value in enumerate(grid.values.tolist()):
        online.add(value)
        if not online.history.count:
            continue
        said = learner.said
        forecasts[place] = online.quantiles_at(steps)
        points[place, :alone], points[place, alone] = said.experts[:alone], said.experts[alone:].mean()
        parts[place] = said.spreads
        burst[place] = said.lifted
    return Rolled(forecasts, points, parts, burst, online.now(steps))
