"""Static: the same sizes for ever. The frontier that any autoscaler has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.model import Observation
from policies.model import Pair


@dataclass(frozen=True, slots=True)
class Static:
    """One pair of sizes."""

    pair: Pair

    def groups(self, seen: Observation) -> Pair | None:
        """The pair, whatever is seen."""
        return self.pair
