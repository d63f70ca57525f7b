"""Forecasts of one series: never not a number, in order, learned, wider where nothing is known, and back from JSON."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.bursts import Lift
from forecasting.history import HISTORY
from forecasting.online import STEPS, Online, forecast
from forecasting.rolling import rolled
from forecasting.series import SeriesError, regular

NAN = math.nan


def noisy_days(days: int, *, period: int = 48, noise: float = 0.05, seed: int = 1) -> list[float]:
    """A daily wave of steps of 1800 s."""
    rng = random.Random(seed)
    return [
        100 * (1 + 0.6 * math.sin(2 * math.pi * i / period)) * math.exp(rng.gauss(0, noise))
        for i in range(days * period)
    ]


def points(values: list[float], step_s: float = 1800.0) -> list[tuple[float, float]]:
    return [(i * step_s, value) for i, value in enumerate(values)]


def losses(actual: np.ndarray, said: np.ndarray) -> float:
    levels = np.array([0.5, 0.9, 0.99])
    error = actual[:, None] - said
    return float(np.maximum(levels * error, (levels - 1) * error).mean())


@pytest.mark.parametrize(
    "values",
    [
        [5.0],
        [5.0, 6.0],
        [7.0] * 200,
        [0.0] * 200,
        [10.0] * 100 + [1000.0] + [10.0] * 100,
        [10.0] * 100 + [1000.0] * 100,
        [0.0] * 100 + [1e12] * 5 + [1e-12] * 100,
        [1e-300] * 50 + [1e300, 1e-300],
        [1.0] + [NAN] * 100,
    ],
    ids=["one", "two", "constant", "idle", "a glitch", "a level shift", "twelve decades", "extreme", "then nothing"],
)
def test_any_series_has_finite_ordered_quantiles(values: list[float]) -> None:
    online = Online(60.0)
    online.follow(2)
    for value in values:
        online.add(value)
        said = online.now(2).values
        assert all(math.isfinite(one) and one >= 0 for one in said)
        assert list(said) == sorted(said)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.just(NAN), st.floats(0, 1e9)), min_size=1, max_size=150), st.integers(1, 12))
def test_no_values_break_it(values: list[float], steps: int) -> None:
    online = Online(60.0)
    online.follow(steps)
    for value in values:
        online.add(value)
    if online.history.count:
        said = online.now(steps).values
        assert all(math.isfinite(one) and one >= 0 for one in said)
        assert list(said) == sorted(said)


def test_a_constant_is_forecast_as_itself() -> None:
    assert forecast(points([42.0] * 100), 1800.0).values == pytest.approx((42.0, 42.0, 42.0))


def test_a_daily_wave_is_learned_better_than_last_value() -> None:
    grid = regular(points(noisy_days(14)))
    run = rolled(grid, 6)
    places = np.arange(len(grid.values) // 2, len(grid.values) - 6)
    actual = grid.values[places + 6]
    ours, last = losses(actual, run.forecasts[places]), losses(actual, run.parts[places, 0])
    assert ours < 0.5 * last


def test_on_a_random_walk_it_costs_little_more_than_last_value() -> None:
    rng, value, walk = random.Random(3), 100.0, []
    for _ in range(1500):
        value *= math.exp(rng.gauss(0, 0.03))
        walk.append(value)
    grid = regular(points(walk))
    run = rolled(grid, 2)
    places = np.arange(400, len(walk) - 2)
    actual = grid.values[places + 2]
    assert losses(actual, run.forecasts[places]) < 1.05 * losses(actual, run.parts[places, 0])


def stairs(count: int) -> list[float]:
    """Constant stretches of 20 steps in the mean, with jumps between them."""
    rng, values = random.Random(3), []
    while len(values) < count:
        values += [rng.choice([20.0, 40.0, 80.0, 120.0, 200.0, 300.0])] * int(2 + rng.expovariate(1 / 20))
    return values[:count]


def sporadic(count: int) -> list[float]:
    """Nothing, and now and then something."""
    rng = random.Random(11)
    return [rng.expovariate(1 / 20) if rng.random() < 0.15 else 0.0 for _ in range(count)]


def glitches(count: int) -> list[float]:
    """Single values a hundred times the others."""
    rng = random.Random(1)
    return [100 * math.exp(rng.gauss(0, 0.08)) * (100 if rng.random() < 0.004 else 1) for _ in range(count)]


@pytest.mark.parametrize(
    ("values", "share"),
    [(stairs(1000), 1.1), (sporadic(1000), 0.95), (glitches(1000), 0.95)],
    ids=["stairs", "sporadic", "glitches"],
)
@pytest.mark.parametrize("steps", [1, 6])
def test_rare_and_large_changes_cost_little_more_than_in_last_value_at_most(
    values: list[float], share: float, steps: int
) -> None:
    grid = regular(points(values, 600.0), zeros="idle")
    run = rolled(grid, steps)
    places = np.arange(250, len(values) - steps)
    actual = grid.values[places + steps]
    assert losses(actual, run.forecasts[places]) < share * losses(actual, run.parts[places, 0])


def test_what_is_switched_on_by_the_clock_is_learned_from_earlier_days() -> None:
    rng, period = random.Random(4), 48
    values = [100 * math.exp(rng.gauss(0, 0.08)) if 16 <= i % period < 36 else 2.0 for i in range(20 * period)]
    run = rolled(regular(points(values)), 6)
    places = np.arange(10 * period, len(values) - 6)
    actual = np.asarray(values)[places + 6]
    assert losses(actual, run.forecasts[places]) < 0.5 * losses(actual, run.parts[places, 0])


@pytest.mark.parametrize("steps", [1, 6])
def test_quantiles_cover_what_they_promise_also_after_a_level_shift(steps: int) -> None:
    rng = random.Random(5)
    level = [100.0] * 1000 + [400.0] * 400
    values = [one * math.exp(rng.gauss(0, 0.1)) for one in level]
    run = rolled(regular(points(values)), steps)
    actual = np.asarray(values)
    for first, last, allowed in ((300, 1400, 0.02), (1000, 1200, 0.05)):
        places = np.arange(first, last - steps)
        covered = (actual[places + steps, None] <= run.forecasts[places]).mean(axis=0)
        assert abs(covered[1] - 0.9) < allowed
        assert abs(covered[2] - 0.99) < allowed


def test_a_second_high_sample_is_a_burst_that_lifts_high_quantiles_and_is_left_slowly() -> None:
    rng = random.Random(7)
    online = Online(60.0)
    online.follow(2)
    for _ in range(200):
        online.add(100.0 + rng.gauss(0, 3))
    online.add(900.0)
    assert online.now(2).fallback == "none"
    online.add(1000.0)
    said = online.now(2)
    assert said.fallback == "burst"
    assert said.at(0.9) >= 1000.0
    envelopes = []
    for _ in range(60):
        online.add(100.0 + rng.gauss(0, 3))
        envelopes.append(online.history.bursts.envelope)
    assert envelopes[0] > 800
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(envelopes))
    assert not online.history.bursts.active


def test_a_burst_that_lasts_becomes_usual() -> None:
    online = Online(60.0)
    for level in (20.0, 300.0):
        for _ in range(60):
            online.add(level)
    assert not online.history.bursts.active
    online.add(200.0)
    assert not online.history.bursts.active


def test_lifting_that_never_pays_is_given_up_and_comes_back_when_it_would_have() -> None:
    levels = np.array([0.5, 0.9, 0.99])
    lift, plain = Lift(levels), np.array([100.0, 120.0, 150.0])
    assert lift.lifted(plain, 400.0).tolist() == [100.0, 400.0, 400.0]
    for _ in range(20):
        lift.learn(100.0, plain, 400.0)
    assert lift.lifted(plain, 400.0).tolist() == [100.0, 120.0, 150.0]
    for _ in range(20):
        lift.learn(400.0, plain, 400.0)
    assert lift.lifted(plain, 400.0).tolist() == [100.0, 400.0, 400.0]


def test_one_glitch_is_no_burst() -> None:
    online = Online(60.0)
    online.follow(1)
    for i in range(100):
        online.add(100.0 + i % 5)
    online.add(10_000.0)
    online.add(101.0)
    assert not online.history.bursts.active
    assert online.now(1).at(0.5) < 200


def test_without_values_quantiles_move_apart_and_say_so() -> None:
    online = Online(1800.0)
    online.follow(2)
    for value in noisy_days(4):
        online.add(value)
    before = online.now(2)
    for _ in range(5):
        online.add(NAN)
    after = online.now(2)
    assert after.at(0.99) - after.at(0.5) > before.at(0.99) - before.at(0.5)
    assert (before.fallback, after.fallback) == ("none", "stale")


def test_a_missing_value_is_not_learned_as_zero() -> None:
    whole, holed = Online(1800.0), Online(1800.0)
    whole.follow(1)
    holed.follow(1)
    for i, value in enumerate(noisy_days(6)):
        whole.add(value)
        holed.add(NAN if i % 10 == 3 else value)
    assert holed.now(1).at(0.5) == pytest.approx(whole.now(1).at(0.5), rel=0.1)


def test_samples_are_averaged_into_steps_and_bad_ones_refused() -> None:
    online = Online(60.0)
    for at_s, value in [(0, 10.0), (20, 20.0), (40, 30.0), (60, 5.0), (10, 7.0), (70, NAN), (80, -1.0), (90, math.inf)]:
        online.update(at_s, value)
    assert online.refused == 4
    assert online.history.count == 1
    assert online.history.root(0) ** 2 == pytest.approx(20.0)


def test_a_step_with_few_samples_is_partial() -> None:
    online = Online(60.0)
    for step in range(20):
        for at_s in range(0, 60, 10) if step != 12 else (0,):
            online.update(step * 60.0 + at_s, 50.0 if step != 12 else 3.0)
    online.refresh(1300.0)
    assert online.partial == 1
    assert not online.history.is_known(12)
    assert online.history.is_known(13)


def test_a_refresh_closes_steps_that_nobody_sampled_as_missing() -> None:
    online = Online(60.0)
    online.update(0.0, 10.0)
    online.refresh(245.0)
    assert online.history.count == 4
    assert [online.history.is_known(moment) for moment in range(4)] == [True, False, False, False]


def test_a_silence_longer_than_the_history_starts_anew() -> None:
    online = Online(60.0)
    online.update(0.0, 10.0)
    online.update(60.0 * (HISTORY + 10), 99.0)
    assert online.history.count == 0
    assert online.forecast(60.0).values == (99.0, 99.0, 99.0)


def test_a_new_horizon_answers_at_once_and_is_learned_by_replay() -> None:
    online = Online(1800.0)
    online.follow(1)
    for value in noisy_days(5):
        online.add(value)
    first = online.forecast(6 * 1800.0)
    assert first.fallback == "catching up"
    assert all(math.isfinite(value) for value in first.values)
    for _ in range(1 + online.history.count):
        online.replay(4)
    assert online.forecast(6 * 1800.0).fallback == "none"
    assert online.forecast(6 * 1800.0).values == pytest.approx(forecast(points(noisy_days(5)), 6 * 1800.0).values)


def test_horizons_that_are_asked_for_stay() -> None:
    online = Online(60.0)
    for _ in range(3):
        online.add(5.0)
    for steps in (1, 2, 3, 1, 4):
        online.forecast(steps * 60.0)
    assert set(online.learners) | set(online.replays) == {3, 1, 4}


def test_a_state_comes_back_from_json_and_says_the_same() -> None:
    online = Online(1800.0, (0.5, 0.95))
    online.start_s = 0.0
    online.follow(2)
    for i, value in enumerate(noisy_days(5)):
        online.add(NAN if i in (20, 21, 90) else value)
    state = json.loads(json.dumps(online.to_json(), allow_nan=False))
    back = Online.from_json(state)
    back.replay()
    assert back.now(2).values == pytest.approx(online.now(2).values, rel=1e-4)
    assert back.to_json() == online.to_json()


@pytest.mark.parametrize("horizon_s", [0.0, -1.0, NAN, math.inf, 60.0 * (STEPS[-1] + 1)])
def test_a_horizon_that_no_history_supports_is_one_clear_error(horizon_s: float) -> None:
    with pytest.raises(SeriesError, match="expected") as caught:
        Online(60.0).steps(horizon_s)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("step_s", "quantiles"), [(0.0, (0.5,)), (NAN, (0.5,)), (60.0, ()), (60.0, (1.0,)), (60.0, (NAN,))]
)
def test_bad_settings_are_one_clear_error(step_s: float, quantiles: tuple[float, ...]) -> None:
    with pytest.raises(SeriesError, match="expected"):
        Online(step_s, quantiles)


def test_before_any_value_there_is_no_forecast() -> None:
    with pytest.raises(SeriesError, match="no value is known yet"):
        Online(60.0).forecast(60.0)


def test_weights_sum_to_one_and_coverage_is_told_per_quantile() -> None:
    said = forecast(points(noisy_days(10)), 3600.0, (0.1, 0.5, 0.9))
    assert sum(said.weights.values()) == pytest.approx(1.0)
    assert len(said.measured.coverage) == 3
    assert list(said.measured.coverage) == sorted(said.measured.coverage)
    assert said.at(0.7) == pytest.approx((said.at(0.5) + said.at(0.9)) / 2)
    json.dumps(said.to_json(), allow_nan=False)


def test_importing_loads_no_heavy_package() -> None:
    heavy = "{'numpy', 'scipy', 'sklearn'}"
    code = f"import sys, forecasting.online, forecasting.rolling; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
