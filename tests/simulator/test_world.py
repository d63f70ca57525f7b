"""A whole service in virtual time: what comes is what ends, equal runs are equal, and our controller scales it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from autoscaler.model import Observation, RoleFleet
from policies.model import ROLES, Pair, Role
from roleratio.simulation import Prepared, find_scenario
from simulator.flight import Cause, Outcome
from simulator.port import Wanted
from simulator.result import Result, lasting
from simulator.world import World
from tests.simulator.small import PROFILE, run, scenario, world


class Script:
    """Sizes at times; between them nothing is asked for."""

    name = "script"

    def __init__(self, *steps: tuple[float, Pair]) -> None:
        self.steps = list(steps)
        self.seen: list[Observation] = []

    def decide(self, seen: Observation) -> Wanted:
        self.seen.append(seen)
        if self.steps and seen.now_s >= self.steps[0][0]:
            return Wanted(self.steps.pop(0)[1])
        return Wanted()

    def role(self, at_s: float, role: Role) -> RoleFleet:
        fleet = next(seen for seen in self.seen if seen.now_s >= at_s).fleet[role]
        assert isinstance(fleet, RoleFleet)
        return fleet


def test_equal_runs_are_equal_to_the_last_bit() -> None:
    changes = {
        "start__loadS": {"medianS": 4, "sigma": 0.4},
        "load__phases": [{"name": "a", "share": 1, "rateFactor": 2}],
    }
    one, other = (run(scenario(**changes), "ours", seed=3) for _ in range(2))
    assert one.requests == other.requests
    assert one.fleet == other.fleet
    assert one.summary() == other.summary()
    assert run(scenario(**changes), "ours", seed=4).requests != one.requests


def test_a_request_takes_prefill_transfer_and_decode_as_the_profile_says() -> None:
    result = run(scenario(), requests=[(1.0, 1000, 11)])
    (ttft_s,), (itl_s,) = result.requests.ttft_s, result.requests.itl_s
    expected_ms = PROFILE.prefill_ms(1000) + PROFILE.transfer_ms(1000) + PROFILE.decode_ms(1, 1000)
    assert ttft_s * 1e3 == pytest.approx(expected_ms, rel=1e-3)
    assert itl_s * 1e3 == pytest.approx(PROFILE.decode_ms(1, 1005), rel=1e-3)
    assert result.window_s == 60


def test_prompts_wait_in_the_router_and_a_group_that_starts_helps_with_them() -> None:
    burst = [(1.0, 4096, 2)] * 24
    late = run(scenario(), Script((2.0, Pair(4, 1))), requests=burst)
    bound = run(scenario(router__bind="arrival"), Script((2.0, Pair(4, 1))), requests=burst)
    assert max(late.requests.ttft_s) < max(bound.requests.ttft_s) * 0.75
    assert max(bound.requests.ttft_s) * 1e3 == pytest.approx(24 * PROFILE.prefill_ms(4096), rel=0.05)


def test_decode_in_turn_looks_at_nothing_that_a_group_has() -> None:
    """Every second answer is long: in turn, one of two groups gets all of them, and has no room for them."""
    sent = [(0.3 * n, 500, 300 if n % 2 else 2) for n in range(40)]
    decode = {"groups": 2, "podsPerGroup": 2, "maxNumSeqs": 8}
    longest_s = {
        bind: max(run(scenario(router__bind=bind, fleet__decode=decode), requests=sent).requests.ttft_s)
        for bind in ("arrival", "turn")
    }
    assert longest_s["turn"] > 2 * longest_s["arrival"]


def test_transfers_of_one_prefill_group_follow_each_other() -> None:
    """The first prompt has a step of its own, the other three share one; then they share the link."""
    slow = replace(PROFILE, transfer_gb_per_s=1.0)
    one = scenario(router__aheadTokens=100_000)
    ttft_s = sorted(world(one, requests=[(1.0, 1000, 2)] * 4, profile=slow).run().requests.ttft_s)
    step_s = slow.decode_ms(4, 1000) / 1e3
    assert ttft_s[3] - ttft_s[1] == pytest.approx(2 * slow.transfer_ms(1000) / 1e3, abs=2 * step_s)


def test_both_roles_grow_under_load_and_shrink_after_it_without_loss() -> None:
    heavy = [
        {"name": "calm", "share": 1},
        {"name": "busy", "share": 2, "rateFactor": 3},
        {"name": "low", "share": 3, "rateFactor": 0.2},
    ]
    result = run(scenario(durationS=180, load__phases=heavy), "ours", seed=2)
    assert result.requests.outcome.count(Outcome.OK) == len(result.requests) > 300
    for role in ROLES:
        sizes = [row.ready for row in result.fleet if row.role is role]
        assert max(sizes) >= 2
        assert sizes[-1] < max(sizes)
    assert result.peak_gpus <= 16
    assert result.minimum_changes > 0
    assert all(event.why for event in result.events)
    assert result.attainment is not None
    assert result.attainment > 0.9


def test_the_simulated_demo_agrees_with_the_real_one() -> None:
    """Of the real one the README says: 758 requests, some 94 % attained, at most 6 + 5 groups, 0.79 GPU-hours."""
    said = Prepared(find_scenario("demo")).run("ours", 7).summary()
    assert said["requests"] == said["requests_ok"] == 758
    assert said["slo_attainment"] == pytest.approx(0.94, abs=0.01)
    assert said["max_groups"] == {"prefill": 6, "decode": 5}
    assert said["gpu_hours_total"] == pytest.approx(0.787, rel=0.03)


def test_a_group_costs_from_when_it_is_asked_for_until_its_drain_ends() -> None:
    long = [(0.5, 1000, 1000)]
    result = run(scenario(), Script((10.0, Pair(1, 2)), (12.0, Pair(1, 0))), requests=long)
    rows = [(row, end_s) for row, end_s in lasting(result.fleet, Role.DECODE, result.window_s)]
    assert next(row.t_s for row, _ in rows if row.starting) == 10.0
    end_s = result.requests.end_s[0]
    draining = [(row, until_s) for row, until_s in rows if row.draining]
    assert draining[0][0].t_s == 12.0
    assert draining[-1][1] == pytest.approx(end_s, abs=1e-6)
    assert result.requests.outcome[0] == Outcome.OK
    # One group from the start to the drain's end; the other was asked for at 10 s and taken back at 12 s.
    assert result.gpu_hours(Role.DECODE) * 3600 == pytest.approx(2 * (end_s + 2.0), rel=1e-6)


def test_a_drain_is_cut_at_its_limit() -> None:
    result = run(
        scenario(fleet__drainLimitS=5), Script((3.0, Pair(1, 0))), requests=[(0.5, 1000, 1000), (0.6, 1000, 20)]
    )
    causes = dict(zip(result.requests.output_tokens, result.requests.cause, strict=True))
    assert causes == {20: Cause.NONE, 1000: Cause.DRAIN}


def test_prefill_that_drains_keeps_what_has_not_been_pulled() -> None:
    """Decode is full until its first answers end; computed prompts of a draining group wait and are pulled."""
    crowd = [(1.0, 500, 200)] * 20
    script = Script((2.0, Pair(0, 1)), (4.0, Pair(1, 1)))
    result = run(scenario(fleet__decode__maxNumSeqs=4, router__aheadTokens=100_000), script, requests=crowd)
    assert result.requests.outcome.count(Outcome.OK) == 20
    assert script.role(3.0, Role.PREFILL).draining == 1


def test_without_a_worker_requests_wait_and_then_give_up() -> None:
    empty = {"fleet__prefill__groups": 0, "router__maxWaitS": 10}
    result = run(scenario(**empty), requests=[(1.0, 100, 5), (3.0, 100, 5)])
    assert list(result.requests.cause) == [Cause.NO_WORKER] * 2
    assert list(result.requests.end_s) == [11.0, 13.0]
    served = run(scenario(**empty), Script((1.0, Pair(1, 1))), requests=[(0.5, 100, 5), (3.0, 100, 5)])
    assert dict(zip(served.requests.at_s, served.requests.cause, strict=True)) == {
        0.5: Cause.BURST,
        3.0: Cause.COLD_START,
    }


def test_what_is_open_at_the_end_is_unfinished_and_a_miss() -> None:
    result = run(scenario(durationS=10, tailS=0), requests=[(1.0, 500, 5), (9.5, 500, 3000)])
    assert sorted(result.requests.outcome) == [Outcome.OK, Outcome.UNFINISHED]
    assert result.attainment == 0.5
    assert result.summary()["misses"] == {"unfinished": 1}


def test_what_is_too_long_for_the_model_is_left_out_and_counted() -> None:
    result = run(scenario(), requests=[(1.0, 500, 5), (2.0, 131_000, 500)])
    assert (len(result.requests), result.left_out) == (1, 1)


def test_an_aggregated_fleet_serves_without_prefill_groups() -> None:
    result = run(scenario(fleet__aggregated=True, fleet__prefill__groups=0), "static", requests=[(1.0, 1000, 5)] * 3)
    assert result.requests.outcome.count(Outcome.OK) == 3


def test_nodes_are_the_limit_and_pods_wait_for_room() -> None:
    script = Script((1.0, Pair(6, 6)))
    result = run(scenario(fleet__nodes__count=2), script)
    assert script.role(1.0, Role.PREFILL).fit == 2
    later = [script.role(30.0, role) for role in ROLES]
    assert sum(role.ready for role in later) == 4
    assert sum(role.present for role in later) == 12
    assert all(role.fit == 0 for role in later)
    assert result.peak_gpus == 24


def test_a_gang_minimum_holds_back_all_until_it_fits() -> None:
    class Minimum(Script):
        def decide(self, seen: Observation) -> Wanted:
            wanted = super().decide(seen)
            return Wanted(Pair(4, 1), Pair(8, 2)) if wanted.groups else wanted

    empty = {"fleet__prefill__groups": 0}
    script = Minimum((1.0, Pair(4, 1)))
    run(scenario(fleet__nodes__count=2, **empty), script)
    assert script.role(30.0, Role.PREFILL).ready == 0
    fits = Minimum((1.0, Pair(4, 1)))
    run(scenario(fleet__nodes__count=3, **empty), fits)
    assert fits.role(30.0, Role.PREFILL).ready == 4


def test_nodes_are_provided_for_pods_that_wait_and_go_when_empty() -> None:
    changes = {"fleet__nodes": {"count": 1, "gpus": 4, "most": 3, "provisionS": 20, "idleS": 10}}
    script = Script((5.0, Pair(3, 3)), (60.0, Pair(1, 1)))
    counts: dict[float, int] = {}

    def watch(here: World, seen: Observation, wanted: Wanted) -> None:
        counts[seen.now_s] = len(here.cluster.nodes)

    run(scenario(durationS=90, **changes), script, watch=watch)
    assert counts[24.0] == 1
    assert counts[26.0] == 3
    assert script.role(33.0, Role.PREFILL).ready == 3
    assert counts[85.0] < 3


def test_metrics_come_late_and_at_intervals() -> None:
    script = Script()
    run(scenario(scrape={"intervalS": 5, "delayS": 3}), script)
    ages = {seen.now_s - router.at_s for seen in script.seen for router in seen.samples.routers}
    assert ages == {3.0, 4.0, 5.0, 6.0, 7.0}
    assert script.seen[0].samples.routers == ()


@pytest.mark.parametrize(("kind", "first"), [("LeaderWorkerSet", "decode-2"), ("Deployment", "decode-3")])
def test_which_group_goes_first(kind: str, first: str) -> None:
    """A LeaderWorkerSet takes its highest index, a Deployment what is not ready."""
    script = Script((5.0, Pair(1, 4)), (6.0, Pair(1, 3)), (20.0, Pair(1, 2)))
    run(scenario(fleet__decode={"groups": 3, "podsPerGroup": 1, "kind": kind}, load__clients=SLOW), script)
    assert script.role(8.0, Role.DECODE).ready == 3
    left = {group.pods[0] for group in script.role(22.0, Role.DECODE).groups}
    assert len(left) == 2
    assert "decode-3" not in left
    if kind == "LeaderWorkerSet":
        assert first not in left


SLOW = [{"rateRps": 0.2, "prompt": {"mean": 100}, "output": {"mean": 5}}]


def test_counters_of_groups_that_are_gone_are_not_lost() -> None:
    """The router's tokens never fall, though decode groups come and go."""
    script = Script((10.0, Pair(1, 3)), (30.0, Pair(1, 1)))
    result = run(scenario(), script)
    tokens = [router.generation_tokens for seen in script.seen for router in seen.samples.routers]
    assert tokens == sorted(tokens, key=float)
    last = script.seen[-1].samples.routers[0]
    assert last.arrivals == len(result.requests)
    assert world(scenario()).router.in_flight == 0


def test_phases_add_up() -> None:
    thirds = [{"name": name, "share": 1} for name in ("a", "b", "c")]
    result: Result = run(scenario(load__phases=thirds), "ours")
    phases: Sequence[dict[str, object]] = result.summary()["phases"]
    assert [phase["name"] for phase in phases] == ["a", "b", "c"]
    assert sum(int(str(phase["requests"])) for phase in phases) == len(result.requests)
    hours = sum(result.gpu_hours(role, span.start_s, span.end_s) for span in result.spans for role in ROLES)
    tail = sum(result.gpu_hours(role, 60.0) for role in ROLES)
    assert hours + tail == pytest.approx(result.gpu_hours_total)
