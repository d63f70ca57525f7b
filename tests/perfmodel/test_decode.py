"""Decode: the largest batch and what limits it, and the share within the ITL against groups simulated step by step."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.decode import (
    DecodeWork,
    alone_itl_ms,
    contexts,
    decode_work,
    fewest_groups,
    mean_batch,
    most_requests_per_s,
    within_share,
)
from perfmodel.lengths import lognormal
from perfmodel.profile import Profile, ProfileError, load_profile, parse_profile
from tests.perfmodel.simulated import Demand, decode_within
from tests.perfmodel.test_profile import SMALL

# Slow steps and short answers: many sequences in few events.
SLOW: dict[str, Any] = SMALL | {
    "kv_capacity_tokens": 40_000,
    "max_model_len": 3000,
    "max_num_seqs": 64,
    "prefill_ms": {"new_tokens": [10, 3000], "cached_tokens": [0, 100], "ms": [[10, 20], [100, 200]]},
    "decode_ms": {
        "batch": [1, 16, 32, 64],
        "context_tokens": [0, 500, 3000],
        "ms": [[100, 104, 120], [110, 160, 200], [150, 220, 400], [300, 500, 1000]],
    },
}
SHARE = 0.95
# What the model may be off by in the share within the ITL; one group close to saturation is off by more.
SHARE_ERROR = 0.03


def slow(**changes: Any) -> Profile:
    return parse_profile(copy.deepcopy(SLOW) | changes, "slow")


@pytest.mark.parametrize(
    ("prompt", "prompt_cv2", "answer", "answer_cv2", "itl_ms"),
    [(300, 1.0, 50, 0.6, 190), (200, 0, 50, 0, 150), (200, 1, 60, 1.5, 170)],
)
@pytest.mark.parametrize("groups", [1, 3, 8])
def test_the_share_within_is_what_simulated_groups_show(
    prompt: float, prompt_cv2: float, answer: float, answer_cv2: float, itl_ms: float, groups: int
) -> None:
    prompts = lognormal(prompt, prompt_cv2, 2000)
    work = decode_work(slow(), contexts(prompts, answer, answer_cv2), itl_ms, SHARE)
    assert work.limit == "itl"
    for busy in (0.6, 0.75, 0.9):
        demand = Demand(busy * groups * work.requests_per_s, prompts, answer, answer_cv2)
        said = within_share(work, demand.requests_per_s, groups)
        seen, _ = decode_within(slow(), demand, groups, itl_ms, 40_000 / groups)
        assert said == pytest.approx(seen, abs=SHARE_ERROR), busy


@pytest.mark.parametrize("groups", [1, 3, 8])
def test_where_the_cache_limits_it_the_share_is_of_sequences_that_find_room(groups: int) -> None:
    profile, prompts = slow(kv_capacity_tokens=12_000), lognormal(300, 1, 2000)
    work = decode_work(profile, contexts(prompts, 50, 1), 240, SHARE)
    assert work.limit == "kv"
    for busy in (0.6, 0.75, 0.85):
        demand = Demand(busy * groups * work.requests_per_s, prompts, 50, 1)
        _, seen = decode_within(profile, demand, groups, 240, 40_000 / groups)
        assert within_share(work, demand.requests_per_s, groups) == pytest.approx(seen, abs=SHARE_ERROR), busy


@pytest.mark.parametrize("load", [0.5, 2.3, 5.5])
def test_the_fewest_groups_are_those_of_simulated_ones_or_one_off(load: float) -> None:
    prompts = lognormal(300, 1, 2000)
    work = decode_work(slow(), contexts(prompts, 50, 0.6), 190, SHARE)
    demand = Demand(load * work.requests_per_s, prompts, 50, 0.6)
    said = fewest_groups(work, demand.requests_per_s)
    assert decode_within(slow(), demand, said + 1, 190, 2000)[0] >= SHARE
    assert said < 3 or decode_within(slow(), demand, said - 2, 190, 2000)[0] < SHARE


@pytest.mark.parametrize(
    ("changes", "itl_ms", "limit"),
    [({}, 190, "itl"), ({"kv_capacity_tokens": 6_000}, 190, "kv"), ({"max_num_seqs": 8}, 190, "seqs")],
)
def test_what_limits_the_batch_is_said(changes: dict[str, Any], itl_ms: float, limit: str) -> None:
    profile = slow(**changes)
    held = contexts(lognormal(200, 0), 50, 0)
    work = decode_work(profile, held, itl_ms, SHARE)
    assert work.limit == limit
    assert profile.decode_ms(work.batch, held.mean) <= itl_ms
    assert work.batch * held.mean <= profile.kv_capacity_tokens
    assert work.tokens_per_s == pytest.approx(work.batch / profile.decode_ms(work.batch, held.mean) * 1e3)
    assert work.requests_per_s == pytest.approx(work.tokens_per_s / 50)


def test_an_engine_that_is_set_below_the_profile_has_smaller_batches() -> None:
    work = decode_work(slow(), contexts(lognormal(200, 0), 50, 0), 190, SHARE, max_num_seqs=4)
    assert (work.batch, work.limit) == (4, "seqs")


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_an_engine_of_one_sequence_at_a_time_is_sized(share: float) -> None:
    work = decode_work(slow(), contexts(lognormal(200, 0), 50, 0), 190, share, max_num_seqs=1)
    assert work.limit == "seqs"
    assert 1 <= fewest_groups(work, 0.1, most=64) <= fewest_groups(work, 0.4, most=64) < 64


def test_contexts_in_flight_are_those_of_longer_answers() -> None:
    prompts = lognormal(1000, 0)
    assert contexts(prompts, 100, 0).mean == 1050
    assert contexts(prompts, 100, 0).variance == pytest.approx(100**2 / 12)
    assert contexts(prompts, 100, 1).mean == 1100
    assert contexts(lognormal(1000, 1), 100, 0).variance > contexts(prompts, 100, 0).variance
    with pytest.raises(ProfileError, match="answers: mean 0"):
        contexts(prompts, 0, 1)


def test_contexts_that_differ_make_batches_smaller() -> None:
    even, uneven = (decode_work(slow(), contexts(lognormal(500, cv2), 50, 0), 190, SHARE) for cv2 in (0, 1.5))
    assert uneven.batch < even.batch


@given(st.floats(0, 2.0))
def test_the_mean_batch_releases_the_demand(requests_per_s: float) -> None:
    profile, held = slow(), contexts(lognormal(200, 0), 50, 0)
    work = decode_work(profile, held, 190, SHARE)
    batch = mean_batch(work, requests_per_s * 50)
    assert batch is not None
    released = batch / profile.decode_ms(max(batch, 1), held.mean) * 1e3
    assert released == pytest.approx(requests_per_s * 50, rel=1e-6, abs=1e-9)


def test_demand_beyond_any_batch_overruns() -> None:
    work = decode_work(slow(), contexts(lognormal(200, 0), 50, 0), 190, SHARE)
    assert mean_batch(work, 1e6) is None
    assert within_share(work, 1e6, 3) == 0
    assert within_share(work, 1.0, 0) == 0


WORKS = st.builds(
    lambda prompt, cv2, answer, answer_cv2, itl_ms: decode_work(
        load_profile(), contexts(lognormal(prompt, cv2, 60_000), answer, answer_cv2), itl_ms, SHARE
    ),
    st.floats(50, 8000),
    st.floats(0, 2),
    st.floats(10, 800),
    st.floats(0, 2),
    st.floats(20, 120),
)


@given(WORKS, st.floats(0.1, 500), st.floats(1.01, 3))
def test_the_fewest_groups_suffice_one_less_does_not_and_more_load_needs_no_less(
    work: DecodeWork, requests_per_s: float, more: float
) -> None:
    groups = fewest_groups(work, requests_per_s)
    assert fewest_groups(work, requests_per_s * more) >= groups
    shares = [within_share(work, requests_per_s, n) for n in range(max(1, groups - 2), groups + 8)]
    assert all(after >= before - 1e-4 for before, after in itertools.pairwise(shares))
    if work.batch and groups < 4096:
        assert within_share(work, requests_per_s, groups) >= SHARE
        assert groups == 1 or within_share(work, requests_per_s, groups - 1) < SHARE


def test_an_itl_out_of_reach_is_sized_for_throughput() -> None:
    profile, held = slow(), contexts(lognormal(200, 0), 50, 0)
    assert alone_itl_ms(profile, held, SHARE) > 90
    work, free = decode_work(profile, held, 90, SHARE), decode_work(profile, held, 10_000, SHARE)
    assert (work.batch, work.limit) == (0, "itl")
    assert work.itl_ms == profile.decode_ms(1, held.mean)
    assert {fewest_groups(work, 10), fewest_groups(free, 10)} == {fewest_groups(free, 10)}


def test_no_arrivals_need_no_group() -> None:
    work = decode_work(slow(), contexts(lognormal(200, 0), 50, 0), 190, SHARE)
    assert fewest_groups(work, 0) == 0
    assert within_share(work, 0, 1) == 1


@given(st.floats(50, 2000), st.floats(10, 500), st.floats(90, 400), st.integers(1, 12))
def test_what_is_remembered_is_what_is_computed(prompt: float, answer: float, itl_ms: float, groups: int) -> None:
    work, again = (
        decode_work(slow(), contexts(lognormal(prompt, 1, 2000), answer, 0.5), itl_ms, SHARE) for _ in range(2)
    )
    first = most_requests_per_s(work, groups)
    assert first == most_requests_per_s(again, groups) == most_requests_per_s.__wrapped__(again, groups)
    assert fewest_groups(work, first) <= groups
