"""The RoleRatioAutoscaler object: its spec to Settings, a Decision to its status, and the status to the server.

Rules:
1. Equal inputs give equal status. A status that would differ only in what no reader acts on (a number inside a
   reason, a forecast that moved a little) is the previous one.
2. What is acted on (groups, minimums, ratio, mode, a condition, a step) is told at once, the rest at most every
   SETTLE_S. A condition's time moves only with its status.
   Of two controllers of one object each tells only every SETTLE_S, but then it does: that they are two, they know
   from each other's statuses.
3. Status goes through /status, on the version that was seen, and only when it changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from autoscaler.adapters.fleet import seconds
from autoscaler.core.conditions import conditions
from autoscaler.model import Condition, Decision, Observation, RoleFleet, Step
from autoscaler.reported import ConditionReport, LastDecision, Report, RoleReport
from autoscaler.settings import Mode, Settings, parse_settings
from kubeapi import kinds
from kubeapi.client import KubeClient, Object
from kubeapi.errors import Conflict
from policies.model import ROLES, Code, Missing, Pair, Reason, Role, Stage

SETTLE_S = 30.0
TOLERANCE = 0.2
"""A forecast that moved by less than this share of itself is not news."""

# What a column should say of a decision: the first of these that is among its reasons.
_TELLING = (
    *(Code.SPEC_INVALID, Code.SERVICE_CLAIMED, Code.SWITCHED_OFF, Code.CRD_OUTDATED, Code.NO_WORKLOAD),
    Code.WORKLOAD_PROBLEM,
    *(Code.COST_UNKNOWN, Code.WRITE_REFUSED, Code.WRITE_FAILED, Code.RESTORE_GIVEN_UP, Code.DEMAND_MISSING),
    *(Code.WATCH_FAILED, Code.ROLE_BLIND, Code.ANOTHER_CONTROLLER),
    *(Code.MANUAL_HOLD, Code.PAUSED, Code.FIELD_RESTORED, Code.GROW, Code.SHRINK),
    *(
        Code.NOT_PROVISIONED,
        Code.DOES_NOT_FIT,
        Code.FIT_UNKNOWN,
        Code.PROVISIONING,
        Code.BUDGET_BELOW_MINIMUM,
        Code.BUDGET_CAPPED,
        Code.WAIT_BUDGET,
        Code.SLO_UNREACHABLE,
        Code.LOWER_MINIMUM,
        Code.RAISE_MINIMUM,
    ),
    *(Code.WAIT_MINIMUM_SEEN, Code.WAIT_DRAIN, Code.WAIT_READY, Code.WARMING_UP, Code.BOUNDED),
    *(Code.RATIO_REPAIRED, Code.STABILISED, Code.AT_TARGET),
)
# Passing remarks, which would make the list of reasons change for nothing.
_CHATTER = (Code.COUNTER_RESET, Code.GHOSTS_DROPPED, Code.BURST, Code.RATIO_OUTSIDE)
_SIZED = (Code.SIZED_FOR_TTFT, Code.SIZED_FOR_ITL)
_NUMBER = re.compile(r"=-?[\d.]+\b")


def settings_of(obj: Mapping[str, Any]) -> Settings:
    """The settings in an rra. Raises UserError, also for what a server without our schema has let through."""
    return parse_settings({key: value for key, value in obj.items() if key != "status"}, title_of(obj))


def title_of(obj: Mapping[str, Any]) -> str:
    """`rra namespace/name`, for messages."""
    return f"rra {obj['metadata'].get('namespace', 'default')}/{obj['metadata']['name']}"


def status_of(
    settings: Settings,
    observation: Observation,
    decision: Decision,
    previous: Mapping[str, Any] | None,
    now_s: float,
    generation: int,
) -> Object:
    """The status after one tick."""
    why = decision.why
    report = Report(
        observed_generation=generation,
        mode=settings.spec.mode,
        roles=[_role(role, observation, decision) for role in ROLES],
        ratio=_ratio(decision, observation),
        bottleneck=_bottleneck(observation, why),
        last_decision=_last(why, decision.step, now_s),
    )
    return _told(report, conditions(why), previous, now_s)


def refusal(
    problems: Sequence[str],
    previous: Mapping[str, Any] | None,
    now_s: float,
    generation: int,
    code: Code = Code.SPEC_INVALID,
) -> Object:
    """The status of an rra that cannot be acted on: it cannot be read, or its service is another one's."""
    reason = Reason(Stage.OBSERVE, code, None, {"why": "; ".join(problems)})
    return _without_decision(Report(observed_generation=generation), reason, previous, now_s)


