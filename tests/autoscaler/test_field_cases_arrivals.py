"""What arrives, and what is made of it over time: real page texts, real sockets, the whole tick."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from policies.model import ROLES, Code, Missing, Role
from tests.autoscaler.field import SYNC_S, Engine, Field, Traffic, codes, gateway, no_traffic, service, settings, vllm
from tests.shared_data import shared

QUICK = {"scaleDown": {"stabilizationS": 60}, "maxGroups": 16}
NO_BUCKETS = {"1.0": 0.0, "+Inf": 0.0}


def corpus(name: str) -> str:
    folder: Path = shared("data/metrics")
    return (folder / f"{name}.prom").read_text()


def grown(page: str, times: float) -> str:
    """A page after everything that it counts has come so many times more."""
    counted = re.compile(r"^([a-z_:]+(?:_total|_count|_sum|_bucket)(?:\{.*\})?) ([0-9.e+]+)$", re.MULTILINE)
    assert counted.search(page)
    return counted.sub(lambda match: f"{match[1]} {float(match[2]) * times!r}", page)


def by_role(prefill: str, decode: str) -> Callable[[Role, int, int], str]:
    return lambda role, group, worker: prefill if role is Role.PREFILL else decode


# Without a router


async def test_saturation_is_not_hidden_by_completions() -> None:
    ticks = 0

    def page(role: Role, group: int, worker: int) -> str:
        if role is Role.DECODE or group:
            return vllm(Engine(finished=7.0 if not group else 0.0))
        done, queue = 1000.0 + 30.0 * ticks, 90.0 * ticks
        served = Engine(prompt_tokens=done * 1000, generation_tokens=done, finished=done, ttft=(done, done))
        return vllm(replace(served, running=1, waiting=queue))

    async with service(1, 1, page, chosen=settings(prefill={"maxGroups": 16})) as field:
        for ticks in range(5):  # noqa: B007
            last = await field.run(1)
        # 2 requests/s end, 6 requests/s more come than end.
        assert last.signals.demand.basis == "prefill"
        assert last.signals.demand.requests_per_s == pytest.approx(8.0)
        assert last.signals.demand.prompt_tokens_per_s == pytest.approx(8000.0)
        assert field.gauge("demand_requests_per_second") == pytest.approx(8.0)
        assert field.replicas[Role.PREFILL] > 1


async def test_an_engine_without_any_arrival_signal_is_said_to_have_none() -> None:
    page, times = corpus("llamacpp_b11434"), 1.0
    async with service(3, 2, lambda *_: grown(page, times)) as field:
        for tick in range(30):
            times = 1.0 + tick
            last = await field.run(1)
        assert field.replicas == {Role.PREFILL: 3, Role.DECODE: 2}
        status, message = field.condition("ScalingActive")
        assert status == "False"
        assert "no arrival signal: no router counts arrivals" in message
        assert "no prefill worker counts finished requests" in message
        assert last.signals.demand.basis == "none"
        assert all(field.gauge("desired_groups", role) is None for role in ROLES)
        assert all("desired" not in told for told in field.told["roles"])


async def test_a_page_whose_role_is_not_its_pods_is_named_and_holds_its_role() -> None:
    sglang = corpus("sglang_0.5.10_prefill_tp4_all_ranks")
    quick = {"prefill": QUICK, "decode": QUICK}
    async with service(2, 2, lambda *_: sglang, chosen=settings(**quick)) as field:
        last = await field.run(20)
        failed = field.reason(Code.SCRAPE_FAILED).detail
        assert failed["named"] == "decode-0, decode-1"
        assert "says that the engine (sglang) does prefill, but the pod's label roleratio.dev/role says decode" in str(
            failed["why"]
        )
        assert Code.ROLE_BLIND in codes(last)
        assert field.replicas == {Role.PREFILL: 1, Role.DECODE: 2}


# With a router, gateway or frontend


async def test_a_missing_output_length_does_not_stop_prefill() -> None:
    arrivals = 0.0
    served = Engine(prompt_tokens=4e6, generation_tokens=1e6)

    def router() -> str:
        return gateway(NO_BUCKETS, arrivals, tokens=4000, ended=False)

    async with service(1, 2, lambda *_: vllm(served), router=router, chosen=settings(prefill=QUICK)) as field:
        for _ in range(5):
            last = await field.run(1)
            arrivals += 10.0 * SYNC_S
        assert field.replicas[Role.PREFILL] > 1
        assert field.replicas[Role.DECODE] == 2
        assert last.target is not None
        assert last.target.unsized == (Role.DECODE,)
        assert "output length is not known" in str(field.reason(Code.DEMAND_MISSING, Role.DECODE).detail["why"])
        assert (field.gauge("desired_groups", Role.DECODE), field.condition("ScalingActive")[0]) == (None, "False")


FRONTS = {
    "dynamo_1.6.1_frontend_pd_kv_over_1": (48.0, 18754 / 35, 4765 / 24),
    "dynamo_2025_frontend_aiperf_fixture": (170450.0, 18408629 / 170450, 300.0),
    "llmd_router_0.10_epp_dual_names": (420.0, 687091 / 420, 300.0),
    "gaie_0.5.1_epp": (250.0, 391327 / 250, 76483 / 250),
}
"""Page -> requests that it counts, and mean lengths; outputs' from the workers (300) where it lacks tokens or ends."""


