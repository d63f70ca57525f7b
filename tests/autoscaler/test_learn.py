"""Learning: a fleet slower than its profile is found out, and longer contexts; without a certain cause nothing is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from autoscaler.codec import decode, encode
from autoscaler.core.learn import CONTEXT_FACTORS, believed
from autoscaler.model import Histogram, Learned, Observation, State, WorkerSample
from perfmodel.correction import FACTORS, Correction, RoleCorrection
from perfmodel.prefill import prompt_ms
from perfmodel.profile import load_profile
from policies.model import Missing, Role
from tests.autoscaler.plant import Load, Plant
from tests.autoscaler.sizing import Moment

PROFILE = load_profile()
BATCH, CONTEXT, PROMPT = 8.0, 1000.0, 2000.0
Change = Callable[[WorkerSample, float], WorkerSample]


def times(count: float, sum_s: float) -> Histogram:
    return Histogram((1.0, float("inf")), (count, count), sum_s)


def steady(worker: WorkerSample, now_s: float, factor: float = 1.0) -> WorkerSample:
    """A decode worker with a steady batch, or a prefill worker with one prompt every five seconds, `factor` slower."""
    if worker.role is Role.DECODE:
        itl_s = factor * PROFILE.decode_ms(BATCH, CONTEXT) / 1e3
        tokens = BATCH / itl_s * now_s
        kv_usage = BATCH * CONTEXT / PROFILE.kv_capacity_tokens
        itl = times(tokens, tokens * itl_s)
        return replace(worker, running=BATCH, kv_usage=kv_usage, generation_tokens=tokens, itl=itl)
    prompts, own_s = now_s // 5, factor * prompt_ms(PROFILE, PROMPT) / 1e3
    seen = {"ttft": times(prompts, prompts * (own_s + 0.5)), "queue_time": times(prompts, prompts * 0.5)}
    return replace(worker, running=0.0, prompt_tokens=prompts * PROMPT, finished=prompts, **seen)


def run(factor: float, seconds: float = 400, change: Change = lambda worker, now_s: worker) -> Plant:
    def changed(observation: Observation) -> Observation:
        now_s = observation.now_s
        workers = (change(steady(worker, now_s, factor), now_s) for worker in observation.samples.workers)
        return replace(observation, samples=replace(observation.samples, workers=tuple(workers)))

    return Plant(lambda t: Load(1.0, PROMPT, 60.0), changes=changed, profile=PROFILE).run(seconds)


def learned(plant: Plant, role: Role) -> RoleCorrection:
    correction = plant.state.learned.correction
    return correction.prefill if role is Role.PREFILL else correction.decode


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_the_factor_of_each_role_is_found(factor: float) -> None:
    plant = run(factor)
    for role in Role:
        assert learned(plant, role).factor == pytest.approx(factor, rel=0.02)
    after = learned(plant, Role.DECODE).mape_after
    assert after is not None
    assert after < 0.1


def test_what_was_learned_changes_sizes_and_of_prefill_only_slowness() -> None:
    state = State(learned=Learned(PROFILE.name, Correction(RoleCorrection(0.7), RoleCorrection(0.7))))
    profile = believed(PROFILE, state)
    assert profile.prefill_ms(1000) == PROFILE.prefill_ms(1000)
    assert profile.decode_ms(8, 1000) == pytest.approx(0.7 * PROFILE.decode_ms(8, 1000))
    slow = replace(state.learned, correction=Correction(RoleCorrection(1.4), RoleCorrection()))
    assert believed(PROFILE, replace(state, learned=slow)).prefill_ms(1000) == pytest.approx(
        1.4 * PROFILE.prefill_ms(1000)
    )


def test_what_was_learned_of_another_profile_is_left_out() -> None:
    state = State(learned=Learned("another", Correction(RoleCorrection(1.5), RoleCorrection(1.5))))
    assert believed(PROFILE, state) is PROFILE


def test_it_stays_within_bounds() -> None:
    assert learned(run(50.0, 900), Role.DECODE).factor in (1.0, FACTORS[1])
    assert FACTORS[0] <= learned(run(0.01, 900), Role.DECODE).factor <= 1.0


def starting(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(worker, ready_s=now_s - 3.0)


def test_groups_that_have_just_started_teach_nothing() -> None:
    plant = run(1.5, change=starting)
    for role in Role:
        assert (learned(plant, role).factor, learned(plant, role).samples) == (1.0, 0)
    assert learned(plant, Role.DECODE).excluded > 100


def another_batch(worker: WorkerSample, now_s: float) -> WorkerSample:
    """The gauge of the batch says something else than its tokens do."""
    return replace(worker, running=3 * worker.running) if worker.role is Role.DECODE else worker


def jumping(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(worker, running=worker.running + 20.0 * (now_s % 2)) if worker.role is Role.DECODE else worker


def queueing(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(worker, waiting=4.0) if worker.role is Role.PREFILL else worker


def without_queue_time(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(worker, queue_time=times(0.0, 0.0)) if worker.role is Role.PREFILL else worker


@pytest.mark.parametrize(
    ("change", "role"),
    [
        (another_batch, Role.DECODE),
        (jumping, Role.DECODE),
        (queueing, Role.PREFILL),
        (without_queue_time, Role.PREFILL),
    ],
)
def test_a_time_without_a_certain_cause_teaches_nothing(change: Change, role: Role) -> None:
    plant = run(1.5, change=change)
    assert learned(plant, role) == RoleCorrection()
    assert learned(plant, role.partner).samples > 0


def holding(per_sequence: float, running: float = BATCH) -> Change:
    """Decode workers whose sequences hold so many tokens each."""

    def change(worker: WorkerSample, now_s: float) -> WorkerSample:
        usage = running * per_sequence / PROFILE.kv_capacity_tokens
        return replace(worker, running=running, kv_usage=usage) if worker.role is Role.DECODE else worker

    return change


LENGTHS = PROMPT + 60.0


@pytest.mark.parametrize(
    ("per_sequence", "factor"),
    [
        pytest.param(LENGTHS, 1.0, id="what mean lengths say"),
        pytest.param(1.7 * LENGTHS, 1.7, id="long ones stay longest"),
        pytest.param(0.6 * LENGTHS, 0.6, id="shared prefixes are held once"),
        pytest.param(40.0 * LENGTHS, CONTEXT_FACTORS[1], id="no more than that"),
        pytest.param(0.01 * LENGTHS, CONTEXT_FACTORS[0], id="no less than that"),
    ],
)
def test_what_a_sequence_holds_is_learned_within_bounds(per_sequence: float, factor: float) -> None:
    plant = run(1.0, 900, holding(per_sequence))
    assert plant.state.learned.context == pytest.approx(factor, rel=0.02)


def test_a_look_moves_it_by_its_share_of_two_minutes() -> None:
    found = [run(1.0, seconds, holding(2 * LENGTHS)).state.learned.context for seconds in (30, 60, 120)]
    assert 1.0 < found[0] < found[1] < found[2] < 2.0
    # 2 ** (1 - e ** -1), less the seconds before lengths are known.
    assert found[2] == pytest.approx(2 ** (1 - math.exp(-1)), rel=0.03)


def without_kv(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(worker, kv_usage=Missing("not on the page")) if worker.role is Role.DECODE else worker


def without_running(worker: WorkerSample, now_s: float) -> WorkerSample:
    return replace(worker, running=Missing("not on the page")) if worker.role is Role.DECODE else worker


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(without_kv, id="no use of the cache"),
        pytest.param(without_running, id="no batch"),
        pytest.param(holding(3 * LENGTHS, running=1.0), id="too few sequences"),
        pytest.param(holding(0.0), id="nothing held"),
    ],
)
def test_without_something_to_see_it_stays(change: Change) -> None:
    plant = run(1.0, 120, change)
    assert plant.state.learned.context == 1.0
    learned_before = replace(plant.state.learned, context=1.7)
    plant.state = replace(plant.state, learned=learned_before)
    assert plant.run(60).state.learned.context == 1.7


def test_sequences_that_wait_for_their_kv_hold_it() -> None:
    def deferred(worker: WorkerSample, now_s: float) -> WorkerSample:
        changed = holding(2 * LENGTHS)(worker, now_s)
        return replace(changed, waiting_by_reason={"deferred": BATCH}) if worker.role is Role.DECODE else worker

    assert run(1.0, 600, deferred).state.learned.context == pytest.approx(1.0, rel=0.02)


def test_longer_contexts_need_more_decode_groups() -> None:
    def groups(context: float) -> float:
        state = State(learned=Learned(PROFILE.name, context=context))
        return Moment(20.0, 4000.0, 400.0, state=state, profile=PROFILE).of(Role.DECODE).high

    assert groups(0.5) < groups(1.0) < groups(2.0)
    other = State(learned=Learned("another", context=3.0))
    assert Moment(20.0, 4000.0, 400.0, state=other, profile=PROFILE).of(Role.DECODE).high == groups(1.0)


def test_the_state_goes_through_json() -> None:
    state = run(1.3, 60).state
    assert state.learned.correction.decode.samples > 0
    assert decode(State, encode(State, state)) == state


def cached(share: Callable[[float], float | None]) -> Change:
    """Prefill workers that find so much of each second's prompts in their caches; None: they do not say it."""

    def change(worker: WorkerSample, now_s: float) -> WorkerSample:
        if worker.role is Role.DECODE or share(now_s) is None:
            return worker
        found = sum((share(second) or 0.0) * PROMPT for second in range(int(now_s)))
        return replace(worker, prompt_tokens=PROMPT * int(now_s), cached_tokens=found)

    return change


def test_what_a_cache_keeps_having_is_believed_slowly_and_given_up_at_once() -> None:
    began_s = Plant(lambda t: Load(1.0, PROMPT, 60.0)).now_s
    found = [
        run(1.0, seconds, cached(lambda now_s: 0.6 if now_s < began_s + 600 else 0.0)).state.learned.cached_share
        for seconds in (60, 600, 660, 725)
    ]
    # Of the last two minutes, half had nothing to find; then all.
    assert found == pytest.approx([0.6 * (1 - math.exp(-0.5)), 0.6, 0.3, 0.0], abs=0.03)


def test_what_nobody_shows_any_more_is_forgotten() -> None:
    began_s = Plant(lambda t: Load(1.0, PROMPT, 60.0)).now_s
    silent = cached(lambda now_s: 0.6 if now_s < began_s + 600 else None)
    assert run(1.0, 600, silent).state.learned.cached_share == pytest.approx(0.6, abs=0.03)
    assert run(1.0, 1200, silent).state.learned.cached_share < 0.05
    assert run(1.0, 300).state.learned.cached_share == 0.0
