"""Sizing both roles of one service: the fewest TP groups for the TTFT and ITL percentiles, from its mean lengths on.

How: services of all sizes, one after the other, from under one group to some sixty per role; each is sized from scratch
for two quantiles of its demand, as a tick does: prompt classes, their work, contexts, the largest batch, reach of both
SLOs, and the groups. The claim is what lets one tick of 1,000 services end within a second with the rest of its work.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.figure import Figure, figure
from benchmarks.stopwatch import timed
from perfmodel import decode, prefill
from perfmodel.lengths import lognormal
from perfmodel.profile import Profile, load_profile
from perfmodel.slo import itl_reach, ttft_reach

LIMIT_MS = 0.3
TTFT_S, ITL_MS, SHARE = 1.0, 40.0, 0.95


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many services."""

    services: int = 1000


DEFAULT = Sizes()


@dataclass(frozen=True, slots=True)
class Service:
    """Its lengths, and its demand at two quantiles."""

    prompt_tokens: float
    prompt_cv2: float
    answer_tokens: float
    requests_per_s: tuple[float, float]


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of sizing."""
    profile, rng = load_profile("qwen3-32b-h200-tp2"), random.Random(1)
    services = [_service(rng) for _ in range(sizes.services)]
    spent_ms: list[float] = []
    for service in services:
        with timed(spent_ms):
            size(profile, service)
    return [
        figure("both roles of one service, two quantiles", "ms", spent_ms, median=LIMIT_MS),
        figure("all services, one after the other", "ms", [sum(spent_ms)]),
    ]


def size(profile: Profile, service: Service) -> list[int]:
    """Prefill and decode groups for each quantile."""
    prompts = lognormal(service.prompt_tokens, service.prompt_cv2, profile.max_model_len)
    held = decode.contexts(prompts, service.answer_tokens, 0.5)
    batch = decode.decode_work(profile, held, ITL_MS, SHARE)
    work = prefill.prefill_work(profile, prompts, first_step_ms=batch.itl_ms)
    ttft_reach(work, TTFT_S * 1e3, SHARE)
    itl_reach(profile, held, ITL_MS, SHARE)
    groups = []
    for requests_per_s in service.requests_per_s:
        groups.append(prefill.fewest_groups(work, requests_per_s, TTFT_S, SHARE))
        groups.append(decode.fewest_groups(batch, requests_per_s))
    return groups


def _service(rng: random.Random) -> Service:
    median_rps = 10 ** rng.uniform(-1, 2.5)
    return Service(
        rng.uniform(200, 3000), rng.uniform(0.2, 2), rng.uniform(50, 400), (median_rps, median_rps * rng.uniform(1, 2))
    )
