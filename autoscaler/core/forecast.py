"""Forecast: each role's offered tokens/s at that role's own measured cold start."""

from __future__ import annotations

import forecasting.trend as trend
from autoscaler.model import Demand, Forecast, RoleForecast, Signals, State
from autoscaler.settings import Settings
from policies.model import Role

LOOK_BACK_S = 30.0


def forecast(state: State, signals: Signals, settings: Settings, now_s: float) -> Forecast | None:
    """Both roles' demand one cold start ahead; None while demand is missing. Linear in the look-back."""
    if not isinstance(signals.demand, Demand):
        return None
    recent = [demand for demand in state.demands if demand.at_s > now_s - LOOK_BACK_S]
    prefill = _role(Role.PREFILL, recent, signals, settings, now_s)
    decode = _role(Role.DECODE, recent, signals, settings, now_s)
    return Forecast(prefill, decode)


def _role(role: Role, recent: list[Demand], signals: Signals, settings: Settings, now_s: float) -> RoleForecast:
    prefill = role is Role.PREFILL
    points = [(d.at_s, d.prompt_tokens_per_s if prefill else d.output_tokens_per_s) for d in recent]
    latest = recent[-1]
    horizon_s, quantile = signals[role].cold_start_s, settings.spec.forecast_quantile
    result = trend.forecast(points, now_s, horizon_s, quantile)
    current = points[-1][1]
    high = result.high if result else current
    return RoleForecast(
        horizon_s=horizon_s,
        quantile=quantile,
        tokens_per_s_q50=result.median if result else current,
        # A line through a jump lags behind it: in a burst, what arrives now is the least to expect.
        tokens_per_s_high=max(high, current) if latest.burst else high,
        tokens_mean=latest.prompt_tokens_mean if prefill else latest.output_tokens_mean,
    )
