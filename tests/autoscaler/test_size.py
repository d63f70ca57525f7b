"""Sizes: for a percentile, at both quantiles, with what has piled up; an SLO out of reach drives nothing."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.work import CV2_MAX, USUAL_CV2, Ask, prompt_cv2, work_of
from autoscaler.model import COLUMNS, Decision, Learned, State, Totals
from perfmodel import decode, prefill
from perfmodel.profile import load_profile
from policies.model import ROLES, Code, Missing, Pair, Role
from tests.autoscaler.plant import Load, Plant, make_settings
from tests.autoscaler.sizing import Moment, history

LOADS = st.builds(
    Moment,
    rps=st.floats(0.01, 200),
    prompt_tokens=st.floats(20, 8000),
    output_tokens=st.floats(2, 1500),
    expected=st.tuples(st.floats(0.3, 1), st.floats(1, 3)),
)


@settings(max_examples=60, deadline=None)
@given(LOADS)
def test_a_size_meets_the_slo_and_one_group_less_does_not(moment: Moment) -> None:
    slo = moment.settings.spec.slo
    ask = Ask(moment.prompt_tokens, 1.0, moment.output_tokens, slo.itl.target_ms, slo.itl.percentile / 100, 16)
    work, rate = work_of(moment.profile, ask), moment.rps * moment.expected[1]
    needed = moment.of(Role.DECODE).groups
    of_decode = decode.served(work.decode) if work.decode else None
    assert of_decode
    assert decode.within_share(of_decode, rate, needed) >= of_decode.share
    assert needed == 1 or decode.within_share(of_decode, rate, needed - 1) < of_decode.share
    target_s, share = slo.ttft.target_ms / 1e3, slo.ttft.percentile / 100
    if work.prefill.reachable(target_s, share):
        needed = moment.of(Role.PREFILL).groups
        assert prefill.within_share(work.prefill, rate, needed, target_s) >= share
        load = rate * work.prefill.mean_s
        assert needed - 1 <= load or prefill.within_share(work.prefill, rate, needed - 1, target_s) < share


@settings(max_examples=60, deadline=None)
@given(LOADS, st.sampled_from(ROLES))
def test_what_a_size_says_of_itself_fits_together(moment: Moment, role: Role) -> None:
    found = moment.of(role)
    assert 1 <= found.floor <= found.groups
    assert 0 < found.low <= found.floor
    assert found.low <= found.high <= found.groups
    assert 0 < found.load_most <= 1.1
    # Within the tolerance of a search by halves, the floor holds what is expected.
    assert found.load * moment.expected[0] <= found.floor * found.load_most * 1.05 + 0.01
    more = replace(moment, rps=moment.rps * 1.5).of(role)
    assert more.groups >= found.groups
    assert more.load > found.load


def test_longer_prompts_need_prefill_and_longer_answers_decode() -> None:
    calm = Moment(3.0).sized()
    long_prompts, long_answers = Moment(3.0, prompt_tokens=5000.0), Moment(3.0, output_tokens=800.0)
    assert not any(isinstance(calm[role], Missing) for role in ROLES)
    assert long_prompts.of(Role.PREFILL).groups > Moment(3.0).of(Role.PREFILL).groups
    assert long_answers.of(Role.DECODE).groups > Moment(3.0).of(Role.DECODE).groups
    assert long_answers.of(Role.PREFILL).groups == Moment(3.0).of(Role.PREFILL).groups


def test_a_group_of_several_engines_counts_for_as_many() -> None:
    one, eight = Moment(40.0, ready=(4, 4)), Moment(40.0, ready=(4, 4), engines=8.0)
    for role in ROLES:
        assert eight.of(role).groups == -(-one.of(role).groups // 8)
        assert eight.of(role).load == pytest.approx(one.of(role).load / 8)


def test_what_a_router_holds_is_worked_off_in_the_set_time() -> None:
    queued = Moment(1.0, 2000.0, unassigned=600.0)
    work = work_of(queued.profile, Ask(2000.0, 1.0, 120.0, 60.0, 0.95, 16)).prefill
    found = queued.of(Role.PREFILL).groups
    assert (found - 1) * 60 < (600 + 60) * work.mean_s <= found * 60
    in_no_hurry = replace(queued, settings=make_settings(backlogDrainS=1200))
    assert in_no_hurry.of(Role.PREFILL).groups < found
    assert queued.of(Role.DECODE).groups == Moment(1.0, 2000.0).of(Role.DECODE).groups


def test_what_is_bound_to_workers_adds_no_group_and_keeps_those_that_are_there() -> None:
    calm, bound = Moment(1.0), Moment(1.0, prefill_waiting=300.0, decode_waiting=300.0)
    for role in ROLES:
        assert bound.of(role).groups == calm.of(role).groups
        assert bound.of(role).load > calm.of(role).load + 0.5


def test_sequences_that_wait_for_remote_kv_are_no_load_on_decode() -> None:
    assert Moment(1.0, deferred=500.0).of(Role.DECODE) == Moment(1.0).of(Role.DECODE)


def test_nothing_expected_needs_nothing() -> None:
    found = Moment(0.0).sized()
    for role in ROLES:
        size = found[role]
        assert not isinstance(size, Missing)
        assert (size.groups, size.floor, size.load) == (0, 0, 0.0)


@pytest.mark.parametrize(("slo", "role"), [("ttft", Role.PREFILL), ("itl", Role.DECODE)])
def test_an_slo_out_of_reach_is_named_with_the_closest_and_sizes_by_throughput(slo: str, role: Role) -> None:
    chosen = make_settings(slo={slo: {"targetMs": 1}})
    moment = Moment(3.0, settings=chosen)
    named = next(reason for reason in moment.sized().why if reason.code is Code.SLO_UNREACHABLE)
    assert named.role is role
    assert named.detail["target_ms"] == 1
    closest_ms = named.detail["reachable_ms"]
    assert isinstance(closest_ms, float)
    assert moment.of(role).groups <= Moment(3.0).of(role).groups + 1
    reachable = replace(moment, settings=make_settings(slo={slo: {"targetMs": closest_ms * 1.001}}))
    assert Code.SLO_UNREACHABLE not in {reason.code for reason in reachable.sized().why}


def prompts_alone(decisions: list[Decision]) -> int:
    return max(decision.target.groups.prefill for decision in decisions if decision.target)


def test_a_prompt_that_is_too_long_alone_adds_nothing_and_is_forgotten() -> None:
    """0.2 prompts/s of 32,000 tokens that take 0.62 s alone against 0.5 s, for 10 min; then silence for 20 min."""
    plain = load_profile()
    tokens = min(32_000.0, float(plain.max_model_len))
    factor = 620 / prefill.prompt_ms(plain, tokens)
    profile = replace(plain, prefill=replace(plain.prefill, factor=factor))
    chosen = make_settings(slo={"ttft": {"targetMs": 500}})
    plant = Plant(lambda t: Load(0.2 if t < 600 else 0.0, tokens, 100.0), settings=chosen, profile=profile).run(600)
    assert prompts_alone(plant.decisions) <= 2
    named = next(reason for reason in plant.decisions[-1].why if reason.code is Code.SLO_UNREACHABLE)
    assert named.detail["target_ms"] == 500
    assert named.detail["reachable_ms"] > 500  # type: ignore[operator]
    plant.run(1200)
    assert prompts_alone(plant.decisions) <= 2
    assert plant.groups() == Pair(1, 1)
    assert Code.SLO_UNREACHABLE not in {reason.code for reason in plant.decisions[-1].why}


def traffic(cv2: float, rps: float, ticks: int, seed: int, bunch: int = 1) -> list[tuple[float, float, float]]:
    """Poisson arrivals (of `bunch` at once) of lognormal prompts, per tick of 5 s."""
    rng = random.Random(seed)
    sigma2 = math.log(1 + cv2)
    found = []
    for tick in range(ticks):
        count, left_s = 0, rng.expovariate(rps / bunch)
        while left_s < 5:
            count, left_s = count + bunch, left_s + rng.expovariate(rps / bunch)
        lengths = [rng.lognormvariate(-sigma2 / 2, sigma2**0.5) * 1000 for _ in range(count)]
        found.append((5.0 * tick, float(count), sum(lengths)))
    return found


@pytest.mark.parametrize("bunch", [1, 4])
@pytest.mark.parametrize("cv2", [0.0, 1.0, 3.0])
def test_the_variability_of_prompts_is_learned_however_they_come(cv2: float, bunch: int) -> None:
    found = [prompt_cv2(history(traffic(cv2, 20.0, 60, seed, bunch))) for seed in range(12)]
    # A fourth of the weight is the prior's.
    assert sum(found) / len(found) == pytest.approx((20 * USUAL_CV2 + 58 * cv2) / 78, abs=0.35)


def test_a_router_that_counts_prompts_as_they_end_teaches_it_too() -> None:
    columns = COLUMNS["router"]

    def at_end(entry: Totals) -> Totals:
        row: list[float | None] = [None] * len(entry.row)
        row[columns["prompts"]], row[columns["prompt_tokens"]] = (
            entry.row[columns["arrivals"]],
            entry.row[columns["offered_tokens"]],
        )
        return Totals(entry.at_s, tuple(row))

    known = history(traffic(3.0, 20.0, 60, 1))
    assert prompt_cv2([at_end(entry) for entry in known]) == prompt_cv2(known) != USUAL_CV2


def test_equal_prompts_do_not_vary_in_bursts_or_on_a_ramp() -> None:
    prior = 20 * USUAL_CV2 / (20 + 58)
    ramp = [(5.0 * tick, 10.0 * tick, 10_000.0 * tick) for tick in range(60)]
    burst = [(5.0 * tick, came := 400.0 if tick % 6 == 0 else 10.0, 1000.0 * came) for tick in range(60)]
    for equal in (ramp, burst):
        assert prompt_cv2(history(equal)) == pytest.approx(prior, abs=0.01)


def test_little_seen_is_taken_as_usual() -> None:
    assert prompt_cv2(()) == USUAL_CV2
    assert prompt_cv2(history([(0.0, 0.0, 0.0), (5.0, 0.0, 0.0), (10.0, 0.0, 0.0)])) == USUAL_CV2


@given(st.lists(st.tuples(st.floats(0.1, 30), st.integers(0, 500), st.floats(0, 1e6)), max_size=40))
def test_it_stays_in_its_bounds(steps: list[tuple[float, int, float]]) -> None:
    at_s, found = 0.0, []
    for gap_s, requests, tokens in steps:
        at_s += gap_s
        found.append((at_s, float(requests), tokens))
    assert 0 <= prompt_cv2(history(found)) <= CV2_MAX


def test_what_a_cache_keeps_having_is_no_work_but_for_groups_that_have_yet_to_start() -> None:
    profile = load_profile()

    def groups(share: float, ready: int) -> int:
        state = State(learned=Learned(profile.name, cached_share=share))
        moment = Moment(40.0, prompt_tokens=4000.0, ready=(ready, 1), profile=profile, state=state)
        return moment.of(Role.PREFILL).groups

    needed = groups(0.0, 40)
    assert groups(0.6, 40) < groups(0.3, 40) < needed
    assert groups(0.6, 40) <= groups(0.6, 4) < groups(0.6, 1) <= needed
    assert groups(0.0, 1) == needed
    assert groups(0.99, 40) >= 1
