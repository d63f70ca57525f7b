"""The baselines on tables worked by hand from the formulas that they cite."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model import Fleet, Histogram, Observation
from policies.model import Missing, Pair, Role
from simulator.policies.dynamo_like import DynamoLike, arima, dynamo_budget, last_value, prefill_ms
from simulator.policies.heteroscale import HeteroScale
from simulator.policies.hpa import Hpa, average_value
from simulator.policies.hpa_queue import HpaQueue, plain_metric
from simulator.policies.keda import KedaGuide
from simulator.policies.kpa import Kpa
from simulator.policies.static import Static
from simulator.policies.tokenscale import TokenScale
from simulator.policies.view import GroupView, RoleView, TrafficMeter, current, in_router, view
from simulator.policies.wva_v2 import WvaV2, sized
from tests.simulator.seen import PROFILE, SERVICE, Busy, Came, seen

IDLE = Busy()


def role(replicas: int, ready: int, waiting: list[float | None]) -> RoleView:
    groups = tuple(GroupView(f"g{i}", 0.0, value, 0.0, 1.0) for i, value in enumerate(waiting))
    return RoleView(replicas, ready, groups)


def test_a_role_is_seen_by_groups() -> None:
    look = seen(0.0, [Busy(3, 2, 0.5), None], [IDLE], Came(held=4), asked=Pair(3, 1))
    prefill = view(look, Role.PREFILL)
    assert prefill is not None
    assert (prefill.replicas, prefill.ready, prefill.starting, len(prefill.groups)) == (3, 2, True, 1)
    assert prefill.groups[0] == GroupView("prefill-0", 2.0, 3.0, 0.5, 100_000.0)
    assert prefill.groups[0].kv_tokens == 50_000
    assert (current(look), in_router(look)) == (Pair(3, 1), 4.0)


def test_traffic_is_the_increase_over_the_window() -> None:
    meter = TrafficMeter(60.0)
    for now_s, requests in ((0.0, 10), (30.0, 40), (60.0, 100), (90.0, 40)):
        meter.look(seen(now_s, [IDLE], [IDLE], Came(requests)))
    traffic = meter.traffic()
    assert traffic is not None
    # From 30 s on: 60 requests, then a restart that has counted 40.
    assert (traffic.duration_s, traffic.requests, traffic.prompt_tokens_mean) == (60.0, 100.0, 1000.0)


gauges = st.one_of(st.none(), st.builds(Busy, st.floats(0, 500), st.floats(0, 300), st.floats(0, 1)))
looks = st.tuples(
    st.floats(1, 200),
    st.lists(gauges, max_size=5),
    st.lists(gauges, max_size=5),
    st.builds(Came, st.floats(0, 5000), st.floats(1, 8000), st.floats(1, 2000), st.floats(0, 100)),
    st.integers(0, 3),
)


@given(st.lists(looks, min_size=1, max_size=12))
def test_whatever_is_seen_every_baseline_stays_inside_its_bounds(
    went: list[tuple[float, list[Busy | None], list[Busy | None], Came, int]],
) -> None:
    baselines = [
        HpaQueue(SERVICE),
        WvaV2(SERVICE),
        DynamoLike(SERVICE),
        KedaGuide(SERVICE),
        Kpa(SERVICE),
        HeteroScale(SERVICE, 1000.0, 200.0),
        TokenScale(SERVICE),
    ]
    now_s = 0.0
    for wait_s, prefill, decode, came, starting in went:
        now_s += wait_s
        look = seen(now_s, prefill, decode, came, Pair(len(prefill) + starting, len(decode)))
        for baseline in baselines:
            pair = baseline.groups(look)
            assert pair is None or pair == SERVICE.bounded(pair)
        gone = replace(look, fleet=Fleet(Missing("gone"), look.fleet.decode))
        assert [baseline.groups(gone) for baseline in baselines] == [baseline.groups(look) for baseline in baselines]


def test_static_is_static() -> None:
    assert Static(Pair(3, 4)).groups(seen(0.0, [IDLE], [IDLE])) == Pair(3, 4)


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        pytest.param(role(2, 2, [12, 8]), 4, id="mean 10 over 5: twice"),
        pytest.param(role(2, 2, [5.4, 5.4]), 2, id="within the tolerance"),
        pytest.param(role(4, 4, [1, 1, 1, 1]), 1, id="0.2 x 4"),
        pytest.param(role(3, 3, [10, 10, None]), 4, id="unread is 0 on the way up: 20/3/5 x 3"),
        pytest.param(role(3, 3, [6, 6, None]), 3, id="that would turn around: no change"),
        pytest.param(role(3, 3, [2, 2, None]), 2, id="unread is at its target on the way down: 9/3/5 x 3"),
        pytest.param(role(4, 2, [20, 20]), 8, id="unready is 0 on the way up: 40/4/5 x 4"),
        pytest.param(role(4, 2, [6, 6]), 4, id="unready stops a growth that it will serve"),
        pytest.param(role(3, 3, []), 3, id="nothing read, nothing done"),
    ],
)
def test_hpa_s_pods_metric(fleet: RoleView, expected: int) -> None:
    assert plain_metric(fleet, 5.0) == expected


def test_hpa_on_the_queue_keeps_its_period_rates_and_window() -> None:
    hpa = HpaQueue(SERVICE, target=5.0)
    assert hpa.groups(seen(0.0, [Busy(200)], [IDLE])) == Pair(5, 1)
    assert hpa.groups(seen(5.0, [IDLE] * 5, [IDLE])) == Pair(5, 1)
    assert hpa.groups(seen(20.0, [Busy(200)] * 5, [IDLE])) == Pair(10, 1)
    assert hpa.groups(seen(35.0, [IDLE] * 10, [IDLE])) == Pair(10, 1)
    for now_s in range(50, 320, 15):
        assert hpa.groups(seen(float(now_s), [IDLE] * 10, [IDLE])) == Pair(10, 1)
    assert hpa.groups(seen(320.0, [IDLE] * 10, [IDLE])) == Pair(1, 1)


def test_an_hpa_begins_with_the_present_size() -> None:
    hpa = Hpa(SERVICE)
    assert hpa.settle(0.0, Pair(1, 9), Pair(4, 4)) == Pair(4, 8)
    assert hpa.settle(299.0, Pair(1, 9), Pair(4, 9)) == Pair(4, 9)
    assert hpa.settle(301.0, Pair(1, 9), Pair(4, 9)) == Pair(1, 9)


@pytest.mark.parametrize(
    ("total", "now", "expected"), [(10.0, 2, 5), (2.1, 1, 1), (2.3, 1, 2), (0.0, 3, 0), (3.0, 0, 2)]
)
def test_average_value(total: float, now: int, expected: int) -> None:
    assert average_value(total, 2.0, now) == expected


@pytest.mark.parametrize(
    ("fleet", "demand", "expected"),
    [
        pytest.param(role(2, 2, [0, 0]), 170.0, 2, id="exactly 85 % of 2 x 100"),
        pytest.param(role(2, 2, [0, 0]), 180.0, 3, id="212 needed"),
        pytest.param(role(4, 2, [0, 0]), 300.0, 4, id="what starts counts as supply"),
        pytest.param(role(4, 4, [0] * 4), 70.0, 1, id="spare 300: three may go"),
        pytest.param(role(4, 4, [0] * 4), 145.0, 3, id="spare 193: one"),
        pytest.param(role(4, 4, [0] * 4), 0.0, 1, id="one is kept"),
        pytest.param(role(4, 4, [0] * 4), 300.0, 4, id="between 70 and 85 %"),
    ],
)
def test_wva_thresholds(fleet: RoleView, demand: float, expected: int) -> None:
    assert sized(fleet, 100.0, demand) == expected


def wva_at(prefill: list[Busy | None], decode: list[Busy | None], held: float = 0.0) -> Pair | None:
    """What WVA wants at 60 s of 1,000 + 200 tokens a request; an HPA follows, here without much to slow it."""
    wva = WvaV2(SERVICE)
    wva.groups(seen(0.0, prefill, decode))
    return wva.groups(seen(60.0, prefill, decode, Came(60, held=held)))


def test_wva_demands_cached_and_queued_tokens() -> None:
    # Prefill: k1 = 80,000. 50,000 in the cache + 4 waiting + 30 held, 1,000 tokens each: 84,000 / 0.85 = 98,824.
    assert wva_at([Busy(4, 0, 0.5)], [IDLE], held=30) == Pair(2, 1)
    # 5 waiting show a compute bound of 20,000 tokens: demand 25,000 / 0.85 = 29,412 against 20,000.
    assert wva_at([Busy(5, 0, 0.2)], [IDLE]) == Pair(2, 1)
    # The cache's highest use of the last minute counts: 90,000 / 0.85 against 80,000.
    wva = WvaV2(SERVICE)
    wva.groups(seen(0.0, [IDLE], [IDLE]))
    wva.groups(seen(30.0, [Busy(0, 0, 0.9)], [IDLE], Came(30)))
    assert wva.groups(seen(60.0, [IDLE], [IDLE], Came(60))) == Pair(2, 1)


def test_wva_derives_decode_s_bound_from_its_batch_budget() -> None:
    steady = min(PROFILE.prefill_chunk_tokens * 200 / 1200, PROFILE.max_num_seqs)
    capacity = min(80_000.0, steady * 1100)
    below, above = (math.floor(capacity * 0.85 / 1000) + more for more in (0, 1))
    assert wva_at([IDLE], [Busy(0, 0, below / 100)]) == Pair(1, 1)
    assert wva_at([IDLE], [Busy(0, 0, above / 100)]) == Pair(1, 2)


@pytest.mark.parametrize(
    ("pair", "gpus", "budget", "expected"),
    [
        (Pair(10, 1), Pair(2, 2), 12, Pair(5, 1)),
        (Pair(10, 1), Pair(1, 1), 6, Pair(5, 1)),
        (Pair(10, 1), Pair(4, 1), 12, Pair(2, 4)),
        (Pair(4, 4), Pair(1, 1), 8, Pair(4, 4)),
        (Pair(4, 4), Pair(4, 4), 7, Pair(0, 0)),
    ],
)
def test_dynamo_s_clamp_may_grow_decode(pair: Pair, gpus: Pair, budget: int, expected: Pair) -> None:
    assert dynamo_budget(pair, gpus, budget) == expected


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], 4.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 6.0),
        ([5.0] * 6, 5.0),
        # Differences 4, -2, 4, -2 alternate: slope -0.99 of (-2 - 2) above the mean of 0.
        ([0.0, 4.0, 2.0, 6.0, 4.0], 4.0 + 0.0 + 0.99 * 4.0),
        ([9.0, 6.0, 4.0, 2.0, 0.0], 0.0),
    ],
)
def test_arima(series: list[float], expected: float) -> None:
    assert arima(series) == pytest.approx(expected)
    assert last_value(series) == series[-1]


def test_dynamo_s_throughput_step_every_180_s() -> None:
    planner = DynamoLike(SERVICE, last_value, load=False)
    rate, went = 20.0, []
    for now_s in (0.0, 90.0, 175.0, 180.0):
        went.append(planner.groups(seen(now_s, [IDLE], [IDLE], Came(rate * now_s))))
    batch = PROFILE.max_decode_batch(1100, 60.0)
    prefill = math.ceil(rate * PROFILE.prefill_ms(1000) / 1000)
    decode = math.ceil(rate * 200 * PROFILE.decode_ms(batch, 1100) / 1000 / batch)
    assert went == [None, None, None, Pair(prefill, decode)]
    assert prefill > 1


def test_dynamo_s_floor_for_a_prompt_that_is_too_long_for_its_target() -> None:
    chunks = 2.5 * PROFILE.prefill_chunk_tokens
    assert prefill_ms(PROFILE, chunks) == pytest.approx(
        2 * PROFILE.prefill_ms(PROFILE.prefill_chunk_tokens) + PROFILE.prefill_ms(PROFILE.prefill_chunk_tokens / 2)
    )
    slow = DynamoLike(
        type(SERVICE)(
            SERVICE.profiles,
            prefill_ms(PROFILE, 1000) / 2.5,
            60.0,
            SERVICE.minimum,
            SERVICE.maximum,
            SERVICE.gpus_per_group,
            200,
        ),
        last_value,
        load=False,
    )
    slow.groups(seen(0.0, [IDLE], [IDLE]))
    floor = slow.groups(seen(180.0, [IDLE], [IDLE], Came(1)))
    assert floor is not None
    assert floor.prefill == 3


def load_steps(*looks: tuple[list[Busy | None], list[Busy | None], Pair | None]) -> list[Pair | None]:
    """What the load step says at 5, 10, ... s, of prompts of 1,000 tokens."""
    planner = DynamoLike(SERVICE, last_value, throughput=False)
    planner.groups(seen(0.0, looks[0][0], looks[0][1], Came(0)))
    return [
        planner.groups(seen(5.0 * (at + 1), prefill, decode, Came(10.0 * (at + 1)), asked))
        for at, (prefill, decode, asked) in enumerate(looks)
    ]


LATE = math.ceil(2000.0 / PROFILE.prefill_ms(1000)) + 1
"""Waiting prompts of 1,000 tokens that take longer than the TTFT target of 2 s."""


def test_dynamo_s_load_step_up_when_all_are_late_and_frozen_while_one_starts() -> None:
    assert load_steps(([Busy(LATE), Busy(LATE)], [IDLE], None)) == [Pair(3, 1)]
    assert load_steps(([Busy(LATE), Busy(LATE - 4)], [IDLE], None))[0] != Pair(3, 1)
    frozen = load_steps(([Busy(LATE)], [IDLE], None), ([Busy(LATE)], [Busy(999, 999, 0.9)], Pair(2, 1)))
    assert frozen == [Pair(2, 1), Pair(2, 1)]


def test_dynamo_s_load_step_down_by_what_the_survivors_would_see() -> None:
    own_ms = PROFILE.prefill_ms(1000)
    room_ms = (2000.0 - own_ms) * 0.8
    most = max(n for n in range(LATE) if prefill_ms(PROFILE, n * 2 * 1000 + 1000) - own_ms < room_ms)
    assert load_steps(([Busy(most)] * 2, [IDLE], None)) == [Pair(1, 1)]
    assert load_steps(([Busy(most + 1)] * 2, [IDLE], None)) == [Pair(2, 1)]
    half_full = Busy(0, 10, 0.5)
    assert load_steps(([IDLE], [half_full] * 2, None)) == [Pair(1, 2)]
    assert load_steps(([IDLE], [Busy(0, 10, 0.1)] * 2, None)) == [Pair(1, 1)]


def test_dynamo_flips_between_one_and_two() -> None:
    """The weakness that its own users report: nothing but the load of the moment holds it."""
    went = load_steps(*[([Busy(LATE)], [IDLE], None), ([IDLE, IDLE], [IDLE], None)] * 3)
    assert [pair.prefill for pair in went if pair] == [2, 1] * 3
    assert sum(before != after for before, after in pairwise(went)) == 5


def test_keda_counts_seconds_of_prompts_and_full_caches() -> None:
    chunk = float(PROFILE.prefill_chunk_tokens)
    velocity = chunk / (PROFILE.prefill_ms(chunk) + PROFILE.transfer_ms(chunk) + PROFILE.decode_ms(1, chunk)) * 1000
    threshold_s = 2.0 - 1000 / velocity
    keda = KedaGuide(SERVICE)
    keda.groups(seen(0.0, [IDLE], [IDLE]))
    held = math.ceil(1.5 * threshold_s * velocity / 1000)
    assert keda.groups(seen(15.0, [Busy(0, 0, 0)], [Busy(0, 0, 0.95)], Came(30, held=held))) == Pair(2, 2)
    # One more per 180 s, whatever there is to do.
    assert keda.groups(seen(60.0, [IDLE] * 2, [IDLE] * 2, Came(90, held=99 * held))) == Pair(2, 2)
    assert keda.groups(seen(200.0, [IDLE] * 2, [IDLE] * 2, Came(90, held=99 * held))) == Pair(3, 2)


def kpa_at(*looks: tuple[float, float, int]) -> list[int]:
    """Decode's sizes at (time, running requests in all, ready groups)."""
    kpa = Kpa(SERVICE)
    went = []
    for now_s, running, ready in looks:
        pair = kpa.groups(seen(now_s, [IDLE], [Busy(0, running / ready)] * ready, Came(now_s)))
        assert pair is not None
        went.append(pair.decode)
    return went


