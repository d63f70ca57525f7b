"""What others would use, each on the same grid: forecasts of three quantiles at every origin.

Rules:
1. A slow peer is fitted again at REFITS origins at most, on the last WINDOW values (pmdarima, of which one fit to
   these takes 17 s, on WINDOW_SHORT), and carried forward in between: the same parameters, with every value that has
   come since. Prophet has no state to carry: its curve goes on.
2. A model that gives one number (last value, seasonal naive, Kalman) gets the quantiles of its own past errors.
3. Packages of peers are imported when a peer runs; one that is absent is told, and costs only its own rows.
4. A fit that fails leaves the one before in force, or the last value where there is none.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.forecast.empirical import with_errors
from benchmarks.forecast.origins import QUANTILES, Task, Values

REFITS = 50
WINDOW, WINDOW_SHORT = 1008, 288
DAY_S, HOUR_S = 86_400.0, 3_600.0
INTERVALS = (80, 98)
"""Central intervals whose upper ends are the quantiles 0.9 and 0.99."""

Forecasts = dict[int, Values]
Fit = Callable[[Values], Any]
Carry = Callable[[Any, Values, int], Values]


def last_value(task: Task) -> Forecasts:
    """What is now stays."""
    return {steps: with_errors(task, steps, task.filled()) for steps in task.steps}


def seasonal_naive(task: Task) -> Forecasts:
    """The value one season before the target: a day; an hour in a series of under two days; else what is now."""
    season = _season(task)
    filled = task.filled()
    found: Forecasts = {}
    for steps in task.steps:
        before = np.arange(len(filled)) + steps - season * -(-steps // season) if season else np.arange(len(filled))
        found[steps] = with_errors(task, steps, np.where(before >= 0, filled[np.maximum(before, 0)], filled))
    return found


def kalman(task: Task) -> Forecasts:
    """A local linear trend by filterpy, with the noises that Dynamo's planner sets (level 1, trend 0.1, reading 10)."""
    from filterpy.kalman import KalmanFilter

    filled = task.filled()
    model = KalmanFilter(dim_x=2, dim_z=1)
    model.x = np.array([[filled[0]], [0.0]])
    model.F, model.H = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    model.P *= 1000.0
    model.R, model.Q = np.array([[10.0]]), np.diag([1.0, 0.1])
    states = np.empty((len(filled), 2))
    for place, value in enumerate(filled):
        if place:
            model.predict()
            model.update(np.array([[value]]))
        states[place] = model.x[:, 0]
    return {steps: with_errors(task, steps, np.maximum(states[:, 0] + steps * states[:, 1], 0)) for steps in task.steps}


def auto_ets(task: Task) -> Forecasts:
    """Exponential smoothing chosen by AICc (statsforecast)."""
    from statsforecast.models import AutoETS

    return _carried(task, lambda values: AutoETS(season_length=1).fit(values), _statsforecast)


def auto_arima(task: Task) -> Forecasts:
    """ARIMA chosen by AICc (statsforecast)."""
    from statsforecast.models import AutoARIMA

    return _carried(task, lambda values: AutoARIMA(season_length=1).fit(values), _statsforecast)


def pmdarima(task: Task) -> Forecasts:
    """ARIMA chosen by pmdarima with its defaults, as Dynamo's planner calls it."""
    from pmdarima import auto_arima as choose

    def fit(values: Values) -> Any:
        return choose(values, suppress_warnings=True, error_action="ignore").arima_res_

    def carry(model: Any, values: Values, ahead: int) -> Values:
        forecast = model.apply(values).get_forecast(ahead)
        ends = [forecast.conf_int(alpha=1 - level / 100)[:, 1] for level in INTERVALS]
        found: Values = np.stack([np.asarray(forecast.predicted_mean), *ends], axis=1)
        return found

    return _carried(task, fit, carry, WINDOW_SHORT)


