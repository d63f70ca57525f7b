"""Sums of steps in closed form are those of step after step; a profile's surfaces serve as step costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.profile import ProfileError, load_profile
from perfmodel.steps import DecodeLine, ProfileSteps

LINE = DecodeLine((0.0, 16.0, 40.5, 300.0, 5000.0), (0.010, 0.010, 0.013, 0.031, 0.5))
contexts = st.floats(0.0, 3000.0)


@given(contexts, st.integers(1, 2000))
def test_a_sum_is_that_of_single_steps(context: float, steps: int) -> None:
    one_by_one = sum(LINE.at(context + i) for i in range(steps))
    assert LINE.sum_s(context, steps) == pytest.approx(one_by_one, rel=1e-12)


@given(contexts, st.floats(0.0, 200.0), st.integers(1, 2000))
def test_the_fewest_steps_that_last(context: float, seconds: float, most: int) -> None:
    steps = LINE.steps_until(context, seconds, most)
    assert 1 <= steps <= most
    assert steps == most or LINE.sum_s(context, steps) >= seconds
    assert steps == 1 or LINE.sum_s(context, steps - 1) < seconds


@given(contexts, st.integers(1, 2000))
def test_the_end_of_a_step_belongs_to_it(context: float, steps: int) -> None:
    assert LINE.steps_until(context, LINE.sum_s(context, steps), 2000) == steps


def test_a_context_beyond_the_line_is_an_error() -> None:
    assert LINE.at(5000.0) == 0.5
    with pytest.raises(ProfileError, match="mean context = 5001: outside of the profile, which covers 0 to 5000"):
        LINE.sum_s(4999.0, 3)


def test_a_profile_serves_as_step_costs() -> None:
    profile = load_profile()
    steps = ProfileSteps(profile)
    assert steps.mixed_s([(512, 1024)], 0, 0) == pytest.approx(profile.prefill_ms(512, 1024) / 1e3)
    assert steps.decode_line(7).at(900) == pytest.approx(profile.decode_ms(7, 900) / 1e3)
    assert (steps.max_seqs, steps.max_context) == (profile.max_num_seqs, profile.max_model_len)
    alone_s, beside_s = steps.mixed_s([(512, 0)], 0, 0), steps.mixed_s([(512, 0)], 16, 900)
    assert alone_s < beside_s < alone_s + steps.decode_line(16).at(900)
    assert beside_s < steps.mixed_s([(512, 0)], 16, 4000)
    with pytest.raises(ProfileError, match="outside of the profile"):
        steps.decode_line(10_000)
