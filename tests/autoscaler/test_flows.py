"""Counters over time: resets, gaps, pods that come, families that appear late; and demand role by role."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from autoscaler.core import tick
from autoscaler.core.flows import Reading, accumulate
from autoscaler.core.groups import engines
from autoscaler.model import (
    Count,
    Decision,
    Fleet,
    Observation,
    Origin,
    RouterSample,
    Samples,
    Source,
    State,
    WorkerSample,
)
from perfmodel.profile import load_profile
from policies.model import ROLES, Code, Missing, Pair, Role
from tests.autoscaler.pages import role_fleet, router, settings, worker

NOW_S = 1000.0
NONE = Missing("not on the page")
PROFILE = load_profile()


def reading(at_s: float, start_s: float = 0.0, ready_s: float = 0.0, **counts: float) -> Reading:
    given = {cast(Count, count): value for count, value in counts.items()}
    return Reading(
        "prefill", Source("uid", at_s, given, NONE, NONE), start_s, ready_s, frozenset(("arrivals", "served"))
    )


def sums(*readings: Reading, state: State | None = None) -> tuple[dict[str, float], set[Code]]:
    """What has been added up after these looks at one source, a tick each."""
    state, codes = state or State(started_s=NOW_S), set()
    for one in readings:
        state, why = accumulate(state, [one], one.source.at_s, 30.0)
        codes |= {reason.code for reason in why}
    origin: Origin = "prefill"
    return {str(count): value for count, value in state.sums[origin].items()}, codes


def test_the_first_look_is_a_baseline_and_then_differences_count() -> None:
    assert sums(reading(0, finished=70), reading(10, finished=75), reading(20, finished=90))[0] == {"finished": 20.0}


def test_each_counter_is_reset_by_itself() -> None:
    total, codes = sums(reading(0, finished=70, prompt_tokens=500), reading(10, finished=4, prompt_tokens=600))
    assert total == {"finished": 4.0, "prompt_tokens": 100.0}
    assert codes == {Code.COUNTER_RESET}


def test_requests_in_flight_may_fall_without_a_reset_and_are_lost_with_one() -> None:
    total, codes = sums(reading(0, finished=70, arrivals=80), reading(10, finished=70, arrivals=79))
    assert (total["arrivals"], codes) == (-1.0, set())
    total, codes = sums(reading(0, finished=70, arrivals=80), reading(10, finished=4, arrivals=9))
    assert (total["arrivals"], codes) == (9.0, {Code.COUNTER_RESET})


def test_a_source_that_was_silent_for_too_long_gives_a_new_baseline() -> None:
    assert sums(reading(0, finished=70), reading(31, finished=5000), reading(41, finished=5001))[0] == {"finished": 1.0}
    assert sums(reading(0, finished=70), reading(29, finished=90))[0] == {"finished": 20.0}


def test_a_pod_that_has_just_come_counts_from_zero_an_old_one_does_not() -> None:
    assert sums(reading(NOW_S + 60, NOW_S + 10, NOW_S + 50, finished=7))[0] == {"finished": 7.0}
    assert sums(reading(NOW_S + 60, NOW_S - 10, NOW_S + 50, finished=7))[0] == {"finished": 0.0}
    assert sums(reading(NOW_S + 600, NOW_S + 10, NOW_S + 50, finished=7))[0] == {"finished": 0.0}


def test_a_family_that_appears_later_began_at_zero_and_one_that_is_gone_for_a_look_goes_on() -> None:
    total, _ = sums(reading(0, finished=5), reading(10, finished=5, prompt_tokens=300))
    assert total == {"finished": 0.0, "prompt_tokens": 300.0}
    looks = (
        reading(0, finished=5, prompt_tokens=300),
        reading(10, finished=6),
        reading(20, finished=7, prompt_tokens=310),
    )
    total, codes = sums(*looks)
    assert (total, codes) == ({"finished": 2.0, "prompt_tokens": 10.0}, set())


# Which pods are engines.


def rank(pod: str, leader: bool = False, **more: Any) -> WorkerSample:
    given = {"prompt_tokens": 0.0, "generation_tokens": 0.0, "ranks": ("engine=0",), **more}
    return replace(worker(Role.DECODE, NOW_S), pod=pod, uid=pod, leader=leader, **given)


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        (rank("b"), False),
        (rank("b", generation_tokens=NONE, prompt_tokens=NONE), False),
        (rank("b", generation_tokens=3.0), True),
        (rank("b", ranks=("engine=1",)), True),
        (rank("b", ranks=()), False),
    ],
)
def test_a_pod_beside_its_leader_is_an_engine_only_if_it_serves(other: WorkerSample, counts: bool) -> None:
    leader = rank("a", leader=True)
    assert [one.pod for one in engines([other, leader])] == (["b", "a"] if counts else ["a"])


def test_without_its_leader_only_work_done_shows_an_engine() -> None:
    assert engines([rank("b", ranks=("engine=1",))]) == []


# Demand, role by role.


def served(role: Role, at_s: float, rate_rps: float, **more: Any) -> WorkerSample:
    done = rate_rps * (at_s - NOW_S)
    tokens = {"prompt_tokens": done * 1000, "generation_tokens": done * 300, "finished": done, "prompts": done}
    return replace(worker(role, at_s), **{"in_flight": 5.0, **tokens, **more})


def run(samples_at: Any, ticks: int = 4, spec: dict[str, Any] | None = None, groups: int = 1) -> Decision:
    state = State()
    chosen = settings(**(spec or {}))
    for number in range(ticks):
        now_s = NOW_S + 5.0 * number
        fleet = Fleet(role_fleet("prefill", groups), role_fleet("decode", groups))
        decision = tick(state, Observation(now_s, samples_at(now_s), fleet), chosen, PROFILE)
        state = decision.state
    return decision


def reason(decision: Decision, code: Code, role: Role | None = None) -> str:
    return next(str(r.detail) for r in decision.why if r.code is code and r.role is role)


def test_a_router_that_counts_tokens_at_the_end_gives_arrivals_times_mean_lengths() -> None:
    def samples(now_s: float) -> Samples:
        came, done = 4.0 * (now_s - NOW_S), 2.0 * (now_s - NOW_S)
        front = replace(
            router(now_s, came),
            tokens_at="end",
            finished=done,
            prompts=done,
            prompt_tokens=done * 700,
            generation_tokens=done * 90,
        )
        return Samples((front,))

    demand = run(samples).signals.demand
    assert demand.basis == "router"
    assert demand.requests_per_s == pytest.approx(4.0)
    assert demand.prompt_tokens_per_s == pytest.approx(2800.0)
    assert demand.output_tokens_per_s == pytest.approx(360.0)


def test_a_router_without_tokens_takes_lengths_from_the_workers_of_each_role() -> None:
    def samples(now_s: float) -> Samples:
        front = replace(router(now_s, 4.0 * (now_s - NOW_S)), prompt_tokens=NONE, generation_tokens=NONE)
        decode = served(Role.DECODE, now_s, 2.0, prompt_tokens=9e9)
        return Samples((front,), (served(Role.PREFILL, now_s, 3.0), decode))

    demand = run(samples).signals.demand
    assert demand.requests_per_s == pytest.approx(4.0)
    assert demand.prompt_tokens_per_s == pytest.approx(4000.0)
    assert demand.output_tokens_per_s == pytest.approx(1200.0)


def test_without_a_router_saturation_is_not_hidden_by_completions() -> None:
    def samples(now_s: float) -> Samples:
        queue = 6.0 * (now_s - NOW_S)
        return Samples(workers=(served(Role.PREFILL, now_s, 2.0, in_flight=queue), served(Role.DECODE, now_s, 2.0)))

    demand = run(samples).signals.demand
    assert demand.basis == "prefill"
    assert demand.requests_per_s == pytest.approx(8.0)
    assert demand.prompt_tokens_per_s == pytest.approx(8000.0)


def test_prompt_tokens_of_decode_are_never_demand() -> None:
    def samples(now_s: float) -> Samples:
        return Samples(workers=(served(Role.PREFILL, now_s, 2.0), served(Role.DECODE, now_s, 2.0)))

    assert run(samples).signals.demand.prompt_tokens_per_s == pytest.approx(2000.0)


def test_a_missing_output_length_holds_decode_alone() -> None:
    def samples(now_s: float) -> Samples:
        front = replace(router(now_s, 40.0 * (now_s - NOW_S)), finished=0.0, generation_tokens=0.0)
        return Samples((front,), (worker(Role.PREFILL, now_s), worker(Role.DECODE, now_s)))

    decision = run(samples)
    assert decision.target is not None
    assert decision.target.groups.prefill > 1
    assert decision.target.unsized == (Role.DECODE,)
    assert "output length is not known" in reason(decision, Code.DEMAND_MISSING, Role.DECODE)
    assert not isinstance(decision.forecast.prefill, Missing)
    assert isinstance(decision.forecast.decode, Missing)


def test_a_blind_prefill_without_a_router_holds_itself_and_decode_goes_on() -> None:
    def samples(now_s: float) -> Samples:
        return Samples(workers=(served(Role.DECODE, now_s, 60.0),), failures={"prefill-0": "no answer within 2 s"})

    decision = run(samples, spec={"decode": {"maxNumSeqs": 16}})
    assert decision.signals.demand.basis == "decode"
    assert "no prefill worker can be read: prefill-0: no answer within 2 s" in reason(
        decision, Code.DEMAND_MISSING, Role.PREFILL
    )
    assert decision.target is not None
    assert decision.target.groups.decode > 1
    assert decision.target.groups.prefill == 1


@pytest.mark.parametrize(
    ("lacking", "named"),
    [("finished", "no prefill worker counts finished requests"), ("in_flight", "counts requests in flight")],
)
def test_no_arrival_signal_is_said_and_names_what_is_lacking(lacking: str, named: str) -> None:
    def samples(now_s: float) -> Samples:
        gone = {lacking: Missing("sglang:num_x is not on the page")}
        return Samples(workers=(served(Role.PREFILL, now_s, 2.0, **gone), served(Role.DECODE, now_s, 2.0, **gone)))

    decision = run(samples)
    text = reason(decision, Code.DEMAND_MISSING)
    assert "no arrival signal" in text
    assert named in text
    assert "sglang:num_x is not on the page" in text
    assert decision.target is not None
    assert decision.target.unsized == ROLES


def test_an_idle_engine_without_counters_becomes_known_with_its_first_request() -> None:
    def samples(now_s: float) -> Samples:
        late = (
            served(Role.PREFILL, now_s, 2.0) if now_s > NOW_S + 7 else served(Role.PREFILL, now_s, 2.0, finished=NONE)
        )
        return Samples(workers=(late, served(Role.DECODE, now_s, 2.0)))

    assert isinstance(run(samples, 2).signals.demand.prompt_tokens_per_s, Missing)
    assert run(samples, 4).signals.demand.prompt_tokens_per_s == pytest.approx(2000.0)


# What is only a lower bound.


def two_routers(now_s: float, rates: Pair, **changes: Any) -> Samples:
    def one(uid: str, rate: int) -> RouterSample:
        return replace(router(now_s, rate * (now_s - NOW_S)), uid=uid, pod=uid)

    workers = (
        replace(worker(role, now_s), uid=f"{role}-{group}", pod=f"{role}-{group}", group=f"key-{role}-{group}")
        for role in Role
        for group in range(3)
    )
    return replace(Samples((one("r1", rates.prefill), one("r2", rates.decode)), tuple(workers)), **changes)


def shrinks(samples_at: Any) -> Decision:
    spec = {"prefill": {"scaleDown": {"stabilizationS": 5}}, "decode": {"scaleDown": {"stabilizationS": 5}}}
    return run(samples_at, 8, spec, groups=3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"partial": "Prometheus warns: store x is down"}, "store x is down"),
        ({"routers": (), "failures": {"r9": "no answer"}}, ""),
        ({"failures": {"r9": "no answer"}}, "not every source of arrivals can be read: r9: no answer"),
    ],
)
def test_partial_numbers_never_shrink_and_may_grow(changes: dict[str, Any], why: str) -> None:
    full = shrinks(lambda now_s: two_routers(now_s, Pair(1, 0)))
    assert full.target is not None
    assert full.target.groups == Pair(1, 1)
    partial = shrinks(lambda now_s: two_routers(now_s, Pair(1, 0), **changes))
    assert partial.target is not None
    assert partial.target.groups == Pair(3, 3)
    if why:
        assert why in reason(partial, Code.METRICS_PARTIAL)
        assert why in reason(partial, Code.METRICS_PARTIAL, Role.PREFILL)
        grown = shrinks(lambda now_s: two_routers(now_s, Pair(60, 60), **changes))
        assert grown.target is not None
        assert grown.target.groups.prefill > 3


def test_a_length_that_nobody_has_watched_for_long_is_forgotten() -> None:
    def front(now_s: float, done: float) -> Samples:
        return Samples((replace(router(now_s, 4.0 * (now_s - NOW_S)), finished=done, generation_tokens=done * 90),))

    chosen, state = settings(), State()
    fleet = Fleet(role_fleet("prefill"), role_fleet("decode"))
    for now_s, done in ((NOW_S, 0.0), (NOW_S + 5, 20.0), (NOW_S + 900, 20.0), (NOW_S + 905, 20.0)):
        decision = tick(state, Observation(now_s, front(now_s, done), fleet), chosen, PROFILE)
        state = decision.state
        if now_s == NOW_S + 5:
            assert decision.signals.demand.output_tokens_mean == pytest.approx(90, rel=0.2)
    assert isinstance(decision.signals.demand.output_tokens_mean, Missing)
