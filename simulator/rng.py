"""Randomness as the simulator takes it: generators that are passed in, one per purpose, so that what one draws does not
move what another draws.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gamma, log, sqrt
from typing import Protocol


class Rng(Protocol):
    """What is used of `random.Random`."""

    def random(self) -> float:
        """Uniform in [0, 1)."""

    def uniform(self, a: float, b: float) -> float:
        """Uniform between two numbers."""

    def expovariate(self, lambd: float) -> float:
        """Exponential, of mean 1 / lambd."""

    def gammavariate(self, alpha: float, beta: float) -> float:
        """Gamma, of mean alpha x beta."""

    def weibullvariate(self, alpha: float, beta: float) -> float:
        """Weibull, of scale alpha and shape beta."""

    def lognormvariate(self, mu: float, sigma: float) -> float:
        """Log-normal, of median exp(mu)."""


Streams = Callable[[str], Rng]
"""A fresh generator per name; equal names and seeds give equal generators."""


def geometric(rng: Rng, chance: float) -> int:
    """How many tries until the first success, that one included."""
    if chance >= 1.0:
        return 1
    return 1 + int(log(1.0 - rng.random()) / log(1.0 - chance))


def weibull_cv(shape: float) -> float:
    """The coefficient of variation of a Weibull distribution."""
    return sqrt(max(0.0, gamma(1 + 2 / shape) / gamma(1 + 1 / shape) ** 2 - 1))


def weibull_shape(cv: float) -> float:
    """The shape whose coefficient of variation is `cv` (between 0.02 and 80). By bisection."""
    low, high = 0.1, 64.0
    for _ in range(60):
        middle = (low + high) / 2
        if weibull_cv(middle) > cv:
            low = middle
        else:
            high = middle
    return (low + high) / 2
