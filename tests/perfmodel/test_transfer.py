"""Transfer: what a loaded link takes, its part of the TTFT, and when it is the narrowest stage."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace

import pytest

from perfmodel.decode import contexts, decode_work
from perfmodel.lengths import lognormal
from perfmodel.prefill import prefill_work
from perfmodel.profile import load_profile
from perfmodel.transfer import StageLoads, stage_loads, transfer_load, ttft_part

PROFILE = load_profile("qwen3-32b-h200-tp2")
SLOW_LINK = replace(PROFILE, transfer_gb_per_s=1.5)
PROMPTS = lognormal(2000, 1)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.85])
def test_a_transfer_under_load_takes_what_a_simulated_link_shows(busy: float) -> None:
    links = 3
    rate = busy * links / (transfer_load(SLOW_LINK, PROMPTS, 0, links).idle_ms / 1e3)
    rng, free_s, now_s, total_ms, jobs = random.Random(2), [0.0] * links, 0.0, 0.0, 100_000
    for tokens in rng.choices(PROMPTS.tokens, PROMPTS.shares, k=jobs):
        now_s += rng.expovariate(rate)
        link = rng.randrange(links)
        free_s[link] = max(now_s, free_s[link]) + SLOW_LINK.transfer_ms(tokens) / 1e3
        total_ms += (free_s[link] - now_s) * 1e3
    said = transfer_load(SLOW_LINK, PROMPTS, rate, links)
    assert said.load == pytest.approx(busy)
    assert said.loaded_ms == pytest.approx(total_ms / jobs, rel=0.1)


def test_a_link_that_gets_more_than_it_carries_never_ends() -> None:
    said = transfer_load(SLOW_LINK, PROMPTS, 1000, 2)
    assert said.load > 1
    assert said.wait_ms == float("inf")
    work = prefill_work(SLOW_LINK, PROMPTS)
    assert ttft_part(said, work, 5, 2) == 1.0


def test_its_part_of_the_ttft_is_what_a_simulated_pair_of_stages_shows() -> None:
    work, rate, groups = prefill_work(SLOW_LINK, PROMPTS), 3.0, 2
    rng, free_s, links_s, now_s = random.Random(4), [0.0] * groups, [0.0] * groups, 0.0
    transfer_s = ttft_s = 0.0
    ready: list[tuple[float, int, float, float]] = []
    for kind in rng.choices(range(len(work.shares)), work.shares, k=60_000):
        now_s += rng.expovariate(rate)
        group = min(range(groups), key=lambda i: free_s[i])
        free_s[group] = max(now_s, free_s[group]) + work.service_s[kind]
        heapq.heappush(ready, (free_s[group], group, now_s, PROMPTS.tokens[kind]))
    while ready:
        end_s, group, arrived_s, tokens = heapq.heappop(ready)
        links_s[group] = max(links_s[group], end_s) + SLOW_LINK.transfer_ms(tokens) / 1e3
        transfer_s += links_s[group] - end_s
        ttft_s += links_s[group] - arrived_s + SLOW_LINK.decode_ms(1, tokens) / 1e3
    said = ttft_part(transfer_load(SLOW_LINK, PROMPTS, rate, groups), work, rate, groups)
    seen = transfer_s / ttft_s
    # Prefill spaces what it sends, so that links wait less than for Poisson arrivals: to the safe side.
    assert seen - 0.02 <= said <= seen + 0.15


def test_the_narrowest_stage_is_named() -> None:
    decode = decode_work(PROFILE, contexts(PROMPTS, 200, 0.5), 40, 0.95)
    for profile, rate, groups, narrowest in (
        (PROFILE, 10, (4, 8), "prefill"),
        (SLOW_LINK, 10, (4, 8), "transfer"),
        (PROFILE, 10, (40, 1), "decode"),
    ):
        transfer = transfer_load(profile, PROMPTS, rate, groups[0]).load
        loads = stage_loads(prefill_work(profile, PROMPTS), transfer, decode, rate, groups)
        assert loads.narrowest == narrowest, loads


def test_a_role_without_groups_is_the_narrowest() -> None:
    decode = decode_work(PROFILE, contexts(PROMPTS, 200, 0.5), 40, 0.95)
    loads = stage_loads(prefill_work(PROFILE, PROMPTS), 0.9, decode, 1, (1, 0))
    assert (loads.decode, loads.narrowest) == (float("inf"), "decode")
    assert StageLoads(0.5, 0.5, 0.5).narrowest == "prefill"
