"""llm-d WVA's saturation analyser V2: tokens demanded against tokens that the groups can hold.

Per ready group: demand = tokens in the cache + waiting x mean prompt; k1 = KV capacity x 0.80; k2 = the tokens in the
cache while 5 or more wait (kept in a rolling mean of 10, per role and bucket of output length: below 100, below 500,
above), else that mean, else for decode min(B O / (I + O), S) x (I + O / 2) with the engine's batched-token budget B,
its sequence limit S and the mean lengths I and O, else k1; capacity = min(k1, k2). Per role: capacity of a group = the
median; supply = ready x capacity, anticipated = (ready + pending) x capacity; queued in front of the role: I tokens a
request for prefill, I + O for decode. Required = demand / 0.85 - anticipated: ceil(required / capacity) more; else
spare = supply - demand / 0.70: floor(spare / capacity) fewer, one kept. Cache use is the highest of the last minute.
Every 60 s; what it wants is a metric that an HPA follows.

Source: llm-d workload-variant-autoscaler internal/engines/analyzers/saturation_v2/analyzer.go and types.go,
pipeline/cost_aware_optimizer.go, docs (thresholds 0.80, 5, 0.85, 0.70; GLOBAL_OPT_INTERVAL 60 s). That prefill skips
the derived k2 is of its later versions: earlier ones took prefill's capacity for one batch. Without: throughput floors
and several variants of one role.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, median

from autoscaler.model import Observation
from policies.model import ROLES, Pair, Role
from simulator.policies.hpa import SYNC_S, Hpa, average_value
from simulator.policies.view import GroupView, RoleView, Service, TrafficMeter, current, in_router, view

INTERVAL_S = 60.0
KV_THRESHOLD, QUEUE_THRESHOLD = 0.80, 5
SCALE_UP, SCALE_DOWN = 0.85, 0.70
HISTORY = 10
PEAK_S = 60.0


@dataclass(slots=True)
class WvaV2:
    """The analyser, its histories, and the HPA that follows it."""

    service: Service
    hpa: Hpa = field(init=False)
    _meter: TrafficMeter = field(default_factory=lambda: TrafficMeter(300.0))
    _peaks: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    _observed: dict[tuple[Role, str], deque[float]] = field(default_factory=dict)
    _wanted: Pair | None = None
    _analyse_s: float = -math.inf
    _sync_s: float = -math.inf
    _last: Pair | None = None

    def __post_init__(self) -> None:
        self.hpa = Hpa(self.service)

    def groups(self, seen: Observation) -> Pair | None:
        """The sizes to set."""
        self._meter.look(seen)
        views = {role: found for role in ROLES if (found := view(seen, role)) is not None}
        self._keep_peaks(seen.now_s, (group for found in views.values() for group in found.groups))
        now = current(seen)
        if now is None:
            return self._last
        if seen.now_s >= self._analyse_s:
            self._analyse_s = seen.now_s + INTERVAL_S
            self._wanted = Pair(*(self._role(role, views[role], in_router(seen)) for role in ROLES))
        if self._wanted is not None and seen.now_s >= self._sync_s:
            self._sync_s = seen.now_s + SYNC_S
            asked = Pair(*(average_value(self._wanted[role], 1.0, now[role]) for role in ROLES))
            self._last = self.hpa.settle(seen.now_s, asked, now)
        return self._last

    def _role(self, role: Role, fleet: RoleView, queued: float) -> int:
        traffic = self._meter.traffic()
        prompt = (traffic.prompt_tokens_mean if traffic else None) or 0.0
        output = 1.0 if role is Role.PREFILL else (traffic.output_tokens_mean if traffic else None) or 0.0
        capacities, demand = [], 0.0
        for group in fleet.groups:
            if group.kv_usage is None or not group.kv_capacity_tokens:
                continue
            in_use = math.floor(max(use for _, use in self._peaks[group.key]) * group.kv_capacity_tokens)
            demand += in_use + (group.waiting or 0.0) * prompt
            k1 = group.kv_capacity_tokens * KV_THRESHOLD
            capacities.append(min(k1, self._k2(role, group, in_use, prompt, output, k1)))
        if not capacities:
            return fleet.replicas
        demand += queued * (prompt if role is Role.PREFILL else prompt + output)
        return sized(fleet, median(capacities), demand)

    def _k2(self, role: Role, group: GroupView, in_use: float, prompt: float, output: float, k1: float) -> float:
        history = self._observed.setdefault((role, _bucket(output)), deque(maxlen=HISTORY))
        if (group.waiting or 0.0) >= QUEUE_THRESHOLD and in_use > 0:
            history.append(in_use)
            return in_use
        if history:
            return fmean(history)
        if role is Role.DECODE and output > 0:
            profile = self.service.profiles[role]
            steady = min(profile.prefill_chunk_tokens * output / (prompt + output), profile.max_num_seqs)
            return steady * (prompt + output / 2)
        return k1

    def _keep_peaks(self, now_s: float, groups: Iterable[GroupView]) -> None:
        kept: dict[str, deque[tuple[float, float]]] = {}
        for group in groups:
            if group.kv_usage is not None:
                uses = kept[group.key] = self._peaks.get(group.key, deque())
                uses.append((now_s, group.kv_usage))
                while uses[0][0] <= now_s - PEAK_S:
                    uses.popleft()
        self._peaks = kept


def sized(fleet: RoleView, per_group: float, demand: float) -> int:
    """Groups for a demand in tokens, from what is there."""
    required = demand / SCALE_UP - fleet.replicas * per_group
    if required > 0:
        return fleet.replicas + math.ceil(required / per_group - 1e-9)
    spare = fleet.ready * per_group - demand / SCALE_DOWN
    if spare > 0:
        return max(1, fleet.replicas - math.floor(spare / per_group + 1e-9))
    return fleet.replicas


def _bucket(output: float) -> str:
    return "short" if output < 100 else "medium" if output < 500 else "long"
