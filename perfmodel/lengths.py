"""How long prompts and answers are: a small histogram, or mean and variability of a lognormal; pure.

Rule: a class stands for its requests by their mean, so that the mean of a distribution is kept exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from statistics import NormalDist

from perfmodel.profile import ProfileError

_NORMAL = NormalDist()
# Finer where a percentile of latency is decided.
_EDGES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.85, 0.9, 0.95, 0.975, 0.99, 0.995, 1.0)
_QUANTILES = tuple(_NORMAL.inv_cdf(edge) for edge in _EDGES[1:-1])


@dataclass(frozen=True)
class Lengths:
    """Tokens of a request: `shares[i]` of the requests have `tokens[i]`, in rising order; shares sum to 1."""

    tokens: tuple[float, ...]
    shares: tuple[float, ...]

    @cached_property
    def mean(self) -> float:
        """Tokens."""
        return sum(share * tokens for share, tokens in zip(self.shares, self.tokens, strict=True))

    @cached_property
    def cv2(self) -> float:
        """Variance over the squared mean."""
        square = sum(share * tokens**2 for share, tokens in zip(self.shares, self.tokens, strict=True))
        return square / self.mean**2 - 1


def histogram(weights: Iterable[tuple[float, float]]) -> Lengths:
    """From (tokens, weight) pairs in any order, weights of any sum. Raises ProfileError for what is none."""
    pairs = sorted((tokens, weight) for tokens, weight in weights if weight)
    wrong = [pair for pair in pairs if not (0 < pair[0] < math.inf and 0 < pair[1] < math.inf)]
    if wrong or not pairs:
        found = ", ".join(f"{tokens:g} tokens with weight {weight:g}" for tokens, weight in wrong[:5]) or "none"
        raise ProfileError(f"lengths: {found}: expected at least one length, tokens and weights above 0")
    total = sum(weight for _, weight in pairs)
    return Lengths(tuple(tokens for tokens, _ in pairs), tuple(weight / total for _, weight in pairs))


def lognormal(mean: float, cv2: float, longest: float = math.inf) -> Lengths:
    """Lengths with this mean and squared coefficient of variation; longer ones count as `longest`.

    Raises ProfileError for a mean not above 0 or a cv2 below 0.
    """
    if not (0 < mean < math.inf and 0 <= cv2 < math.inf and longest > 0):
        raise ProfileError(f"lengths: mean {mean:g}, cv2 {cv2:g}, longest {longest:g}: expected above 0, cv2 0 or more")
    # Rounded, so that slowly moving estimates find what was computed for the last one.
    shares, scales = _unit_lognormal(round(cv2, 3))
    return Lengths(tuple(min(longest, mean * scale) for scale in scales), shares)


@lru_cache(maxsize=4096)
def _unit_lognormal(cv2: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shares and conditional means of a lognormal of mean 1 between its quantiles."""
    if cv2 == 0:
        return (1.0,), (1.0,)
    sigma = math.sqrt(math.log1p(cv2))
    # The share of all tokens below the quantile z of the requests is that of requests below z - sigma.
    below = (0.0, *(_NORMAL.cdf(z - sigma) for z in _QUANTILES), 1.0)
    shares = tuple(high - low for low, high in pairwise(_EDGES))
    tokens = (high - low for low, high in pairwise(below))
    return shares, tuple(part / share for part, share in zip(tokens, shares, strict=True))
