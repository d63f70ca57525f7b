"""An rra's status and conditions: what is told, when it is news, and what is never told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from autoscaler.adapters.rra import SETTLE_S, refusal, settings_of, status_of, switched_off
from autoscaler.core.conditions import TYPES, conditions
from autoscaler.core.demand import unknown as unknown_demand
from autoscaler.errors import UserError
from autoscaler.model import Decision, Fleet, Forecast, Observation, RoleFleet, Signals
from kubeapi.client import Object
from policies.model import Code, Missing, Pair, Role, Stage
from tests.autoscaler.pages import outlook, role_fleet, settings
from tests.autoscaler.plant import Load, Plant
from tests.autoscaler.told import GROWTH, NOW_S, a_decision, an_observation, reason, sized

SETTINGS = settings()
AT_TARGET = (*sized(1, 3), reason(Code.AT_TARGET, stage=Stage.PLAN))


def tell(
    decision: Decision | None = None,
    previous: Object | None = None,
    now_s: float = NOW_S,
    seen: Observation | None = None,
    generation: int = 1,
) -> Object:
    return status_of(SETTINGS, seen or an_observation(), decision or a_decision(), previous, now_s, generation)


def of_type(status: Object, kind: str) -> Object:
    return next(condition for condition in status["conditions"] if condition["type"] == kind)


def test_a_whole_status() -> None:
    status = tell()
    told = status.pop("conditions")
    assert [condition["type"] for condition in told] == list(TYPES)
    assert status == {
        "observedGeneration": 1,
        "mode": "Active",
        "roles": [
            {
                "name": "prefill",
                "groups": "1/1",
                "current": 1,
                "ready": 1,
                "desired": 1,
                "floor": 1,
                "minCountPods": 2,
                "placeable": 4,
                "demandTokensPerS": 5000.0,
                "forecastTokensPerS": 6000.0,
                "horizonS": 8.2,
                "forecastBy": "now",
            },
            {
                "name": "decode",
                "groups": "1/3",
                "current": 1,
                "ready": 1,
                "desired": 3,
                "floor": 2,
                "minCountPods": 2,
                "placeable": 4,
                "demandTokensPerS": 1300.0,
                "forecastTokensPerS": 1500.0,
                "horizonS": 8.2,
                "forecastBy": "now",
            },
        ],
        "ratio": "1:3",
        "bottleneck": "decode",
        "lastDecision": {
            "time": "2027-01-15T08:00:00Z",
            "summary": "decode Grow",
            "step": "decode replicas 1 -> 3",
            "reasons": [
                "prefill SizedForTTFT (groups=1 tokens_per_s=5000)",
                "decode SizedForITL (groups=3 tokens_per_s=5000)",
                "decode Grow (from=1 to=3)",
            ],
        },
    }


def _without_demand(signals: Signals, why: str) -> Signals:
    return replace(signals, demand=unknown_demand(1_800_000_000.0, why))


def test_what_is_not_known_is_absent() -> None:
    decode = replace(role_fleet("decode"), fit=Missing("no node"), min_pods=Missing("no PodGroup"))
    seen = replace(an_observation(), fleet=Fleet(Missing("no workload"), decode))
    blind = a_decision(None, None, (reason(Code.NO_WORKLOAD, Role.PREFILL, why="no workload"),))
    unknown = Missing("no router")
    blind = replace(blind, forecast=Forecast(unknown, unknown), signals=_without_demand(blind.signals, "no router"))
    status = tell(blind, seen=seen)
    assert status["roles"] == [{"name": "prefill"}, {"name": "decode", "groups": "1/?", "current": 1, "ready": 1}]
    assert "ratio" not in status
    assert "bottleneck" not in status
    assert status["lastDecision"]["summary"] == "prefill NoWorkload"


@pytest.mark.parametrize(
    ("groups", "ratio"),
    [(Pair(3, 1), "3:1"), (Pair(6, 2), "3:1"), (Pair(4, 6), "2:3"), (Pair(0, 0), "0:0"), (Pair(2, 0), "1:0")],
)
def test_the_ratio_is_of_what_is_wanted(groups: Pair, ratio: str) -> None:
    decision = a_decision()
    assert decision.target
    assert tell(replace(decision, target=replace(decision.target, groups=groups)))["ratio"] == ratio


@pytest.mark.parametrize(
    ("ready", "needed", "bottleneck"),
    [
        ((1, 3), (1, 3), "none"),
        ((4, 4), (1, 3), "none"),
        ((0, 3), (0, 3), "none"),
        ((1, 1), (4, 3), "prefill"),
        ((3, 1), (4, 3), "decode"),
    ],
)
def test_the_bottleneck_falls_furthest_short(ready: tuple[int, int], needed: tuple[int, int], bottleneck: str) -> None:
    decision = a_decision(why=sized(*needed))
    assert tell(decision, seen=an_observation(*ready))["bottleneck"] == bottleneck


def test_who_forecasts_and_how_wrong_the_learned_forecast_was_is_no_news_by_itself() -> None:
    told = tell()
    later = tell(previous=told, now_s=NOW_S + SETTLE_S, seen=replace(an_observation(), outlook=outlook()))
    assert later == told
    fresh = tell(seen=replace(an_observation(), outlook=outlook()))
    assert [role["learnedError"] for role in fresh["roles"]] == [0.12, 0.12]


def test_equal_inputs_give_equal_status_and_a_told_one_stands() -> None:
    assert tell() == tell()
    assert tell(previous=tell(), now_s=NOW_S + 10 * SETTLE_S) == tell()


def louder(decision: Decision) -> Decision:
    """The same decision about a demand that has doubled, in the numbers of its reasons too."""
    return a_decision(why=(*sized(1, 3, 10_000.0), GROWTH), tokens_per_s=10_064.0)


NEWS: dict[str, tuple[Callable[[Decision], Decision], Callable[[Observation], Observation]]] = {
    "the target": (
        lambda d: a_decision(target=replace(d.target, groups=Pair(2, 3))),  # type: ignore[type-var]
        lambda seen: seen,
    ),
    "the floor": (lambda d: a_decision(target=replace(d.target, floor=Pair(1, 3))), lambda seen: seen),  # type: ignore[type-var]
    "a condition": (lambda d: a_decision(why=(*d.why, reason(Code.PAUSED, Role.DECODE))), lambda seen: seen),
    "a group that is ready": (lambda d: d, lambda seen: changed(seen, ready=2)),
    "the size": (lambda d: d, lambda seen: changed(seen, replicas=3)),
    "the minimum": (lambda d: d, lambda seen: changed(seen, min_pods=4)),
    "the minimum is gone": (lambda d: d, lambda seen: changed(seen, min_pods=Missing("no PodGroup"))),
}
LESS = {
    "the demand": (louder, lambda seen: seen),
    "other reasons": (lambda d: a_decision(step=None, why=AT_TARGET), lambda seen: seen),
    "what can be placed": (lambda d: d, lambda seen: changed(seen, fit=0)),
}
NONE = {
    "a demand that moved a little": (lambda d: a_decision(tokens_per_s=5700.0), lambda seen: seen),
    "a number in a reason": (lambda d: a_decision(why=(*sized(1, 3, 5100.0), GROWTH)), lambda seen: seen),
    "a remark on the samples": (
        lambda d: a_decision(why=(reason(Code.COUNTER_RESET, source="x"), *d.why)),
        lambda seen: seen,
    ),
}


def changed(seen: Observation, **fleet: Any) -> Observation:
    decode = seen.fleet.decode
    assert isinstance(decode, RoleFleet)
    return replace(seen, fleet=replace(seen.fleet, decode=replace(decode, **fleet)))


@pytest.mark.parametrize("what", [*NEWS, *LESS, *NONE])
def test_what_is_news_is_told_at_once_the_rest_later_or_never(what: str) -> None:
    other, look = {**NEWS, **LESS, **NONE}[what]
    told = tell()
    decision, seen = other(a_decision()), look(an_observation())
    at_once = tell(decision, told, NOW_S + 1, seen)
    later = tell(decision, told, NOW_S + SETTLE_S, seen)
    assert (at_once != told, later != told) == (what in NEWS, what not in NONE)


def test_a_steady_service_is_told_of_a_few_times() -> None:
    plant = Plant(lambda t: Load(5.0, 4000.0, 400.0)).run(600)
    told: Object | None = None
    versions, last_s = [], 0.0
    for seen, decision in zip(plant.seen, plant.decisions, strict=True):
        status = status_of(plant.settings, seen, decision, told, seen.now_s, 1)
        versions += [status] if status != told else []
        last_s = seen.now_s if status != told else last_s
        told = status
    # The first look, a demand that is known, steps up, groups ready, minimums; each step down when the traffic has
    # turned out to be steady, and to be of equal lengths.
    assert 3 <= len(versions) <= 20
    assert last_s < plant.seen[0].now_s + 150
    assert versions[-1]["bottleneck"] == "none"
    assert of_type(versions[-1], "Ready")["status"] == "True"


def test_a_step_is_told_once() -> None:
    idle = tell(a_decision(step=None, why=AT_TARGET))
    acted = tell(previous=idle, now_s=NOW_S + 1)
    assert acted["lastDecision"]["step"] == "decode replicas 1 -> 3"
    # In a dry run the step stays to be made, tick after tick.
    assert tell(previous=acted, now_s=NOW_S + 2) == acted


def test_a_new_generation_is_observed_at_once() -> None:
    told = tell(previous=tell(), now_s=NOW_S + 1, generation=2)
    assert told["observedGeneration"] == 2
    assert {condition["observedGeneration"] for condition in told["conditions"]} == {2}


def test_a_transition_has_the_time_of_the_status_not_of_the_reason() -> None:
    began, ended = "2027-01-15T08:00:00Z", "2027-01-15T08:01:40Z"
    held = tell(a_decision(why=(*AT_TARGET, reason(Code.MANUAL_HOLD, Role.DECODE, writer="kubectl"))))
    other = tell(a_decision(why=(*AT_TARGET, reason(Code.RESTORE_GIVEN_UP, Role.DECODE))), held, NOW_S + 40)
    freed = tell(a_decision(why=AT_TARGET), other, NOW_S + 100)
    seen = [of_type(status, "ForeignWriter") for status in (held, other, freed)]
    assert [(c["status"], c["reason"], c["lastTransitionTime"]) for c in seen] == [
        ("True", "ManualHold", began),
        ("True", "RestoreGivenUp", began),
        ("False", "OnlyUs", ended),
    ]
    assert seen[0]["message"] == "decode ManualHold (writer=kubectl)"


@pytest.mark.parametrize("status", [{"roles": "none"}, {"lastDecision": {}}, {"conditions": [{"type": "Ready"}]}, {}])
def test_a_status_that_is_not_ours_is_written_anew(status: Object) -> None:
    assert tell(previous=status) == tell()


# code -> the conditions that it changes; those that are True mean something is wrong, but for the first three.
CAUSES = {
    Code.SPEC_INVALID: {"Ready", "ScalingActive", "AbleToScale"},
    Code.SERVICE_CLAIMED: {"Ready", "ScalingActive", "AbleToScale"},
    Code.SWITCHED_OFF: {"Ready", "ScalingActive", "AbleToScale"},
    Code.NO_WORKLOAD: {"Ready", "ScalingActive", "AbleToScale"},
    Code.WORKLOAD_PROBLEM: {"Ready", "AbleToScale"},
    Code.COST_UNKNOWN: {"Ready", "AbleToScale"},
    Code.WRITE_REFUSED: {"Ready", "AbleToScale"},
    Code.RESTORE_GIVEN_UP: {"Ready", "AbleToScale", "ForeignWriter"},
    Code.DEMAND_MISSING: {"Ready", "ScalingActive"},
    Code.ROLE_BLIND: {"Ready", "Blind"},
    Code.HELD_BLIND: {"Blind"},
    Code.METRICS_PARTIAL: {"Blind"},
    Code.UNIT_ERROR: {"Blind"},
    Code.SIGNAL_DAMAGED: {"Blind"},
    Code.SCRAPE_FAILED: {"Blind"},
    Code.WRITE_FAILED: {"Ready", "AbleToScale"},
    Code.REPORT_FAILED: {"Reporting"},
    Code.WATCH_FAILED: {"Blind"},
    Code.ANOTHER_CONTROLLER: {"ForeignWriter"},
    Code.MANUAL_HOLD: {"ForeignWriter"},
    Code.FIELD_RESTORED: {"ForeignWriter"},
    Code.DOES_NOT_FIT: {"ScalingLimited", "Unplaceable"},
    Code.NOT_PROVISIONED: {"ScalingLimited", "Unplaceable"},
    Code.BUDGET_BELOW_MINIMUM: {"ScalingLimited"},
    Code.BUDGET_CAPPED: {"ScalingLimited"},
    Code.WAIT_BUDGET: {"ScalingLimited"},
    Code.BOUNDED: {"ScalingLimited"},
    Code.SLO_UNREACHABLE: {"SLOReachable"},
    Code.PAUSED: {"Paused"},
    Code.CRD_OUTDATED: {"Ready", "Served"},
    Code.PODGROUPS_NOT_SERVED: {"Served"},
}


@pytest.mark.parametrize("code", Code)
def test_which_conditions_a_reason_changes(code: Code) -> None:
    fine = {condition.type: condition.status for condition in conditions(())}
    now = {condition.type: condition.status for condition in conditions((reason(code),))}
    assert {kind for kind in TYPES if now[kind] != fine[kind]} == CAUSES.get(code, set())


def test_a_condition_names_the_gravest_cause_and_tells_all() -> None:
    why = (reason(Code.BOUNDED, Role.PREFILL), reason(Code.DOES_NOT_FIT, Role.DECODE, fit=1))
    limited = next(condition for condition in conditions(why) if condition.type == "ScalingLimited")
    assert (limited.reason, limited.message) == ("DoesNotFit", "prefill Bounded; decode DoesNotFit (fit=1)")


def test_an_rra_that_cannot_be_read_says_so_and_claims_nothing() -> None:
    with pytest.raises(UserError) as refused:
        settings_of({"metadata": {"name": "chat", "namespace": "team-a"}, "spec": {"service": "chat", "gpus": 3}})
    assert "rra team-a/chat: spec.gpus: unknown key; remove it or check its spelling and place" in str(refused.value)
    status = refusal(refused.value.problems, tell(), NOW_S + 5, 2)
    assert of_type(status, "Ready") | {"message": ""} == {
        "type": "Ready",
        "status": "False",
        "observedGeneration": 2,
        "lastTransitionTime": "2027-01-15T08:00:05Z",
        "reason": "SpecInvalid",
        "message": "",
    }
    assert "spec.gpus: unknown key" in of_type(status, "Ready")["message"]
    assert of_type(status, "Blind")["status"] == "Unknown"
    assert status["lastDecision"]["summary"] == "SpecInvalid"
    assert status["roles"] == []
    assert refusal(refused.value.problems, status, NOW_S + 500, 2) == status


def test_a_service_that_another_rra_scales() -> None:
    status = refusal(["service chat is scaled by rra chat-old"], None, NOW_S, 1, Code.SERVICE_CLAIMED)
    assert of_type(status, "AbleToScale")["reason"] == "ServiceClaimed"
    assert "service chat is scaled by rra chat-old" in of_type(status, "AbleToScale")["message"]


def test_off_is_told() -> None:
    status = switched_off(None, NOW_S, 3)
    assert (status["mode"], status["lastDecision"]["summary"]) == ("Off", "SwitchedOff")
    assert of_type(status, "ScalingActive")["status"] == "False"


def test_a_write_that_was_refused_is_a_condition() -> None:
    refused = reason(Code.WRITE_REFUSED, Role.DECODE, Stage.ACT, why="cannot patch leaderworkersets/scale")
    decision = replace(a_decision(), why=(*a_decision().why, refused))
    status = status_of(SETTINGS, an_observation(), decision, None, NOW_S, 1)
    assert of_type(status, "AbleToScale")["status"] == "False"
    assert "cannot patch leaderworkersets/scale" in of_type(status, "AbleToScale")["message"]
    assert status["lastDecision"]["summary"] == "decode WriteRefused"


def test_settings_of_what_a_server_has_added() -> None:
    extra = {"managedFields": [], "generation": 4, "uid": "u"}
    obj = {
        "apiVersion": SETTINGS.api_version,
        "kind": SETTINGS.kind,
        "metadata": {"name": "chat", "namespace": "team-a", **extra},
        "spec": SETTINGS.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        "status": tell(),
    }
    assert settings_of(obj) == SETTINGS