def switched_off(previous: Mapping[str, Any] | None, now_s: float, generation: int) -> Object:
    """The status of an rra in mode Off, for which nothing is looked at."""
    report = Report(observed_generation=generation, mode=Mode.OFF)
    reason = Reason(Stage.OBSERVE, Code.SWITCHED_OFF, None, {"mode": Mode.OFF.value})
    return _without_decision(report, reason, previous, now_s)


def _without_decision(report: Report, reason: Reason, previous: Mapping[str, Any] | None, now_s: float) -> Object:
    report.last_decision = _last((reason,), None, now_s)
    return _told(report, conditions((reason,), looked=False), previous, now_s)


async def write_status(client: KubeClient, obj: Mapping[str, Any], status: Object) -> Object | None:
    """Write a status that differs from the object's; what the server stored of it, or None. Raises ApiError.

    A version that has moved on is left alone: whoever sees the new one tells anew.
    """
    if obj.get("status") == status:
        return None
    meta = obj["metadata"]
    body: list[Object] = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
        {"op": "add", "path": "/status", "value": status},
    ]
    try:
        made = await client.patch(
            kinds.RRA, meta["name"], meta["namespace"], body, patch_type="json", subresource="status"
        )
    except Conflict:
        return None
    return dict(made.get("status") or {})


def _role(role: Role, seen: Observation, decision: Decision) -> RoleReport:
    fleet, target = seen.fleet[role], decision.target
    if target and not target.desires(role):
        target = None
    report = RoleReport(name=role.value)
    foretold = seen.outlook.of(role)
    if foretold and foretold.measured.targets:
        report.learned_error = _rounded(foretold.measured.wape)
    if isinstance(fleet, RoleFleet):
        report.current, report.ready = fleet.replicas, fleet.ready
        report.min_count_pods, report.placeable = _known(fleet.min_pods), _known(fleet.fit)
        report.groups = f"{fleet.ready}/{target.groups[role] if target else '?'}"
    if target:
        report.desired, report.floor = target.groups[role], target.floor[role]
    offered, ahead = decision.signals.demand.tokens_per_s(role), decision.forecast[role]
    if not isinstance(offered, Missing):
        report.demand_tokens_per_s = _rounded(offered)
    if not isinstance(ahead, Missing):
        report.forecast_tokens_per_s = _rounded(ahead.tokens_per_s_high)
        report.horizon_s = _rounded(ahead.horizon_s)
        report.forecast_by = ahead.model
    return report


def _known(value: int | Missing) -> int | None:
    return None if isinstance(value, Missing) else value


def _rounded(value: float) -> float:
    """Two significant digits: more would be noise."""
    return float(f"{value:.2g}")


def _ratio(decision: Decision, seen: Observation) -> str | None:
    if decision.target and decision.target.unsized:
        return None
    groups = decision.target.groups if decision.target else None
    if groups is None and isinstance(seen.fleet.prefill, RoleFleet) and isinstance(seen.fleet.decode, RoleFleet):
        groups = Pair(seen.fleet.prefill.replicas, seen.fleet.decode.replicas)
    if groups is None:
        return None
    common = math.gcd(groups.prefill, groups.decode) or 1
    return f"{groups.prefill // common}:{groups.decode // common}"


def _bottleneck(seen: Observation, why: Sequence[Reason]) -> Any:
    """The role with the smallest share of the groups that the SLO needs ready; none if both have all of them."""
    needed = {reason.role: reason.detail["groups"] for reason in why if reason.code in _SIZED}
    shares: dict[str, float] = {}
    for role in ROLES:
        fleet, groups = seen.fleet[role], needed.get(role)
        if not isinstance(fleet, RoleFleet) or not isinstance(groups, int):
            return None
        shares[role.value] = fleet.ready / max(1, groups) if groups else 1.0
    short = min(shares, key=lambda name: shares[name])
    return short if shares[short] < 1 else "none"


