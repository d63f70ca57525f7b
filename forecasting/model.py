"""What a forecast is: quantiles at a horizon, with the forecaster's own measured error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

QUANTILES = (0.5, 0.9, 0.99)

Fallback = Literal["none", "young", "catching up", "burst", "stale"]
"""Why a forecast is not (only) what was learned: too few targets seen; a new horizon whose history is still being
replayed; a burst, whose envelope lifts the high quantiles; no value for longer than the horizon."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How good the forecasts of one horizon have been, fading over some hundred targets; NaN-free: 0 targets, zeros."""

    targets: int = 0
    pinball: float = 0.0
    pinball_last_value: float = 0.0
    wape: float = 0.0
    coverage: tuple[float, ...] = ()
    """Share of actual values at or below each quantile."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Quantiles of the value at `at_s + horizon_s`, ascending; `values[i]` belongs to `quantiles[i]`."""

    at_s: float
    horizon_s: float
    quantiles: tuple[float, ...]
    values: tuple[float, ...]
    fallback: Fallback = "none"
    measured: Measured = Measured()
    weights: Mapping[str, float] = field(default_factory=dict)
    """What each model weighs in the median; they sum to 1."""

    def at(self, quantile: float) -> float:
        """The value at a quantile: of those forecast, or between two of them; the outermost beyond."""
        if quantile <= self.quantiles[0]:
            return self.values[0]
        for i in range(1, len(self.quantiles)):
            below, above = self.quantiles[i - 1], self.quantiles[i]
            if quantile <= above:
                share = (quantile - below) / (above - below)
                return self.values[i - 1] + share * (self.values[i] - self.values[i - 1])
        return self.values[-1]

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain values."""
        return {
            "at_s": self.at_s,
            "horizon_s": self.horizon_s,
            "quantiles": {f"{level:g}": value for level, value in zip(self.quantiles, self.values, strict=True)},
            "fallback": self.fallback,
            "targets": self.measured.targets,
            "pinball": self.measured.pinball,
            "pinball_last_value": self.measured.pinball_last_value,
            "wape": self.measured.wape,
            "coverage": {
                f"{level:g}": share for level, share in zip(self.quantiles, self.measured.coverage, strict=False)
            },
            "weights": dict(self.weights),
        }
