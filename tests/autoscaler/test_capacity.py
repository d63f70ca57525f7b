"""Capacity: a fixed cluster is asked for what fits; groups wait for nodes where those can come, and not for ever."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from autoscaler.model import Decision, Observation, RoleFleet, Writer
from autoscaler.settings import Settings
from policies.model import ROLES, Code, Missing, Pair, Role
from simulator.ours import Ours
from simulator.port import Wanted
from simulator.world import World
from tests.autoscaler.loop import Loop, both, need
from tests.autoscaler.plant import make_settings
from tests.simulator.small import PROFILE, scenario, world

QUICK = {"maxGroups": 20, "scaleDown": {"stabilizationS": 0}}
NODES = {"mode": "provisionable", "provisionTimeoutS": 60, "nodeStartS": 30}


def chosen(**capacity: Any) -> Settings:
    return make_settings(gpuBudget=400, prefill=QUICK, decode=QUICK, capacity=capacity)


class Seen(Ours):
    """Our controller, which notes what it saw and decided."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, PROFILE)
        self.looks: list[tuple[Observation, Decision]] = []

    def decide(self, seen: Observation) -> Wanted:
        wanted = super().decide(seen)
        assert self.last is not None
        self.looks.append((seen, self.last))
        return wanted

    def asked(self, role: Role) -> list[int]:
        return [fleet.replicas for seen, _ in self.looks if isinstance(fleet := seen.fleet[role], RoleFleet)]

    def unplaced(self, role: Role) -> list[int]:
        return [fleet.unplaced for seen, _ in self.looks if isinstance(fleet := seen.fleet[role], RoleFleet)]


def crowd(duration_s: float, most: int, node_s: float, **capacity: Any) -> tuple[Seen, World]:
    """Far more work than two nodes of four GPUs can do; up to `most` nodes come, `node_s` after they are asked for."""
    one = scenario(
        durationS=duration_s,
        load__clients=[{"rateRps": 12, "prompt": {"mean": 2500, "high": 3500}, "output": {"mean": 60, "high": 300}}],
        fleet__nodes={"count": 2, "gpus": 4, "most": most, "provisionS": node_s},
        autoscaler__gpuBudget=24,
        autoscaler__capacity=capacity,
    )
    ours = Seen(one.settings)
    return ours, world(one, ours)


def test_a_fixed_cluster_is_asked_for_what_fits_and_says_why_not_more() -> None:
    ours, place = crowd(90, 0, 30.0)
    place.run()
    assert max(p + d for p, d in zip(*(ours.asked(role) for role in ROLES), strict=True)) == 4
    assert all(sum(counts) == 0 for counts in zip(*(ours.unplaced(role)[5:] for role in ROLES), strict=True))
    assert any(reason.code is Code.DOES_NOT_FIT for _, decision in ours.looks for reason in decision.why)
    assert all(decision.signals[role].node_start_s == 0 for _, decision in ours.looks for role in ROLES)


def test_where_nodes_can_come_groups_wait_for_them_and_get_them() -> None:
    ours, place = crowd(150, 6, 30.0, **NODES)
    place.run()
    waiting = ours.unplaced(Role.PREFILL)
    assert max(waiting) >= 1
    assert waiting[-1] == 0
    assert max(ours.asked(Role.PREFILL)) >= 4
    codes = {reason.code for _, decision in ours.looks for reason in decision.why}
    assert Code.PROVISIONING in codes
    assert Code.NOT_PROVISIONED not in codes


def test_groups_that_find_no_node_in_time_are_withdrawn_and_not_asked_for_at_once() -> None:
    ours, place = crowd(170, 0, 30.0, **NODES)
    place.run()
    assert max(ours.unplaced(Role.PREFILL)) > 1
    assert any(reason.code is Code.NOT_PROVISIONED for _, decision in ours.looks for reason in decision.why)
    for (seen, decision), (after, _) in pairwise(ours.looks[:160]):
        for role in ROLES:
            waiting, now, then = decision.state.waiting[role], seen.fleet[role], after.fleet[role]
            assert all(seen.now_s - since_s <= 66 for since_s in waiting.since_s)
            assert isinstance(now, RoleFleet)
            assert isinstance(then, RoleFleet)
            if waiting.withdrawn_s is not None and seen.now_s - waiting.withdrawn_s < 60:
                assert then.replicas <= now.replicas
    ready = [fleet.ready for seen, _ in ours.looks[10:160] if isinstance(fleet := seen.fleet.prefill, RoleFleet)]
    assert all(after >= before for before, after in pairwise(ready)), "only what waits goes"


def test_the_start_of_a_node_comes_before_the_cold_start_of_the_next_group_and_is_not_measured_as_one() -> None:
    ours, place = crowd(150, 6, 30.0, **NODES)
    place.run()
    signals = [decision.signals.prefill for _, decision in ours.looks]
    full = next(one for one in signals if one.node_start_s)
    assert (full.node_start_s, full.lead_s) == (30.0, 30.0 + full.cold_start_s)
    assert max(one.cold_start_s for one in signals[1:]) == pytest.approx(6.0, abs=1.0)


def test_what_waits_is_withdrawn_before_the_rest_and_from_the_end_only() -> None:
    loop = Loop(chosen(provisionTimeoutS=20), room_gpus=12).start(4, 2)
    loop.members[Role.PREFILL][1].placed_s = None
    loop.room_gpus = 10
    loop.run(both(need(4), need(2)), 30)
    assert loop.now == Pair(4, 2), "the ordinal that waits is not the last one: a group that serves would go"
    loop.members[Role.PREFILL][1].placed_s = 0.0
    loop.members[Role.PREFILL][3].placed_s = None
    loop.run(both(need(4), need(2)), 30)
    assert loop.now == Pair(3, 2)


@pytest.mark.parametrize("held", ["manual", "blind", "paused", "unsized"])
def test_nothing_is_withdrawn_from_a_role_that_is_held(held: str) -> None:
    loop = Loop(chosen(provisionTimeoutS=20), room_gpus=6).start(2, 1)
    loop.replicas[Role.PREFILL] = 4
    if held == "blind":
        loop.said[Role.PREFILL] = {"blind": True}
    if held == "paused":
        loop.changes[Role.PREFILL] = {"paused": "in"}
    if held == "manual":
        loop.replicas[Role.PREFILL] = 2
        loop.tick(both(need(2), need(1)))
        loop.replicas[Role.PREFILL] = 4
        loop.changes[Role.PREFILL] = {"owner": "other", "writer": Writer("kubectl", loop.now_s)}
    loop.run(both(Missing("no demand is known") if held == "unsized" else need(4), need(1)), 40)
    assert loop.now.prefill == 4


def test_a_minimum_is_not_withdrawn() -> None:
    least = QUICK | {"minGroups": 3}
    spec = make_settings(gpuBudget=400, prefill=least, decode=QUICK, capacity={"provisionTimeoutS": 20})
    loop = Loop(spec, room_gpus=4).start(1, 1)
    loop.replicas[Role.PREFILL] = 5
    loop.run(both(need(5), need(1)), 60)
    assert loop.now.prefill == 3
