"""What could not be written lately: said once when it begins, once when it is over, and a reason while it lasts.

Rules:
1. A right that is missing is a reason at once; what may pass by itself from the second failure in a row on.
2. However many ticks it lasts, a trouble costs two log lines: what began, and when it was over, after how many.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from kubeapi.errors import ApiError, Forbidden
from kubeapi.retry import Backoff
from policies.model import Code, Reason, Role, Stage

log = logging.getLogger("roleratio.controller")

LASTS = 2
"""Failures in a row after which a trouble is told."""


STEADY_S = 300.0
"""A loop that ran for so long is as good as new."""


class Pause:
    """How long a loop that failed stays down: from 1 s, doubled each time, to 60 s. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._backoff = Backoff(1.0, 60.0)
        self._until_s = math.inf

    def begin(self) -> float:
        """It has failed; the seconds until it may start anew."""
        now_s = self._clock()
        if now_s - self._until_s > STEADY_S:
            self._backoff.reset()
        wait_s = self._backoff.next_s()
        self._until_s = now_s + wait_s
        return wait_s

    def is_over(self) -> bool:
        """Whether it may start anew."""
        return self._clock() >= self._until_s


@dataclass(slots=True)
class _Trouble:
    reason: Reason
    since_s: float
    for_good: bool
    failures: int = 1
    in_a_row: int = 1


class Troubles:
    """The troubles of one service (or of the manager), by what could not be done: `step`, `events`, `status`."""

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._now: dict[str, _Trouble] = {}

    def failed(self, what: str, error: ApiError, now_s: float, code: Code, role: Role | None = None) -> None:
        """It could not be done, once more."""
        reason = Reason(Stage.ACT, code, role, {"why": error.message})
        for_good = isinstance(error, Forbidden)
        before = self._now.get(what)
        if before is not None and before.for_good == for_good:
            before.reason = reason
            before.failures, before.in_a_row = before.failures + 1, before.in_a_row + 1
            return
        self._now[what] = _Trouble(reason, now_s, for_good)
        log.warning("%s: %s: %s; said once until it is over", self._whose, what, error.message)

    def over(self, what: str, now_s: float, how: str = "done again") -> None:
        """It could be done, or need not be done any more."""
        if trouble := self._now.pop(what, None):
            self.anew()
            lasted_s = now_s - trouble.since_s
            log.info("%s: %s: %s after %.0f s, seen %d times", self._whose, what, how, lasted_s, trouble.failures)

    def anew(self) -> None:
        """The server is well again: what has failed meanwhile is news only if it goes on failing."""
        for trouble in self._now.values():
            trouble.in_a_row = 0

    def passes(self, what: str) -> bool:
        """Whether there is such a trouble, and one that may end without anybody granting anything."""
        return what in self._now and not self._now[what].for_good

    def reasons(self, *, told: bool = False) -> tuple[Reason, ...]:
        """Those worth telling. `told`: the server's state is told already; that it also keeps us from telling is not
        news.
        """
        lasting = [one for one in self._now.values() if one.for_good or one.in_a_row >= LASTS]
        told = told or any(one.reason.code is Code.WRITE_FAILED for one in lasting)
        return tuple(
            one.reason for one in lasting if one.for_good or not told or one.reason.code is not Code.REPORT_FAILED
        )
