"""Plan: one safe step at a time, what waits in vain first, and never beyond the budget."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.model import RoleFleet, Step
from policies.model import Code, Missing, Pair, Role
from tests.autoscaler.loop import Loop, both, need
from tests.autoscaler.plant import make_settings

QUICK = {"maxGroups": 20, "scaleDown": {"stabilizationS": 0}}


def chosen(**spec: Any) -> Any:
    return make_settings(**{"gpuBudget": 400, "prefill": QUICK, "decode": QUICK, **spec})


def test_a_receiver_waits_until_its_donor_has_given_back() -> None:
    loop = Loop(chosen(gpuBudget=12), drain_s=20.0).start(4, 2)
    sizes = both(need(2, load=0.5), need(4))
    grown = []
    for _ in range(80):
        loop.tick(sizes)
        grown.append(loop.now.decode)
        assert loop.paid_gpus <= 12
    assert loop.now == Pair(2, 4)
    assert grown[25] == 3, "not before the first donor's pods are gone"
    assert Code.WAIT_BUDGET not in loop.codes


def test_groups_that_drain_and_groups_without_pods_both_cost() -> None:
    loop = Loop(chosen(gpuBudget=12)).start(3, 1)
    loop.changes[Role.PREFILL] = {"replicas": 4, "present": 4, "draining": 1}
    loop.tick(both(need(4), need(3)))
    assert [step.after for step in loop.steps] == []
    assert loop.reason(Code.WAIT_BUDGET).detail == {"wanted": 3, "now": 1, "budget_gpus": 12}


@pytest.mark.parametrize(
    ("fit", "after", "code"),
    [(1, 3, Code.DOES_NOT_FIT), (9, 6, Code.GROW), (Missing("nodes are not seen"), 6, Code.FIT_UNKNOWN)],
)
def test_a_fixed_cluster_grows_by_what_fits(fit: int | Missing, after: int, code: Code) -> None:
    loop = Loop(chosen()).start(2, 1)
    loop.changes[Role.PREFILL] = {"fit": fit}
    loop.tick(both(need(6), need(1)))
    assert loop.steps == [Step("replicas", Role.PREFILL, 2, after)]
    assert code in loop.codes


def test_one_group_drains_at_a_time() -> None:
    loop = Loop(chosen(), drain_s=3.0).start(4, 1)
    loop.run(both(need(1, load=0.0), need(1)), 30)
    assert [(step.before, step.after) for step in loop.steps] == [(4, 3), (3, 2), (2, 1)]


def test_a_stalled_group_that_an_ordinal_hides_is_named() -> None:
    loop = Loop(chosen()).start(4, 1)
    loop.said[Role.PREFILL] = {"stalled": ("prefill-1",)}
    loop.tick(both(need(1, load=0.0), need(1)))
    shrink = loop.reason(Code.SHRINK).detail
    assert (shrink["stalled"], shrink["stays_since"]) == ("prefill-1", "LeaderWorkerSet takes the highest ordinal")
    last = Loop(chosen()).start(4, 1)
    last.said[Role.PREFILL] = {"stalled": ("prefill-3",)}
    last.tick(both(need(1, load=0.0), need(1)))
    assert dict(last.reason(Code.SHRINK).detail) == {"from": 4, "to": 3}


def test_the_minimum_falls_before_groups_that_wait_in_vain_go() -> None:
    loop = Loop(chosen(capacity={"provisionTimeoutS": 5}), room_gpus=6).start(2, 1)
    loop.changes[Role.PREFILL] = {"fit": 9, "min_pods": 6, "pod_group": "prefill"}
    loop.run(both(need(4), need(1)), 10)
    assert loop.steps[:2] == [
        Step("replicas", Role.PREFILL, 2, 4),
        Step("min_count", Role.PREFILL, 6, 4),
    ]


def test_a_dry_run_remembers_no_writes() -> None:
    loop = Loop(chosen(mode="DryRun", capacity={"provisionTimeoutS": 3})).start(2, 1)
    loop.tick(both(need(4), need(1)))
    assert loop.steps
    assert loop.state.written[Role.PREFILL].replicas == 2


def test_what_a_fleet_holds_and_what_has_no_place() -> None:
    loop = Loop(chosen(), room_gpus=8).start(2, 1)
    loop.replicas[Role.PREFILL] = 5
    loop._live()
    fleet: RoleFleet = loop.fleet(Role.PREFILL)
    assert (fleet.present, fleet.unborn, fleet.held, fleet.unplaced) == (5, 0, 5, 2)
