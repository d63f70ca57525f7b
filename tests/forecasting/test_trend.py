"""The forecast: what a line can know, and what it must never do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.trend import RISE_CAP, forecast


def test_nothing_known_is_no_forecast() -> None:
    assert forecast([], 0.0, 10.0, 0.9) is None


def test_a_constant_stays() -> None:
    result = forecast([(t, 7.0) for t in range(10)], 9.0, 60.0, 0.9)
    assert result is not None
    assert result.median == pytest.approx(7.0)
    assert result.high == pytest.approx(7.0)


def test_a_ramp_goes_on_damped() -> None:
    result = forecast([(t, 100.0 + t) for t in range(31)], 30.0, 10.0, 0.9)
    assert result is not None
    assert result.median == pytest.approx(135.0)


def test_scatter_widens_the_high_quantile_only() -> None:
    points = [(t, 10.0 + (3 if t % 2 else -3)) for t in range(30)]
    calm = forecast(points, 29.0, 0.0, 0.6)
    wide = forecast(points, 29.0, 0.0, 0.95)
    assert calm is not None
    assert wide is not None
    assert wide.median == pytest.approx(calm.median)
    assert wide.high > calm.high > calm.median


values = st.floats(0, 1e6)


@given(
    st.lists(values, min_size=1, max_size=30),
    st.floats(0, 600),
    st.floats(0.51, 0.99),
)
def test_bounded_ordered_and_finite(levels: list[float], horizon_s: float, quantile: float) -> None:
    result = forecast(list(enumerate(levels)), float(len(levels) - 1), horizon_s, quantile)
    assert result is not None
    assert 0 <= result.median <= result.high <= RISE_CAP * max(levels) + 1e-6
