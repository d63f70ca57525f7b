"""The near future from the recent past: the load to provide for, one horizon ahead, so that a wanted share of the work
is covered.

Candidates predict the load of a step one horizon later: a mean, straight lines over several windows, and a memory of
bursts, which is the load below which most of the recent work was done, and a quarter more. Rules:
1. A line or mean speaks with the error added that would have covered the wanted share of the *work* of the recent past,
   each step weighing as much as came in it: what is missed are requests, not moments.
2. Of the candidates the one that would have been cheapest speaks. Smooth traffic is carried by lines. Traffic whose
   bursts are shorter than the horizon is carried by the memory: no forecast sees its next burst.
3. While little has been seen, more than that where peaks are higher than chance makes them: higher ones are to come.
4. A missing step is neither zero nor scored; candidates see it as the last known value.
5. Traffic that has ended is not remembered: after `silence_s` without any work, nothing is expected.
6. `fit` is for now and then (numpy, loaded when it is first called); `predict` is cheap and for every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MEAN_S = 60.0
LINES_S = (60.0, 120.0, 300.0)
SHORT_S = 30.0
"""Below this horizon windows shrink with it."""
MEMORY_HORIZONS = 12.5
"""What is a burst, and how long one is worth remembering, depends on how long capacity takes to come."""
MEMORY_STEPS_MIN = 24
MEMORY_FACTOR = 1.25
MISSED_GAIN = 4.0
"""The memory leaves out so many times the share of the work that may be missed: a fifth of it for a share of 0.95."""
MEMORY_SHARE_MIN = 0.5
RISE_CAP = 1.5
"""A line goes no further than so many times what was seen in its window."""
SCORED_MIN = 12
"""Errors that a line or mean must have shown before it may speak."""
IGNORANCE = 0.75
"""Horizons after which a fourth is left of what is added for not having seen much."""
IGNORANCE_GAIN = 1.5
IGNORANCE_MAX = 1.5

MEMORY = "memory"
SILENCE = "silence"
Values = Sequence[float | None]
"""One value per step, oldest first; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Who speaks, and what it adds. `bursts`: by how many means the highest step exceeds what chance alone makes of
    single requests; `seen_s`: how long was looked at.
    """

    model: str
    window: int
    """Steps that the candidate looks back; 0 for the memory."""
    margin: float
    memory: float
    bursts: float
    seen_s: float


@dataclass(frozen=True, slots=True)
class Recent:
    """The load one horizon ahead: what is expected, and what covers the wanted share of the work."""

    expected: float
    covering: float
    model: str


def kept_steps(step_s: float, horizon_s: float) -> int:
    """How many steps `fit` can make use of."""
    return _remembered(horizon_s, step_s) + _steps(max(LINES_S) + horizon_s, step_s)


def fit(
    values: Values, step_s: float, horizon_s: float, share: float, felt_s: float, request: float = 0.0
) -> Fit | None:
    """Choose the candidate that covers `share` (0 to 1) of the work. None where nothing is known.

    `felt_s`: over how long a load is felt, such as the wait that an SLO allows; errors are those of means over it.
    `request`: the mean work of one request, in the values' unit times seconds.
    """
    import numpy as np

    filled = _filled(values)
    if not filled:
        return None
    known, given = np.array(filled), np.array([value is not None for value in values[len(values) - len(filled) :]])
    ahead = _steps(horizon_s, step_s)
    old = max(0, len(known) - _remembered(horizon_s, step_s))
    mean = float(known[old:].mean())
    memory = MEMORY_FACTOR * covering(known[old:], known[old:], max(MEMORY_SHARE_MIN, 1 - MISSED_GAIN * (1 - share)))
    scored = np.flatnonzero(given)
    scored = scored[scored >= max(old, ahead + 2)]
    best = (memory, MEMORY, 0, 0.0)
    if len(scored) >= SCORED_MIN:
        past = _Past.of(known)
        felt = past.means(_steps(felt_s, step_s))[scored]
        for model, window in _windows(horizon_s, step_s):
            told = (past.means(window) if model == "mean" else past.lines(window, ahead))[scored - ahead]
            margin = max(0.0, covering(felt - told, felt, share))
            best = min(best, (float(told.mean()) + margin, model, window, margin))
    requests = mean * step_s / request if request > 0 else 0.0
    chance = _chance(requests) if requests > 0 else 0.0
    bursts = max(0.0, float(known[old:].max()) / mean - 1 - chance) if mean > 0 else 0.0
    return Fit(best[1], best[2], best[3], memory, bursts, len(known) * step_s)


def _chance(requests: float) -> float:
    """By how many means the highest of some hundred Poisson counts of that mean exceeds it: three standard deviations,
    and what the skewness adds (Cornish and Fisher).
    """
    return 3 / math.sqrt(requests) + (3**2 - 1) / 6 / requests


def predict(values: Values, step_s: float, horizon_s: float, fitted: Fit, silence_s: float) -> Recent | None:
    """The load one horizon after the last step; None where none is known. Linear in the candidate's window."""
    window = fitted.window or _windows(horizon_s, step_s)[0][1]
    last = _filled(values[-window:]) or _filled(values)[-1:]
    if not last:
        return None
    quiet = values[-_steps(silence_s, step_s) :]
    if len(quiet) == _steps(silence_s, step_s) and not any(value is None or value > 0 for value in quiet):
        return Recent(0.0, 0.0, SILENCE)
    expected = sum(last) / len(last)
    covers = max(expected, fitted.memory)
    if fitted.model != MEMORY:
        expected = expected if fitted.model == "mean" else _line(last, _steps(horizon_s, step_s))
        covers = expected + fitted.margin
    new = IGNORANCE * horizon_s / (IGNORANCE * horizon_s + fitted.seen_s)
    return Recent(expected, covers * (1 + min(IGNORANCE_MAX, IGNORANCE_GAIN * fitted.bursts * new**2)), fitted.model)


