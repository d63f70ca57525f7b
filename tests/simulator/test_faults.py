"""One case for each fault, with what it does to requests, and how our controller meets it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from autoscaler.model import Observation, WorkerSample
from policies.model import Pair, Role
from simulator.flight import Cause, Outcome
from simulator.ours import Ours
from simulator.port import Wanted
from simulator.world import World
from tests.simulator.small import PROFILE, run, scenario, world
from tests.simulator.test_world import Script

STREAM = [(1.0, 500, 400), (1.1, 500, 400)]


def faulty(fault: dict[str, Any], **changes: Any) -> Any:
    return scenario(faults=[fault], start__imageS=1, start__loadS=2, **changes)


def test_a_decode_group_that_dies_takes_its_streams_along_and_comes_back() -> None:
    script = Script()
    result = run(faulty({"kind": "groupDies", "atS": 5, "role": "decode"}), script, requests=[*STREAM, (5.5, 500, 5)])
    outcomes = dict(zip(result.requests.at_s, result.requests.cause, strict=True))
    assert outcomes[1.0] == outcomes[1.1] == Cause.FAULT
    assert result.requests.outcome.count(Outcome.OK) == 1
    assert script.role(6.0, Role.DECODE).ready == 0
    assert script.role(9.0, Role.DECODE).ready == 1
    uids = {group.key for seen in script.seen for group in seen.fleet[Role.DECODE].groups}  # type: ignore[union-attr]
    assert len(uids) == 2


def test_a_prefill_group_that_dies_costs_time_and_no_request() -> None:
    """What has no first token starts again; what decode has pulled goes on."""
    prompts = [(1.0 + index / 100, 4000, 50) for index in range(8)]
    fault = {"kind": "groupDies", "atS": 2.5, "role": "prefill"}
    result = run(faulty(fault, fleet__prefill__groups=2), Script(), requests=prompts)
    calm = run(scenario(fleet__prefill__groups=2), Script(), requests=prompts)
    assert result.requests.outcome.count(Outcome.OK) == 8
    assert max(result.requests.ttft_s) > max(calm.requests.ttft_s)


def test_prompts_that_decode_has_not_pulled_are_computed_again_when_their_group_dies() -> None:
    crowd = [(1.0, 500, 300)] * 6
    fault = {"kind": "groupDies", "atS": 3, "role": "prefill"}
    result = run(faulty(fault, fleet__decode__maxNumSeqs=2, router__aheadTokens=9999), Script(), requests=crowd)
    assert result.requests.outcome.count(Outcome.OK) == 6


def test_a_lost_node_takes_whole_groups_and_is_no_room_meanwhile() -> None:
    script = Script()
    fault = {"kind": "nodeLost", "atS": 5, "node": 0, "forS": 20}
    one = faulty(fault, fleet__nodes__count=1)
    result = run(one, script, requests=[(1.0, 500, 400), (6.0, 500, 5)])
    assert dict(zip(result.requests.at_s, result.requests.cause, strict=True)) == {
        1.0: Cause.FAULT,
        6.0: Cause.COLD_START,
    }
    assert script.role(4.0, Role.DECODE).fit == 0
    assert script.role(10.0, Role.DECODE).ready == script.role(10.0, Role.PREFILL).ready == 0
    assert script.role(30.0, Role.DECODE).ready == 1


def test_a_hung_engine_keeps_what_it_has_and_shows_it() -> None:
    script = Script()
    fault = {"kind": "engineHangs", "atS": 2, "role": "decode", "forS": 20}
    result = run(faulty(fault), script, requests=[*STREAM, (10.0, 500, 5)])
    hung = [sample for seen in script.seen if 12 <= seen.now_s <= 20 for sample in _workers(seen, Role.DECODE)]
    assert {(sample.running, sample.waiting) for sample in hung} == {(2.0, 1.0)}
    assert len({sample.generation_tokens for sample in hung}) == 1
    causes = dict(zip(result.requests.at_s, result.requests.cause, strict=True))
    assert causes[1.0] == causes[1.1] == Cause.FAULT
    assert result.requests.outcome.count(Outcome.OK) == 1


@pytest.mark.parametrize("role", ["prefill", "decode", "router"])
def test_a_page_that_cannot_be_read_is_a_failure_with_its_reason(role: str) -> None:
    script = Script()
    run(faulty({"kind": "scrapeFails", "atS": 5, "role": role, "forS": 10}), script)
    blind = next(seen for seen in script.seen if seen.now_s == 8.0).samples
    pod = "router-0" if role == "router" else f"{role}-0"
    assert blind.failures == {pod: "no answer within 0.8 s"}
    assert pod not in {sample.pod for sample in (*blind.workers, *blind.routers)}
    assert script.seen[-1].samples.failures == {}


def test_our_controller_does_not_shrink_what_it_cannot_see() -> None:
    fault = {"kind": "scrapeFails", "atS": 20, "role": "router", "forS": 40}
    phases = [{"name": "busy", "share": 1, "rateFactor": 4}, {"name": "silent", "share": 2, "rateFactor": 0}]
    one = scenario(faults=[fault], load__phases=phases, durationS=60, scrape={})
    sizes: dict[float, Pair] = {}

    def watch(here: World, seen: Observation, wanted: Wanted) -> None:
        sizes[seen.now_s] = Pair(*(here.workloads[role].replicas for role in (Role.PREFILL, Role.DECODE)))

    controller = Ours(one.settings, PROFILE)
    world(one, controller, 3).run(watch)
    during = [pair for now_s, pair in sizes.items() if 22 <= now_s < 60]
    for role in (Role.PREFILL, Role.DECODE):
        assert all(later[role] >= earlier[role] for earlier, later in pairwise(during))
        assert during[-1][role] >= sizes[20.0][role] >= 2


def _workers(seen: Observation, role: Role) -> list[WorkerSample]:
    return [sample for sample in seen.samples.workers if sample.role is role]
