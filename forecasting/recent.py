"""The near future from the recent past: the load to provide for, one horizon ahead, so that a wanted share of the work
is covered.

Candidates predict the load of a step one horizon later: a mean, straight lines over several windows, and a memory of
bursts, which is the load below which most of the recent work was done, and a quarter more. Rules:
1. A line or mean speaks with the error added that would have covered the wanted share of the *work* of the recent past,
   each step weighing as much as came in it: what is missed are requests, not moments. What single requests that come by
   chance add to that is left out: whoever sizes for a load provides for them.
2. Of the candidates the one that would have been cheapest speaks. Smooth traffic is carried by lines. Traffic whose
   bursts are shorter than the horizon is carried by the memory: no forecast sees its next burst.
   Where work can wait, a queue takes the begin of a burst; where it cannot, all that exceeds the room is missed, so
   that less may exceed it.
3. While little has been seen, more than that where peaks are higher than chance makes them: higher ones are to come. A
   line that rises by more than chance does not wait until it has shown errors.
4. A missing step is neither zero nor scored; candidates see it as the last known value.
   What somebody else foretold is one more candidate, held to the same: it speaks where it has been cheapest.
5. Traffic that has ended is not remembered: after `silence_s` without any work, nothing is expected.
6. `fit` is for now and then (numpy, loaded when it is first called); `predict` is cheap and for every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
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
"""Above less than the share where work waits; where it does not and is felt for less than a step, above all of it."""
MISSED_GAIN = 4.0
"""Where work waits, the memory leaves out so many times the share that may be missed: a fifth of it for one of 0.95."""
MISSED_WHOLE = 0.4
"""Where it does not, so much of the share that may be missed exceeds what was provided for."""
MEMORY_SHARE_MIN = 0.5
RISE_CAP = 1.5
"""A line goes no further than so many times what was seen in its window."""
SCORED_MIN = 6
"""Errors that a line or mean must have shown to be held to them, each from a whole mean of what came before."""
ERRORS_S = 10.0
"""Where work waits, errors of shorter means are not felt."""
RISE_SIGMAS = 3.0
RISE_STEPS_MIN = 6
"""A rise by so many standard deviations of chance, over so many steps, is one."""
IGNORANCE = 0.75
"""Horizons after which a fourth is left of what is added for not having seen much."""
IGNORANCE_GAIN = 1.5
IGNORANCE_MAX = 1.5

MEMORY = "memory"
TOLD = "told"
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
    """Steps that the candidate looks back; 0 for the memory and for what was told."""
    margin: float | None
    """None where the candidate has shown no errors yet: then at least the memory counts."""
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
    values: Values,
    step_s: float,
    horizon_s: float,
    share: float,
    felt_s: float,
    request: float = 0.0,
    told: Values = (),
    record: float = 1.0,
    only: bool = False,
    waits: bool = True,
) -> Fit | None:
    """Choose the candidate that covers `share` (0 to 1) of the work. None where nothing is known.

    `felt_s`: over how long a load is felt, such as the wait that an SLO allows; errors are those of means over it.
    `request`: the mean work of one request, in the values' unit times seconds. `told`: what was foretold at each of the
    last steps for one horizon later; where nothing was, the last value stands for it. `record`: what its losses have
    been of last value's, over a longer time than is looked at here: its errors count for less by as much, and without
    one below 1 it may not speak. `only`: nothing else may speak, once it is scored. `waits`: whether work that exceeds
    what was provided for can wait for a while, or misses its target at once.
    """
    import numpy as np

    filled = _filled(values)
    if not filled:
        return None
    known, given = np.array(filled), np.array([value is not None for value in values[len(values) - len(filled) :]])
    ahead = _steps(horizon_s, step_s)
    old = max(0, len(known) - _remembered(horizon_s, step_s))
    mean = float(known[old:].mean())
    past, first = _Past.of(known), _windows(horizon_s, step_s)[0][1]
    covered = share if waits else 1 - MISSED_WHOLE * (1 - share)
    loads = past.means(_steps(felt_s, step_s))[old:]
    memory = _memory(loads, covered, waits, felt_s < step_s)
    scored = np.flatnonzero(given)
    scored = scored[scored >= max(old, ahead + first)]
    best: _Choice = (memory, MEMORY, 0, None)
    if len(scored) >= SCORED_MIN:
        best = (math.inf, TOLD, 0, 0.0) if only else best
        over_s = max(felt_s, ERRORS_S if waits else step_s)
        felt = past.means(_steps(over_s, step_s))
        single, felt = NormalDist().inv_cdf(covered) ** 2 * _single(felt, over_s, step_s, request), felt[scored]
        for model, window, course in _candidates(past, horizon_s, step_s, told if only or record < 1 else (), only):
            said = course[scored - ahead]
            error = max(0.0, covering(felt - said, felt, covered))
            margin = math.sqrt(max(0.0, error**2 - single))
            cost = float(said.mean()) + margin - ((1 - record) * error if model == TOLD else 0.0)
            best = min(best, (cost, model, window, margin), key=_cost)
    elif _rises(known[-first:], request, step_s):
        best = memory, _windows(horizon_s, step_s)[1][0], min(first, len(known)), None
    requests = mean * step_s / request if request > 0 else 0.0
    chance = _chance(requests) if requests > 0 else 0.0
    bursts = max(0.0, float(known[old:].max()) / mean - 1 - chance) if mean > 0 else 0.0
    return Fit(best[1], best[2], best[3], memory, 0.0 if only and best[1] == TOLD else bursts, len(known) * step_s)


_Choice = tuple[float, str, int, float | None]


def _memory(loads: Floats, covered: float, waits: bool, sharp: bool) -> float:
    """The load below which that share of the work was done. `sharp`: it is felt for less than a step."""
    whole = covering(loads, loads, covered)
    if not waits:
        return MEMORY_FACTOR * whole if sharp else whole
    return min(whole, MEMORY_FACTOR * covering(loads, loads, max(MEMORY_SHARE_MIN, 1 - MISSED_GAIN * (1 - covered))))


def _single(felt: Floats, over_s: float, step_s: float, request: float) -> float:
    """The variance that requests of the same size make of means over `over_s` when they come by chance; no more than
    means next to each other show.
    """
    apart = felt[_steps(over_s, step_s) :] - felt[: -_steps(over_s, step_s)]
    return min(float(felt.mean()) * request / over_s, float((apart**2).mean()) / 2) if len(apart) else 0.0


def _rises(known: Floats, request: float, step_s: float) -> bool:
    """Whether a straight line through the values rises by more than requests that come by chance."""
    count, mean = len(known), float(known.mean())
    if count < RISE_STEPS_MIN:
        return False
    weight, middle = count * (count * count - 1) / 12, (count - 1) / 2
    slope = sum([(index - middle) * value for index, value in enumerate(known.tolist())]) / weight
    return bool(slope > RISE_SIGMAS * math.sqrt(mean * request / step_s / weight))


def _cost(one: _Choice) -> float:
    return one[0]


def _candidates(
    past: _Past, horizon_s: float, step_s: float, told: Values, only: bool
) -> Iterator[tuple[str, int, Floats]]:
    """Models with the steps that they look back, and what each said at every step."""
    if any(value is not None for value in told):
        yield TOLD, 0, past.told(told)
    for model, window in () if only else _windows(horizon_s, step_s):
        yield model, window, past.means(window) if model == "mean" else past.lines(window, _steps(horizon_s, step_s))


def _chance(requests: float) -> float:
    """By how many means the highest of some hundred Poisson counts of that mean exceeds it: three standard deviations,
    and what the skewness adds (Cornish and Fisher).
    """
    return 3 / math.sqrt(requests) + (3**2 - 1) / 6 / requests


def predict(
    values: Values, step_s: float, horizon_s: float, fitted: Fit, silence_s: float, told: float | None = None
) -> Recent | None:
    """The load one horizon after the last step; None where none is known. Linear in the candidate's window.

    `told`: what is foretold now; where what was told should speak and nothing is, the memory does.
    """
    window = fitted.window or _windows(horizon_s, step_s)[0][1]
    last = _filled(values[-window:]) or _filled(values)[-1:]
    if not last:
        return None
    quiet = values[-_steps(silence_s, step_s) :]
    if len(quiet) == _steps(silence_s, step_s) and not any(value is None or value > 0 for value in quiet):
        return Recent(0.0, 0.0, SILENCE)
    expected, model = sum(last) / len(last), MEMORY if fitted.model == TOLD and told is None else fitted.model
    if model != MEMORY:
        if model == TOLD:
            expected = told or 0.0
        elif model != "mean":
            expected = _line(last, _steps(horizon_s, step_s))
    new = IGNORANCE * horizon_s / (IGNORANCE * horizon_s + fitted.seen_s)
    widened = 1 + min(IGNORANCE_MAX, IGNORANCE_GAIN * fitted.bursts * new**2)
    if fitted.margin is None or model == MEMORY:
        return Recent(expected, max(expected, fitted.memory * widened), model)
    return Recent(expected, (expected + fitted.margin) * widened, model)


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

    def told(self, told: Values) -> Floats:
        """What was foretold at each step; the last value where nothing was."""
        import numpy as np

        last = [math.nan if value is None else value for value in told[-len(self.known) :]]
        given = np.array([math.nan] * (len(self.known) - len(last)) + last)
        return np.where(np.isnan(given), self.known, given)

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
