"""Forecast: each role's offered tokens/s at that role's own measured cold start."""

from __future__ import annotations

import forecasting.trend as trend
from autoscaler.model import Demand, Forecast, RoleForecast, Signals, State
from autoscaler.settings import Settings
from policies.model import Missing, Role

LOOK_BACK_S = 30.0


def forecast(state: State, signals: Signals, settings: Settings, now_s: float) -> Forecast:
    """Each role's demand one cold start ahead; Missing where its demand is. Linear in the look-back."""
    recent = [demand for demand in state.demands if demand.at_s > now_s - LOOK_BACK_S]
    return Forecast(*(_role(role, recent, signals, settings, now_s) for role in (Role.PREFILL, Role.DECODE)))


def _role(
    role: Role, recent: list[Demand], signals: Signals, settings: Settings, now_s: float
) -> RoleForecast | Missing:
    latest = signals.demand
    current, mean = latest.tokens_per_s(role), latest.tokens_mean(role)
    if isinstance(current, Missing):
        return current
    points = [(d.at_s, rate) for d in recent if not isinstance(rate := d.tokens_per_s(role), Missing)]
    horizon_s, quantile = signals[role].cold_start_s, settings.spec.forecast_quantile
    result = trend.forecast(points, now_s, horizon_s, quantile)
    high = result.high if result else current
    return RoleForecast(
        horizon_s=horizon_s,
        quantile=quantile,
        tokens_per_s_q50=result.median if result else current,
        # A line through a jump lags behind it: in a burst, what arrives now is the least to expect.
        tokens_per_s_high=max(high, current) if latest.burst else high,
        tokens_mean=0.0 if isinstance(mean, Missing) else mean,
    )
