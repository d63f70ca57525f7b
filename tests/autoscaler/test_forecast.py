"""The forecast in the tick: even steps however ticks come, each role's own horizon, what lasts, and what is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from autoscaler.codec import decode, encode
from autoscaler.core.forecast import FIRST_STEPS, REFIT_S, STEP_S, forecast
from autoscaler.model import Course, State
from autoscaler.settings import Settings
from forecasting.recent import SILENCE, kept_steps
from policies.model import ROLES, Missing, Role
from tests.autoscaler.arriving import ANSWER, PROMPT, Service
from tests.autoscaler.plant import Load, Plant, make_settings, without_routers


@pytest.mark.parametrize("period_s", [1.0, 2.0, 4.0, 5.0, 5.03, 7.0, 15.0, 30.0])
def test_steps_are_even_and_whole_at_any_period(period_s: float) -> None:
    service = Service()
    ticks = int(300 / period_s)
    for index in range(ticks + 1):
        service.tick(1000.0 + index * period_s, 2.0 * period_s if index else 0.0)
    values = service.values()
    assert len(values) == int(ticks * period_s / STEP_S + 0.1)
    assert values == pytest.approx([2.0 * PROMPT] * len(values))


@settings(max_examples=40, deadline=None)
@given(some.lists(some.floats(0.0, 12.0), min_size=1, max_size=60))
def test_steps_keep_their_grid_however_ticks_come(gaps_s: list[float]) -> None:
    service, now_s = Service(), 1000.0
    service.tick(now_s, 0.0)
    for gap_s in gaps_s:
        now_s += gap_s
        service.tick(now_s, 3.0 * gap_s)
        course = service.state.courses[Role.PREFILL]
        assert course.end_s == pytest.approx(1000.0 + STEP_S * len(course.values))
        assert -STEP_S < course.end_s - now_s <= STEP_S / 10 + 1e-6
        assert all(value == pytest.approx(3.0 * PROMPT) for value in course.values)


def test_ticks_at_one_time_are_one() -> None:
    once, thrice = Service(), Service()
    for index in range(40):
        came = [6.0, 0.0, 30.0][index % 3]
        found = once.tick(1000.0 + index * STEP_S, came)
        for more in (came, 0.0, 0.0):
            again = thrice.tick(1000.0 + index * STEP_S, more)
    assert thrice.values() == once.values()
    assert found == again


def test_a_pause_longer_than_sources_stay_fresh_is_missing_and_a_short_one_is_not() -> None:
    short, long = Service(), Service()
    for service in (short, long):
        service.run([2.0] * 10)
    short.tick(1050.0 + 20.0, 40.0)
    assert short.values()[-4:] == pytest.approx([2.0 * PROMPT] * 4)
    long.tick(1050.0 + 60.0, 120.0)
    assert long.values()[-12:-1] == (None,) * 11


def test_what_is_not_known_is_missing_and_no_zero() -> None:
    service = Service()
    service.run([2.0] * 10)
    assert service.tick(1055.0, 0.0, known=False) == {}
    assert service.values()[-1] is None
    found = service.tick(1060.0, 0.0, answers=False)
    assert set(found) == {Role.PREFILL}
    assert service.values(Role.DECODE)[-1] is None


def test_each_role_looks_ahead_by_its_own_cold_start() -> None:
    service = Service(lead_s=(30.0, 240.0))
    found = service.run([0.02 * index for index in range(200)])
    assert {role: found[role].horizon_s for role in ROLES} == {Role.PREFILL: 30.0, Role.DECODE: 240.0}
    ahead = [found[Role.PREFILL].tokens_per_s_high / PROMPT, found[Role.DECODE].tokens_per_s_high / ANSWER]
    assert ahead == pytest.approx([0.02 * (199 + 6), 0.02 * (199 + 48)], rel=0.01)
    assert [found[role].quantile for role in ROLES] == [0.95, 0.95]
    lead = replace(service.roles[0], node_start_s=300.0)
    service.roles[0] = lead
    assert service.tick(3000.0, 0.0)[Role.PREFILL].horizon_s == 330.0


@pytest.mark.parametrize("period_s", [5.0, 3.7])
def test_services_look_anew_at_moments_of_their_own(period_s: float) -> None:
    moments: dict[int, int] = {}
    for name in range(30):
        chosen = make_settings()
        service = Service(replaced(chosen, f"service-{name}"))
        fitted = {0.0}
        for index in range(100):
            now_s = 6000.0 + index * period_s
            service.tick(now_s, 10.0)
            if now_s > 6000.0 + STEP_S * (FIRST_STEPS + 1):
                fitted.add(service.state.courses[Role.PREFILL].fitted_s)
        gaps = [b - a for a, b in zip(sorted(fitted)[2:], sorted(fitted)[3:], strict=False)]
        assert gaps
        assert all(abs(gap - REFIT_S) <= period_s + 1e-6 for gap in gaps)
        moment = int(max(fitted) % REFIT_S // 10)
        moments[moment] = moments.get(moment, 0) + 1
    assert len(moments) == 6
    assert max(moments.values()) <= 12


def replaced(chosen: Settings, name: str) -> Settings:
    return chosen.model_copy(update={"metadata": chosen.metadata.model_copy(update={"name": name})})


def test_a_burst_counts_for_as_much_of_the_horizon_as_it_has_lasted() -> None:
    """Looked at where nothing else is said: a course without a fit, and a memory of nothing."""
    for lasted, share in ((1, 1 / 24), (12, 0.5), (24, 1.0), (40, 1.0)):
        service = Service(lead_s=(120.0, 120.0))
        service.run([0.0] * 80)
        course = service.state.courses[Role.PREFILL]
        assert course.fit is not None
        found = service.run([6.0] * lasted, begin_s=1000.0 + 80 * STEP_S)
        assert found[Role.PREFILL].tokens_per_s_high >= share * 6.0 * PROMPT * (1 - 1e-9)
    kept = replace(course, values=(*[0.0] * 80, 6000.0), fitted_s=0.0, fit=replace(course.fit, memory=0.0, bursts=0.0))
    service.state = replace(service.state, courses={role: replace(kept, end_s=9000.0) for role in ROLES})
    assert service.tick(9000.0, 0.0)[Role.PREFILL].tokens_per_s_high >= 6000.0 / 24


def test_lengths_are_remembered_while_work_is_expected() -> None:
    service = Service()
    found = service.run([2.0] * 40)
    demandless = replace(service.signals(1200.0, True, True).demand, prompt_tokens_mean=0.0, prompt_tokens_per_s=0.0)
    signals = replace(service.signals(1200.0, True, True), demand=demandless)
    later, _ = forecast(service.state, signals, service.settings, 1200.0)
    assert not isinstance(later.prefill, Missing)
    assert later.prefill.tokens_mean == found[Role.PREFILL].tokens_mean == PROMPT


def test_no_more_is_kept_than_is_made_use_of() -> None:
    service = Service(lead_s=(60.0, 120.0))
    service.run([2.0] * 420)
    assert [len(service.values(role)) for role in ROLES] == [kept_steps(STEP_S, 60.0), kept_steps(STEP_S, 120.0)]


def test_courses_go_through_json() -> None:
    service = Service()
    service.run([2.0, 0.0, 9.0] * 20)
    service.tick(1400.0, 3.0)
    course: Course = service.state.courses[Role.DECODE]
    assert course.fit is not None
    assert None in course.values
    assert decode(State, encode(State, service.state)) == service.state


def plant_in_silence(**role: object) -> tuple[Plant, int]:
    """Bursts for ten minutes, then none for twenty; after how many seconds of these prefill is at its minimum."""
    chosen = make_settings(
        gpuBudget=64, prefill={"maxGroups": 12, **role}, decode={"maxNumSeqs": 16}, slo={"ttft": {"targetMs": 2000}}
    )

    def load(t: float) -> Load:
        return Load(0.0, 0.0, 0.0) if t >= 600 else Load(8.0 if t % 60 >= 50 else 0.1, 4500.0, 50.0)

    # Bursts are remembered for a multiple of the cold start, here longer than any of the silences.
    plant = Plant(load, settings=chosen, cold_start_s=60.0).run(600)
    assert plant.groups().prefill >= 6
    for second in range(1200):
        if plant.groups().prefill == 1:
            return plant, second
        plant.run(1)
    raise AssertionError(f"prefill still has {plant.groups().prefill} groups")


@pytest.mark.parametrize(
    ("role", "silence_s"),
    [
        pytest.param({}, 300, id="by default"),
        pytest.param({"scaleDown": {"stabilizationS": 300}}, 300, id="as a window of 300 s"),
        pytest.param({"scaleDown": {"stabilizationS": 60}}, 60, id="as a short window"),
        pytest.param({"scaleDown": {"stabilizationS": 600}}, 600, id="as a long window"),
    ],
)
def test_a_silence_counts_once(role: dict[str, object], silence_s: int) -> None:
    """It ends the memory and stands for the window; then one group after the other goes, each within ten seconds."""
    plant, second = plant_in_silence(**role)
    assert silence_s <= second <= silence_s + 2 * STEP_S + 12 * 10
    last = plant.decisions[-1].forecast.prefill
    assert not isinstance(last, Missing)
    assert (last.model, last.tokens_per_s_high) == (SILENCE, 0.0)


def test_blindness_is_no_silence() -> None:
    plant = Plant(lambda t: Load(6.0, 4500.0, 50.0), settings=make_settings()).run(120)
    before = plant.groups()
    plant.changes = without_routers
    plant.load = lambda t: Load(0.0, 0.0, 0.0)
    plant.run(600)
    assert plant.groups() == before
    # Seen again, it takes a silence that is seen.
    plant.changes = lambda seen: seen
    plant.run(15)
    assert plant.groups().prefill >= before.prefill
