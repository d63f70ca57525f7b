"""Targets that no size can keep: both numbers, and no growth from them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perfmodel.decode import contexts, decode_work
from perfmodel.lengths import histogram, lognormal
from perfmodel.prefill import fewest_groups, prefill_work
from perfmodel.profile import load_profile
from perfmodel.slo import itl_reach, ttft_reach

PROFILE = load_profile("qwen3-32b-h200-tp2")


def test_one_long_prompt_beyond_the_target_needs_one_group_for_ever() -> None:
    """0.2 prompts/s whose prefill alone is longer than the target: nothing but their throughput is sized."""
    work = prefill_work(PROFILE, histogram([(32_000, 1)]))
    target_s = work.service_s[0] * 0.8
    reach = ttft_reach(work, target_s * 1e3, 0.95)
    assert not reach.reachable
    assert (reach.target_ms, reach.closest_ms) == (target_s * 1e3, work.alone_s[0] * 1e3)
    assert reach.never_share == 1
    requests_per_s = 0.124 / work.mean_s
    assert {fewest_groups(work, requests_per_s, target_s, 0.95) for _ in range(100)} == {1}
    assert fewest_groups(work, 0, target_s, 0.95) == 0


def test_the_share_that_could_never_meet_it_is_said() -> None:
    work = prefill_work(PROFILE, histogram([(1000, 0.9), (30_000, 0.1)]))
    reach = ttft_reach(work, 500, 0.95)
    assert reach.never_share == pytest.approx(0.1)
    assert not reach.reachable
    assert reach.closest_ms == pytest.approx(work.alone_s[-1] * 1e3)
    assert ttft_reach(work, 500, 0.85).reachable


@given(st.floats(100, 20_000), st.floats(0, 3), st.floats(0.5, 0.999))
def test_the_closest_target_is_reached_by_some_size_and_no_closer_one_is(mean: float, cv2: float, share: float) -> None:
    work = prefill_work(PROFILE, lognormal(mean, cv2, 100_000))
    closest_s = ttft_reach(work, 1, share).closest_ms / 1e3
    assert work.reachable(closest_s * (1 + 1e-9), share)
    assert not work.reachable(closest_s * (1 - 1e-9), share)


@example(prompt=6560.0, cv2=3.0, answer=10.0, answer_cv2=0.0, share=0.984375)
@given(st.floats(100, 20_000), st.floats(0, 3), st.floats(10, 600), st.floats(0, 2), st.floats(0.6, 0.99))
def test_an_itl_within_reach_has_a_batch_and_one_beyond_has_none(
    prompt: float, cv2: float, answer: float, answer_cv2: float, share: float
) -> None:
    held = contexts(lognormal(prompt, cv2, 60_000), answer, answer_cv2)
    closest_ms = itl_reach(PROFILE, held, 1, share).closest_ms
    for target_ms, batches in ((closest_ms * 1.001, True), (closest_ms * 0.999, False)):
        reach = itl_reach(PROFILE, held, target_ms, share)
        assert reach.reachable == batches
        assert reach.never_share is None
        assert (decode_work(PROFILE, held, target_ms, share).batch >= 1) == batches
