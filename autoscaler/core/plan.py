"""Plan: the next single safe step from what the fleet is now towards the target.

Rules:
1. Up: replicas, wait until ready, then the minimum. Down: the minimum, wait a scheduler cycle, then replicas,
   one TP group at a time, each only after the one before is gone.
2. The budget holds at every step: groups that drain still cost; growth waits until their GPUs are free.
3. Growth is clamped to what the scheduler says would fit now.
4. The minimum is never above the ready groups, and never below one: the API forbids zero.
"""

from __future__ import annotations

import math
from dataclasses import replace

from autoscaler.core.decide import Managed
from autoscaler.model import RoleFleet, State, Step, Target
from autoscaler.settings import Settings
from policies.fit import clamp_to_fit
from policies.manual import Ours
from policies.model import ROLES, Code, Missing, Pair, Reason, Role, Stage

Planned = tuple[Step | None, tuple[Reason, ...]]


def plan(target: Target, fleet: Managed, state: State, settings: Settings, now_s: float) -> tuple[Planned, State]:
    """One step or none; growth first, then what a shrink needs, then the shrink, then the floors."""
    why: list[Reason] = []
    for role in sorted(ROLES, key=lambda r: _deficit(target.groups, fleet, r), reverse=True):
        step, reasons = _grow(role, target.groups[role], fleet, settings.spec.gpu_budget)
        why += reasons
        if step:
            return (step, tuple(why)), _wrote(state, step, settings, now_s)
    for role in ROLES:
        step, reasons = _shrink(role, target, fleet[role], state, settings.spec.minimum_settle_s, now_s)
        why += reasons
        if step:
            return (step, tuple(why)), _wrote(state, step, settings, now_s)
    for role in ROLES:
        step, reasons = _move_floor(role, target.floor[role], fleet[role])
        why += reasons
        if step:
            return (step, tuple(why)), _wrote(state, step, settings, now_s)
    return (None, tuple(why or [Reason(Stage.PLAN, Code.AT_TARGET)])), state


def _deficit(target: Pair, fleet: Managed, role: Role) -> float:
    return target[role] / max(1, fleet[role].replicas)


def _wrote(state: State, step: Step, settings: Settings, now_s: float) -> State:
    """What the step will have written; a dry run writes nothing."""
    if not settings.spec.writes:
        return state
    if step.kind == "replicas":
        written = Ours(step.after, step.before, now_s)
        return replace(state, written={**state.written, step.role: written})
    if step.after < step.before:
        return replace(state, minimum_lowered_s={**state.minimum_lowered_s, step.role: now_s})
    return state


def _grow(role: Role, target: int, fleet: Managed, budget_gpus: int) -> Planned:
    own = fleet[role]
    if target <= own.replicas:
        return None, ()
    wanted, why = clamp_to_fit(role, own.replicas, target, _fit(fleet, role), own.limiting_resource)
    affordable = _affordable(fleet, role, budget_gpus)
    if affordable is not None and wanted - own.replicas > affordable:
        wanted = own.replicas + affordable
        detail = {"wanted": target, "now": wanted, "budget_gpus": budget_gpus}
        why += (Reason(Stage.PLAN, Code.WAIT_BUDGET, role, detail),)
    if wanted <= own.replicas:
        return None, why
    detail = {"from": own.replicas, "to": wanted}
    return Step("replicas", role, own.replicas, wanted), (*why, Reason(Stage.PLAN, Code.GROW, role, detail))


def _fit(fleet: Managed, role: Role) -> int | Missing:
    """What fits now, less what was asked for and has no pods yet, the partner's groups by their GPUs."""
    own, partner = fleet[role], fleet[role.partner]
    if isinstance(own.fit, Missing):
        return own.fit
    taken = own.unborn
    if not isinstance(own.gpus_per_group, Missing) and not isinstance(partner.gpus_per_group, Missing):
        taken += math.ceil(partner.unborn * partner.gpus_per_group / max(1, own.gpus_per_group))
    return max(0, own.fit - taken)


def _affordable(fleet: Managed, role: Role, budget_gpus: int) -> int | None:
    """Groups of this role that the budget still holds beside all that is there or asked for; None = no limit."""
    gpus = fleet[role].gpus_per_group
    if isinstance(gpus, Missing):
        return 0
    used = 0
    for other in (fleet.prefill, fleet.decode):
        if isinstance(other.gpus_per_group, Missing):
            return 0
        used += max(other.present, other.replicas) * other.gpus_per_group
    return None if gpus == 0 else max(0, budget_gpus - used) // gpus


def _shrink(role: Role, target: Target, own: RoleFleet, state: State, settle_s: float, now_s: float) -> Planned:
    if target.groups[role] >= own.replicas:
        return None, ()
    after = own.replicas - 1
    if own.draining or own.present > own.replicas:
        detail = {"draining": max(own.draining, own.present - own.replicas), "target": target.groups[role]}
        return None, (Reason(Stage.PLAN, Code.WAIT_DRAIN, role, detail),)
    if not isinstance(own.min_pods, Missing) and own.min_pods > after * own.pods_per_group:
        floor = max(1, min(after, target.floor[role])) * own.pods_per_group
        if floor < own.min_pods:
            return _minimum(role, own.min_pods, floor, Code.LOWER_MINIMUM)
    if now_s - state.minimum_lowered_s.get(role, now_s - settle_s) < settle_s:
        return None, (Reason(Stage.PLAN, Code.WAIT_MINIMUM_SEEN, role, {"settle_s": settle_s}),)
    reason = Reason(Stage.PLAN, Code.SHRINK, role, {"from": own.replicas, "to": after})
    return Step("replicas", role, own.replicas, after), (reason,)


def _move_floor(role: Role, floor: int, own: RoleFleet) -> Planned:
    if isinstance(own.min_pods, Missing) or own.ready == 0:
        return None, ()
    pods = floor * own.pods_per_group
    if pods == own.min_pods:
        return None, ()
    return _minimum(role, own.min_pods, pods, Code.RAISE_MINIMUM if pods > own.min_pods else Code.LOWER_MINIMUM)


def _minimum(role: Role, before: int, after: int, code: Code) -> Planned:
    detail = {"from_pods": before, "to_pods": after}
    return Step("min_count", role, before, after), (Reason(Stage.PLAN, code, role, detail),)
