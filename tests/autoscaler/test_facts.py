"""What makes decisions good: each numbered fact has a test that fails where the fact is violated.

 1 demand is offered work at arrival
   here::test_demand_is_neither_what_completes_nor_what_is_in_flight
   test_field_cases_arrivals.py::test_saturation_is_not_hidden_by_completions
 2 the horizon is the role's own cold start, measured in the fleet as a quantile
   here::test_the_horizon_is_a_quantile_of_what_starts_took
   here::test_a_ramp_is_started_one_measured_cold_start_ahead
   test_forecast.py::test_each_role_looks_ahead_by_its_own_cold_start
 3 a forecast is a distribution, and gives way where it errs
   here::test_a_stricter_slo_sizes_the_same_noise_higher
   ../forecasting/test_recent.py::test_noise_is_covered_to_the_wanted_share
   ../forecasting/test_recent.py::test_fit_and_predict_agree_with_the_rules_in_loops
 4 three stages, and the bottleneck is named before capacity is added
   test_bottleneck.py::test_which_stage_is_narrowest
   test_bottleneck.py::test_a_prefill_queue_adds_prefill_groups_only_where_prefill_is_narrowest
   test_size.py::test_sequences_that_wait_for_remote_kv_are_no_load_on_decode
   ../perfmodel/test_prefill.py::test_the_share_within_is_what_a_simulated_queue_shows
   ../perfmodel/test_decode.py::test_what_limits_the_batch_is_said
 5 a shrink asks what the survivors would see
   here::test_empty_queues_let_no_group_go_while_work_arrives
   test_decide.py::test_survivors_keep_what_comes_now_where_a_fall_is_only_expected
   ../policies/test_survivors.py::test_survivors_are_never_fuller_than_allowed
 6 one decision: a hard budget at every step, a ratio from the work, under the same rates
   test_decide.py::test_the_budget_holds_at_every_step_also_while_groups_drain
   test_plan.py::test_a_receiver_waits_until_its_donor_has_given_back
   ../policies/test_budget.py::test_every_pair_up_to_64_by_64
   ../policies/test_ratio.py::test_narrow_bands_are_hit
   ../policies/test_order.py::test_a_ratio_repair_before_the_rates_is_limited_by_them_and_named_where_it_falls_short
 7 missing, stale and zero differ, per role
   here::test_missing_stale_and_zero_are_three_things
   test_core.py::test_a_blind_role_does_not_shrink_and_does_not_stop_its_partner
   test_decide.py::test_a_blind_role_stays_and_its_partner_grows
 8 groups that have just started teach nothing
   test_learn.py::test_groups_that_have_just_started_teach_nothing
 9 what cannot be placed is not capacity
   test_core.py::test_what_does_not_fit_is_not_asked_for
   test_capacity.py::test_groups_that_find_no_node_in_time_are_withdrawn_and_not_asked_for_at_once
10 replicas and minimums move in a safe order
   test_core.py::test_minimums_follow_ready_groups_and_fall_first
   test_field_cases_controller.py::test_the_minimum_moves_with_the_groups_and_never_asks_for_those_that_are_gone
   test_plan.py::test_one_group_drains_at_a_time
11 unknown is a type at every edge
   test_field_cases_controller.py::\
test_a_claim_that_cannot_be_resolved_is_an_unknown_cost_which_never_grows_and_may_shrink
   test_fleet.py::test_unknown_cost_is_missing_and_a_problem
   test_journal.py::test_missing_survives_where_a_number_may_stand
   ../policies/test_budget.py::test_an_unknown_cost_affords_nothing_of_either_role
12 green means: can scale
   test_field_cases_metrics.py::test_a_model_name_that_matches_nothing_is_said_within_two_ticks
   test_field_cases_prometheus.py::test_a_label_that_is_a_little_off_is_said_within_two_ticks
   test_doctor.py::test_what_matches_nothing_is_told_as_the_controller_tells_it
13 engines, pods, groups and series are different numbers
   test_field_cases_metrics.py::test_ranks_that_export_are_not_groups
   test_field_cases_metrics.py::test_engines_of_a_pod_are_not_pods
   test_field_cases_metrics.py::test_a_use_above_one_is_an_error_of_units_and_not_used
   test_fleet.py::test_gpu_cost
14 identity is a UID
   test_field_cases_metrics.py::test_samples_of_the_pod_that_bore_the_name_before_are_dropped
   test_field_cases_metrics.py::test_a_removed_pod_that_a_store_remembers_is_no_load
   test_stalled.py::test_the_memory_is_one_entry_a_pod_and_forgets
15 replicas cannot fix everything
   here::test_an_abandoned_queue_of_a_worker_neither_adds_a_group_nor_keeps_one
   test_field_cases_controller.py::\
test_a_prompt_that_is_too_long_alone_adds_nothing_and_no_length_outlives_its_traffic
   test_decide.py::test_what_stalls_them_all_is_named_and_drives_no_growth
16 a person outranks the controller; users' latency comes from the router
   here::test_what_users_see_comes_from_the_router_and_workers_only_attribute
   test_core.py::test_a_manual_number_is_kept_named_and_timed
   test_field_cases_controller.py::test_a_dropped_field_is_put_back_at_the_next_tick_whatever_limits_growth
17 capacity is fixed or provisionable
   test_capacity.py::test_a_fixed_cluster_is_asked_for_what_fits_and_says_why_not_more
   test_capacity.py::test_where_nodes_can_come_groups_wait_for_them_and_get_them
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from autoscaler.model import Histogram, Latency, Observation, RoleFleet, RouterSample, WorkerSample
from policies.model import ROLES, Code, Missing, Pair, Role
from tests.autoscaler.plant import BOUNDS_S, Load, Plant, make_settings, without_routers

BUSY = Load(5.0, 4000.0, 400.0)
SILENCE = Load(0.0, 0.0, 0.0)
FACTS = 17


def with_workers(change: Callable[[WorkerSample], WorkerSample]) -> Callable[[Observation], Observation]:
    """Every worker's sample changed."""
    return lambda seen: replace(
        seen, samples=replace(seen.samples, workers=tuple(change(worker) for worker in seen.samples.workers))
    )


