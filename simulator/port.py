"""The port that a policy plugs into: it sees what our controller would see, and says what to ask for.

Rules:
1. A policy is told at every tick, and sees nothing but the Observation: the same samples and fleet as `tick` gets.
2. What it wants is set at once, as an API server would take it; whatever starts, fits or drains takes its time.
3. Ours is the unchanged `autoscaler.core.tick`, its steps carried out one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autoscaler.model import Observation
from policies.model import Pair


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to set now: `groups` per role (TP groups), the gang minimums (pods); None leaves them as they are. `why` is
    kept with the change."""

    groups: Pair | None = None
    minimum_pods: Pair | None = None
    why: tuple[str, ...] = ()


class Policy(Protocol):
    """Decides sizes from what is seen. It may keep a state of its own; equal inputs must give equal answers."""

    @property
    def name(self) -> str:
        """What tables and files call it."""

    def decide(self, seen: Observation) -> Wanted:
        """Told at every tick, in order of time."""


class Sizes(Protocol):
    """What only knows sizes, as the baselines and the oracle do."""

    def groups(self, seen: Observation) -> Pair | None:
        """The sizes to set; None: as they are."""


@dataclass(frozen=True, slots=True)
class SizePolicy:
    """A policy made of sizes alone."""

    name: str
    sizes: Sizes

    def decide(self, seen: Observation) -> Wanted:
        """The sizes that it gives; gang minimums stay."""
        return Wanted(self.sizes.groups(seen))
