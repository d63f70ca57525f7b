"""HPA v2 on the queue: a Pods metric, vllm:num_requests_waiting per group, against a target average.

Formula: desired = ceil(ready x mean(waiting) / target), no change within a tolerance of 0.1. With unread groups the
mean is taken again, with them at the target on the way down and at 0 on the way up; unready ones count as 0 on the way
up; no change where the second mean is within the tolerance, turns the direction around, or would move the size the
other way. No readable group: no change. Source: kubernetes/kubernetes pkg/controller/podautoscaler/
replica_calculator.go, calcPlainMetricReplicas; windows, rates and bounds: `simulator.policies.hpa`.

It reads num_requests_waiting of decode as vLLM gives it, requests that wait for remote KV included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autoscaler.model import Observation
from policies.model import ROLES, Pair
from simulator.policies.hpa import SYNC_S, TOLERANCE, Hpa
from simulator.policies.view import RoleView, Service, current, view


@dataclass(slots=True)
class HpaQueue:
    """`target`: waiting requests per group, of each role."""

    service: Service
    target: float = 5.0
    hpa: Hpa = field(init=False)
    _due_s: float = -math.inf
    _last: Pair | None = None

    def __post_init__(self) -> None:
        self.hpa = Hpa(self.service)

    def groups(self, seen: Observation) -> Pair | None:
        """The sizes to set."""
        now = current(seen)
        if now is None or seen.now_s < self._due_s:
            return self._last
        self._due_s = seen.now_s + SYNC_S
        views = (view(seen, role) for role in ROLES)
        wanted = Pair(*(plain_metric(role_view, self.target) for role_view in views if role_view is not None))
        self._last = self.hpa.settle(seen.now_s, wanted, now)
        return self._last


def plain_metric(role: RoleView, target: float) -> int:
    """calcPlainMetricReplicas for the waiting requests of one role."""
    waiting = [group.waiting for group in role.groups if group.waiting is not None]
    if not waiting:
        return role.replicas
    missing = max(0, role.ready - len(waiting))
    unready = max(0, role.replicas - role.ready)
    ratio = sum(waiting) / len(waiting) / target
    rebalance = unready > 0 and ratio > 1
    if not rebalance and not missing:
        return role.replicas if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * role.ready - 1e-9)
    waiting += [target if ratio < 1 else 0.0] * missing
    waiting += [0.0] * (unready if rebalance else 0)
    again = sum(waiting) / len(waiting) / target
    if abs(1 - again) <= TOLERANCE or (ratio < 1 < again) or (again < 1 < ratio):
        return role.replicas
    wanted = math.ceil(again * len(waiting) - 1e-9)
    turned = (again < 1 and wanted > role.replicas) or (again > 1 and wanted < role.replicas)
    return role.replicas if turned else wanted
