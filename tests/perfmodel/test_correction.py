"""Online correction: it finds what is off, within bounds, through noise, and not from groups that start."""

from __future__ import annotations

import random

import pytest

from perfmodel.correction import (
    FACTORS,
    WINDOW,
    Correction,
    Sample,
    corrected,
    decode_sample,
    prefill_sample,
    update,
)
from perfmodel.profile import load_profile

PROFILE = load_profile()


def learned(true_factor: float, samples: int, seed: int = 1, outliers: float = 0.0) -> Correction:
    """What is learned of decode steps that take `true_factor` of the profile, with 5 % noise and some far off."""
    rng, state = random.Random(seed), Correction()
    for _ in range(samples):
        batch, context = rng.randint(1, 100), rng.uniform(100, 5000)
        observed = PROFILE.decode_ms(batch, context) * true_factor * rng.gauss(1, 0.05)
        observed *= 20 if rng.random() < outliers else 1
        state = update(state, decode_sample(PROFILE, batch, context, observed))
    return state


@pytest.mark.parametrize("true_factor", [0.6, 0.9, 1.0, 1.3, 1.9])
def test_it_finds_the_factor_through_noise_and_outliers(true_factor: float) -> None:
    state = learned(true_factor, 40 * WINDOW, outliers=0.1)
    assert state.decode.factor == pytest.approx(true_factor, rel=0.03)
    assert state.prefill == Correction().prefill
    profile = corrected(PROFILE, state)
    assert profile.decode_ms(10, 1000) == pytest.approx(PROFILE.decode_ms(10, 1000) * state.decode.factor)
    assert profile.prefill_ms(1000) == PROFILE.prefill_ms(1000)


@pytest.mark.parametrize(("true_factor", "bound"), [(0.1, FACTORS[0]), (9.0, FACTORS[1])])
def test_it_never_leaves_its_bounds(true_factor: float, bound: float) -> None:
    state = learned(true_factor, 20 * WINDOW)
    assert state.decode.factor == bound


def test_its_error_before_and_after_is_told() -> None:
    role = learned(1.5, 40 * WINDOW).decode
    assert role.mape_before is not None
    assert role.mape_after is not None
    assert role.mape_before == pytest.approx(1 / 3, abs=0.03)
    assert role.mape_after < 0.06
    assert role.samples == 40 * WINDOW


def test_nothing_is_learned_before_a_window_is_full_nor_from_groups_that_start() -> None:
    state = learned(1.5, WINDOW - 1)
    assert (state.decode.factor, state.decode.mape_before) == (1.0, None)
    for _ in range(10 * WINDOW):
        state = update(state, prefill_sample(PROFILE, 500, 0, 5000, starting=True))
    assert (state.prefill.factor, state.prefill.samples, state.prefill.excluded) == (1.0, 0, 10 * WINDOW)


@pytest.mark.parametrize("observed", [0, -1, float("nan"), float("inf")])
def test_what_is_no_time_is_excluded(observed: float) -> None:
    state = update(Correction(), Sample("prefill", observed, 10))
    assert (state.prefill.samples, state.prefill.excluded) == (0, 1)


def test_samples_are_held_against_the_profile_without_its_correction() -> None:
    state = learned(1.5, 20 * WINDOW)
    profile = corrected(PROFILE, state)
    assert decode_sample(profile, 4, 1000, 30) == decode_sample(PROFILE, 4, 1000, 30)
    assert prefill_sample(profile, 400, 0, 30) == prefill_sample(PROFILE, 400, 0, 30)