def test_kpa_is_stable_over_60_s_and_panics_over_6_s() -> None:
    batch = PROFILE.max_decode_batch(1100, 60.0) * 0.7
    # The first look has no lengths yet; from the second on the target is known.
    calm = kpa_at((0.0, 0.0, 1), (2.0, batch * 0.9, 1), (4.0, batch * 0.9, 1))
    assert calm == [0 + 1, 1, 1]
    burst = kpa_at((0.0, 0.0, 1), *((2.0 * n, batch * 5, 1) for n in range(1, 4)), (62.0, 0.0, 5), (70.0, 0.0, 5))
    assert burst[3] == 5
    assert burst[4:] == [5, 2]


def test_kpa_starts_in_panic_with_more_than_one_group() -> None:
    assert kpa_at((0.0, 0.0, 6), (30.0, 0.0, 6), (60.0, 0.0, 6), (61.0, 0.0, 6), (64.0, 0.0, 6)) == [6, 6, 6, 6, 3]


BATCH = PROFILE.max_decode_batch(1100, 60.0)
ITL_S = PROFILE.decode_ms(BATCH, 1100) / 1000


def test_heteroscale_follows_decode_s_tokens_at_a_fixed_ratio() -> None:
    scale = HeteroScale(SERVICE, 1000.0, 200.0)
    assert scale.target_tps == pytest.approx(BATCH / ITL_S)
    assert scale.pd_ratio == pytest.approx(BATCH / ITL_S / 200 * PROFILE.prefill_ms(1000) / 1000)
    scale.groups(seen(0.0, [IDLE], [IDLE]))
    three = 2.5 * scale.target_tps / 200
    assert scale.groups(seen(15.0, [IDLE], [IDLE], Came(three * 15))) == Pair(math.ceil(3 * scale.pd_ratio), 3)
    near = seen(30.0, [IDLE] * 9, [IDLE] * 3, Came(three * 15 + 3.4 * scale.target_tps / 200 * 15))
    # 2.95 groups of work on 3: within 10 %.
    assert scale.groups(near) == Pair(9, 3)


