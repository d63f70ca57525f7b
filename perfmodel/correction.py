"""Learns from what is observed by how much a profile is off, role by role; pure.

Rules:
1. A factor per role multiplies the profile's times. It is the smoothed median of observed over predicted: medians of
   windows of WINDOW samples, averaged with WEIGHT for the newest, in logarithms. It stays within FACTORS.
2. Samples of groups that have just started do not count: caches are cold, graphs are compiled, clocks rise.
3. The error is told as it would have been: before = of the profile, after = with the factor that stood before the
   sample was seen. Both are mean absolute percentage errors, smoothed over windows as the factor is.
4. The state is small and frozen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean, median
from typing import Literal

from perfmodel.prefill import prompt_ms
from perfmodel.profile import Profile

WINDOW = 15
WEIGHT = 0.3
FACTORS = (0.5, 2.0)

RoleName = Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One observed time of a decode step or a whole prompt, beside what the profile (without correction) says of it."""

    role: RoleName
    observed_ms: float
    predicted_ms: float
    starting: bool = False
    """Of a group that has just started."""

    @property
    def usable(self) -> bool:
        """Whether it may teach anything."""
        return not self.starting and all(0 < ms < math.inf for ms in (self.observed_ms, self.predicted_ms))


@dataclass(frozen=True, slots=True)
class RoleCorrection:
    """What was learned of one role. `window` are the ratios seen since the last change of the factor."""

    factor: float = 1.0
    window: tuple[float, ...] = ()
    samples: int = 0
    excluded: int = 0
    mape_before: float | None = None
    """Of the profile; None before the first full window."""
    mape_after: float | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """What was learned of a profile."""

    prefill: RoleCorrection = RoleCorrection()
    decode: RoleCorrection = RoleCorrection()


def prefill_sample(
    profile: Profile, prompt_tokens: float, cached_tokens: float, observed_ms: float, *, starting: bool = False
) -> Sample:
    """An observed time of all steps of one prompt, of whose tokens the first `cached_tokens` were in the cache.

    Raises ProfileError outside the support.
    """
    plain = replace(profile, prefill=replace(profile.prefill, factor=1.0))
    return Sample("prefill", observed_ms, prompt_ms(plain, prompt_tokens, cached_tokens), starting)


def decode_sample(
    profile: Profile, batch: float, context_tokens: float, observed_ms: float, *, starting: bool = False
) -> Sample:
    """An observed ITL at a batch and mean context. Raises ProfileError outside the support."""
    plain = replace(profile.decode, factor=1.0)
    return Sample("decode", observed_ms, plain.at(batch, context_tokens), starting)


def update(state: Correction, sample: Sample) -> Correction:
    """The state after one more sample."""
    learned = _learn(state.prefill if sample.role == "prefill" else state.decode, sample)
    return replace(state, prefill=learned) if sample.role == "prefill" else replace(state, decode=learned)


def corrected(profile: Profile, state: Correction) -> Profile:
    """The profile with its times multiplied by what was learned."""
    return _times(profile, state.prefill.factor, state.decode.factor)


@lru_cache(maxsize=4096)
def _times(profile: Profile, prefill: float, decode: float) -> Profile:
    return replace(
        profile, prefill=replace(profile.prefill, factor=prefill), decode=replace(profile.decode, factor=decode)
    )


def _learn(role: RoleCorrection, sample: Sample) -> RoleCorrection:
    if not sample.usable:
        return replace(role, excluded=role.excluded + 1)
    window = (*role.window, sample.observed_ms / sample.predicted_ms)
    if len(window) < WINDOW:
        return replace(role, window=window, samples=role.samples + 1)
    first = role.mape_before is None
    moved = _smoothed(math.log(role.factor), math.log(median(window)), first)
    return RoleCorrection(
        factor=min(max(math.exp(moved), FACTORS[0]), FACTORS[1]),
        samples=role.samples + 1,
        excluded=role.excluded,
        mape_before=_smoothed(role.mape_before or 0.0, _mape(window, 1.0), first),
        mape_after=_smoothed(role.mape_after or 0.0, _mape(window, role.factor), first),
    )


def _smoothed(old: float, new: float, first: bool) -> float:
    return new if first else old + WEIGHT * (new - old)


def _mape(ratios: tuple[float, ...], factor: float) -> float:
    """Of predictions times a factor, by what was observed over what was predicted."""
    return fmean(abs(ratio - factor) / ratio for ratio in ratios)
