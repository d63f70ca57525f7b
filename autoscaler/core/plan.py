"""Plan: the next single safe step from what the fleet is now towards the target.

Rules:
1. Up: replicas, wait until ready, then the minimum. Down: the minimum, wait a scheduler cycle, then replicas,
   one TP group at a time, each only after the one before is gone.
2. The budget holds at every step: groups that drain still cost; growth waits until their GPUs are free.
3. Growth is clamped to what the scheduler's own fit says of the present nodes; where nodes can come, whole groups may
   wait for them.
4. Groups that have waited in vain are withdrawn before anything else moves, together, since nothing of them serves: as
   many as the kind would take away next, and never from a role that is held.
5. The minimum is never above the ready groups, and never below one: the API forbids zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from autoscaler.core.holds import Managed
from autoscaler.model import RoleFleet, Signals, State, Step, Target
from autoscaler.settings import Settings
from policies.budget import affordable
from policies.capacity import Offer, Waiting, offer_capacity, watch_waiting
from policies.manual import Ours
from policies.model import ROLES, Code, Detail, Missing, Pair, Reason, Role, Stage

Planned = tuple[Step | None, tuple[Reason, ...]]


@dataclass(frozen=True, slots=True)
class _Look:
    """What every step is planned from. `offers`: the groups of each role that may be asked for, and who waits."""

    target: Target
    fleet: Managed
    state: State
    signals: Signals
    settings: Settings
    now_s: float
    offers: Mapping[Role, Offer]


def plan(
    target: Target, fleet: Managed, state: State, signals: Signals, settings: Settings, now_s: float
) -> tuple[Planned, State]:
    """One step or none. Linear in the groups."""
    waiting = {role: watch_waiting(state.waiting.get(role, Waiting()), now_s, fleet[role].unplaced) for role in ROLES}
    state = replace(state, waiting=waiting)
    offers = {role: _offer(role, target, fleet, waiting[role], settings, now_s) for role in ROLES}
    look = _Look(target, fleet, state, signals, settings, now_s, offers)
    why: list[Reason] = []
    for step, reasons in _attempts(look):
        why += reasons
        if step:
            return (step, tuple(why)), _wrote(look, step)
    return (None, tuple(why or [Reason(Stage.PLAN, Code.AT_TARGET)])), state


def _attempts(look: _Look) -> Iterator[Planned]:
    """What waits in vain goes first; then growth, the role that lacks most first; then shrinks, then the floors."""
    for role in ROLES:
        yield _withdraw(role, look)
    for role in sorted(ROLES, key=lambda r: look.target.groups[r] / max(1, look.fleet[r].replicas), reverse=True):
        yield _grow(role, look)
    for role in ROLES:
        yield _shrink(role, look)
    for role in ROLES:
        yield _move_floor(role, look)


def _wrote(look: _Look, step: Step) -> State:
    """What the step will have written; a dry run writes nothing."""
    state, role = look.state, step.role
    if not look.settings.spec.writes:
        return state
    if step.kind == "replicas":
        written = Ours(step.after, step.before, look.now_s)
        waiting = {**state.waiting, role: look.offers[role].waiting}
        return replace(state, written={**state.written, role: written}, waiting=waiting)
    if step.after < step.before:
        return replace(state, minimum_lowered_s={**state.minimum_lowered_s, role: look.now_s})
    return state


def _offer(role: Role, target: Target, fleet: Managed, waiting: Waiting, settings: Settings, now_s: float) -> Offer:
    """The groups that may be asked for: no fewer than now, but for those that have waited in vain."""
    own, spec = fleet[role], settings.spec
    return offer_capacity(
        role,
        own.replicas,
        max(own.replicas, target.groups[role]),
        _fit(fleet, role),
        waiting,
        now_s,
        spec.capacity.policy,
        withdrawable=0 if role in target.kept else min(_next_waiting(own), own.replicas - spec.role(role).min_groups),
        limiting_resource=own.limiting_resource,
    )


def _next_waiting(own: RoleFleet) -> int:
    """How many groups without a place would go next: a kind that counts its groups takes the highest, the other one
    what has no node.
    """
    ordered = sorted((group for group in own.groups if group.ordinal is not None), key=lambda g: g.ordinal or 0)
    if not ordered:
        return own.unplaced
    return own.unborn + sum(1 for _ in takewhile(lambda group: group.waits, reversed(ordered)))


def _withdraw(role: Role, look: _Look) -> Planned:
    own, offer = look.fleet[role], look.offers[role]
    if offer.groups >= own.replicas:
        return None, ()
    return _take(role, offer.groups, look, offer.why)


def _grow(role: Role, look: _Look) -> Planned:
    own, offer, budget_gpus = look.fleet[role], look.offers[role], look.settings.spec.gpu_budget
    target = look.target.groups[role]
    if offer.groups < own.replicas or target <= own.replicas:
        return None, offer.why if offer.groups >= own.replicas else ()
    wanted, why = offer.groups, offer.why
    held = Pair(*(look.fleet[other].held for other in ROLES))
    more = affordable(role, held, look.fleet.costs, budget_gpus)
    limit = 0 if isinstance(more, Missing) else more
    if limit is not None and wanted - own.replicas > limit:
        wanted = own.replicas + limit
        detail: Detail = {"wanted": target, "now": wanted, "budget_gpus": budget_gpus}
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


def _shrink(role: Role, look: _Look) -> Planned:
    own, target = look.fleet[role], look.target.groups[role]
    if target >= own.replicas:
        return None, ()
    if own.draining or own.present > own.replicas:
        detail: Detail = {"draining": max(own.draining, own.present - own.replicas), "target": target}
        return None, (Reason(Stage.PLAN, Code.WAIT_DRAIN, role, detail),)
    detail = {"from": own.replicas, "to": own.replicas - 1, **_unchosen(own, look.signals[role].stalled)}
    return _take(role, own.replicas - 1, look, (Reason(Stage.PLAN, Code.SHRINK, role, detail),))


def _unchosen(own: RoleFleet, stalled: tuple[str, ...]) -> Detail:
    """Which stalled groups stay although they should go first: the kind chooses, not we."""
    if not stalled:
        return {}
    ordered = [group for group in own.groups if group.ordinal is not None]
    last = max(ordered, key=lambda group: group.ordinal or 0).pods[0] if ordered else ""
    rule = f"{own.kind} takes the highest ordinal" if ordered else f"{own.kind} takes what is not ready, then chooses"
    staying = [name for name in stalled if name != last]
    return {"stalled": ", ".join(staying[:5]), "stays_since": rule} if staying else {}


def _take(role: Role, after: int, look: _Look, why: tuple[Reason, ...]) -> Planned:
    """Fewer replicas, once the minimum allows it and the scheduler has seen that."""
    own, settle_s = look.fleet[role], look.settings.spec.minimum_settle_s
    if not isinstance(own.min_pods, Missing) and own.min_pods > after * own.pods_per_group:
        floor = max(1, min(after, look.target.floor[role])) * own.pods_per_group
        if floor < own.min_pods:
            return _minimum(role, own.min_pods, floor, Code.LOWER_MINIMUM)
    if look.now_s - look.state.minimum_lowered_s.get(role, look.now_s - settle_s) < settle_s:
        return None, (Reason(Stage.PLAN, Code.WAIT_MINIMUM_SEEN, role, {"settle_s": settle_s}),)
    return Step("replicas", role, own.replicas, after), why


def _move_floor(role: Role, look: _Look) -> Planned:
    own = look.fleet[role]
    if isinstance(own.min_pods, Missing) or own.ready == 0:
        return None, ()
    pods = look.target.floor[role] * own.pods_per_group
    if pods == own.min_pods:
        return None, ()
    return _minimum(role, own.min_pods, pods, Code.RAISE_MINIMUM if pods > own.min_pods else Code.LOWER_MINIMUM)


def _minimum(role: Role, before: int, after: int, code: Code) -> Planned:
    detail = {"from_pods": before, "to_pods": after}
    return Step("min_count", role, before, after), (Reason(Stage.PLAN, code, role, detail),)
