"""One engine over a list of requests: what came when goes in, the jobs come out with their stamps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from simulator.engine import Engine
from simulator.job import Event, Job


def replay(
    engine: Engine, arrivals: Iterable[tuple[float, Job]], happened: Callable[[Event], object] | None = None
) -> None:
    """Submit each job at its time, in order of time, and let the engine finish; `happened` is told everything.

    Raises ValueError for a time before the one before it.
    """
    before_s = -inf

    def advance(to_s: float) -> None:
        for event in engine.advance(to_s):
            if happened is not None:
                happened(event)

    for arrival_s, job in arrivals:
        if arrival_s < before_s:
            raise ValueError(f"arrival_s = {arrival_s!r}: expected {before_s!r} or later; sort the trace by time")
        before_s = arrival_s
        advance(arrival_s)
        engine.submit(job, arrival_s)
    while (next_s := engine.next_event_s()) < inf:
        advance(next_s)
