"""Keeps one engine on a clock: its next event is always an entry, and what happened goes to a listener."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from simulator.clock import Clock, Entry
from simulator.engine import Engine
from simulator.job import Event, Job


class EngineDriver:
    """Many of these share one clock; the listener may call any of them."""

    def __init__(self, clock: Clock, engine: Engine, happened: Callable[[EngineDriver, Event], object]) -> None:
        self.engine = engine
        self._clock = clock
        self._happened = happened
        self._entry: Entry | None = None

    def submit(self, job: Job) -> None:
        """A request comes now."""
        self.engine.submit(job, self._clock.now_s)
        self._enter()

    def kv_arrived(self, job: Job) -> None:
        """The KV of a job with reserved room is here now."""
        self.engine.kv_arrived(job, self._clock.now_s)
        self._enter()

    def release(self, job: Job) -> None:
        """The KV of a prefilled job is needed no more."""
        self.engine.release(job, self._clock.now_s)
        self._enter()

    def stop(self) -> None:
        """The engine is gone: nothing more happens to it."""
        if self._entry is not None:
            self._entry.cancel()

    def _enter(self) -> None:
        due_s = self.engine.next_event_s()
        if self._entry is not None:
            if self._entry.action is not None and self._entry.due_s == due_s:
                return
            self._entry.cancel()
        self._entry = self._clock.at(due_s, self._due) if due_s < inf else None

    def _due(self, now_s: float) -> None:
        for event in self.engine.advance(now_s):
            self._happened(self, event)
        self._enter()
