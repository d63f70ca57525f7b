"""Quantiles for a model that gives one number: those of its own past errors.

Rules:
1. Only errors that were known at the origin count: those of forecasts whose target had come.
2. Absolute errors (actual - forecast) and relative ones (actual / forecast - 1); a peer gets the better of the two.
"""

from __future__ import annotations

from bisect import insort

import numpy as np

from benchmarks.forecast.origins import QUANTILES, Task, Values, pinball

ERRORS_MIN = 5


def with_errors(task: Task, steps: int, points: Values) -> Values:
    """Quantiles around `points` (a forecast `steps` ahead made at every place of the grid): the better of the two."""
    places = task.origins(steps)
    actual = task.grid.values[places + steps]
    both = [quantiled(task, steps, points, relative=relative) for relative in (False, True)]
    return min(both, key=lambda forecasts: float(pinball(actual, forecasts).mean()))


def quantiled(task: Task, steps: int, points: Values, *, relative: bool) -> Values:
    """Quantiles of past errors, absolute or relative, added to each point forecast; shape (origins, 3)."""
    places, values = task.origins(steps), task.grid.values
    errors: list[float] = []
    seen = 0
    found = np.empty((len(places), len(QUANTILES)))
    for row, place in enumerate(places.tolist()):
        while seen + steps <= place:
            point, actual = float(points[seen]), float(values[seen + steps])
            if np.isfinite(point) and np.isfinite(actual) and (point > 0 or not relative):
                insort(errors, actual / point - 1 if relative else actual - point)
            seen += 1
        point = float(points[place])
        if len(errors) < ERRORS_MIN:
            found[row] = point
        else:
            spread = np.asarray([_quantile(errors, level) for level in QUANTILES])
            found[row] = point * (1 + spread) if relative else point + spread
    return np.maximum(found, 0.0)


def _quantile(ordered: list[float], level: float) -> float:
    """The linearly interpolated quantile of ordered values."""
    place = level * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
