"""One series at one horizon: experts of the median, quantiles around it, their mixtures, and what is still unknown.

Rules:
1. Every expert speaks at every origin; what it would have lost is learned when the target comes.
2. An expert with as yet nothing to say repeats the last value, or the plain quantiles of past errors.
3. One mixture makes the median from point forecasts; a second makes each quantile from several spreads around it; then
   the quantile is moved until it covers what it promises. In a burst it is lifted to the envelope (see `bursts`).
4. An actual value further than OUTLIER scales from the median, and above what every expert said, teaches regressions
   and mixtures no more than one that far. Past errors are kept in full: one moves no quantile, and many must.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from forecasting.aggregate import Aggregate
from forecasting.bursts import Lift
from forecasting.calibration import Calibration
from forecasting.errors import Errors
from forecasting.features import NAMES, SHORT, TILTING, Features
from forecasting.history import History
from forecasting.model import Measured
from forecasting.ridge import Ridge, huber
from forecasting.seasons import same_time
from forecasting.spread import Spread
from forecasting.tilt import FEATURE_MAX, Tilt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

MEMORIES = (0.99, 0.995, 0.998)
SHORT_RIDGE, ALL_RIDGE = 10.0, 30.0
MEDIANS = {
    "last_value": 0.38,
    "seasonal_naive": 0.02,
    "days": 0.02,
    "day_change": 0.02,
    "damped_trend": 0.04,
    "kalman": 0.04,
    "ridge": 0.48,
}
"""Experts of the median and what they weigh before anything is known; ridges share theirs."""
SPREADS = {
    "last_value": 0.15,
    "last_value_relative": 0.1,
    "constant": 0.1,
    "recent": 0.1,
    "seen": 0.1,
    "root": 0.1,
    "seasonal_naive": 0.02,
    "day_values": 0.06,
    "hours_values": 0.06,
    "tilted": 0.23,
}
"""Experts of each quantile, likewise: what the scale of past errors is, or whose values' quantiles they are."""
SCALED = 7
LEARNED = [3, 4]
"""Rows of errors whose scales must be learned first."""
DAY, HOURS = 144, 36
"""Values whose quantiles are experts."""
UNREADY = 100
RIVALRY = 200
"""Targets over which single spreads are compared with their mixture."""
MEASURED = 500
"""Targets over which measured errors fade."""
TRUSTED = 10
"""Targets per step of the horizon at which a regression is believed by half."""
TYPICAL_RATE = 0.02
OUTLIER = 20.0
NEAR_ZERO = 0.1
"""Share of the usual level below which relative errors say nothing."""
CHANGE_MAX = 8.0
TINY = 1e-9


@dataclass(slots=True)
class Said:
    """What was said at one origin: by every expert, and in the end."""

    root: float
    season: float
    """The value one day before the target; NaN where it is not kept."""
    features: Values
    experts: Values
    median: float
    scales: Values
    seen: Values
    shape: Values
    spreads: Values
    mixed: Values
    plain: Values
    """What is given where there is no burst."""
    given: Values
    envelope: float
    """What high quantiles should reach in a burst; 0 outside one."""

    @property
    def lifted(self) -> bool:
        """Whether the envelope of a burst lifted a quantile."""
        return bool((self.given > self.plain).any())

    @property
    def scale(self) -> float:
        """The learned scale of the error."""
        return float(self.scales[4])


