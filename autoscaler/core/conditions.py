"""Conditions: the lasting states that a Decision's reasons amount to."""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.model import Condition, ConditionStatus
from policies.model import Code, Reason

# condition type -> (codes that set it, status when one is there, status otherwise, reason otherwise)
_RULES: dict[str, tuple[tuple[Code, ...], ConditionStatus, ConditionStatus, str]] = {
    "ScalingActive": ((Code.DEMAND_MISSING, Code.NO_WORKLOAD), "False", "True", "DemandKnown"),
    "AbleToScale": ((Code.WORKLOAD_PROBLEM, Code.NO_WORKLOAD, Code.COST_UNKNOWN), "False", "True", "Ready"),
    "ScalingLimited": (
        (Code.BUDGET_CAPPED, Code.DOES_NOT_FIT, Code.BOUNDED, Code.WAIT_BUDGET),
        "True",
        "False",
        "DesiredWithinRange",
    ),
    "SLOReachable": ((Code.SLO_UNREACHABLE,), "False", "True", "Reachable"),
    "ManualHold": ((Code.MANUAL_HOLD,), "True", "False", "NoManualChange"),
    "Paused": ((Code.PAUSED,), "True", "False", "NotPaused"),
    "MetricsHealthy": ((Code.SCRAPE_FAILED, Code.ROLE_BLIND), "False", "True", "AllSourcesRead"),
}


def conditions(why: Sequence[Reason]) -> tuple[Condition, ...]:
    """One condition per rule, in a fixed order; the message holds every reason that caused it."""
    result = []
    for kind, (codes, status, otherwise, fine) in _RULES.items():
        causes = [reason for reason in why if reason.code in codes]
        message = "; ".join(str(reason) for reason in causes)
        if causes:
            result.append(Condition(kind, status, causes[0].code.value, message))
        else:
            result.append(Condition(kind, otherwise, fine, ""))
    return tuple(result)
