"""What a HorizontalPodAutoscaler makes of recommendations: tolerance, windows, rates and bounds, every 15 s.

Source: kubernetes/kubernetes pkg/controller/podautoscaler/horizontal.go (normalizeDesiredReplicasWithBehaviors: the
first recommendation is the present size; default behaviour up max(100 %, 4 pods) per 15 s, down 100 % per 15 s, windows
0 s and 300 s) and replica_calculator.go (tolerance 0.1). The windows and rates are `policies.behaviour`, which has the
same semantics; the sizes of both roles move independently, as two HPAs would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from policies.behaviour import Behaviour, behave, remember_size
from policies.model import ROLES, Pair, Role
from simulator.policies.view import Service

SYNC_S = 15.0
TOLERANCE = 0.1


@dataclass(slots=True)
class Hpa:
    """Two HPAs, one per role, with their memories."""

    service: Service
    behaviour: dict[Role, Behaviour] = field(default_factory=lambda: {role: Behaviour() for role in ROLES})
    _recommended: list[tuple[float, Pair]] = field(default_factory=list)
    _sizes: tuple[tuple[float, Pair], ...] = ()

    def settle(self, now_s: float, recommended: Pair, current: Pair) -> Pair:
        """The sizes to set, now that the metrics recommend some."""
        longest_s = max(max(rules.up.window_s, rules.down.window_s) for rules in self.behaviour.values())
        period_s = max(rules.longest_period_s for rules in self.behaviour.values())
        if not self._recommended:
            self._recommended.append((now_s, current))
        self._sizes = remember_size(self._sizes, now_s, current, period_s)
        target, _ = behave(
            recommended,
            current,
            self.behaviour,
            history=self._recommended,
            sizes=self._sizes,
            now_s=now_s,
            seen_s=math.inf,
        )
        self._recommended = [(at_s, pair) for at_s, pair in self._recommended if at_s > now_s - longest_s]
        self._recommended.append((now_s, recommended))
        return self.service.bounded(target)


def average_value(total: float, target: float, current: int) -> int:
    """Replicas for a metric of type External or Object with an AverageValue: ceil(total / target), unless the average
    is within the tolerance of the target.
    """
    if current and abs(1 - total / (target * current)) <= TOLERANCE:
        return current
    return math.ceil(total / target - 1e-9)
