"""Robust ridge regression that forgets: several memories and sets of features at once.

Rules:
1. The normal equations of each memory are kept, not an inverse: the ridge stays what it is while the past fades, and
   nothing can lose its positive sign (Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", 3.4).
2. Huber's weights (1964) on errors seen: one jump moves no coefficient far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

HUBER = 2.0
OFF = 1e9
"""A ridge that keeps a coefficient at zero."""


class Ridge:
    """One regression per pair of a memory (what is kept at every step) and a mask of features with its ridge."""

    __slots__ = ("betas", "grams", "kept", "moments", "ridges")

    def __init__(self, memories: Sequence[float], masks: Sequence[tuple[Sequence[bool], float]]) -> None:
        import numpy as np

        size = len(masks[0][0])
        self.kept = np.asarray(memories)[:, None]
        self.grams, self.moments = np.zeros((len(memories), size, size)), np.zeros((len(memories), size))
        self.ridges = np.stack([np.diag([ridge if used else OFF for used in mask]) for mask, ridge in masks])
        self.betas = np.zeros((len(memories), len(masks), size))

    def predict(self, features: Values) -> Values:
        """One number per memory and mask, shape (memories * masks,)."""
        predicted: Values = (self.betas @ features).ravel()
        return predicted

    def learn(self, features: Values, actual: float, weight: float) -> None:
        """Take one observation; `weight` is that of its error (see `huber`) over its variance."""
        import numpy as np

        self.grams *= self.kept[:, :, None]
        self.moments *= self.kept
        self.grams += weight * np.outer(features, features)
        self.moments += weight * actual * features
        # Solving costs less than the bookkeeping that would avoid it: the systems are small.
        systems = self.grams[:, None] + self.ridges
        self.betas = np.linalg.solve(systems, np.broadcast_to(self.moments[:, None, :, None], (*systems.shape[:3], 1)))[
            ..., 0
        ]


def huber(error: float, scale: float) -> float:
    """The weight of an error: 1 within HUBER scales, then falling as 1 / error."""
    return min(1.0, HUBER * scale / abs(error)) if error else 1.0
