"""Capacity: what cannot be placed is not supply, unless nodes can still come.

Rules:
1. `fixed`: growth is clamped to what fits now.
2. `provisionable`: whole groups may wait, up to the budget, so that a node autoscaler sees them.
3. In both, each waiting group has its own time. When a place is found the oldest has it; a group that has waited
   `provision_timeout_s` is withdrawn where that is possible, and for as long again only what fits now is asked for.
4. Where a group needs a node that does not exist yet, the node's start-up comes before its cold start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policies.fit import clamp_to_fit
from policies.model import Code, Detail, Missing, Reason, Role, Stage


@dataclass(frozen=True, slots=True)
class CapacityRules:
    """Whether nodes can come; how long a group waits for one, and how long a node takes to start, in seconds."""

    mode: Literal["fixed", "provisionable"] = "fixed"
    provision_timeout_s: float = 900.0
    node_start_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Since when each unplaced group of a role waits, oldest first; and when groups were last withdrawn."""

    since_s: tuple[float, ...] = ()
    withdrawn_s: float | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """How many groups to ask for, who waits, and why."""

    groups: int
    waiting: Waiting
    why: tuple[Reason, ...]


def watch_waiting(before: Waiting, now_s: float, unplaced: int) -> Waiting:
    """Who waits after this look at `unplaced` groups: those that were asked for and have no place."""
    placed = max(0, len(before.since_s) - unplaced)
    kept = before.since_s[placed:]
    return Waiting((*kept, *(now_s for _ in range(unplaced - len(kept)))), before.withdrawn_s)


def offer_capacity(
    role: Role,
    current: int,
    wanted: int,
    fit: int | Missing,
    waiting: Waiting,
    now_s: float,
    rules: CapacityRules,
    *,
    withdrawable: int,
    limiting_resource: str = "",
) -> Offer:
    """How many groups to ask for. `current` are those asked for now, waiting ones among them; `fit` is how many more
    could be placed now, beside those that wait. `withdrawable`: of those that wait, how many may be taken away, and
    would go first. Never above max(current, wanted).
    """
    late = sum(1 for since_s in waiting.since_s if now_s - since_s >= rules.provision_timeout_s)
    late = min(late, withdrawable)
    if late > 0:
        detail: Detail = {"wanted": wanted, "withdrawn": late, "after_s": rules.provision_timeout_s}
        reason = Reason(Stage.PLAN, Code.NOT_PROVISIONED, role, detail)
        return Offer(current - late, Waiting(waiting.since_s[late:], now_s), (reason,))
    if rules.mode == "fixed" or _lately_withdrawn(waiting, now_s, rules):
        groups, why = clamp_to_fit(role, current, wanted, fit, limiting_resource)
        return Offer(groups, waiting, why)
    why = ()
    lacking = len(waiting.since_s) + max(0, wanted - current - (0 if isinstance(fit, Missing) else fit))
    if lacking and wanted >= current:
        oldest_s = now_s - waiting.since_s[0] if waiting.since_s else 0.0
        detail = {"waiting": lacking, "for_s": oldest_s, "at_most_s": rules.provision_timeout_s}
        why = (Reason(Stage.PLAN, Code.PROVISIONING, role, detail),)
    return Offer(wanted, waiting, why)


def node_start_s(growth: int, fit: int | Missing, rules: CapacityRules) -> float:
    """How long `growth` more groups wait for a node before their cold start: not at all where they fit on those that
    are there. An unknown fit counts as no room: too early costs GPU time, too late costs the SLO.
    """
    room = 0 if isinstance(fit, Missing) else fit
    needs_nodes = rules.mode == "provisionable" and growth > room
    return rules.node_start_s if needs_nodes else 0.0


def _lately_withdrawn(waiting: Waiting, now_s: float, rules: CapacityRules) -> bool:
    return waiting.withdrawn_s is not None and now_s - waiting.withdrawn_s < rules.provision_timeout_s