class Learner:
    """The state of one horizon of `steps` steps."""

    def __init__(self, steps: int, step_s: float, quantiles: Sequence[float]) -> None:
        import numpy as np

        self.steps = steps
        self.quantiles = np.asarray(quantiles, dtype=float)
        self.normal = np.array([NormalDist().inv_cdf(level) for level in quantiles])
        self.features = Features(steps, step_s)
        masks = [([name in SHORT for name in NAMES], SHORT_RIDGE), ([True] * len(NAMES), ALL_RIDGE)]
        # Errors at a horizon overlap: that many steps bring less than that many observations.
        self.ridge = Ridge([1 - (1 - kept) / steps**0.5 for kept in MEMORIES], masks)
        ridges = len(MEMORIES) * len(masks)
        *others, shared = MEDIANS.values()
        self.medians = Aggregate(np.array([*others, *[shared / ridges] * ridges]), np.array([0.5]), rate=0.5)
        self.mixture = Aggregate(np.array(list(SPREADS.values())), self.quantiles)
        self.spread = Spread(self.features.hour, self.features.day)
        self.errors = Errors(SCALED)
        self.tilt = Tilt(len(TILTING) + 2, self.quantiles)
        self.calibration = Calibration(self.quantiles, steps)
        # A spread that loses clearly less than the mixture speaks in its place: by more than what so few targets, of
        # which a tail is passed by fewer still, can say by chance.
        tails = np.minimum(self.quantiles, 1 - self.quantiles)
        self.favour = np.maximum(0.0, 1 - 1 / np.sqrt(RIVALRY * tails))
        self.rivals = np.zeros((len(SPREADS) + 1, len(quantiles)))
        self.lift = Lift(self.quantiles)
        self.typical = 0.0
        self.said: Said
        self.losses = np.zeros(4 + len(quantiles))
        self.origins: deque[Said | None] = deque()

    def step(self, history: History) -> None:
        """Learn from the value that has just come, and forecast from it: `said`."""
        self._learn(history)
        self.features.learn(history)
        self.said = self._forecast(history)
        self.origins.append(self.said if history.is_known(history.now) else None)

    @property
    def median(self) -> float:
        """What the models of the median say together."""
        return self.said.median

    @property
    def targets(self) -> int:
        """How many targets have been seen."""
        return self.errors.seen

    def measured(self) -> Measured:
        """How good the forecasts have been, fading over MEASURED targets."""
        if not self.targets:
            return Measured()
        pinball, last, error, level, *covered = (self.losses / self._measured_weight()).tolist()
        return Measured(self.targets, pinball, last, error / level if level > 0 else 0.0, tuple(covered))

    def model_weights(self) -> dict[str, float]:
        """What each model weighs in the median."""
        weights = self.medians.weights[:, 0].tolist()
        *alone, _ = MEDIANS
        return {**dict(zip(alone, weights, strict=False)), "ridge": sum(weights[len(alone) :])}

    def _measured_weight(self) -> float:
        return 1 - (1 - 1 / MEASURED) ** self.targets

    def _measure(self, pending: Said, actual: float) -> None:
        import numpy as np

        error = actual - np.stack((pending.given, pending.spreads[0]))
        pinball, last = np.maximum(self.quantiles * error, (self.quantiles - 1) * error).mean(axis=1)
        covered = error[0] <= 1e-9 * actual
        now = np.array([pinball, last, abs(actual - pending.median), actual, *covered])
        self.losses += (now - self.losses) / MEASURED

    def _learn(self, history: History) -> None:
        if history.count > 1 and history.is_known(history.now):
            self.spread.see(history.root(history.now) ** 2, history.root(history.now - 1) ** 2)
        if len(self.origins) < self.steps:
            return
        pending = self.origins.popleft()
        if pending is not None and history.is_known(history.now):
            self._learn_from(pending, history.root(history.now), history.now - self.steps)

    def _learn_from(self, pending: Said, root: float, origin: int) -> None:
        import numpy as np

        came = actual = root * root
        if self.spread.ready > UNREADY:
            reach = OUTLIER * pending.scale
            high = max(pending.median + reach, float(pending.experts.max()))
            actual = min(max(actual, pending.median - reach), high)
        self.medians.learn(actual, np.array([pending.median]), pending.experts[:, None])
        self._learn_ridge(pending, root)
        errors = np.full(SCALED, came - pending.median)
        errors[:2] = came - pending.root**2
        with np.errstate(over="ignore"):
            errors /= pending.scales
        errors[6] = came - pending.season
        if pending.scales[1] > pending.root**2:
            errors[1] = np.nan
        if self.spread.ready < UNREADY:
            errors[LEARNED] = np.nan
        else:
            self.tilt.learn(pending.shape, (actual - pending.spreads[4]) / pending.scale)
        self.errors.add(errors)
        self._compare(pending, actual)
        self.mixture.learn(actual, pending.mixed, pending.spreads)
        self._measure(pending, came)
        self.lift.learn(actual, pending.plain, pending.envelope)
        self.calibration.learn(actual, pending.plain)
        self.spread.learn(origin, actual - pending.median, pending.seen)

    def _compare(self, pending: Said, actual: float) -> None:
        """Losses of each spread and, the last row, of their mixture, which is favoured by a little."""
        import numpy as np

        error = actual - np.vstack((pending.spreads, pending.mixed))
        loss = np.maximum(self.quantiles * error, (self.quantiles - 1) * error)
        loss[-1] *= self.favour
        self.rivals += (loss - self.rivals) * max(1 / RIVALRY, 1 / (self.targets + 1))

    def _learn_ridge(self, pending: Said, root: float) -> None:
        import numpy as np

        off = abs(root - pending.median**0.5)
        if not self.typical:
            self.typical = off
        else:
            self.typical += TYPICAL_RATE * (min(off, 5 * self.typical + TINY) - self.typical)
        if self.typical > TINY:
            leverage = max(1.0, float(np.abs(pending.features).max()) / (CHANGE_MAX * self.typical))
            weight = huber(off, self.typical) / (self.typical * leverage) ** 2
            self.ridge.learn(pending.features, root - pending.root, weight)

    def _forecast(self, history: History) -> Said:
        import numpy as np

        root = history.root(history.now)
        value = root * root
        features = np.array(self.features.at(history, self.typical))
        yesterday = same_time(history, self.features.day, self.steps)
        season = float("nan") if yesterday is None else yesterday * yesterday
        experts = self._experts(history, features, root if yesterday is None else yesterday)
        median = float(self.medians.mix(experts[:, None])[0])
        seen = self.spread.at(history, median)
        scale = self.spread.scale(seen)
        least = NEAR_ZERO * self.spread.level + TINY
        root_scale = max(median, value, 5 * least) ** 0.5
        scales = np.array([1.0, max(value, least), 1.0, self.spread.errors[0] + TINY, scale, root_scale, 1.0])
        shape = self._shape(features, root, scales, seen)
        spreads = self._spreads(history, median, season, scales, shape)
        mixed = self.mixture.mix(spreads)
        leaders = np.argmin(self.rivals, axis=0)
        led = np.take_along_axis(np.vstack((spreads, mixed)), leaders[None], 0)[0] if self.targets > RIVALRY else mixed
        plain = np.maximum(np.maximum.accumulate(led + self.calibration.at() * scale), 0.0)
        envelope = history.bursts.envelope
        given = np.maximum.accumulate(self.lift.lifted(plain, envelope))
        return Said(
            root, season, features, experts, median, scales, seen, shape, spreads, mixed, plain, given, envelope
        )

    def _experts(self, history: History, features: Values, season: float) -> Values:
        """Point forecasts, in the order of MEDIANS; `season` is a root."""
        import numpy as np

        root = history.root(history.now)
        # No further than a few usual errors, or than the last day went: its jumps may be those of every day.
        reach = max(CHANGE_MAX * self.typical, float(np.ptp(history.last(DAY))))
        trust = self.errors.seen / (self.errors.seen + TRUSTED * self.steps)
        ridges = root + trust * np.clip(self.ridge.predict(features), -reach, reach)
        trend, level = history.trend.at(self.steps), history.kalman.level()
        days, day = features[NAMES.index("days_level")], features[NAMES.index("day")]
        roots = np.array([root, season, root + days, root + day, trend, level, *ridges])
        values: Values = np.maximum(roots, 0.0) ** 2
        return values

    def _shape(self, features: Values, root: float, scales: Values, seen: Values) -> Values:
        """What a tilt is regressed on: features in scales, the level, and how far the learned scale left the recent."""
        import numpy as np

        in_roots = scales[4] / (2 * max(root, TINY))
        scaled = np.clip(features[TILTING] / (in_roots + TINY), -FEATURE_MAX, FEATURE_MAX)
        moved = np.clip(np.log(scales[4] / scales[3]), -1.6, 1.6)
        return np.concatenate((scaled, (seen[-1], moved)))

    def _spreads(self, history: History, median: float, season: float, scales: Values, shape: Values) -> Values:
        """Quantiles by every expert, in the order of SPREADS; shape (spreads, quantiles)."""
        import numpy as np

        value = history.root(history.now) ** 2
        errors = self.errors.quantiles(self.quantiles)
        if np.isnan(errors[0, 0]):
            # Nothing of this horizon is known yet: a random walk with the movement of single steps.
            guess = self.spread.move * self.normal
            errors = guess / scales[:, None]
        centres = np.array([value, value, median, median, median, median, season])
        scaled = centres[:, None] + scales[:, None] * errors
        scaled = np.where(np.isnan(scaled), scaled[2], scaled)
        return np.concatenate(
            (
                scaled,
                history.quantiles(DAY, self.quantiles)[None],
                history.quantiles(HOURS, self.quantiles)[None],
                (scaled[4] + scales[4] * self.tilt.at(shape))[None],
            )
        )
