"""The service's data path in virtual time: our router, KV transfers, and requests through the engines of the groups.

The same rules as serving/router.py and serving/dispatch.py:
1. A prompt waits in the router until a prefill group has less than `ahead_tokens` of it, or none; the least loaded
   group gets it, among equals the one whose turn was longest ago. `bind="arrival"` binds it in turn as it comes.
   `bind="turn"` binds in turn to decode as well, whatever a group has.
2. A computed prompt goes to the decode group with the fewest sequences; KV moves when that has room, over the prefill
   group's one link, transfers one after the other; then both go on.
3. Until the first token a failure starts again from prefill, MAX_FAILURES times at most; afterwards it is the end.
4. While no group of a role is ready, whoever waited `max_wait_s` gives up; a queue is not an outage.
5. KV that was not pulled within its lease is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Literal

from perfmodel.profile import Profile
from policies.model import ROLES, Role
from simulator.clock import Clock, Entry
from simulator.driver import EngineDriver
from simulator.flight import Cause, Flight, Outcome, Stage
from simulator.gauges import FINE_BOUNDS_S, Histogram
from simulator.groups import Group, Phase
from simulator.job import Event, Happened, Job

MAX_FAILURES = 4

Ended = Callable[[Flight, Outcome, Cause, float], object]
"""Told how a request ended, and when."""


Bind = Literal["late", "arrival", "turn"]


@dataclass(frozen=True, slots=True)
class Routing:
    """How the router works. `aggregated`: the decode groups prefill as well, and nothing is handed over."""

    bind: Bind = "late"
    ahead_tokens: int = 4096
    max_wait_s: float = 60.0
    lease_s: float = 60.0
    aggregated: bool = False


class Counters:
    """What the router's page counts."""

    def __init__(self) -> None:
        self.arrivals = self.prompt_tokens = self.finished = self.failed = 0
        self.in_stage = dict.fromkeys(Stage, 0)
        self.ttft = Histogram(FINE_BOUNDS_S)