def _last(why: Sequence[Reason], step: Step | None, now_s: float) -> LastDecision:
    return LastDecision(
        time=_time(now_s),
        summary=_summary(why),
        step=f"{step.role} {step.kind} {step.before} -> {step.after}" if step else None,
        reasons=[str(reason) for reason in why if reason.code not in _CHATTER],
    )


def _summary(why: Sequence[Reason]) -> str:
    for code in _TELLING:
        found = [reason for reason in why if reason.code is code]
        if found:
            roles = {reason.role.value for reason in found if reason.role}
            return f"{roles.pop()} {code}" if len(roles) == 1 else code.value
    return why[-1].code.value if why else ""


def _told(report: Report, now: Sequence[Condition], previous: Mapping[str, Any] | None, now_s: float) -> Object:
    """The report with its conditions, or the previous one where nothing in it is news."""
    before = _parsed(previous)
    since = {c.type: (c.status, c.last_transition_time) for c in before.conditions} if before else {}
    report.conditions = [
        ConditionReport(
            type=condition.type,
            status=condition.status,
            observed_generation=report.observed_generation,
            last_transition_time=_since(condition, since, now_s),
            reason=condition.reason,
            message=condition.message,
        )
        for condition in now
    ]
    if before and previous is not None and not _is_news(report, before, now_s):
        return dict(previous)
    return report.model_dump(mode="json", by_alias=True, exclude_none=True)


def _since(condition: Condition, since: Mapping[str, tuple[str, str]], now_s: float) -> str:
    status, at = since.get(condition.type, ("", ""))
    return at if status == condition.status else _time(now_s)


def _is_news(report: Report, before: Report, now_s: float) -> bool:
    if _two(report) and _two(before) and before.last_decision:
        return now_s - seconds(before.last_decision.time) >= SETTLE_S
    if _acted_on(report) != _acted_on(before):
        return True
    last, earlier = report.last_decision, before.last_decision
    if last is None or earlier is None:
        return last is not earlier
    if last.step and last.step != earlier.step:
        return True
    return now_s - seconds(earlier.time) >= SETTLE_S and _differs(report, before)


def _two(report: Report) -> bool:
    """Whether another controller follows the object, too."""
    return any(Code.ANOTHER_CONTROLLER.value in condition.message for condition in report.conditions)


def _acted_on(report: Report) -> Object:
    of_a_role = {"placeable", "demand_tokens_per_s", "forecast_tokens_per_s", "horizon_s", "forecast_by"}
    roles = {"roles": {"__all__": of_a_role | {"learned_error"}}}
    texts = {"conditions": {"__all__": {"reason", "message", "last_transition_time"}}}
    return report.model_dump(mode="json", exclude={"last_decision": True, "bottleneck": True, **roles, **texts})


def _differs(report: Report, before: Report) -> bool:
    """Whether the rest has changed enough for a reader to care; lists are of the same roles and conditions."""
    if (report.bottleneck, _words(report)) != (before.bottleneck, _words(before)):
        return True
    for role, earlier in zip(report.roles, before.roles, strict=True):
        if role.placeable != earlier.placeable:
            return True
        pairs = (
            (role.demand_tokens_per_s, earlier.demand_tokens_per_s),
            (role.forecast_tokens_per_s, earlier.forecast_tokens_per_s),
            (role.horizon_s, earlier.horizon_s),
        )
        if any(_moved(*pair) for pair in pairs):
            return True
    return False


def _words(report: Report) -> list[str]:
    """All texts without the numbers in them."""
    last = report.last_decision
    texts = [last.summary, *last.reasons] if last else []
    texts += [text for condition in report.conditions for text in (condition.reason, condition.message)]
    return [_NUMBER.sub("=", text) for text in texts]


def _moved(value: float | None, earlier: float | None) -> bool:
    if value is None or earlier is None:
        return value is not earlier
    return abs(value - earlier) > TOLERANCE * earlier


def _parsed(status: Mapping[str, Any] | None) -> Report | None:
    """A status that somebody has written; None if it is not one of ours."""
    try:
        return Report.model_validate(status) if status else None
    except ValidationError:
        return None


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