def stopped(seen: Observation, at_s: float = 1060.0) -> Observation:
    """A store that gives the pages of that moment again and again."""
    old = with_router(lambda router: replace(router, at_s=at_s))(seen)
    return with_workers(lambda worker: replace(worker, at_s=at_s))(old)


def with_router(change: Callable[[RouterSample], RouterSample]) -> Callable[[Observation], Observation]:
    """The router's sample changed."""
    return lambda seen: replace(
        seen, samples=replace(seen.samples, routers=tuple(change(router) for router in seen.samples.routers))
    )


def test_every_fact_names_tests_that_exist() -> None:
    text = (__doc__ or "").replace("\\\n", "")
    named = re.findall(r"^ ?(\d+) |^   (\S+)::(\S+)$", text, re.MULTILINE)
    assert [int(number) for number, _, _ in named if number] == list(range(1, FACTS + 1))
    own = Path(__file__)
    for number, file, test in named:
        if number:
            continue
        source = (own if file == "here" else own.parent / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{file}::{test}"


def test_demand_is_neither_what_completes_nor_what_is_in_flight() -> None:
    """Nothing finishes any more, and stock grows: the same work is asked for, and the same sizes."""
    free, stuck = Plant(lambda t: BUSY), Plant(lambda t: BUSY)
    for plant in (free, stuck):
        plant.run(80)
    done, generated = stuck.counters[3], stuck.counters[2]
    stuck.changes = with_router(
        lambda router: replace(
            router,
            finished=done,
            generation_tokens=generated,
            in_flight={"decode": 5.0 * (stuck.now_s - 1080.0)},
        )
    )
    for plant in (free, stuck):
        plant.run(40)
    demands = [plant.decisions[-1].signals.demand for plant in (free, stuck)]
    assert demands[0].requests_per_s == demands[1].requests_per_s == pytest.approx(5.0)
    assert demands[0].prompt_tokens_per_s == demands[1].prompt_tokens_per_s == pytest.approx(20_000.0)
    assert free.groups().prefill == stuck.groups().prefill


def test_the_horizon_is_a_quantile_of_what_starts_took() -> None:
    def took(seen: Observation) -> Observation:
        fleets = []
        for role, factor in zip(ROLES, (1.0, 3.0), strict=True):
            fleet = seen.fleet[role]
            assert isinstance(fleet, RoleFleet)
            fleets.append(replace(fleet, ready_after_s=tuple(factor * seconds for seconds in range(10, 30))))
        return replace(seen, fleet=replace(seen.fleet, prefill=fleets[0], decode=fleets[1]))

    expected = Plant(lambda t: BUSY, changes=took).run(10).decisions[-1].forecast
    assert not isinstance(expected.prefill, Missing)
    assert not isinstance(expected.decode, Missing)
    assert (expected.prefill.horizon_s, expected.decode.horizon_s) == (28.0, 84.0)


def test_a_ramp_is_started_one_measured_cold_start_ahead() -> None:
    """Settings say 8 s; groups take 90. What is asked for at a moment is what the moment 90 s later needs."""

    def wanted(cold_start_s: float) -> list[int]:
        plant = Plant(lambda t: Load(1.0 + 0.01 * t, 2000.0, 60.0), cold_start_s=cold_start_s)
        plant.settings = make_settings(gpuBudget=64, prefill={"maxGroups": 16, "coldStartS": 8})
        plant.run(600)
        found = plant.decisions[-1].forecast.prefill
        assert not isinstance(found, Missing)
        assert found.horizon_s == cold_start_s
        assert found.tokens_per_s_high >= (1.0 + 0.01 * (590 + 0.75 * cold_start_s)) * 2000
        return [decision.target.groups.prefill for decision in plant.decisions if decision.target]

    slow, quick = wanted(90.0), wanted(2.0)
    assert 60 <= quick.index(3) - slow.index(3) <= 130


def test_a_stricter_slo_sizes_the_same_noise_higher() -> None:
    def sized(share: float) -> tuple[float, int]:
        rng = Random(5)
        noise = {second: rng.choice((1.0, 2.0, 3.0, 10.0)) for second in range(400)}
        chosen = make_settings(forecastQuantile=share, prefill={"maxGroups": 32}, gpuBudget=128)
        plant = Plant(lambda t: Load(noise[int(t) // 5 * 5], 4000.0, 100.0), settings=chosen).run(390)
        found = plant.decisions[-1].forecast.prefill
        assert not isinstance(found, Missing)
        assert found.tokens_per_s_q50 <= found.tokens_per_s_high
        return found.tokens_per_s_high, plant.groups().prefill

    (low, few), (high, many) = sized(0.6), sized(0.99)
    assert low < high
    assert few < many


def test_empty_queues_let_no_group_go_while_work_arrives() -> None:
    idle = with_workers(lambda worker: replace(worker, running=0.0, waiting=0.0, kv_usage=0.0))
    plant = Plant(lambda t: BUSY, changes=idle).run(300)
    before = plant.groups()
    assert min(before.prefill, before.decode) > 1
    plant.run(200)
    assert plant.groups() == before


@pytest.mark.parametrize(
    ("change", "shrinks"),
    [
        (without_routers, False),
        (stopped, False),
        (lambda seen: seen, True),
    ],
    ids=["missing", "stale", "zero"],
)
def test_missing_stale_and_zero_are_three_things(change: Callable[[Observation], Observation], shrinks: bool) -> None:
    plant = Plant(lambda t: BUSY if t < 60 else SILENCE).run(60)
    before = plant.groups()
    plant.changes = change
    plant.run(400)
    assert plant.groups() == (Pair(1, 1) if shrinks else before)
    assert (Code.DEMAND_MISSING in {reason.code for reason in plant.decisions[-1].why}) != shrinks


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("running", [0.0, 4.0])
def test_an_abandoned_queue_of_a_worker_neither_adds_a_group_nor_keeps_one(role: Role, running: float) -> None:
    """Nothing arrives and nothing moves, but the first group's page shows a queue for ever."""

    def stands(worker: WorkerSample) -> WorkerSample:
        here = worker.role is role and worker.group == f"{role}-0"
        waiting = 400.0 if here else 0.0
        counted = replace(worker, prompt_tokens=1e6, generation_tokens=1e5, waiting=waiting, running=0.0)
        held = replace(counted, waiting_by_reason={"capacity": waiting, "deferred": 0.0})
        return replace(held, running=running) if here else held

    plant = Plant(lambda t: BUSY if t < 60 else SILENCE).run(60)
    before = plant.groups()
    plant.changes = with_workers(stands)
    plant.run(400)
    assert all(decision.target and decision.target.groups[role] <= before[role] for decision in plant.decisions[60:])
    assert plant.groups() == Pair(1, 1)
    named = {reason.code for reason in plant.decisions[-1].why if reason.role is role}
    assert named & {Code.GROUP_STALLED, Code.BOTTLENECK}


def test_what_users_see_comes_from_the_router_and_workers_only_attribute() -> None:
    """Workers whose own TTFT is terrible, at a router whose clients wait for 0.1 s at most."""
    plant = Plant(lambda t: BUSY)

    def change(seen: Observation) -> Observation:
        total = plant.counters[0]
        good = Histogram(BOUNDS_S, tuple(total if bound >= 0.1 else 0.0 for bound in BOUNDS_S), total * 0.1)
        bad = Histogram(BOUNDS_S, tuple(total if bound == float("inf") else 0.0 for bound in BOUNDS_S), total * 9)
        routers = with_router(lambda router: replace(router, ttft=good, itl=good))
        return with_workers(lambda worker: replace(worker, ttft=bad, itl=bad))(routers(seen))

    plant.changes = change
    seen: Latency = plant.run(40).decisions[-1].signals.ttft
    assert seen.basis == "router"
    assert seen.attained == pytest.approx(1.0)
    assert not isinstance(seen.value_ms, Missing)
    assert seen.value_ms <= 100.0