def test_heteroscale_adds_a_fifth_when_tokens_are_late() -> None:
    bounds_s = (0.05, 0.1, math.inf)
    scale = HeteroScale(SERVICE, 1000.0, 200.0)
    scale.groups(with_itl(seen(0.0, [IDLE] * 5, [IDLE] * 6), Histogram(bounds_s, (0, 0, 0), 0.0)))
    late = with_itl(seen(15.0, [IDLE] * 5, [IDLE] * 6), Histogram(bounds_s, (50, 100, 100), 7.0))
    # The 99th of 100 is at 0.099 s, above 1.2 x 60 ms.
    assert scale.groups(late) == Pair(6, 8)


def with_itl(look: Observation, itl: Histogram) -> Observation:
    router = replace(look.samples.routers[0], itl=itl)
    return replace(look, samples=replace(look.samples, routers=(router,)))


def test_tokenscale_divides_arriving_tokens_by_velocities_and_keeps_a_need_for_a_minute() -> None:
    scale = TokenScale(SERVICE)
    v_prefill, v_decode = scale.velocities(1000.0, 200.0)
    assert v_prefill == pytest.approx(1000 / max(PROFILE.prefill_ms(1000), PROFILE.transfer_ms(1000)) * 1000)
    assert v_decode == pytest.approx(BATCH * 1200 / (200 * ITL_S))
    rate = 40.0
    need = Pair(math.ceil(rate * 1000 / v_prefill), math.ceil(rate * 1200 / v_decode))
    assert need.prefill > 1
    assert scale.groups(seen(0.0, [IDLE], [IDLE])) is None
    assert scale.groups(seen(10.0, [IDLE], [IDLE], Came(rate * 10))) == need
    assert scale.groups(seen(69.0, [IDLE], [IDLE], Came(rate * 10))) == need
    assert scale.groups(seen(80.0, [IDLE], [IDLE], Came(rate * 10))) == Pair(1, 1)
