"""Virtual time: actions in order of their time, and of their entry where times are equal.

Rules:
1. Time is what the next entry says; it never goes back, and nothing waits.
2. Equal runs are equal to the bit: the order depends on times and on the order of entry alone. What is random draws
   from a seeded generator that its maker passes in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

Action = Callable[[float], object]
"""Called with the time it was due."""


@dataclass(slots=True)
class Entry:
    """An action to come; `action` is None once it has been cancelled or done."""

    due_s: float
    action: Action | None

    def cancel(self) -> None:
        """Let it not happen; cancelling twice, or what has happened, changes nothing."""
        self.action = None


class Clock:
    """A heap of entries; logarithmic in their number."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self._heap: list[tuple[float, int, Entry]] = []
        self._entered = 0

    def at(self, due_s: float, action: Action) -> Entry:
        """Have an action done at a time. Raises ValueError for a time that has passed or that is no time."""
        if not self.now_s <= due_s < inf:
            raise ValueError(f"due_s = {due_s!r}: expected a time from {self.now_s!r} on")
        entry = Entry(due_s, action)
        self._entered += 1
        heappush(self._heap, (due_s, self._entered, entry))
        return entry

    def run(self, until_s: float = inf) -> None:
        """Do what is due up to and including `until_s`; the time is then `until_s`, or that of the last action."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            due_s, _, entry = heappop(heap)
            action, entry.action = entry.action, None
            if action is not None:
                self.now_s = due_s
                action(due_s)
        if until_s < inf:
            self.now_s = max(self.now_s, until_s)
