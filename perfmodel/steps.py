"""How long the steps of one engine take: what a simulated engine asks of a performance model.

Rules:
1. A decode batch whose membership stays gets one token longer per sequence and step. Its step time is piecewise linear
   in the mean context, so that any number of steps is summed in closed form, exactly up to rounding.
2. All times are seconds here; tokens of a chunk are (new, cached), where cached tokens have their KV already.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import Protocol

from perfmodel.profile import Profile, ProfileError

Chunk = tuple[int, int]
"""New tokens of one prompt in a step, and the tokens before them."""


@dataclass(frozen=True, slots=True)
class DecodeLine:
    """Seconds of one decode step over the mean context, for one batch size; linear between the knots.

    `contexts` begins at 0 and rises, `seconds` never falls. Beyond the last knot is an error.
    """

    contexts: tuple[float, ...]
    seconds: tuple[float, ...]
    slopes: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        knots = pairwise(zip(self.contexts, self.seconds, strict=True))
        object.__setattr__(self, "slopes", tuple((t1 - t0) / (x1 - x0) for (x0, t0), (x1, t1) in knots))

    def at(self, context: float) -> float:
        """One step. Raises ProfileError outside of the support."""
        return self.sum_s(context, 1)

    def sum_s(self, context: float, steps: int) -> float:
        """So many steps, the first at `context`, each one token further. Linear in the knots that are passed."""
        total = 0.0
        while steps > 0:
            i = bisect_right(self.contexts, context) - 1
            if i >= len(self.slopes):
                if context > self.contexts[-1]:
                    raise outside("mean context", context, self.contexts[-1])
                i -= 1
            slope = self.slopes[i]
            here = min(steps, int(self.contexts[i + 1] - context) + 1)
            total += here * (self.seconds[i] + slope * (context - self.contexts[i] + (here - 1) / 2))
            steps -= here
            context += here
        return total

    def steps_until(self, context: float, seconds: float, most: int) -> int:
        """The fewest steps, at least 1 and at most `most`, that take `seconds` or longer."""
        if most <= 1:
            return 1
        low, high = 1, min(most, max(1, ceil(seconds / self.at(context))))
        while low < high:
            # A step takes nearly the mean of those before it: the guess is right or next to right.
            sum_high = self.sum_s(context, high)
            guess = min(high - 1, max(low, int(high * seconds / sum_high)))
            if self.sum_s(context, guess) >= seconds:
                high = guess
            else:
                low = guess + 1
                if self.sum_s(context, low) >= seconds:
                    return low
        return low


class StepCosts(Protocol):
    """What one engine's steps cost."""

    @property
    def max_tokens(self) -> int:
        """The most tokens that one step may hold."""

    @property
    def max_seqs(self) -> int:
        """The most decode sequences that one step may hold."""

    @property
    def max_context(self) -> int:
        """The longest context of one sequence, in tokens."""

    def decode_line(self, seqs: int) -> DecodeLine:
        """The step times of a pure decode batch of `seqs` sequences (1 or more)."""

    def mixed_s(self, chunks: Sequence[Chunk], seqs: int, context: float) -> float:
        """A step with at least one chunk, and `seqs` decode sequences (0 or more) with that mean context."""


class ProfileSteps:
    """The steps of a `Profile`, whose surfaces know prefill and decode alone.

    A mixed step is prefill of all its tokens, those of the decode sequences counted as new ones, and what
    the decode batch adds for reading its KV: decode at its context less decode at none.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._lines: dict[int, DecodeLine] = {}
        self.max_tokens = profile.max_model_len
        self.max_seqs = profile.max_num_seqs
        self.max_context = profile.max_model_len

    def decode_line(self, seqs: int) -> DecodeLine:
        """The decode surface's row. Raises ProfileError outside of the support."""
        if seqs not in self._lines:
            contexts = self._profile.decode.ys
            knots = contexts if contexts[0] == 0 else (0.0, *contexts)
            seconds = tuple(self._profile.decode_ms(seqs, context) / 1e3 for context in knots)
            self._lines[seqs] = DecodeLine(knots, seconds)
        return self._lines[seqs]

    def mixed_s(self, chunks: Sequence[Chunk], seqs: int, context: float) -> float:
        """One prefill step with the decode sequences in it. Raises ProfileError outside of the support."""
        new = sum(tokens for tokens, _ in chunks)
        cached = sum(tokens * before for tokens, before in chunks) / new
        prefill_s = self._profile.prefill_ms(new + seqs, cached) / 1e3
        if not seqs:
            return prefill_s
        line = self.decode_line(seqs)
        return prefill_s + line.at(context) - line.at(0)


def outside(name: str, value: float, limit: float) -> ProfileError:
    """The error for a question beyond what was measured."""
    return ProfileError(f"{name} = {value:g}: outside of the profile, which covers 0 to {limit:g}")
