"""The near future from the recent past: who speaks, what it covers, and what it does with gaps, silence and bursts."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist, fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from forecasting.recent import (
    ERRORS_S,
    IGNORANCE,
    IGNORANCE_GAIN,
    IGNORANCE_MAX,
    LINES_S,
    MEAN_S,
    MEMORY,
    MEMORY_FACTOR,
    MEMORY_HORIZONS,
    MISSED_WHOLE,
    RISE_CAP,
    RISE_STEPS_MIN,
    SCORED_MIN,
    SILENCE,
    Fit,
    Recent,
    covering,
    fit,
    kept_steps,
    predict,
)

STEP_S, HORIZON_S, FELT_S, SILENCE_S = 5.0, 120.0, 10.0, 300.0
SHARP_S = 3.0
MEMORY_S, IGNORANCE_S = MEMORY_HORIZONS * HORIZON_S, IGNORANCE * HORIZON_S
AHEAD, MEAN = round(HORIZON_S / STEP_S), round(MEAN_S / STEP_S)
values_of = some.lists(some.none() | some.just(0.0) | some.floats(0, 1e9), max_size=60)
shares = some.floats(0.51, 0.999)


def said(
    values: Sequence[float | None], share: float = 0.95, request: float = 0.0, felt_s: float = FELT_S, **rest: bool
) -> Recent:
    fitted = fit(values, STEP_S, HORIZON_S, share, felt_s, request, **rest)
    assert fitted is not None
    found = predict(values, STEP_S, HORIZON_S, fitted, SILENCE_S)
    assert found is not None
    return found


def smooth(steps: int, base: float = 1000.0, noise: float = 20.0, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [base + rng.uniform(-noise, noise) for _ in range(steps)]


def bursty(heights: Sequence[float], gap: int = 38) -> list[float]:
    """Bursts of two steps, and next to nothing between them."""
    return [value for height in heights for value in [*[20.0] * gap, height, height]]


@pytest.mark.parametrize(
    ("values", "weights", "share", "found"),
    [
        pytest.param([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0], 0.75, 3.0, id="alike"),
        pytest.param([4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0], 0.6, 3.0, id="by work, in any order"),
        pytest.param([1.0, 100.0], [1.0, 100.0], 0.95, 100.0, id="a rare step with most of the work"),
        pytest.param([5.0, 7.0, 6.0], [0.0, 0.0, 0.0], 0.5, 7.0, id="no weight"),
        pytest.param([3.0, 9.0], [1.0, 0.0], 0.99, 3.0, id="a value without weight"),
    ],
)
def test_the_value_that_covers_a_share_of_the_work(
    values: list[float], weights: list[float], share: float, found: float
) -> None:
    assert covering(values, weights, share) == found


@given(some.lists(some.tuples(some.floats(-1e6, 1e6), some.floats(0, 1e6)), min_size=1, max_size=40), shares)
def test_it_is_the_least_that_covers(pairs: list[tuple[float, float]], share: float) -> None:
    values, weights = [list(column) for column in zip(*pairs, strict=True)]
    found, total = covering(values, weights, share), sum(weights)
    assert found in values
    if total > 0:
        assert sum(w for v, w in pairs if v <= found) >= share * total * (1 - 1e-9)
        assert sum(w for v, w in pairs if v < found) <= share * total * (1 + 1e-9)


def test_a_steady_load_is_itself() -> None:
    found = said([700.0] * 200)
    assert found.expected == pytest.approx(700.0)
    assert found.covering == pytest.approx(700.0)


def test_a_ramp_is_provided_for_one_horizon_ahead() -> None:
    assert said([10.0 * index for index in range(300)]).covering == pytest.approx(10.0 * (299 + AHEAD), rel=0.01)


def test_slow_ups_and_downs_are_carried_by_lines() -> None:
    up_and_down = [1000.0 + 5.0 * abs(150 - index % 300) for index in range(600)]
    found = said(up_and_down)
    assert found.model.startswith("line")
    assert found.expected == pytest.approx(1750.0 + 5.0 * (AHEAD - 1), rel=0.01)


def test_noise_is_covered_to_the_wanted_share() -> None:
    values = smooth(900, noise=300.0)
    kept = kept_steps(STEP_S, HORIZON_S)
    hits = total = 0.0
    for now in range(400, 900 - AHEAD, 3):
        load = values[now + AHEAD - 1 : now + AHEAD + 1]
        total += sum(load)
        hits += sum(load) * (sum(load) / 2 <= said(values[:now][-kept:], share=0.9).covering)
    assert hits / total == pytest.approx(0.9, abs=0.06)


def test_bursts_shorter_than_the_horizon_are_remembered() -> None:
    found = said(bursty([*[4000.0] * 9, 7000.0, 4000.0, 4000.0]), felt_s=SHARP_S)
    # Most of the work came at 4,000; to cover nearly all of it by a mean and its errors would cost the 7,000.
    assert found.model == MEMORY
    assert MEMORY_FACTOR * 4000.0 <= found.covering < 6000.0  # What little has been seen adds some per cent.
    assert found.expected < 1000.0
    # A share of the work that they are not needed for leaves them out.
    calm = [*[1000.0] * 359, 10_000.0, *[1000.0] * 30]
    assert said(calm, felt_s=SHARP_S).covering < 2_000.0


def test_what_cannot_wait_is_covered_further() -> None:
    waiting, missed = (said(smooth(400, noise=300.0), waits=waits).covering for waits in (True, False))
    assert 1100.0 < waiting < missed <= 1300.0


def test_a_rise_beyond_chance_speaks_before_it_has_shown_errors() -> None:
    """Of 5 requests a step, then more and more: within a minute the line speaks, and by chance alone it never does."""
    request = 1000.0
    rise = [5000.0] * RISE_STEPS_MIN + [5000.0 + 1500.0 * index for index in range(10)]
    found = said(rise, request=request)
    assert found.model == "line60"
    assert found.covering >= found.expected > max(rise)
    chance = [5000.0, 6000.0, 4000.0, 7000.0, 5000.0, 6000.0, 6000.0, 5000.0, 7000.0, 6000.0]
    assert said(chance, request=request).model == MEMORY
    falling = said(rise[::-1], request=request)
    assert falling.model == MEMORY
    assert falling.covering >= max(rise[:2])


def test_what_chance_makes_of_single_requests_is_left_to_the_size() -> None:
    """Poisson arrivals of 40 requests a step: their noise is no error of the forecast, as long as it is there."""
    rng, request = random.Random(3), 100.0
    load = [float(sum(rng.random() < 0.1 for _ in range(400))) * request / STEP_S for _ in range(400)]
    plain, aware = said(load), said(load, request=request)
    assert aware.expected < aware.covering < plain.covering
    ramp = [10.0 * index for index in range(300)]
    assert said(ramp, request=request).covering == pytest.approx(said(ramp).covering, rel=0.01)


def test_what_is_older_than_the_memory_is_forgotten() -> None:
    later = [1000.0] * round((MEMORY_S + HORIZON_S) / STEP_S)
    assert said([*bursty([9000.0] * 5), *later]).covering == pytest.approx(1000.0)


def test_a_gap_is_neither_zero_nor_scored() -> None:
    whole: list[float | None] = [1000.0] * 200
    holes = [None if 60 <= index < 150 else value for index, value in enumerate(whole)]
    assert said(holes) == said(whole)
    ended: list[float | None] = [*whole, *[None] * 100]
    assert said(ended).expected == said(whole).expected
    # Only known steps count: as many as it takes for a line or mean to speak, and one less.
    enough = [*[None] * (AHEAD + 5), *[1000.0] * (AHEAD + MEAN + SCORED_MIN)]
    fitted = [fit(values, STEP_S, HORIZON_S, 0.95, SHARP_S, waits=False) for values in (enough, enough[:-1])]
    assert [one.model == MEMORY for one in fitted if one] == [False, True]
    sparse = [value if index < AHEAD + 10 or not index % 9 else None for index, value in enumerate(enough)]
    one = fit(sparse, STEP_S, HORIZON_S, 0.95, SHARP_S, waits=False)
    assert one is not None
    assert one.model == MEMORY


def test_nothing_known_is_nothing_said() -> None:
    assert fit([], STEP_S, HORIZON_S, 0.95, FELT_S) is None
    assert fit([None] * 50, STEP_S, HORIZON_S, 0.95, FELT_S) is None
    assert predict([None], STEP_S, HORIZON_S, Fit("mean", 12, 0.0, 0.0, 0.0, 0.0), SILENCE_S) is None


@pytest.mark.parametrize(
    ("tail", "silent"),
    [
        pytest.param([0.0] * 60, True, id="as long as it takes"),
        pytest.param([0.0] * 59, False, id="a step less"),
        pytest.param([0.0] * 30 + [None] + [0.0] * 30, False, id="blind is not idle"),
        pytest.param([0.0] * 30 + [1.0] + [0.0] * 30, False, id="a request in between"),
    ],
)
def test_silence_ends_memory_and_only_silence(tail: list[float | None], silent: bool) -> None:
    found = said([*bursty([4000.0, 6000.0] * 5), *tail])
    assert (found.model == SILENCE) is silent
    assert (found.covering == 0) is silent


def test_a_line_goes_no_further_than_its_cap() -> None:
    values = [0.0] * 180 + [1000.0 * index for index in range(20)]
    fitted = Fit("line60", 12, 0.0, 0.0, 0.0, 1e9)
    found = predict(values, STEP_S, 3600.0, fitted, SILENCE_S)
    assert found is not None
    assert found.expected == RISE_CAP * max(values)
    falling = predict(values[::-1][:25], STEP_S, 3600.0, fitted, SILENCE_S)
    assert falling is not None
    assert falling.expected == 0.0


@pytest.mark.parametrize(("request_work", "more"), [(50.0, False), (0.001, True)])
def test_only_peaks_beyond_chance_ask_for_more_while_little_is_known(request_work: float, more: bool) -> None:
    """Of 20 requests a step there are 35 at times: chance, if requests are so large, and no chance if they are tiny."""
    values = [200.0 if index % 10 else 350.0 for index in range(20)]
    fitted = fit(values, STEP_S, HORIZON_S, 0.95, FELT_S, request_work)
    assert fitted is not None
    assert (fitted.bursts > 0) is more
    plain = predict(values, STEP_S, HORIZON_S, Fit(fitted.model, 0, None, fitted.memory, 0.0, 100.0), SILENCE_S)
    asked = predict(values, STEP_S, HORIZON_S, fitted, SILENCE_S)
    assert asked is not None
    assert plain is not None
    assert (asked.covering > plain.covering) is more


@pytest.mark.parametrize(
    ("bursts", "seen_s", "times"), [(0.0, 0.0, 1.0), (2.0, 0.0, 2.5), (2.0, 90.0, 1.75), (2.0, 810.0, 1.03)]
)
def test_ignorance_fades(bursts: float, seen_s: float, times: float) -> None:
    found = predict([100.0] * 9, STEP_S, HORIZON_S, Fit(MEMORY, 0, None, 1000.0, bursts, seen_s), SILENCE_S)
    assert found == Recent(100.0, pytest.approx(1000.0 * times), MEMORY)


def ignorance(fitted: Fit) -> float:
    new = IGNORANCE_S / (IGNORANCE_S + fitted.seen_s)
    return 1 + min(IGNORANCE_MAX, IGNORANCE_GAIN * fitted.bursts * new**2)


def told_slowly(known: list[float], model: str, window: int) -> float:
    """What a mean or a line says at the last of the values, by its definition."""
    last = known[-window:]
    mean, middle = sum(last) / len(last), (len(last) - 1) / 2
    if model == "mean" or len(last) < 3:
        return mean
    moments = [(index - middle, value - mean) for index, value in enumerate(last)]
    slope = sum(x * y for x, y in moments) / sum(x * x for x, _ in moments)
    return min(max(0.0, mean + slope * (middle + AHEAD)), RISE_CAP * max(last))


def means_slowly(known: list[float], over_s: float) -> list[float]:
    steps = max(1, round(over_s / STEP_S))
    return [fmean(known[max(0, i + 1 - steps) : i + 1]) for i in range(len(known))]


def chance_slowly(felt: list[float], over_s: float, request: float) -> float:
    """The variance of means over so long that single requests explain, and no more than there is."""
    steps = max(1, round(over_s / STEP_S))
    squares = [(later - earlier) ** 2 for earlier, later in zip(felt, felt[steps:], strict=False)]
    return min(fmean(felt) * request / over_s, fmean(squares) / 2)


def fit_slowly(
    values: Sequence[float | None], share: float, felt_s: float, request: float, waits: bool
) -> tuple[str, float | None]:
    """Who speaks and with which margin: each rule in a loop of its own."""
    known: list[float] = []
    given: list[bool] = []
    for value in values:
        if value is not None or known:
            known.append(known[-1] if value is None else value)
            given.append(value is not None)
    old = max(0, len(known) - round(MEMORY_S / STEP_S))
    covered = share if waits else 1 - MISSED_WHOLE * (1 - share)
    loads = means_slowly(known, felt_s)[old:]
    best: tuple[float, str, float | None] = (covering(loads, loads, covered), MEMORY, None)
    if waits:
        least = MEMORY_FACTOR * covering(loads, loads, max(0.5, 1 - 4 * (1 - covered)))
        best = (min(best[0], least), MEMORY, None)
    elif felt_s < STEP_S:
        best = (MEMORY_FACTOR * best[0], MEMORY, None)
    scored = [i for i in range(len(known)) if given[i] and i >= max(old, AHEAD + MEAN)]
    over_s = max(felt_s, ERRORS_S if waits else STEP_S)
    means = means_slowly(known, over_s)
    for model, seconds in (("mean", MEAN_S), *((f"line{s:.0f}", s) for s in LINES_S)):
        if len(scored) < SCORED_MIN:
            break
        felt = [means[i] for i in scored]
        told = [told_slowly(known[: i + 1 - AHEAD], model, round(seconds / STEP_S)) for i in scored]
        margin = max(0.0, covering([f - t for f, t in zip(felt, told, strict=True)], felt, covered))
        chance = NormalDist().inv_cdf(covered) ** 2 * chance_slowly(means, over_s, request)
        margin = math.sqrt(max(0.0, margin**2 - chance))
        best = min(best, (sum(told) / len(told) + margin, model, margin), key=lambda one: one[0])
    return best[1], best[2]


@settings(max_examples=40, deadline=None)
@given(
    some.integers(0, 10_000),
    some.integers(AHEAD + 20, 420),
    shares,
    some.floats(0, 0.3),
    some.sampled_from([SHARP_S, FELT_S, 30.0]),
    some.sampled_from([0.0, 500.0]),
    some.booleans(),
)
def test_fit_and_predict_agree_with_the_rules_in_loops(
    seed: int, steps: int, share: float, gaps: float, felt_s: float, request: float, waits: bool
) -> None:
    rng, level = random.Random(seed), 1000.0
    values: list[float | None] = []
    for _ in range(steps):
        level = max(10.0, level + rng.gauss(0, 60))
        load = level * rng.uniform(0.8, 1.2) * (8 if rng.random() < 0.02 else 1)
        values.append(None if rng.random() < gaps else load)
    fitted = fit(values, STEP_S, HORIZON_S, share, felt_s, request, waits=waits)
    if fitted is None:
        assert all(value is None for value in values)
        return
    model, margin = fit_slowly(values, share, felt_s, request, waits)
    if margin is None and fitted.model != MEMORY:
        assert fitted.margin is None  # Too early for errors, and a rise that is more than chance.
        return
    assert fitted.model == model
    assert fitted.margin == (None if margin is None else pytest.approx(margin, rel=1e-6, abs=1e-3))
    found = predict(values, STEP_S, HORIZON_S, fitted, SILENCE_S)
    assert found is not None
    if margin is not None and None not in values[-fitted.window :]:
        known = [value for value in values[-fitted.window :] if value is not None]
        assert found.expected == pytest.approx(told_slowly(known, model, fitted.window))
        assert found.covering == pytest.approx((found.expected + margin) * ignorance(fitted), rel=1e-5)


@given(values_of, shares, some.floats(1, 4000), some.floats(1, 600), some.floats(0, 1e6))
def test_any_course_gives_numbers_and_equal_ones_give_equal_ones(
    values: list[float | None], share: float, horizon_s: float, felt_s: float, request: float
) -> None:
    fitted = fit(values, STEP_S, horizon_s, share, felt_s, request)
    assert (fitted is None) is all(value is None for value in values)
    if fitted is None:
        return
    assert fitted == fit(tuple(values), STEP_S, horizon_s, share, felt_s, request)
    found = predict(values, STEP_S, horizon_s, fitted, SILENCE_S)
    assert found is not None
    assert found == predict(tuple(values), STEP_S, horizon_s, fitted, SILENCE_S)
    assert 0 <= found.expected <= found.covering < math.inf
    top = max(value for value in values if value is not None)
    assert found.covering <= (RISE_CAP + 1) * top * ignorance(fitted) * (1 + 1e-9) + 1e-6