def covering(values: Any, weights: Any, share: float) -> float:
    """The least of the values that `share` of the weight does not exceed; the largest where nothing has weight."""
    import numpy as np

    order = np.argsort(values)
    summed = np.cumsum(np.asarray(weights)[order])
    if summed[-1] <= 0:
        return float(values[order[-1]])
    return float(values[order[min(len(order) - 1, int(np.searchsorted(summed, share * summed[-1] * (1 - 1e-12))))]])


def _windows(horizon_s: float, step_s: float) -> list[tuple[str, int]]:
    """Models with the steps that they look back."""
    shrunk = min(1.0, horizon_s / SHORT_S)
    lines = ((f"line{window_s:.0f}", max(3, _steps(window_s * shrunk, step_s))) for window_s in LINES_S)
    return [("mean", _steps(MEAN_S * shrunk, step_s)), *lines]


def _remembered(horizon_s: float, step_s: float) -> int:
    """Steps that the memory and the scores look back."""
    return max(MEMORY_STEPS_MIN, _steps(MEMORY_HORIZONS * horizon_s, step_s))


def _steps(seconds: float, step_s: float) -> int:
    return max(1, round(seconds / step_s))


def _filled(values: Values) -> list[float]:
    """Gaps take the value before them; what comes before the first known value is left out."""
    found: list[float] = []
    for value in values:
        if value is not None:
            found.append(value)
        elif found:
            found.append(found[-1])
    return found


@dataclass(frozen=True, slots=True)
class _Past:
    """Values with the running sums that all candidates share: of the values, and of the values times their steps."""

    known: Floats
    sums: Floats
    moments: Floats
    end: Floats

    @classmethod
    def of(cls, known: Floats) -> _Past:
        """Linear in the values."""
        import numpy as np

        steps = np.arange(len(known) + 1, dtype=np.float64)
        sums, moments = np.zeros(len(known) + 1), np.zeros(len(known) + 1)
        np.cumsum(known, out=sums[1:])
        np.cumsum(known * steps[:-1], out=moments[1:])
        return cls(known, sums, moments, steps[1:])

    def means(self, window: int) -> Floats:
        """The mean of the last `window` values at each step, of fewer at the begin."""
        sums = self._over(self.sums, window)
        means: Floats = sums / self.end.clip(max=window)
        return means

    def lines(self, window: int, ahead: int) -> Floats:
        """Least squares through the last `window` values at each step, `ahead` steps on, by running sums. Linear but
        for the highest of each window.
        """
        import numpy as np

        count = self.end.clip(max=window)
        sums, middle = self._over(self.sums, window), self.end - (count + 1) / 2
        mean = sums / count
        slope = (self._over(self.moments, window) - middle * sums) / np.maximum(1, count * (count * count - 1) / 12)
        top = RISE_CAP * _highest(self.known, window)
        lines: Floats = np.where(count < 3, mean, (mean + slope * (self.end - 1 + ahead - middle)).clip(0.0, top))
        return lines

    @staticmethod
    def _over(sums: Floats, window: int) -> Floats:
        """What came in the last `window` steps at each step."""
        over = sums[1:].copy()
        over[window:] -= sums[1:-window]
        return over


def _highest(known: Floats, window: int) -> Floats:
    """The highest of the last `window` values at each step, by windows of twice the length each time."""
    import numpy as np

    top, seen = known.copy(), 1
    while seen < window:
        shift = min(seen, window - seen)
        top[shift:] = np.maximum(top[shift:], top[:-shift])
        seen += shift
    return top


def _line(last: Sequence[float], ahead: int) -> float:
    """As `_Past.lines` has it at the last step."""
    count = len(last)
    mean, middle = sum(last) / count, (count - 1) / 2
    if count < 3:
        return mean
    slope = sum((index - middle) * value for index, value in enumerate(last)) / (count * (count * count - 1) / 12)
    return min(max(0.0, mean + slope * (middle + ahead)), RISE_CAP * max(last))
