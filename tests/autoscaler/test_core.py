"""The core in closed loop with a small plant, and the field cases that concern it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core import tick
from autoscaler.model import Decision, Number, Observation, RoleFleet, State
from policies.model import ROLES, Code, Missing, Pair, Role
from tests.autoscaler.plant import Load, Plant, make_settings, without_routers

CALM = Load(2.0, 1000.0, 120.0)


def codes(decision: Decision) -> set[Code]:
    return {reason.code for reason in decision.why}


def known(value: Number) -> float:
    assert not isinstance(value, Missing)
    return value


def condition(decision: Decision, kind: str) -> str:
    return next(c.status for c in decision.conditions if c.type == kind)


def with_fleet(observation: Observation, role: Role, **changes: object) -> Observation:
    fleet = observation.fleet[role]
    assert isinstance(fleet, RoleFleet)
    changed = replace(fleet, **changes)  # type: ignore[arg-type]
    return replace(observation, fleet=replace(observation.fleet, **{role.value: changed}))


def test_each_phase_moves_its_own_role() -> None:
    def load(t: float) -> Load:
        if 60 <= t < 120:
            return Load(3.0, 4000.0, 120.0)
        if 120 <= t < 180:
            return Load(3.0, 1000.0, 480.0)
        return CALM

    plant = Plant(load).run(60)
    calm = plant.groups()
    long_inputs = plant.run(60).groups()
    long_outputs = plant.run(60).groups()
    # What a burst needed is kept for as long as bursts are remembered.
    assert plant.run(20).groups().prefill > calm.prefill
    after = plant.run(400).groups()
    assert long_inputs.prefill > calm.prefill
    assert long_outputs.decode > calm.decode
    assert long_inputs.prefill > long_inputs.decode
    assert long_outputs.decode > long_outputs.prefill
    assert after == calm


def test_minimums_follow_ready_groups_and_fall_first() -> None:
    plant = Plant(lambda t: Load(3.0, 4000.0, 120.0) if t < 60 else CALM).run(150)
    steps = [d.step for d in plant.decisions if d.step and d.step.role is Role.PREFILL]
    kinds = [(step.kind, step.after > step.before) for step in steps]
    assert kinds.index(("replicas", True)) < kinds.index(("min_count", True))
    # Groups above the floor go without it; the plant refuses replicas below the minimum.
    last = max(index for index, kind in enumerate(kinds) if kind == ("replicas", False))
    assert kinds.index(("min_count", False)) < last


@pytest.mark.parametrize("budget", [4, 6, 10])
def test_a_tight_budget_holds_at_every_step(budget: int) -> None:
    def load(t: float) -> Load:
        return Load(4.0, 5000.0, 120.0) if int(t / 60) % 2 else Load(4.0, 500.0, 700.0)

    plant = Plant(load, settings=make_settings(gpuBudget=budget)).run(300)
    assert any(Code.BUDGET_CAPPED in codes(decision) for decision in plant.decisions)
    assert plant.groups().prefill >= 1
    assert plant.groups().decode >= 1


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 8), st.floats(10, 9000), st.floats(1, 900)), min_size=2, max_size=5),
    st.integers(4, 40),
    st.integers(4, 60),
)
def test_any_load_keeps_the_invariants(phases: list[tuple[float, float, float]], budget: int, free: int) -> None:
    def load(t: float) -> Load:
        return Load(*phases[min(int(t / 30), len(phases) - 1)])

    plant = Plant(load, settings=make_settings(gpuBudget=budget), gpus_free=free).run(30 * len(phases))
    for decision in plant.decisions:
        assert decision.target is not None
        for role in ROLES:
            assert 1 <= decision.target.floor[role] <= 8
            assert 1 <= decision.target.groups[role] <= 8


def test_what_does_not_fit_is_not_asked_for() -> None:
    plant = Plant(lambda t: Load(5.0, 5000.0, 120.0), gpus_free=6).run(40)
    assert plant.groups().prefill == 2
    assert Code.DOES_NOT_FIT in codes(plant.decisions[-1])
    assert condition(plant.decisions[-1], "ScalingLimited") == "True"


def test_equal_inputs_give_equal_decisions() -> None:
    plant = Plant(lambda t: CALM).run(20)
    observation = plant.observe()
    first = tick(plant.state, observation, plant.settings, plant.profile)
    assert first == tick(plant.state, observation, plant.settings, plant.profile)


def test_idle_is_a_true_zero_and_shrinks() -> None:
    plant = Plant(lambda t: Load(5.0, 4000.0, 400.0) if t < 60 else Load(0.0, 0.0, 0.0)).run(60)
    assert plant.groups().prefill > 2
    plant.run(150)
    assert plant.groups() == Pair(1, 1)
    assert Code.NO_TRAFFIC in codes(plant.decisions[-1])
    assert plant.decisions[-1].signals.ttft.value_ms == Missing("no traffic in the window")


def test_blind_is_not_idle() -> None:
    plant = Plant(lambda t: Load(5.0, 4000.0, 400.0)).run(60)
    before = plant.groups()
    plant.changes = without_routers
    plant.run(1200)
    assert plant.groups() == before
    last = plant.decisions[-1]
    assert Code.DEMAND_MISSING in codes(last)
    assert condition(last, "ScalingActive") == "False"


@pytest.mark.parametrize(("found", "expected"), [(1, 2), (7, 4)])
def test_bounds_are_kept_at_once_also_when_blind(found: int, expected: int) -> None:
    bounds = {"minGroups": 2, "maxGroups": 4, "scaleDown": {"stabilizationS": 300}}
    plant = Plant(lambda t: CALM, settings=make_settings(prefill=bounds))
    plant.scale_by_hand(Role.PREFILL, found)
    plant.writers.clear()
    plant.changes = without_routers
    plant.run(40)
    assert plant.groups().prefill == expected


def test_a_blind_role_does_not_shrink_and_does_not_stop_its_partner() -> None:
    plant = Plant(lambda t: Load(5.0, 4000.0, 400.0) if t < 60 else Load(1.0, 200.0, 20.0)).run(60)
    before = plant.groups()

    def no_decode_workers(observation: Observation) -> Observation:
        samples = observation.samples
        workers = tuple(worker for worker in samples.workers if worker.role is not Role.DECODE)
        failures = {f"decode-{index}": "timeout" for index in range(before.decode)}
        return replace(observation, samples=replace(samples, workers=workers, failures=failures))

    plant.changes = no_decode_workers
    plant.run(120)
    assert plant.groups().decode == before.decode
    assert plant.groups().prefill < before.prefill
    assert Code.ROLE_BLIND in codes(plant.decisions[-1])


@pytest.mark.parametrize("role", ROLES)
def test_unknown_cost_never_grows_but_may_shrink(role: Role) -> None:
    plant = Plant(lambda t: Load(5.0, 5000.0, 500.0) if t < 40 else Load(0.2, 100.0, 10.0))
    plant.scale_by_hand(role, 3)
    plant.writers.clear()
    plant.changes = lambda o: with_fleet(o, role, gpus_per_group=Missing("no GPU request"))
    plant.run(40)
    assert plant.groups()[role] == 3
    assert plant.groups()[role.partner] == 1
    assert condition(plant.decisions[-1], "AbleToScale") == "False"
    plant.run(120)
    assert plant.groups()[role] == 1


def test_a_manual_number_is_kept_named_and_timed() -> None:
    plant = Plant(lambda t: CALM, settings=make_settings(manualHoldS=120)).run(40)
    plant.scale_by_hand(Role.DECODE, 4, "kubectl")
    plant.run(60)
    assert plant.groups().decode == 4
    hold = next(reason for reason in plant.decisions[-1].why if reason.code is Code.MANUAL_HOLD)
    assert hold.detail["writer"] == "kubectl"
    assert (hold.detail["ours"], hold.detail["theirs"]) == (1, 4)
    assert condition(plant.decisions[-1], "ForeignWriter") == "True"
    plant.run(150)
    assert plant.groups().decode == 1
    assert any(Code.MANUAL_RESUMED in codes(decision) for decision in plant.decisions)


def test_the_resume_annotation_ends_a_hold() -> None:
    plant = Plant(lambda t: CALM).run(40)
    plant.scale_by_hand(Role.DECODE, 3)
    plant.run(10)
    plant.changes = lambda o: with_fleet(o, Role.DECODE, resume="go")
    plant.run(60)
    assert plant.groups().decode == 1


@pytest.mark.parametrize(
    ("paused", "grows", "shrinks"), [("all", False, False), ("in", True, False), ("out", False, True)]
)
def test_pauses(paused: str, grows: bool, shrinks: bool) -> None:
    plant = Plant(lambda t: Load(5.0, 5000.0, 120.0) if t < 60 else CALM)
    plant.scale_by_hand(Role.PREFILL, 2)
    plant.writers.clear()
    plant.changes = lambda o: with_fleet(o, Role.PREFILL, paused=paused)
    plant.run(60)
    assert (plant.groups().prefill > 2) == grows
    high = plant.groups().prefill
    plant.run(120)
    assert (plant.groups().prefill < high) == shrinks


def test_a_number_that_an_apply_dropped_is_put_back_at_once_until_the_third_time() -> None:
    load = Load(6.0, 4000.0, 120.0)
    slow = {"scaleUp": {"stabilizationS": 60}, "coldStartS": 8}
    plant = Plant(lambda t: load, settings=make_settings(prefill=slow)).run(150)
    ours = plant.groups().prefill
    assert ours >= 4
    for _ in range(2):
        plant.drop_by_apply(Role.PREFILL, "argocd")
        plant.run(1)
        assert plant.groups().prefill == ours
        restored = next(r for r in plant.decisions[-1].why if r.code is Code.FIELD_RESTORED)
        assert (restored.detail["ours"], restored.detail["found"], restored.detail["by"]) == (ours, 1, "argocd")
        plant.run(5)
    plant.drop_by_apply(Role.PREFILL, "argocd")
    plant.run(20)
    assert plant.groups().prefill == 1
    given_up = next(r for r in plant.decisions[-1].why if r.code is Code.RESTORE_GIVEN_UP)
    assert given_up.detail["by"] == "argocd"
    plant.run(700)
    assert plant.groups().prefill == ours


def test_a_pause_of_the_object_concerns_both_roles() -> None:
    chosen = make_settings()
    paused = chosen.metadata.model_copy(update={"annotations": {"roleratio.dev/paused": "all"}})
    load = Load(6.0, 5000.0, 500.0)
    plant = Plant(lambda t: load, settings=chosen.model_copy(update={"metadata": paused})).run(60)
    assert plant.groups() == Pair(1, 1)
    assert {r.role for r in plant.decisions[-1].why if r.code is Code.PAUSED} == set(ROLES)


def test_an_unowned_number_that_is_not_the_default_is_a_persons() -> None:
    plant = Plant(lambda t: Load(6.0, 4000.0, 120.0)).run(60)
    plant.scale_by_hand(Role.PREFILL, 2)
    plant.unowned.add(Role.PREFILL)
    plant.run(10)
    assert plant.groups().prefill == 2
    assert Code.MANUAL_HOLD in codes(plant.decisions[-1])


def test_a_dropped_number_is_put_back_even_when_blind() -> None:
    plant = Plant(lambda t: Load(6.0, 4000.0, 120.0)).run(60)
    ours = plant.groups().prefill
    plant.changes = without_routers
    plant.run(40)
    plant.drop_by_apply(Role.PREFILL, "helm")
    plant.run(1)
    assert plant.groups().prefill == ours


def test_an_unreachable_slo_is_named_and_drives_no_growth() -> None:
    slo = {"ttft": {"targetMs": 500}, "itl": {"targetMs": 60}}
    plant = Plant(lambda t: Load(0.2, 8000.0, 50.0) if t < 300 else Load(0, 0, 0), settings=make_settings(slo=slo))
    plant.run(300)
    assert plant.groups().prefill <= 2
    named = next(reason for reason in plant.decisions[-1].why if reason.code is Code.SLO_UNREACHABLE)
    assert float(named.detail["reachable_ms"]) > float(named.detail["target_ms"])
    before = plant.groups()
    plant.run(100)
    assert plant.groups().prefill <= before.prefill


def test_a_router_restart_is_a_reset_not_a_negative_rate() -> None:
    plant = Plant(lambda t: CALM).run(30)
    plant.counters = [0.0] * 4
    plant.run(15)
    rates = [known(decision.signals.demand.requests_per_s) for decision in plant.decisions[-15:]]
    assert all(1.3 < rate < 2.7 for rate in rates)
    assert any(Code.COUNTER_RESET in codes(decision) for decision in plant.decisions)


def test_output_length_is_right_before_the_first_long_answers_are_through() -> None:
    """3 requests/s, 300 tokens each, 10 s long: after 13 s nine have finished and thirty are half done."""
    plant = Plant(lambda t: CALM)

    def flow() -> None:
        t = plant.now_s - 1000.0
        arrived, running = 3 * t, 3 * min(t, 10.0)
        done = arrived - running
        plant.decoding = running
        plant.counters = [arrived, arrived * 1000, done * 300 + running * 30 * min(t, 10.0) / 2, done]

    plant._flow = flow  # type: ignore[method-assign]
    demand = plant.run(14).decisions[-1].signals.demand
    assert demand.output_tokens_mean == pytest.approx(300, rel=0.1)


def test_a_burst_is_seen_within_a_few_seconds_and_a_steady_load_is_none() -> None:
    plant = Plant(lambda t: Load(3.0, 4000.0, 120.0) if t >= 60 else CALM).run(60)
    assert not any(Code.BURST in codes(decision) for decision in plant.decisions)
    plant.run(4)
    assert Code.BURST in codes(plant.decisions[-1])
    demand = plant.decisions[-1].signals.demand
    assert known(demand.prompt_tokens_per_s) > 9000


def test_a_restarted_controller_holds_until_it_has_seen_enough() -> None:
    plant = Plant(lambda t: Load(5.0, 4000.0, 400.0) if t < 60 else CALM).run(61)
    before = plant.groups()
    plant.state = State()
    plant.run(15)
    assert plant.groups() == before
    plant.run(120)
    assert plant.groups().prefill < before.prefill


def test_the_ratio_band_is_kept_by_raising() -> None:
    plant = Plant(lambda t: Load(3.0, 4000.0, 60.0), settings=make_settings(ratioBand={"min": 0.5, "max": 1.0}))
    groups = plant.run(60).groups()
    assert groups.decode >= groups.prefill > 1


def test_a_missing_workload_stops_with_a_reason() -> None:
    plant = Plant(lambda t: CALM)
    plant.changes = lambda o: replace(o, fleet=replace(o.fleet, decode=Missing("no workload")))
    plant.run(20)
    assert all(decision.step is None for decision in plant.decisions)
    assert Code.NO_WORKLOAD in codes(plant.decisions[-1])


def test_without_a_router_workers_are_read_and_it_is_called_estimated() -> None:
    plant = Plant(lambda t: CALM)

    def workers_only(observation: Observation) -> Observation:
        arrivals, prompt, generated, finished = plant.counters
        workers = tuple(
            replace(w, prompt_tokens=prompt, prompts=arrivals, finished=arrivals, in_flight=0.0)
            if w.role is Role.PREFILL
            else replace(w, generation_tokens=generated, finished=finished, in_flight=0.0)
            for w in observation.samples.workers[:1] + observation.samples.workers[-1:]
        )
        return replace(observation, samples=replace(observation.samples, routers=(), workers=workers))

    plant.changes = workers_only
    plant.run(30)
    demand = plant.decisions[-1].signals.demand
    assert demand.requests_per_s == pytest.approx(3.0, rel=0.4)
    assert plant.decisions[-1].signals.ttft.basis == "estimated"


def test_a_dry_run_neither_writes_nor_holds() -> None:
    plant = Plant(lambda t: Load(5.0, 4000.0, 400.0), settings=make_settings(mode="DryRun"))
    decision = plant.run(20).decisions[-1]
    assert all(written.replicas == written.before for written in decision.state.written.values())
    plant.scale_by_hand(Role.PREFILL, 5, "other-autoscaler")
    assert Code.MANUAL_HOLD not in codes(plant.run(5).decisions[-1])
