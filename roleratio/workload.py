"""The built-in workload: four phases that pull the two roles in opposite directions.

Rules:
1. All its numbers are in `CALM` and `PHASES`; `arrivals` adds nothing but the seed.
2. Equal seeds give equal requests on every machine (`random.Random` guarantees this for what is used here).
3. Phases differ only by factors on the calm means, so that each phase says which role must move.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from roleratio.records import Span
from roleratio.traces import Arrival

DEFAULT_DURATION_S = 240.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Log-normal token counts with a given mean, clipped to [low, high]."""

    mean: float
    sigma: float
    low: int
    high: int

    def draw(self, rng: random.Random, factor: float) -> int:
        """One count; the mean and the upper clip grow by `factor`."""
        mu = math.log(self.mean * factor) - self.sigma**2 / 2
        return round(min(max(rng.lognormvariate(mu, self.sigma), self.low), self.high * factor))


@dataclass(frozen=True, slots=True)
class Calm:
    """What the calm phases send."""

    rate_rps: float = 3.0
    inputs: Lengths = Lengths(mean=1000, sigma=0.5, low=100, high=3500)
    outputs: Lengths = Lengths(mean=100, sigma=0.4, low=20, high=300)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run, as a share of its length, and the factors on the calm means."""

    name: str
    share: float
    input_factor: float = 1.0
    output_factor: float = 1.0


CALM = Calm()
PHASES = (
    Phase("calm", 0.25),
    Phase("inputs x4", 0.25, input_factor=4.0),
    Phase("outputs x3", 0.25, output_factor=3.0),
    Phase("calm again", 0.25),
)


def arrivals(seed: int, duration_s: float = DEFAULT_DURATION_S, calm: Calm = CALM) -> tuple[Arrival, ...]:
    """Poisson arrivals over all phases, in order of arrival."""
    rng = random.Random(seed)
    requests: list[Arrival] = []
    at_s = rng.expovariate(calm.rate_rps)
    for phase, span in zip(PHASES, spans(duration_s), strict=True):
        while at_s < span.end_s:
            inputs = calm.inputs.draw(rng, phase.input_factor)
            requests.append(Arrival(at_s, inputs, calm.outputs.draw(rng, phase.output_factor)))
            at_s += rng.expovariate(calm.rate_rps)
    return tuple(requests)


def spans(duration_s: float = DEFAULT_DURATION_S) -> tuple[Span, ...]:
    """When each phase starts and ends."""
    found: list[Span] = []
    start_s = 0.0
    for phase in PHASES:
        end_s = start_s + phase.share * duration_s
        found.append(Span(phase.name, start_s, end_s))
        start_s = end_s
    return tuple(found)
