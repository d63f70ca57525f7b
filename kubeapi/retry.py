"""When to ask again, and how long to wait before that.

Rules:
1. Only what may be done twice is repeated: reads, replacements, deletions, merge and strategic patches. A repeated
   write whose first answer was lost says Conflict or NotFound, as if someone else had been faster.
2. Only failures that pass are repeated: no answer, 429, 500, 502, 503, 504. Retry-After is the least wait.
3. Waits grow and are drawn at random, so that clients that failed together do not come back together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from kubeapi.errors import ApiError, NotLeader, Unreachable

_PASSING = (429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` in all; waits of `first_s`, doubled each time up to `longest_s`, less up to half of it.

    The client adds a bound of its own: a request with its repeats ends within the client's `timeout_s`.
    """

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 3.0

    def waits(self) -> Iterator[float]:
        """The waits between attempts."""
        for attempt in range(self.attempts - 1):
            yield jittered(min(self.longest_s, self.first_s * 2**attempt))


PATIENT = RetryPolicy()


class Backoff:
    """Waits that grow from `first_s` to `longest_s` until `reset`."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = self._next_s = first_s
        self._longest_s = max(first_s, longest_s)

    def reset(self) -> None:
        """Things went well: start again with the shortest wait."""
        self._next_s = self._first_s

    def next_s(self) -> float:
        """The next wait."""
        wait_s, self._next_s = self._next_s, min(self._longest_s, 2 * self._next_s)
        return jittered(wait_s)


def passes(error: ApiError) -> bool:
    """Whether the same request may succeed a little later."""
    return not isinstance(error, NotLeader) and (isinstance(error, Unreachable) or error.status in _PASSING)


def jittered(wait_s: float) -> float:
    """Between half of it and all of it."""
    return wait_s * random.uniform(0.5, 1.0)
