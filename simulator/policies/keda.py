"""The guide that llm-d gives today: two KEDA ScaledObjects, seconds of prompts not yet prefilled and full KV caches.

Prefill: sum(in-flight prompt tokens) / V / threshold, V the prompt tokens/s of one group measured on one idle chunk
(chunk / its TTFT), threshold = TTFT target - mean prompt / V (the guide's rule; its example is 1.5 s). Decode: sum over
groups of KV use / 0.8. Both AverageValue: ceil(total / threshold), tolerance 0.1; polled every 15 s; up 1 group per
180 s without a window, down 1 group per 300 s after 300 s.

Source: the guide keda-epp-token-aware of llm-d/llm-d, its README.md and pd-disaggregation/base/*.yaml; the
AverageValue formula: kubernetes/kubernetes replica_calculator.go. What cannot be read counts as 0 (`or vector(0)`). Of
the prompts in flight, waiting and running ones count whole: the router's own count of tokens falls as one is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autoscaler.model import Observation
from policies.behaviour import Behaviour, Direction, Rate
from policies.model import ROLES, Pair, Role
from simulator.policies.hpa import SYNC_S, Hpa, average_value
from simulator.policies.view import Service, TrafficMeter, current, in_router, view

KV_THRESHOLD = 0.8
LEAST_THRESHOLD_S = 0.1
GUIDE = Behaviour(Direction(0.0, (Rate("Groups", 1, 180.0),)), Direction(300.0, (Rate("Groups", 1, 300.0),)))


@dataclass(slots=True)
class KedaGuide:
    """Both ScaledObjects."""

    service: Service
    hpa: Hpa = field(init=False)
    _meter: TrafficMeter = field(default_factory=lambda: TrafficMeter(300.0))
    _due_s: float = -math.inf
    _last: Pair | None = None

    def __post_init__(self) -> None:
        self.hpa = Hpa(self.service, dict.fromkeys(ROLES, GUIDE))

    def groups(self, seen: Observation) -> Pair | None:
        """The sizes to set."""
        self._meter.look(seen)
        now = current(seen)
        if now is None or seen.now_s < self._due_s:
            return self._last
        self._due_s = seen.now_s + SYNC_S
        wanted = Pair(
            average_value(self._backlog_s(seen), self._threshold_s(), now.prefill),
            average_value(self._full_caches(seen), KV_THRESHOLD, now.decode),
        )
        self._last = self.hpa.settle(seen.now_s, wanted, now)
        return self._last

    @property
    def _tokens_per_s(self) -> float:
        """V: the guide's calibration, one chunk on an idle path: its prefill, its transfer and one step of decode."""
        profile = self.service.profiles[Role.PREFILL]
        chunk = float(profile.prefill_chunk_tokens)
        first_step_ms = self.service.profiles[Role.DECODE].decode_ms(1, chunk)
        return chunk / (profile.prefill_ms(chunk) + profile.transfer_ms(chunk) + first_step_ms) * 1000

    def _prompt_tokens(self) -> float:
        traffic = self._meter.traffic()
        return (traffic.prompt_tokens_mean if traffic else None) or 0.0

    def _threshold_s(self) -> float:
        return max(LEAST_THRESHOLD_S, self.service.ttft_ms / 1000 - self._prompt_tokens() / self._tokens_per_s)

    def _backlog_s(self, seen: Observation) -> float:
        fleet = view(seen, Role.PREFILL)
        held = sum((group.waiting or 0.0) + (group.running or 0.0) for group in fleet.groups) if fleet else 0.0
        return (held + in_router(seen)) * self._prompt_tokens() / self._tokens_per_s

    def _full_caches(self, seen: Observation) -> float:
        fleet = view(seen, Role.DECODE)
        return sum(group.kv_usage or 0.0 for group in fleet.groups) if fleet else 0.0
