"""What holds for any service, fleet, fault and policy."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from autoscaler.model import Observation, RoleFleet
from policies.model import ROLES
from simulator.flight import Cause, Outcome
from simulator.groups import Phase
from simulator.port import Wanted
from simulator.world import World
from tests.simulator.small import run, scenario, world

TIMES = some.sampled_from([0, 1.5, 8, {"medianS": 4, "sigma": 0.8}, {"valuesS": [1, 2, 20]}])
ROLE = some.sampled_from(["prefill", "decode"])
AT = some.floats(0, 40)
FAULTS = some.one_of(
    some.fixed_dictionaries({"kind": some.just("groupDies"), "atS": AT, "role": ROLE, "index": some.integers(0, 2)}),
    some.fixed_dictionaries(
        {"kind": some.just("nodeLost"), "atS": AT, "node": some.integers(0, 4), "forS": some.floats(1, 30)}
    ),
    some.fixed_dictionaries({"kind": some.just("engineHangs"), "atS": AT, "role": ROLE, "forS": some.floats(1, 30)}),
    some.fixed_dictionaries(
        {"kind": some.just("scrapeFails"), "atS": AT, "role": some.sampled_from(["prefill", "decode", "router"])}
    ),
)
CHANGES = some.fixed_dictionaries(
    {
        "durationS": some.sampled_from([20, 40]),
        "tailS": some.sampled_from([0, 60]),
        "load__clients": some.lists(
            some.fixed_dictionaries(
                {
                    "process": some.sampled_from(["poisson", "gamma", "weibull"]),
                    "cv": some.floats(0.3, 5),
                    "rateRps": some.floats(0.2, 6),
                    "prompt": some.fixed_dictionaries({"mean": some.integers(10, 6000)}),
                    "output": some.fixed_dictionaries({"mean": some.integers(1, 200)}),
                }
            ),
            min_size=1,
            max_size=2,
        ),
        "fleet__nodes__count": some.integers(1, 5),
        "fleet__nodes__most": some.sampled_from([0, 6]),
        "fleet__nodes__provisionS": TIMES,
        "fleet__prefill__groups": some.integers(0, 3),
        "fleet__decode__groups": some.integers(0, 3),
        "fleet__prefill__kind": some.sampled_from(["LeaderWorkerSet", "Deployment"]),
        "fleet__drainLimitS": some.sampled_from([0, 5, 110]),
        "fleet__aggregated": some.sampled_from([False, False, False, True]),
        "start__loadS": TIMES,
        "router__bind": some.sampled_from(["late", "arrival", "turn"]),
        "router__maxWaitS": some.sampled_from([3, 60]),
        "router__leaseS": some.sampled_from([0.5, 60]),
        "scrape": some.sampled_from([{}, {"intervalS": 5, "delayS": 2}]),
        "faults": some.lists(FAULTS, max_size=4),
    }
)
POLICIES = some.sampled_from(["ours", "ours", "static", "oracle", "hpa-queue", "dynamo", "kpa"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES, POLICIES, some.integers(0, 5))
def test_what_must_hold_holds(changes: dict[str, Any], policy: str, seed: int) -> None:
    one = scenario(**changes)

    def watch(here: World, seen: Observation, wanted: Wanted) -> None:
        for role in ROLES:
            fleet, groups = seen.fleet[role], here.workloads[role].groups.values()
            assert isinstance(fleet, RoleFleet)
            assert fleet.ready + fleet.draining <= fleet.present == len(fleet.groups)
            assert all(group.nodes or group.phase is Phase.PENDING for group in groups if group.phase is not Phase.GONE)
        assert sum(here.router.counters.in_stage.values()) == here.router.in_flight

    result = run(one, policy, seed, watch=watch)
    counts = [result.requests.outcome.count(outcome) for outcome in Outcome]
    assert sum(counts) == len(result.requests)
    for at_s, ttft_s, end_s, outcome, cause in zip(
        result.requests.at_s,
        result.requests.ttft_s,
        result.requests.end_s,
        result.requests.outcome,
        result.requests.cause,
        strict=True,
    ):
        assert at_s <= end_s
        assert not (outcome == Outcome.OK and not ttft_s > 0)
        assert (cause == Cause.NONE) <= (outcome == Outcome.OK)
    if policy == "ours" and sum(one.fleet.role(role).groups for role in ROLES) * 2 <= 16:
        assert result.peak_gpus <= 16


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES, POLICIES, some.integers(0, 5))
def test_equal_inputs_give_equal_runs(changes: dict[str, Any], policy: str, seed: int) -> None:
    one, other = (world(scenario(**changes), policy, seed).run() for _ in range(2))
    assert one.requests.end_s == other.requests.end_s
    assert one.fleet == other.fleet
    assert one.events == other.events
