"""Keeps one engine on a clock: its next event is always an entry, and what happened goes to a listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from simulator.clock import Clock, Entry
from simulator.engine import Engine
from simulator.gauges import Snapshot
from simulator.job import Event, Job


class EngineDriver:
    """Many of these share one clock; the listener may call any of them."""

    def __init__(self, clock: Clock, engine: Engine, happened: Callable[[EngineDriver, Event], object]) -> None:
        self.engine = engine
        self._clock = clock
        self._happened = happened
        self._entry: Entry | None = None
        self._hung: Snapshot | None = None
        self._unheard = 0

    def submit(self, job: Job) -> None:
        """A request comes now."""
        if self._hung is not None:
            self._unheard += 1
            return
        self.engine.submit(job, self._clock.now_s)
        self._enter()

    def kv_arrived(self, job: Job) -> None:
        """The KV of a job with reserved room is here now."""
        if self._hung is None:
            self.engine.kv_arrived(job, self._clock.now_s)
            self._enter()

    def release(self, job: Job) -> None:
        """The KV of a prefilled job is needed no more."""
        if self._hung is None:
            self.engine.release(job, self._clock.now_s)
            self._enter()

    def withdraw(self, job: Job) -> None:
        """The KV of a job that waits for it will not come."""
        if self._hung is None:
            self.engine.withdraw(job, self._clock.now_s)
            self._enter()

    def stop(self) -> None:
        """The engine is gone: nothing more happens to it."""
        if self._entry is not None:
            self._entry.cancel()

    def hang(self) -> None:
        """From now on the engine takes requests, keeps what it has, and gets nowhere."""
        self._hung = self.engine.snapshot(self._clock.now_s)
        self.stop()

    def snapshot(self) -> Snapshot:
        """What its page says now."""
        now_s = self._clock.now_s
        if self._hung is None:
            return self.engine.snapshot(now_s)
        waiting = "vllm:num_requests_waiting"
        values = {**self._hung.values, waiting: self._hung.values[waiting] + self._unheard}
        reasons = {**self._hung.waiting_by_reason}
        reasons["capacity"] += self._unheard
        return replace(self._hung, at_s=now_s, values=values, waiting_by_reason=reasons)

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
        if self._hung is None:
            self._enter()
