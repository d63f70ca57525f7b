"""Conditions: the lasting states that reasons amount to. The only table of them.

Rules:
1. A condition's reason is its gravest cause, in the table's order; its message holds every cause.
2. What nobody has looked at is Unknown, never fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.model import Condition, ConditionStatus
from policies.model import Code, Reason

_STOPPED = (Code.SPEC_INVALID, Code.SERVICE_CLAIMED, Code.SWITCHED_OFF, Code.NO_WORKLOAD)
_UNABLE = (
    Code.WORKLOAD_PROBLEM,
    Code.COST_UNKNOWN,
    Code.WRITE_REFUSED,
    Code.WRITE_FAILED,
    Code.RESTORE_GIVEN_UP,
)
_UNSEEN = (
    Code.WATCH_FAILED,
    Code.HELD_BLIND,
    Code.ROLE_BLIND,
    Code.METRICS_PARTIAL,
    Code.UNIT_ERROR,
    Code.SIGNAL_DAMAGED,
    Code.SCRAPE_FAILED,
)
_BUDGET = (Code.BUDGET_BELOW_MINIMUM, Code.BUDGET_CAPPED, Code.WAIT_BUDGET)
_FOREIGN = (Code.RESTORE_GIVEN_UP, Code.ANOTHER_CONTROLLER, Code.MANUAL_HOLD, Code.FIELD_RESTORED)


@dataclass(frozen=True, slots=True)
class _Rule:
    """`status` while one of the codes is there; the opposite, for the reason `fine`, while none is."""

    codes: tuple[Code, ...]
    status: ConditionStatus
    fine: str


_RULES: dict[str, _Rule] = {
    "Ready": _Rule((*_STOPPED, Code.CRD_OUTDATED, *_UNABLE, Code.DEMAND_MISSING, Code.ROLE_BLIND), "False", "CanScale"),
    "ScalingActive": _Rule((*_STOPPED, Code.DEMAND_MISSING), "False", "DemandKnown"),
    "AbleToScale": _Rule((*_STOPPED, *_UNABLE), "False", "Able"),
    "ScalingLimited": _Rule(
        (Code.DOES_NOT_FIT, Code.NOT_PROVISIONED, *_BUDGET, Code.BOUNDED),
        "True",
        "DesiredWithinRange",
    ),
    "SLOReachable": _Rule((Code.SLO_UNREACHABLE,), "False", "Reachable"),
    "Blind": _Rule(_UNSEEN, "True", "AllSourcesRead"),
    "ForeignWriter": _Rule(_FOREIGN, "True", "OnlyUs"),
    "Unplaceable": _Rule((Code.DOES_NOT_FIT, Code.NOT_PROVISIONED), "True", "EverythingFits"),
    "Paused": _Rule((Code.PAUSED,), "True", "NotPaused"),
    "Reporting": _Rule((Code.REPORT_FAILED,), "False", "Written"),
    "Served": _Rule((Code.CRD_OUTDATED, Code.PODGROUPS_NOT_SERVED), "False", "AllServed"),
}
_OPPOSITE: dict[ConditionStatus, ConditionStatus] = {"True": "False", "False": "True"}

TYPES = tuple(_RULES)
_LASTING = frozenset(code for rule in _RULES.values() for code in rule.codes)
_FINE = {kind: Condition(kind, _OPPOSITE[rule.status], rule.fine, "") for kind, rule in _RULES.items()}
_UNKNOWN = {kind: Condition(kind, "Unknown", "NotLooked", "") for kind in _RULES}


def conditions(why: Sequence[Reason], *, looked: bool = True) -> tuple[Condition, ...]:
    """One condition per rule, in a fixed order. `looked`: whether the service was seen at all."""
    without = _FINE if looked else _UNKNOWN
    lasting = [reason for reason in why if reason.code in _LASTING]
    if not lasting:
        return tuple(without.values())
    return tuple([_condition(kind, rule, lasting) or without[kind] for kind, rule in _RULES.items()])


def _condition(kind: str, rule: _Rule, why: Sequence[Reason]) -> Condition | None:
    """None where there is no cause for it."""
    causes = [reason for reason in why if reason.code in rule.codes]
    if not causes:
        return None
    gravest = min(causes, key=lambda reason: rule.codes.index(reason.code))
    return Condition(kind, rule.status, gravest.code.value, "; ".join(map(str, causes)))