@pytest.mark.parametrize("name", FRONTS)
async def test_a_frontend_or_gateway_gives_arrivals_and_lengths_and_ttft(name: str) -> None:
    page, times, (requests, prompt_tokens, output_tokens) = corpus(name), 1.0, FRONTS[name]
    traffic = Traffic(20.0, 1, 1)
    async with service(1, 1, traffic.page, router=lambda: grown(page, times)) as field:
        traffic.field = field
        for tick in range(4):
            times = 1.0 + tick
            last = await field.run(1)
        demand = last.signals.demand
        assert demand.basis == "router"
        assert demand.requests_per_s == pytest.approx(requests / SYNC_S, rel=1e-6)
        assert demand.prompt_tokens_mean == pytest.approx(prompt_tokens, rel=1e-6)
        assert demand.output_tokens_mean == pytest.approx(output_tokens, rel=1e-6)
        has_ttft = "time_to_first_token" in page or "ttft" in page
        assert last.signals.ttft.basis == ("router" if has_ttft else "estimated")
        assert isinstance(last.signals.ttft.attained, float)
        assert field.condition("ScalingActive")[0] == "True"


async def test_an_itl_of_chunks_is_not_held_against_the_slo() -> None:
    page, times = corpus("dynamo_1.6.1_frontend_pd_kv_over_1"), 1.0
    async with service(1, 1, no_traffic, router=lambda: grown(page, times)) as field:
        for tick in range(4):
            times = 1.0 + tick
            last = await field.run(1)
        assert last.signals.itl.basis == "estimated"
        assert last.signals.itl.attained == Missing("no traffic in the window")
        assert field.reason(Code.LATENCY_ESTIMATED).detail["signal"] == "itl"


# Resets, restarts, and what comes late


async def rates(field: Field, ticks: int) -> list[float]:
    """Arrivals per second of so many ticks."""
    await field.run(ticks)
    seen = [decision.signals.demand.requests_per_s for decision in field.decisions[-ticks:]]
    return [rate for rate in seen if not isinstance(rate, Missing)]


async def test_a_container_that_restarts_in_its_pod_is_a_reset_of_what_it_counts() -> None:
    traffic = Traffic(4.0, 1, 1)
    async with service(1, 1, traffic.page) as field:
        traffic.field = field
        assert await rates(field, 4) == pytest.approx([4.0] * 3)
        traffic.requests = 0.0
        assert await rates(field, 1) == pytest.approx([4.0], abs=0.1)
        assert {str(r.detail["source"]) for r in field.last.why if r.code is Code.COUNTER_RESET} == {
            "uid-prefill-0",
            "uid-decode-0",
        }
        assert await rates(field, 3) == pytest.approx([4.0] * 3)


async def test_a_reset_of_one_counter_bends_no_other() -> None:
    done, tokens = 1000.0, 1e6

    def page(role: Role, group: int, worker: int) -> str:
        if role is Role.DECODE:
            return no_traffic(role, group, worker)
        return vllm(Engine(finished=done, prompt_tokens=tokens, ttft=(done, done * 0.3)))

    async with service(1, 1, page) as field:
        for tick in range(6):
            tokens = 60.0 * 500 if tick == 4 else tokens + 60.0 * 500
            done += 60.0
            last = await field.run(1)
            if tick:
                assert last.signals.demand.requests_per_s == pytest.approx(4.0)
                assert last.signals.demand.prompt_tokens_per_s == pytest.approx(2000.0)
            resets = [r.detail["counter"] for r in last.why if r.code is Code.COUNTER_RESET]
            assert resets == (["prompt_tokens"] if tick == 4 else [])