class Router:
    """All requests that are under way. `idle` is called with a draining group that has become empty."""

    def __init__(
        self, clock: Clock, routing: Routing, profile: Profile, ended: Ended, idle: Callable[[Group], object]
    ) -> None:
        self.counters = Counters()
        self._clock = clock
        self._routing = routing
        self._transfer_ms = profile.transfer_ms
        self._ended = ended
        self._idle = idle
        self._ready: dict[Role, list[Group]] = {role: [] for role in ROLES}
        self._queues: dict[Role, deque[Flight]] = {role: deque() for role in ROLES}
        self._expiry: dict[Role, Entry | None] = dict.fromkeys(ROLES)
        self._groups: dict[EngineDriver, Group] = {}
        self._flights: dict[Flight, None] = {}
        self._turns = 0

    @property
    def in_flight(self) -> int:
        """Requests that have come and not ended."""
        return len(self._flights)

    # What comes from outside.

    def arrive(self, flight: Flight) -> None:
        """A request comes now."""
        self.counters.arrivals += 1
        self.counters.prompt_tokens += flight.prompt_tokens
        self.counters.in_stage[flight.stage] += 1
        self._flights[flight] = None
        self._enqueue(Role.DECODE if self._routing.aggregated else Role.PREFILL, flight)

    def join(self, group: Group) -> None:
        """A group is ready."""
        self._groups[group.engine] = group
        self._ready[group.role].append(group)
        self._dispatch(group.role)

    def leave(self, group: Group) -> None:
        """A group gets nothing new."""
        if group in self._ready[group.role]:
            self._ready[group.role].remove(group)
            self._watch(group.role)

    def cut(self, group: Group, cause: Cause) -> None:
        """A group is gone, with all that it had."""
        self.leave(group)
        engine = group.engine
        engine.stop()
        self._groups.pop(engine, None)
        flights, group.flights = list(group.flights), {}
        for flight in flights:
            self._forget(flight, group)
            self._fail(flight, cause)

    def give_up(self) -> None:
        """The run ends: whatever is open stays unfinished."""
        for flight in list(self._flights):
            self._end(flight, Outcome.UNFINISHED, Cause.UNFINISHED)

    # Choosing groups.

    def _enqueue(self, role: Role, flight: Flight) -> None:
        self._queues[role].append(flight)
        self._dispatch(role)

    def _dispatch(self, role: Role) -> None:
        queue = self._queues[role]
        while queue:
            group = self._pick(role)
            if group is None:
                self._watch(role)
                return
            self._submit(group, queue.popleft())

    def _pick(self, role: Role) -> Group | None:
        late = role is Role.PREFILL and self._routing.bind == "late"
        in_turn = self._routing.bind == "turn" or (role is Role.PREFILL and not late)
        ahead = self._routing.ahead_tokens if late else inf
        chosen: Group | None = None
        for group in self._ready[role]:
            load = 0 if in_turn else group.load
            if load and load >= ahead:
                continue
            if chosen is None or (load, group.last_turn) < (0 if in_turn else chosen.load, chosen.last_turn):
                chosen = group
        if chosen is not None:
            self._turns += 1
            chosen.last_turn = self._turns
        return chosen

    def _watch(self, role: Role) -> None:
        """While no group is there, the first in line gives up at its deadline."""
        queue, entry = self._queues[role], self._expiry[role]
        if self._ready[role] or not queue:
            if entry is not None:
                entry.cancel()
                self._expiry[role] = None
        elif entry is None:
            due_s = max(self._clock.now_s, min(flight.at_s for flight in queue) + self._routing.max_wait_s)
            self._expiry[role] = self._clock.at(due_s, partial(self._expire, role))

    def _expire(self, role: Role, now_s: float) -> None:
        self._expiry[role] = None
        queue = self._queues[role]
        late = [flight for flight in queue if flight.at_s + self._routing.max_wait_s <= now_s]
        for flight in late:
            queue.remove(flight)
            self._leave_prefill(flight)
            self._end(flight, Outcome.FAILED, Cause.NO_WORKER)
        self._watch(role)

    # A request through its groups.

    def _submit(self, group: Group, flight: Flight) -> None:
        group.flights[flight] = None
        job = Job(flight.prompt_tokens, flight.output_tokens, tag=flight)
        if group.role is Role.PREFILL:
            group.load += flight.prompt_tokens
            flight.prefill, flight.prefill_job = group, job
            self._stage(flight, Stage.PREFILL)
        else:
            group.load += 1
            flight.decode, flight.decode_job = group, job
            self._stage(flight, Stage.DECODE)
        group.engine.submit(job)

    def happened(self, driver: EngineDriver, event: Event) -> None:
        """What an engine says."""
        at_s, what, job = event
        flight: Flight = job.tag
        group = self._groups.get(driver)
        if group is None or (flight.prefill_job is not job and flight.decode_job is not job):
            return
        if what is Happened.PREFILLED:
            self._computed(flight, group, at_s)
        elif what is Happened.ROOM:
            self._pull(flight, at_s)
        elif what is Happened.FIRST_TOKEN:
            if group.role is Role.DECODE and flight.first_s is None:
                flight.first_s = at_s
                self.counters.ttft.observe(at_s - flight.at_s)
        elif what is Happened.FINISHED:
            self._finished(flight, group, at_s)
        else:
            self._rejected(flight, group)

    def _computed(self, flight: Flight, group: Group, at_s: float) -> None:
        group.load -= flight.prompt_tokens
        flight.computed_s = at_s
        self._stage(flight, Stage.UNASSIGNED)
        self._enqueue(Role.DECODE, flight)
        self._dispatch(Role.PREFILL)

    def _pull(self, flight: Flight, at_s: float) -> None:
        """Decode has room: the KV moves, unless its lease is over."""
        group, job = flight.prefill, flight.decode_job
        if group is None or job is None or flight.computed_s is None:
            return
        flight.room_s = at_s
        if at_s - flight.computed_s > self._routing.lease_s:
            self._leave_prefill(flight)
            self._leave_decode(flight)
            self._fail(flight, Cause.FAULT)
            return
        start_s = max(group.link_free_s, at_s)
        group.link_free_s = start_s + self._transfer_ms(flight.prompt_tokens) / 1e3
        self._clock.at(group.link_free_s, partial(self._arrived, flight, job))

    def _arrived(self, flight: Flight, job: Job, now_s: float) -> None:
        if flight.decode_job is not job or flight.decode is None:
            return
        flight.arrived_s = now_s
        flight.decode.engine.kv_arrived(job)
        self._leave_prefill(flight)

    def _finished(self, flight: Flight, group: Group, at_s: float) -> None:
        del group.flights[flight]
        group.load -= 1
        flight.end_s = at_s
        self._end(flight, Outcome.OK, Cause.NONE)
        self._look_whether_empty(group)

    def _rejected(self, flight: Flight, group: Group) -> None:
        """Longer than the engine can ever hold."""
        if group.role is Role.DECODE:
            self._leave_prefill(flight)
        self._forget(flight, group)
        group.flights.pop(flight, None)
        group.load -= flight.prompt_tokens if group.role is Role.PREFILL else 1
        self._end(flight, Outcome.FAILED, Cause.REJECTED)

    # Ends.

    def _leave_prefill(self, flight: Flight) -> None:
        """The KV that prefill holds is needed no more."""
        group, job = flight.prefill, flight.prefill_job
        if group is None or job is None:
            return
        flight.prefill = flight.prefill_job = None
        del group.flights[flight]
        group.engine.release(job)
        self._look_whether_empty(group)

    def _leave_decode(self, flight: Flight) -> None:
        """Room that was reserved or waited for in decode is needed no more."""
        group, job = flight.decode, flight.decode_job
        if group is None or job is None:
            return
        flight.decode = flight.decode_job = None
        del group.flights[flight]
        group.load -= 1
        group.engine.withdraw(job)
        self._look_whether_empty(group)

    def _forget(self, flight: Flight, group: Group) -> None:
        """Take a group that is gone, or will not have it, out of a request's account."""
        if group.role is Role.PREFILL:
            flight.prefill = flight.prefill_job = None
            self._leave_decode(flight)
            if flight in self._queues[Role.DECODE]:
                self._queues[Role.DECODE].remove(flight)
        else:
            flight.decode = flight.decode_job = None
            self._leave_prefill(flight)

    def _fail(self, flight: Flight, cause: Cause) -> None:
        """Start again while nothing has been passed on and not too often; else it is the end."""
        if flight.first_s is not None or flight.failures + 1 >= MAX_FAILURES:
            self._end(flight, Outcome.FAILED, cause)
            return
        self._stage(flight, Stage.UNASSIGNED)
        flight.again()
        self._enqueue(Role.DECODE if self._routing.aggregated else Role.PREFILL, flight)

    def _end(self, flight: Flight, outcome: Outcome, cause: Cause) -> None:
        del self._flights[flight]
        self.counters.in_stage[flight.stage] -= 1
        if outcome is Outcome.OK:
            self.counters.finished += 1
        elif outcome is Outcome.FAILED:
            self.counters.failed += 1
        self._ended(flight, outcome, cause, self._clock.now_s)

    def _stage(self, flight: Flight, stage: Stage) -> None:
        self.counters.in_stage[flight.stage] -= 1
        self.counters.in_stage[stage] += 1
        flight.stage = stage

    def _look_whether_empty(self, group: Group) -> None:
        if group.phase is Phase.DRAINING and not group.flights:
            self._idle(group)
