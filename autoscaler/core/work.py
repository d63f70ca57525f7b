"""Work: what the traffic asks of one engine of each role, from its mean lengths and from how much it varies.

Rules:
1. How much prompts vary is learned from what arrives: of n prompts of an interval, the tokens differ from n mean
   prompts by n x the variance of one. Bursts are no part of it, the forecast's steps have them. Of answers nothing of
   the kind is seen; they are taken to vary like an exponential.
2. No single interval counts for more than a few. What a sequence holds in decode is what was seen there (`core.learn`).
3. Where little has been seen, what is usual counts: a cv2 of 1.
4. Numbers are rounded, so that a slow drift finds what was computed for the last tick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from autoscaler.model import COLUMNS, Count, Totals
from perfmodel.decode import Contexts, DecodeWork, contexts, decode_work
from perfmodel.lengths import Lengths, lognormal
from perfmodel.prefill import PrefillWork, prefill_work
from perfmodel.profile import Profile

USUAL_CV2 = 1.0
CV2_MAX = 8.0
# Intervals that what is usual counts for.
PRIOR = 20.0
# Of CV2_MAX, how many times it a single interval may count for.
STEP_MAX = 4.0
# Of the SLO's bounds, finer ones make no different size.
CV2_STEP = 0.1
CONTEXT_STEP = 0.1
CACHED_STEP = 0.02
# What no cache has: the end of a prompt is always computed.
CACHED_MAX = 0.95


@dataclass(frozen=True, slots=True)
class Work:
    """One engine's work. `decode` and `held` are None where the answers' length is not known."""

    prompts: Lengths
    prefill: PrefillWork
    held: Contexts | None
    decode: DecodeWork | None


@dataclass(frozen=True, slots=True)
class Ask:
    """What work is made for: mean lengths in tokens (answers: None if unknown), and the ITL for a share of tokens.

    `cached_share`: of prompt tokens, what a prefix cache has.
    """

    prompt_tokens: float
    prompt_cv2: float
    answer_tokens: float | None
    itl_ms: float
    itl_share: float
    max_num_seqs: int | None
    context: float = 1.0
    cached_share: float = 0.0

    def rounded(self) -> Ask:
        """The same, in so many digits as make a difference."""
        answer = None if self.answer_tokens is None else _rounded(max(1.0, self.answer_tokens))
        cv2 = round(self.prompt_cv2 / CV2_STEP) * CV2_STEP
        context = round(self.context / CONTEXT_STEP) * CONTEXT_STEP
        prompt = _rounded(self.prompt_tokens)
        cached = math.floor(self.cached_share / CACHED_STEP) * CACHED_STEP
        return Ask(
            prompt, cv2, answer, self.itl_ms, self.itl_share, self.max_num_seqs, context, min(cached, CACHED_MAX)
        )


def work_of(profile: Profile, ask: Ask) -> Work:
    """The work of such traffic; lengths beyond the profile count as its longest."""
    return _work(profile, ask.rounded())


@lru_cache(maxsize=4096)
def _work(profile: Profile, ask: Ask) -> Work:
    longest = float(profile.max_model_len)
    mean = min(max(1.0, ask.prompt_tokens), longest)
    prompts = lognormal(mean, ask.prompt_cv2, longest)
    if ask.answer_tokens is None:
        return Work(prompts, prefill_work(profile, prompts, ask.cached_share), None, None)
    # Arrivals in bunches make no context longer: of lengths alone, what is usual is all that is known.
    held = contexts(lognormal(mean, USUAL_CV2, longest), ask.answer_tokens, USUAL_CV2)
    mean_held = min(held.mean * ask.context, profile.decode.ys[-1], profile.kv_capacity_tokens / 2)
    held = replace(held, mean=mean_held, variance=held.variance * (mean_held / held.mean) ** 2)
    decode = decode_work(profile, held, ask.itl_ms, ask.itl_share, ask.max_num_seqs)
    prefill = prefill_work(profile, prompts, ask.cached_share, first_step_ms=decode.itl_ms)
    return Work(prompts, prefill, held, decode)


def prompt_cv2(totals: Sequence[Totals]) -> float:
    """The squared coefficient of variation of prompts. Linear in the history."""
    steps = _steps(totals, "offered_tokens", "arrivals") or _steps(totals, "prompt_tokens", "prompts")
    tokens, requests = sum([step for step, _ in steps]), sum([count for _, count in steps])
    if len(steps) < 2 or tokens < 1:
        return USUAL_CV2
    length, most = tokens / requests, STEP_MAX * CV2_MAX * (tokens / requests) ** 2
    squares = [(step - length * count) ** 2 / count for step, count in steps]
    capped = sum([square if square < most else most for square in squares]) / length**2
    weight = min(float(len(steps)), requests)
    learned = (PRIOR * USUAL_CV2 + weight * capped / len(steps)) / (PRIOR + weight)
    return min(learned, CV2_MAX)


def _steps(totals: Sequence[Totals], tokens: Count, requests: Count) -> list[tuple[float, float]]:
    """Tokens and requests that a router has counted from one look to the next, where any came."""
    columns = COLUMNS["router"]
    first, second = columns[tokens], columns[requests]
    seen = [
        (came, count)
        for entry in totals
        if (came := entry.row[first]) is not None and (count := entry.row[second]) is not None
    ]
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(seen) if b[1] > a[1]]


def _rounded(value: float) -> float:
    """To a hundredth of itself or finer."""
    return float(f"{value:.3g}") if 0 < value < math.inf else value