@pytest.mark.parametrize("change", ["restarts", "is gone"])
async def test_an_engine_beside_another_that_restarts_or_goes_is_no_wave_of_demand(change: str) -> None:
    """The sum over the engines of a pod falls by what the lost one had counted: what is left has not just come."""
    done, lost = 100_000.0, False

    def page(role: Role, group: int, worker: int) -> str:
        if role is Role.DECODE:
            return no_traffic(role, group, worker)
        one = Engine(running=2, finished=done, prompt_tokens=done * 500, ttft=(done, done * 0.3))
        other = replace(one, finished=3, prompt_tokens=1500, ttft=(3, 1))
        return vllm(one) if lost and change == "is gone" else vllm(one, other if lost else one)

    async with service(1, 1, page) as field:
        for lost in (False, False, False, True, True, change == "restarts", change == "restarts"):  # noqa: B007
            done += 30.0
            last = await field.run(1)
            rate = last.signals.demand.requests_per_s
            assert isinstance(rate, Missing) or rate < 10.0
        assert field.replicas[Role.PREFILL] == 1


async def test_a_family_that_comes_with_the_first_request_counts_from_zero() -> None:
    done = 0.0
    late = ("vllm:request_success_total", "vllm:prompt_tokens_total", "vllm:time_to_first_token_seconds")

    def page(role: Role, group: int, worker: int) -> str:
        own = done if role is Role.PREFILL else 0.0
        lines = vllm(Engine(finished=own, prompt_tokens=own * 700, ttft=(own, own))).splitlines()
        return "\n".join(line for line in lines if own or not line.startswith(late)) + "\n"

    async with service(1, 1, page) as field:
        last = await field.run(2)
        assert isinstance(last.signals.demand.prompt_tokens_per_s, Missing)
        assert "request_success_total is not on the page" in field.condition("ScalingActive")[1]
        for _ in range(3):
            done += 45.0
            last = await field.run(1)
        assert last.signals.demand.requests_per_s == pytest.approx(3.0)
        assert last.signals.demand.prompt_tokens_per_s == pytest.approx(2100.0)


@pytest.mark.parametrize("damaged", ["request_success_total", "num_requests_waiting", "prompt_tokens_total"])
async def test_a_count_that_was_damaged_at_first_did_not_begin_at_zero(damaged: str) -> None:
    """Nor may what cannot be counted of one pod make its role shrink."""
    done, broken = 41220.0, True

    def page(role: Role, group: int, worker: int) -> str:
        page = vllm(Engine(finished=done, prompt_tokens=done * 700, generation_tokens=done, ttft=(done, done * 0.2)))
        found = re.compile(rf"^(vllm:{damaged}.*) \S+$", re.MULTILINE)
        assert found.search(page)
        return found.sub(r"\1 NaN", page) if broken and role is Role.PREFILL and group == 0 else page

    async with service(2, 1, page, chosen=settings(prefill=QUICK, decode=QUICK)) as field:
        await field.run(12)
        assert field.reason(Code.SIGNAL_DAMAGED, Role.PREFILL).detail["named"] == "prefill-0"
        assert field.replicas[Role.PREFILL] == 2
        broken = False
        for _ in range(12):
            rate = (await field.run(1)).signals.demand.requests_per_s
            assert rate == 0.0
        assert field.replicas[Role.PREFILL] == 1


async def test_latencies_of_before_a_histogram_was_damaged_are_not_those_of_now() -> None:
    broken = True

    def router() -> str:
        page = gateway({"1.0": 0.0, "+Inf": 1000.0}, 1000.0)
        return page.replace("seconds_count", "seconds_other").replace('le="+Inf"', 'le="7"') if broken else page

    async with service(1, 1, no_traffic, router=router) as field:
        await field.run(2)
        broken = False
        last = await field.run(1)
        assert last.signals.ttft.value_ms == Missing("no traffic in the window")