def prophet(task: Task) -> Forecasts:
    """Prophet with its defaults; its curve and interval go on until the next fit."""
    for name, level in (("cmdstanpy", logging.ERROR), ("prophet", logging.ERROR), ("prophet.plot", logging.CRITICAL)):
        logging.getLogger(name).setLevel(level)
    import pandas
    from prophet import Prophet

    filled, step_s = task.filled(), task.grid.step_s
    refits = _refits(task)
    found = {steps: np.empty((len(task.origins(steps)), len(QUANTILES))) for steps in task.steps}
    for number, place in enumerate(refits):
        until = refits[number + 1] if number + 1 < len(refits) else len(filled)
        began = max(0, place + 1 - WINDOW)
        moments = [
            datetime.fromtimestamp(task.grid.start_s + at * step_s, UTC).replace(tzinfo=None)
            for at in range(began, until + max(task.steps))
        ]
        past = pandas.DataFrame({"ds": moments[: place + 1 - began], "y": filled[began : place + 1]})
        future = pandas.DataFrame({"ds": moments[place + 1 - began :]})
        curves: list[Values] = []
        for level in INTERVALS:
            # An interval of its own per level: Prophet draws it by simulation, from numpy's global generator.
            np.random.seed(1)
            curve = Prophet(interval_width=level / 100).fit(past, seed=1).predict(future)
            curves = [curves[0] if curves else curve["yhat"].to_numpy(), *curves[1:], curve["yhat_upper"].to_numpy()]
        ahead = np.maximum(np.stack(curves, axis=1), 0.0)
        for steps in task.steps:
            origins = task.origins(steps)
            mine = (origins >= place) & (origins < until)
            found[steps][mine] = ahead[origins[mine] + steps - place - 1]
    return found


PEERS: dict[str, Callable[[Task], Forecasts]] = {
    "last_value": last_value,
    "seasonal_naive": seasonal_naive,
    "auto_ets": auto_ets,
    "auto_arima": auto_arima,
    "prophet": prophet,
    "pmdarima": pmdarima,
    "kalman": kalman,
}
SLOW = frozenset({"auto_ets", "auto_arima", "prophet", "pmdarima"})


PACKAGES = {"auto_ets": "statsforecast", "auto_arima": "statsforecast", "prophet": "prophet", "pmdarima": "pmdarima"}


def version(name: str) -> str:
    """What made a slow peer's forecasts: its package's version and our settings. Raises ImportError."""
    from importlib.metadata import version as installed

    return f"{PACKAGES[name]} {installed(PACKAGES[name])}, {REFITS} refits, {WINDOW} and {WINDOW_SHORT} values"


def _season(task: Task) -> int:
    """Steps of a day, of an hour where there are not two days, 0 where there are not two hours either."""
    span_s = len(task.grid.values) * task.grid.step_s
    season_s = DAY_S if span_s >= 2 * DAY_S else HOUR_S if span_s >= 2 * HOUR_S else 0.0
    return round(season_s / task.grid.step_s)


def _refits(task: Task) -> list[int]:
    """The places of the grid at which slow peers are fitted again."""
    last = len(task.grid.values) - min(task.steps)
    return sorted(set(np.linspace(task.first, last, REFITS, endpoint=False).astype(int).tolist()))


def _statsforecast(model: Any, values: Values, ahead: int) -> Values:
    found = model.forward(values, h=ahead, level=list(INTERVALS))
    return np.stack([found["mean"], *(found[f"hi-{level}"] for level in INTERVALS)], axis=1)


def _carried(task: Task, fit: Fit, carry: Carry, window: int = WINDOW) -> Forecasts:
    """Fit at the refits, carry the parameters forward to every origin in between."""
    filled, longest = task.filled(), max(task.steps)
    refits = set(_refits(task))
    rows = {steps: {int(at): row for row, at in enumerate(task.origins(steps))} for steps in task.steps}
    found = {steps: np.empty((len(rows[steps]), len(QUANTILES))) for steps in task.steps}
    model: Any = None
    with _quiet():
        for place in range(task.first, len(filled)):
            past = filled[max(0, place + 1 - window) : place + 1]
            if place in refits:
                model = _tried(fit, past) or model
            if not any(place in rows[steps] for steps in task.steps):
                continue
            ahead = _tried(carry, model, past, longest) if model else None
            if ahead is None or not np.all(np.isfinite(ahead)):
                ahead = np.full((longest, len(QUANTILES)), past[-1])
            for steps in task.steps:
                if place in rows[steps]:
                    found[steps][rows[steps][place]] = np.maximum(ahead[steps - 1], 0.0)
    return found


def _tried(work: Callable[..., Any], *given: Any) -> Any:
    """The result, or None where the numbers defeat the peer's own code."""
    try:
        return work(*given)
    except (ValueError, ArithmeticError, IndexError, RuntimeError, TypeError, AttributeError, np.linalg.LinAlgError):
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Peers warn at every short or flat series; what counts is what they forecast."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
