"""Hostile pages, through the whole tick: one clear line or condition each, and the other pods are still read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policies.model import ROLES, Code, Role
from tests.autoscaler.field import BREAKS_OFF, MODEL, REFUSES, STREAMS, Engine, codes, gateway, service, settings, vllm

OWN = f'engine="0",model_name="{MODEL}"'
GOOD = vllm(Engine(running=3, waiting=2, kv=0.4, prompt_tokens=900, generation_tokens=300, finished=9, ttft=(9, 3)))

NO_PAGE = {
    "200 MB": (STREAMS, "page is larger than 16 MiB"),
    "broken off": (BREAKS_OFF, "ClientPayloadError"),
    "cut off": (GOOD[:-20], "page is cut off in its last line"),
    "refused": (REFUSES, "page was not served: HTTP 503"),
    "JSON": ('[{"iterLatencyMS": 7.1, "numActiveRequests": 3}]', "page is JSON, as TensorRT-LLM answers at /metrics"),
    "other JSON": ('{"status": "ok"}', "page is JSON, not metrics: check port and path"),
    "HTML": ("<!doctype html><html><body>Sign in</body></html>", "page is HTML or XML, not metrics"),
    "empty": ("", "page is empty: the server answers, but exports nothing"),
    "comments": ("# HELP a b\n", "page holds no sample"),
    "nobody's": ("go_goroutines 7\n", "no engine's names are on the page (go_*)"),
    "two engines": (GOOD + "sglang:num_running_reqs 3\n", "two kinds of engines on one page, sglang and vllm"),
    "a router's": (gateway({"+Inf": 1}), "page is one of a router (roleratio-router), but the pod's label"),
}


def decode_1(text: str) -> Callable[[Role, int, int], str]:
    """Good pages, and this one in one place."""
    return lambda role, group, _: text if (role, group) == (Role.DECODE, 1) else GOOD


@pytest.mark.parametrize("case", NO_PAGE)
async def test_what_is_no_page_is_one_line_and_the_others_are_read(case: str) -> None:
    text, why = NO_PAGE[case]
    async with service(1, 3, decode_1(text), chosen=settings(metrics={"scrapeTimeoutS": 5})) as field:
        last = await field.run(2)
        assert set(field.seen[-1].samples.failures) == {"decode-1"}
        failed = field.reason(Code.SCRAPE_FAILED).detail
        assert (failed["sources"], failed["named"]) == (1, "decode-1")
        assert why in str(failed["why"])
        status, message = field.condition("Blind")
        assert (status, "\n" in message, why in message) == ("True", False, True)
        assert (last.signals.decode.groups_read, last.signals.decode.unread) == (2, ("decode-1",))
        assert field.condition("ScalingActive")[0] == "True"


TTFT = "vllm:time_to_first_token_seconds"


def changed(old: str, new: str) -> str:
    """The good page with a part of it replaced."""
    assert old in GOOD
    return GOOD.replace(old, new)


DAMAGED = {
    "NaN": (changed("waiting{" + OWN + "} 2", "waiting{" + OWN + "} NaN"), "num_requests_waiting is nan"),
    "Inf": (changed("prompt_tokens_total{" + OWN + "} 900", "prompt_tokens_total{" + OWN + "} +Inf"), "total is inf"),
    "-1": (changed("usage_perc{" + OWN + "} 0.4", "usage_perc{" + OWN + "} -1"), "kv_cache_usage_perc is -1"),
    "twice": (GOOD + f"vllm:num_requests_running{{{OWN}}} 8\n", "stands on the page twice with different values"),
    "falling buckets": (
        changed(f'{TTFT}_bucket{{{OWN},le="1.0"}} 9', f'{TTFT}_bucket{{{OWN},le="1.0"}} 10'),
        "cumulat",
    ),
    "no +Inf": (changed(f'{TTFT}_bucket{{{OWN},le="+Inf"}} 9', f"{TTFT}_other{{{OWN}}} 9"), "has no bucket +Inf"),
    "another count": (changed(f"{TTFT}_count{{{OWN}}} 9", f"{TTFT}_count{{{OWN}}} 7"), "in bucket +Inf and counts 7"),
}


@pytest.mark.parametrize("case", DAMAGED)
async def test_a_damaged_signal_is_told_and_not_used_and_the_rest_of_the_page_is(case: str) -> None:
    text, why = DAMAGED[case]
    async with service(1, 3, decode_1(text)) as field:
        last = await field.run(2)
        assert field.seen[-1].samples.failures == {}
        told = field.reason(Code.SIGNAL_DAMAGED, Role.DECODE).detail
        assert (told["pods"], told["named"]) == (1, "decode-1")
        assert why in str(told["why"])
        assert field.condition("Blind") == ("True", str(field.reason(Code.SIGNAL_DAMAGED)))
        signals = last.signals.decode
        assert signals.groups_read == 3
        assert (signals.running, signals.waiting) == (9.0 - 3.0 * (case == "twice"), 6.0 - 2.0 * (case == "NaN"))
        assert signals.kv_usage == pytest.approx(0.4)


async def test_a_page_that_is_whole_again_is_told_no_more() -> None:
    text = DAMAGED["NaN"][0]
    async with service(1, 3, lambda role, group, worker: decode_1(text)(role, group, worker)) as field:
        await field.run(2)
        text = GOOD
        assert Code.SIGNAL_DAMAGED not in codes(await field.run(1))
        assert field.condition("Blind")[0] == "False"


async def test_labels_with_braces_quotes_and_breaks_are_read() -> None:
    model = r"a{\"b\"},c\\d\ne"
    async with service(1, 1, lambda *_: vllm(Engine(running=3), model=model)) as field:
        last = await field.run(1)
        assert last.signals.decode.running == 3.0
        assert set(field.seen[-1].samples.models) == {'a{"b"},c\\d\ne'}


async def test_a_router_whose_count_is_damaged_is_a_lower_bound_and_no_source_of_zero() -> None:
    arrivals, damaged = 0.0, False

    def router() -> str:
        page = gateway({"1.0": arrivals, "+Inf": arrivals}, arrivals)
        requests = 'roleratio_router_requests_total{target_namespace="ns",target_service="demo"}'
        assert f"{requests} {arrivals}" in page
        return page.replace(f"{requests} {arrivals}", f"{requests} NaN") if damaged else page

    async with service(3, 3, lambda *_: GOOD, router=router) as field:
        for damaged in (False, False, *[True] * 12):  # noqa: B007
            arrivals += 30.0
            await field.run(1)
        told = str(field.reason(Code.METRICS_PARTIAL).detail["why"])
        assert told == "router-0: roleratio_router_requests_total is nan, which says nothing"
        assert field.reason(Code.SIGNAL_DAMAGED).role is None
        assert field.condition("Blind")[0] == "True"
        assert field.replicas == dict.fromkeys(ROLES, 3)
