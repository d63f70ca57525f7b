"""Knative's pod autoscaler on concurrency, one per role: stable window 60 s, panic window 6 s.

Formula: stable = ceil(mean concurrency of 60 s / target), panic = ceil(that of 6 s / target), each within
[floor(ready / 2), ceil(1000 x ready)]; a panic begins when panic / ready >= 2 and ends 60 s after it was last so; in a
panic the size is the most wanted since it began; it starts in one with more than one group ready; no data: no change.
Every 2 s at most. Source: knative/serving pkg/autoscaler/scaling/autoscaler.go (defaults: max-scale-up-rate 1000,
max-scale-down-rate 2, panic-threshold-percentage 200).

Target: 70 % (container-concurrency-target-percentage) of a group's own limit: one prompt for prefill, which computes
them one after the other, and for decode the batch that meets the ITL target at the mean context.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import fmean

from autoscaler.model import Observation
from policies.burst import Panic
from policies.model import ROLES, Pair, Role
from simulator.policies.view import Service, TrafficMeter, current, in_router, view

STABLE_S, PANIC_S, TICK_S = 60.0, 6.0, 2.0
UP_RATE, DOWN_RATE = 1000.0, 2.0
TARGET_SHARE = 0.7
PANIC_THRESHOLD = 2.0


@dataclass(slots=True)
class Kpa:
    """Two KPAs and their windows."""

    service: Service
    _meter: TrafficMeter = field(default_factory=lambda: TrafficMeter(300.0))
    _seen: dict[Role, deque[tuple[float, float]]] = field(default_factory=lambda: {role: deque() for role in ROLES})
    _panics: dict[Role, Panic] | None = None
    _due_s: float = -math.inf
    _last: Pair | None = None

    def groups(self, seen: Observation) -> Pair | None:
        """The sizes to set."""
        self._meter.look(seen)
        now = current(seen)
        if now is None or seen.now_s < self._due_s:
            return self._last
        self._due_s = seen.now_s + TICK_S
        if self._panics is None:
            fleets = {role: fleet for role in ROLES if (fleet := view(seen, role)) is not None and fleet.ready > 1}
            self._panics = {role: Panic(seen.now_s, fleet.ready) for role, fleet in fleets.items()}
        self._last = self.service.bounded(Pair(*(self._role(seen, role, now[role], self._panics) for role in ROLES)))
        return self._last

    def _role(self, seen: Observation, role: Role, asked: int, panics: dict[Role, Panic]) -> int:
        fleet = view(seen, role)
        self._take(seen, role)
        if fleet is None or not self._seen[role]:
            return asked
        present = max(1, fleet.ready)
        least, most = math.floor(present / DOWN_RATE), math.ceil(UP_RATE * present)
        stable, panic = (self._raw(role, window_s, seen.now_s) for window_s in (STABLE_S, PANIC_S))
        wanted = min(max(stable, least), most)
        if panic / present >= PANIC_THRESHOLD:
            panics[role] = Panic(seen.now_s, panics[role].peak if role in panics else 0)
        elif role in panics and panics[role].last_s + STABLE_S < seen.now_s:
            del panics[role]
        if role not in panics:
            return wanted
        peak = max(panics[role].peak, wanted, min(max(panic, least), most))
        panics[role] = Panic(panics[role].last_s, peak)
        return peak

    def _take(self, seen: Observation, role: Role) -> None:
        """Concurrency is what groups run and hold, and what waits in front of prefill."""
        fleet = view(seen, role)
        known = [group for group in fleet.groups if group.running is not None] if fleet else []
        if known:
            load = sum((group.running or 0.0) + (group.waiting or 0.0) for group in known)
            self._seen[role].append((seen.now_s, load + (in_router(seen) if role is Role.PREFILL else 0.0)))
        while self._seen[role] and self._seen[role][0][0] <= seen.now_s - STABLE_S:
            self._seen[role].popleft()

    def _raw(self, role: Role, window_s: float, now_s: float) -> int:
        """ceil(mean concurrency of the window / target); 0 without data."""
        loads = [load for at_s, load in self._seen[role] if at_s > now_s - window_s]
        return math.ceil(fmean(loads) / self._target(role) - 1e-9) if loads else 0

    def _target(self, role: Role) -> float:
        """Concurrency per group."""
        if role is Role.PREFILL:
            return TARGET_SHARE
        traffic = self._meter.traffic()
        prompt = (traffic.prompt_tokens_mean if traffic else None) or 1.0
        output = (traffic.output_tokens_mean if traffic else None) or 0.0
        profile = self.service.profiles[role]
        context = min(prompt + output / 2, profile.decode.ys[-1])
        return TARGET_SHARE * max(1, profile.max_decode_batch(context, self.service.itl_ms))
