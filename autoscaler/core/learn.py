"""Learn: by how much the profile is off, from times that workers show and that can be attributed.

Rules:
1. Wrong learning is worse than none: a time whose cause is not certain gives no sample.
2. Decode: the mean ITL between two looks, at the batch that Little's law gives (token times over time passed), where
   the gauge of the batch agrees with it and has not moved much.
3. Prefill: TTFT less queue time of a few prompts that had the group to themselves. A prompt found in a prefix cache
   looks like a fast group, and the next one may not be found: of prefill only slowness is believed.
4. Groups that became ready less than one cold start ago teach nothing, nor do those that stand still.
5. At most SAMPLES_MAX of a role in a tick, by turns.
6. What a sequence holds in decode's KV cache is seen there. Mean lengths of requests do not say it: long prompts with
   long answers stay longest, and shared prefixes are held once.
7. Of what a prefix cache has, as much is believed as it keeps having: less at once, more slowly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from autoscaler.core.groups import engines
from autoscaler.model import Learned, Number, Observation, Signals, State, Watched, WorkerSample
from perfmodel.correction import Correction, RoleCorrection, Sample, corrected, decode_sample, prefill_sample, update
from perfmodel.profile import Profile
from policies.model import ROLES, Missing, Role

SAMPLES_MAX = 4
TOKENS_MIN = 30
"""Of an ITL that is a mean."""
STEADY = 0.2
"""By which share a batch may have moved between two looks, or differ from what its tokens say."""
PROMPTS_MAX = 4
"""A mean over more lengths says little of the time of one."""
BUSY_MAX = 0.5
"""Of prefill: above it prompts share their steps."""
HELD_S = 120.0
"""Over how long the mean of what sequences hold is taken: several times as long as most of them stay."""
HELD_MIN = 4.0
"""Sequences in flight that say something about the mean."""
CONTEXT_FACTORS = (0.5, 6.0)
CACHED_S = 120.0
"""Over how long a prefix cache has to have more for most of it to be believed."""


def believed(profile: Profile, state: State) -> Profile:
    """The profile with what was learned of it, in so many digits as make a difference."""
    if state.learned.profile != profile.name:
        return profile
    learned = state.learned.correction
    prefill, decode = round(max(1.0, learned.prefill.factor), 2), round(learned.decode.factor, 2)
    if prefill == decode == 1:
        return profile
    return corrected(profile, Correction(RoleCorrection(prefill), RoleCorrection(decode)))


def learn(before: State, state: State, seen: Observation, signals: Signals, profile: Profile) -> State:
    """The state after what was seen since `before`; `profile` as its file says. Linear in the samples."""
    learned = state.learned if state.learned.profile == profile.name else Learned(profile.name)
    correction = learned.correction
    then = {one.uid: one for one in before.watched}
    now = {one.uid: one for one in state.watched}
    for role in ROLES:
        workers = [
            worker
            for worker in engines(worker for worker in seen.samples.workers if worker.role is role)
            if worker.uid in then and worker.uid in now and then[worker.uid].at_s < worker.at_s == now[worker.uid].at_s
        ]
        for worker in _in_turn(workers, int(seen.now_s)):
            starting = seen.now_s - worker.ready_s < signals[role].cold_start_s
            take = _prefill if role is Role.PREFILL else _decode
            sample = take(worker, then[worker.uid], now[worker.uid], profile)
            if sample is not None:
                correction = update(correction, replace(sample, starting=starting))
    passed_s = seen.now_s - before.totals[-1].at_s if before.totals else 0.0
    context = _context(learned.context, passed_s, seen, signals, profile)
    cached = _cached(learned.cached_share, passed_s, signals.demand.cached_share)
    return replace(state, learned=Learned(profile.name, correction, context, cached))


def _cached(believed: float, passed_s: float, seen: Number) -> float:
    """The share of prompt tokens to count on; what nobody shows any more is forgotten as slowly as it is learned."""
    shown, least = (0.0, believed) if isinstance(seen, Missing) else (seen, seen)
    return min(least, believed + _weight(passed_s, CACHED_S) * (shown - believed))


def _weight(passed_s: float, over_s: float) -> float:
    return 1 - math.exp(-max(0.0, passed_s) / over_s)


def _context(factor: float, passed_s: float, seen: Observation, signals: Signals, profile: Profile) -> float:
    """The smoothed factor after this look, within CONTEXT_FACTORS."""
    prompt, answer = signals.demand.prompt_tokens_mean, signals.demand.output_tokens_mean
    if isinstance(prompt, Missing) or isinstance(answer, Missing) or not prompt + answer > 0:
        return factor
    held = sequences = 0.0
    for worker in engines(worker for worker in seen.samples.workers if worker.role is Role.DECODE):
        if isinstance(worker.kv_usage, Missing) or isinstance(worker.running, Missing):
            continue
        held += _tokens_held(worker, worker.kv_usage, profile)
        sequences += worker.running + _deferred(worker)
    if sequences < HELD_MIN or held <= 0:
        return factor
    weight = _weight(passed_s, HELD_S)
    # A context in flight is the prompt and, with answers that vary like an exponential, as much as their mean.
    ratio = min(max(held / sequences / (prompt + answer), CONTEXT_FACTORS[0]), CONTEXT_FACTORS[1])
    return math.exp((1 - weight) * math.log(factor) + weight * math.log(ratio))


def _tokens_held(worker: WorkerSample, usage: float, profile: Profile) -> float:
    capacity = worker.kv_capacity_tokens
    return usage * (profile.kv_capacity_tokens * worker.engines if isinstance(capacity, Missing) else capacity)


def _deferred(worker: WorkerSample) -> float:
    split = worker.waiting_by_reason
    return 0.0 if isinstance(split, Missing) else split.get("deferred", 0.0)


def _in_turn(workers: Sequence[WorkerSample], turn: int) -> Sequence[WorkerSample]:
    first = turn % len(workers) if workers else 0
    return (*workers[first:], *workers[:first])[:SAMPLES_MAX]


def _decode(worker: WorkerSample, then: Watched, now: Watched, profile: Profile) -> Sample | None:
    tokens, itl_s = _grown(then.itl, now.itl)
    if tokens < TOKENS_MIN or itl_s <= 0 or isinstance(worker.kv_usage, Missing):
        return None
    batch = itl_s / (now.at_s - then.at_s) / worker.engines
    shown = (then.running + now.running) / 2 / worker.engines
    moved = abs(now.running - then.running) / worker.engines
    if max(moved, abs(shown - batch)) > max(1.0, STEADY * shown) or not 0 < batch <= profile.decode.xs[-1]:
        return None
    context = _tokens_held(worker, worker.kv_usage, profile) / max(1.0, now.running + _deferred(worker))
    if context > profile.decode.ys[-1]:
        return None
    return decode_sample(profile, max(1.0, batch), context, itl_s / tokens * 1e3)


def _prefill(worker: WorkerSample, then: Watched, now: Watched, profile: Profile) -> Sample | None:
    prompts, first_s = _grown(then.first, now.first)
    queued, queued_s = _grown(then.queued, now.queued)
    own_s = first_s - queued_s
    if not 0 < prompts <= PROMPTS_MAX or queued != prompts or own_s <= 0:
        return None
    alone = max(then.running, now.running) <= worker.engines and not then.waiting and not now.waiting
    if not alone or own_s / (now.at_s - then.at_s) / worker.engines > BUSY_MAX:
        return None
    if then.prompt_tokens is None or now.prompt_tokens is None:
        return None
    tokens = (now.prompt_tokens - then.prompt_tokens) / prompts
    if not 0 < tokens <= profile.max_model_len:
        return None
    return prefill_sample(profile, tokens, 0.0, own_s / prompts * 1e3)


def _grown(then: tuple[float, float] | None, now: tuple[float, float] | None) -> tuple[float, float]:
    """By how much count and sum have grown; 0 where that is not known, or they were reset."""
    if then is None or now is None or now[0] < then[0]:
        return 0.0, 0.0
    return now[0] - then[0], now[1] - then[1]
