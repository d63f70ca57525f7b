"""Field cases of metrics, through the whole tick: real page texts, real sockets, the objects of a cluster."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random

import pytest

from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.adapters.scrape import Scraper
from autoscaler.core import tick
from autoscaler.core.groups import NAMED_MAX
from autoscaler.model import Fleet, Histogram, Observation, RoleFleet, State
from perfmodel.profile import load_profile
from policies.model import ROLES, Code, Missing, Role
from tests.autoscaler.field import (
    HANGS,
    MODEL,
    REFUSES,
    SYNC_S,
    Engine,
    Traffic,
    codes,
    gateway,
    no_traffic,
    service,
    settings,
    vllm,
    young,
)
from tests.autoscaler.pages import WORKER, server, text
from tests.autoscaler.test_prometheus import Store, metrics
from tests.shared_data import ROOT

BUSY = {"prefill": {"maxGroups": 16}, "decode": {"maxGroups": 16, "maxNumSeqs": 16}}
TICKS_OF_20_MIN = int(20 * 60 / SYNC_S)


# idle-or-blind


@pytest.mark.parametrize(
    "router", [None, lambda: gateway({"1.0": 41000, "+Inf": 41220}, 41220.0)], ids=["no", "router"]
)
async def test_idle_is_a_true_zero_and_latencies_say_no_traffic(router: Callable[[], str] | None) -> None:
    async with service(7, 1, no_traffic, router=router) as field:
        last = await field.run(TICKS_OF_20_MIN)
        assert field.replicas == {Role.PREFILL: 1, Role.DECODE: 1}
        steps = [number for number, decision in enumerate(field.decisions) if decision.step]
        # One tick to know the demand, the window, and a tick for each of the six groups.
        window_s = last.signals.prefill.cold_start_s
        assert len(steps) == 6
        assert steps[-1] * SYNC_S <= SYNC_S + window_s + 6 * SYNC_S
        assert Code.NO_TRAFFIC in codes(last)
        assert (field.gauge("demand_requests_per_second"), field.condition("ScalingActive")[0]) == (0.0, "True")
        for latency in (last.signals.ttft, last.signals.itl):
            assert latency.value_ms == Missing("no traffic in the window")


async def test_vanished_series_change_nothing_and_are_named() -> None:
    store = Store()
    async with (
        server({"/api/v1/query": store.answer}) as url,
        service(7, 1, no_traffic, reader=PrometheusReader(metrics(url), "ns")) as field,
    ):
        last = await field.run(TICKS_OF_20_MIN)
        assert field.replicas == {Role.PREFILL: 7, Role.DECODE: 1}
        assert all(decision.step is None for decision in field.decisions)
        status, message = field.condition("ScalingActive")
        assert status == "False"
        assert "no series of pod" in message
        assert Code.HELD_BLIND in codes(last)
        assert field.gauge("desired_groups", Role.PREFILL) is None


async def test_a_role_that_is_down_is_kept_and_its_partner_shrinks() -> None:
    def page(role: Role, group: int, worker: int) -> str:
        return REFUSES if role is Role.DECODE else no_traffic(role, group, worker)

    async with service(7, 3, page) as field:
        last = await field.run(TICKS_OF_20_MIN)
        assert field.replicas == {Role.PREFILL: 1, Role.DECODE: 3}
        assert Code.ROLE_BLIND in codes(last)


# inert-but-green


async def test_a_model_name_that_matches_nothing_is_said_within_two_ticks() -> None:
    def page(role: Role, group: int, worker: int) -> str:
        return vllm(Engine(waiting=30, running=8))

    wrong = settings(metrics={"model": "Qwen3-32B"})
    async with service(2, 2, page, chosen=wrong) as field:
        await field.run(2)
        status, message = field.condition("ScalingActive")
        assert status == "False"
        assert "Qwen3-32B matches 0 series" in message
        assert f"{MODEL} exists on 4 pods" in message
        for role in ROLES:
            assert field.gauge("desired_groups", role) is None
            assert field.gauge("current_groups", role) == 2
        assert all("desired" not in told and told["groups"] == "2/?" for told in field.told["roles"])
        assert "ratio" not in field.told


@pytest.mark.parametrize("wanted", ["qwen/qwen3-32b", "Qwen/Qwen3-32B-Instruct", "Qwen3-32B"])
async def test_near_misses_of_a_model_name_are_suggested(wanted: str) -> None:
    async with service(1, 1, no_traffic, chosen=settings(metrics={"model": wanted})) as field:
        await field.run(2)
        assert f"did you mean {MODEL}?" in field.condition("ScalingActive")[1]


async def test_only_the_model_that_is_named_counts() -> None:
    def page(role: Role, group: int, worker: int) -> str:
        return vllm(Engine(running=8)) + vllm(Engine(running=100), model="other/model", first=1)

    async with service(1, 1, page, chosen=settings(metrics={"model": MODEL})) as field:
        last = await field.run(2)
        assert last.signals.decode.running == 8.0
        assert Code.DEMAND_MISSING not in codes(last)


# one-dead-worker


async def test_one_dead_worker_does_not_stop_growth() -> None:
    traffic = Traffic(20.0, 4, 8, lambda role, group: HANGS if (role, group) == (Role.DECODE, 5) else None)
    async with service(4, 8, traffic.page, chosen=settings(**BUSY)) as field:
        traffic.field = field
        last = await field.run(2)
        assert field.replicas[Role.DECODE] > 8
        assert last.signals.decode.kv_usage == pytest.approx(0.95)
        assert last.signals.decode.unread == ("decode-5",)
        assert field.reason(Code.SCRAPE_FAILED).detail["named"] == "decode-5"
        assert field.gauge("unread_groups", Role.DECODE) == 1


async def test_quiet_dead_pods_are_no_reason_to_shrink() -> None:
    dead = (0, 1, 2)
    traffic = Traffic(0.0, 4, 8, lambda role, group: HANGS if role is Role.DECODE and group in dead else None)
    quick = {"scaleDown": {"stabilizationS": 60}, "maxGroups": 16}
    chosen = settings(prefill=quick, decode=quick, metrics={"scrapeTimeoutS": 0.1})
    async with service(4, 8, traffic.page, chosen=chosen) as field:
        traffic.field = field
        last = await field.run(30)
        # One live group is the minimum; the three that nobody can read are full.
        assert field.replicas == {Role.PREFILL: 1, Role.DECODE: 4}
        kept = field.reason(Code.UNREAD_IS_FULL, Role.DECODE)
        assert (kept.detail["unread"], kept.detail["named"]) == (3, "decode-0, decode-1, decode-2")
        assert last.signals.decode.unread == ("decode-0", "decode-1", "decode-2")


async def test_what_arrived_at_dead_prefill_pods_is_unknown_so_decode_does_not_shrink() -> None:
    traffic = Traffic(0.0, 4, 6, lambda role, group: HANGS if (role, group) == (Role.PREFILL, 1) else None)
    quick = {"scaleDown": {"stabilizationS": 60}, "maxGroups": 16}
    chosen = settings(prefill=quick, decode=quick, metrics={"scrapeTimeoutS": 0.1})
    async with service(4, 6, traffic.page, chosen=chosen) as field:
        traffic.field = field
        await field.run(30)
        assert field.replicas == {Role.PREFILL: 2, Role.DECODE: 6}
        assert "prefill-1" in str(field.reason(Code.METRICS_PARTIAL, Role.DECODE).detail["why"])


async def test_a_hundred_of_a_thousand_pods_hang_and_cost_one_timeout_together() -> None:
    hung = asyncio.Event()
    waiting = 0

    def hangs_with(count: int) -> Callable[[object], Awaitable[object]]:
        async def handler(_: object) -> object:
            nonlocal waiting
            waiting += 1
            if waiting == count:
                hung.set()
            await asyncio.Event().wait()
            raise AssertionError("never reached")

        return handler

    async with server({"/good": text(WORKER), "/hang": hangs_with(100)}) as url:  # type: ignore[dict-item]
        targets = [
            ScrapeTarget(f"decode-{n}", f"uid-{n}", "decode", f"{url}/{'hang' if n % 10 == 0 else 'good'}", f"g{n}")
            for n in range(1000)
        ]
        scraper = Scraper(8.0)
        reading = asyncio.create_task(scraper.read(targets, 7.0, "ns/demo"))
        # All of them hang at the same time, so none waits for another's limit.
        await asyncio.wait_for(hung.wait(), 60)
        samples = await reading
        await scraper.close()
    assert (len(samples.workers), len(samples.failures)) == (900, 100)
    assert set(samples.failures.values()) == {"no answer within 8 s"}
    gone = Missing("not looked at")
    seen = Observation(7.0, samples, Fleet(gone, gone))
    decision = tick(State(), seen, settings(), load_profile())
    failed = [reason for reason in decision.why if reason.code is Code.SCRAPE_FAILED]
    assert [reason.detail["sources"] for reason in failed] == [100]
    assert str(failed[0].detail["named"]).count("decode-") == NAMED_MAX


# ghost-series


BUSY_GHOST = vllm(Engine(waiting=9, kv=0.92, prompt_tokens=9000, generation_tokens=9000, finished=90))
QUIET = vllm(Engine(kv=0.1, prompt_tokens=1000, generation_tokens=1000, finished=10))


async def test_a_removed_pod_that_a_store_remembers_is_no_load() -> None:
    store = Store()
    async with (
        server({"/api/v1/query": store.answer}) as url,
        service(1, 1, no_traffic, reader=PrometheusReader(metrics(url), "ns")) as field,
    ):
        for tick_number in range(7):
            store.series.clear()
            for name in ("prefill-0", "decode-0"):
                store.add(name, QUIET, at_s=field.now_s, namespace="ns")
            if tick_number <= 5:
                store.add("decode-1", BUSY_GHOST, at_s=field.now_s, namespace="ns")
            last = await field.run(1)
            assert field.replicas == {Role.PREFILL: 1, Role.DECODE: 1}
            assert last.signals.decode.waiting == 0.0
            assert (Code.GHOSTS_DROPPED in codes(last)) == (tick_number <= 5)
        assert field.gauge("dropped_samples_total") == 6
        assert field.gauge("current_groups", Role.DECODE) == 1


async def test_samples_of_the_pod_that_bore_the_name_before_are_dropped() -> None:
    store = Store()
    born: dict[str, float] = {}
    async with server({"/api/v1/query": store.answer}) as url:
        reader = PrometheusReader(metrics(url), "ns")
        chosen = settings(decode={"minGroups": 2})
        async with service(
            1, 2, no_traffic, reader=reader, chosen=chosen, meta=lambda name: young(name, born)
        ) as field:
            start_s = field.now_s
            born["decode-1"] = start_s + 20
            field.unready.add("decode-1")
            for tick_number in range(9):
                if field.now_s >= start_s + 75:
                    field.unready.clear()
                store.series.clear()
                for name in ("prefill-0", "decode-0"):
                    store.add(name, QUIET, at_s=field.now_s, namespace="ns")
                if tick_number < 7:
                    store.add("decode-1", BUSY_GHOST, at_s=min(field.now_s, start_s + 15), namespace="ns")
                else:
                    store.add("decode-1", vllm(Engine(kv=0.0)), at_s=field.now_s, namespace="ns")
                last = await field.run(1)
                assert field.replicas[Role.DECODE] == 2
                assert last.signals.decode.waiting == 0.0
                assert last.signals.demand.requests_per_s == 0 or tick_number == 0
            assert field.gauge("dropped_samples_total") == 7
            assert last.signals.decode.groups_read == 2


# last-engine-wins


TWO_ENGINES = vllm(
    Engine(running=64, waiting=7, kv=0.98, ttft=(100, 90)), Engine(running=2, waiting=0, kv=0.02, ttft=(10, 1))
)


@pytest.mark.parametrize("seed", range(5))
async def test_no_engine_hides_another_whatever_the_order_of_lines(seed: int) -> None:
    lines = TWO_ENGINES.splitlines()
    Random(seed).shuffle(lines)
    async with service(1, 1, lambda *_: "\n".join(lines) + "\n") as field:
        signals = (await field.run(1)).signals.decode
        assert (signals.waiting, signals.running) == (7.0, 66.0)
        assert signals.kv_usage == pytest.approx(0.5)
        assert signals.kv_usage_max == 0.98
        assert field.gauge("kv_usage_max_ratio", Role.DECODE) == 0.98
        ttft = next(worker.ttft for worker in field.seen[-1].samples.workers)
        assert isinstance(ttft, Histogram)
        assert ttft.sum_s / ttft.counts[-1] == pytest.approx(91 / 110)


async def test_a_gauge_of_every_process_is_that_of_the_one_that_lives() -> None:
    own = f'engine="0",model_name="{MODEL}"'
    page = "".join(
        f'vllm:num_requests_running{{{own},pid="{pid}"}} {3 if pid == 5 else 0}\n'
        f'vllm:kv_cache_usage_perc{{{own},pid="{pid}"}} {0.65 if pid == 5 else 0}\n'
        for pid in range(8)
    )
    async with service(1, 1, lambda *_: page) as field:
        signals = (await field.run(1)).signals.decode
        assert (signals.kv_usage, signals.running, signals.engines_per_group) == (0.65, 3.0, 1.0)


# group-pod-engine


async def test_ranks_that_export_are_not_groups() -> None:
    def page(role: Role, group: int, worker: int) -> str:
        served = Engine(kv=0.9, running=5, prompt_tokens=1000, generation_tokens=1000, finished=10)
        return vllm(Engine() if worker else served)

    sizes = dict.fromkeys(ROLES, 3)
    async with service(2, 2, page, sizes=sizes) as field:
        last = await field.run(3)
        signals = last.signals.decode
        assert signals.kv_usage == pytest.approx(0.9)
        assert (signals.groups_read, signals.running) == (2, 10.0)
        assert len(field.seen[-1].samples.workers) == 12
        fleet = field.seen[-1].fleet.decode
        assert isinstance(fleet, RoleFleet)
        assert (fleet.ready, field.gauge("read_groups", Role.DECODE)) == (2, 2)


async def test_ranks_that_do_not_answer_are_no_failure_unless_they_did() -> None:
    silent = True

    def page(role: Role, group: int, worker: int) -> str:
        return REFUSES if worker and silent else vllm(Engine(finished=1.0))

    async with service(1, 1, page, sizes=dict.fromkeys(ROLES, 2)) as field:
        await field.run(1)
        assert field.seen[-1].samples.failures == {}
        silent = False
        await field.run(1)
        silent = True
        await field.run(1)
        assert set(field.seen[-1].samples.failures) == {"prefill-0-1", "decode-0-1"}


async def test_two_serving_pods_of_one_group_are_both_counted_and_it_scales() -> None:
    requests = 0.0

    def page(role: Role, group: int, worker: int) -> str:
        done = requests / 2 if group == 0 else 0.0
        tokens = Engine(running=10, prompt_tokens=done * 1000, finished=done, ttft=(done, done * 0.3))
        return vllm(replace(tokens, generation_tokens=done if role is Role.PREFILL else done * 300), first=worker)

    async with service(1, 1, page, sizes=dict.fromkeys(ROLES, 2), chosen=settings(**BUSY)) as field:
        for _ in range(4):
            last = await field.run(1)
            requests += 20.0 * SYNC_S
        assert last.signals.demand.requests_per_s == pytest.approx(20.0)
        assert last.signals.decode.engines_per_group == 2.0
        assert field.replicas[Role.DECODE] > 1
        assert Code.NO_WORKLOAD not in codes(last)


async def test_engines_of_a_pod_are_not_pods() -> None:
    """7 pods of 8 engines, 560 requests running, about 13.5 of which an engine can run at the SLO."""
    requests = 1000.0

    def page(role: Role, group: int, worker: int) -> str:
        if role is Role.PREFILL:
            served = requests if group == 0 else 0.0
            return vllm(Engine(prompt_tokens=served * 500, finished=served, ttft=(served, served)))
        done = requests / 56
        one = Engine(running=10, kv=0.7, prompt_tokens=done * 500, generation_tokens=done * 300, finished=done)
        return vllm(*[one] * 8)

    chosen = settings(prefill={"minGroups": 1}, decode={"maxNumSeqs": 13, "maxGroups": 60}, gpuBudget=256)
    async with service(1, 7, page, chosen=chosen) as field:
        for _ in range(8):
            last = await field.run(1)
            # As many requests as keep 560 running at the ITL that 13 of them have.
            requests += 560 / (300 * 0.0357) * SYNC_S
        sized = field.reason(Code.SIZED_FOR_ITL, Role.DECODE).detail
        assert float(sized["utilisation"]) == pytest.approx(560 / (7 * 8 * 13))
        assert sized["engines_per_group"] == 8
        assert last.target is not None
        assert last.target.groups.decode <= 7
        # At 13 in each of 8 engines, 560 requests need 5.4 groups: nothing to add.
        assert field.replicas[Role.DECODE] in (6, 7)


@pytest.mark.parametrize("value", [5.89, 90.0])
async def test_a_use_above_one_is_an_error_of_units_and_not_used(value: float) -> None:
    def page(role: Role, group: int, worker: int) -> str:
        return vllm(Engine(kv=value if (role, group) == (Role.DECODE, 1) else 0.2))

    async with service(1, 2, page) as field:
        last = await field.run(1)
        wrong = field.reason(Code.UNIT_ERROR, Role.DECODE)
        assert f"{value:g}" in str(wrong.detail["why"])
        assert wrong.detail["named"] == "decode-1"
        assert last.signals.decode.kv_usage == pytest.approx(0.2)
        assert field.condition("Blind")[0] == "True"


# bucket-one-point-zero


@pytest.mark.parametrize(("before", "after"), [("1.0", "1.0"), ("1", "1"), ("1", "1.0")])
async def test_the_spelling_of_a_bound_changes_nothing(before: str, after: str) -> None:
    pages = [
        gateway({before: 0, "2.5": 0, "+Inf": 0}),
        gateway({before: 38, "2.5": 40, "+Inf": 40}, 40.0),
        gateway({after: 95, "2.5": 100, "+Inf": 100}, 100.0),
    ]
    shown = 0
    slo = {"ttft": {"targetMs": 1000}}
    async with service(1, 1, no_traffic, router=lambda: pages[shown], chosen=settings(slo=slo)) as field:
        for shown in range(3):  # noqa: B007
            last = await field.run(1)
        assert last.signals.ttft.attained == pytest.approx(0.95)
        assert last.signals.ttft.basis == "router"
        rates = [d.signals.demand.requests_per_s for d in field.decisions[1:]]
        assert rates == [pytest.approx(40 / SYNC_S), pytest.approx(60 / SYNC_S)]
        assert Code.COUNTER_RESET not in codes(last)


def test_no_query_that_is_shipped_takes_a_bound_for_a_word() -> None:
    """`le="1"` matches nothing in a Prometheus 3, which writes 1.0, and says nothing about it."""
    files = [path for path in (ROOT / "dashboards").iterdir() if path.suffix in (".json", ".yaml")]
    matched = {
        path.name: re.findall(r'\ble\s*(?:=|!=)\s*\\?"[^"]*|\ble\s*=~\s*\\?"[0-9]+\\?"', path.read_text())
        for path in files
    }
    assert matched == {"engines.yaml": [], "rules.yaml": [], "service.json": []}
