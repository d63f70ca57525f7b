"""Bad values and pages, families told apart, and what must hold of any page."""

from __future__ import annotations

import math
import random
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.adapters.pages import FAMILIES, NAMES, Page, PageError, Signals, as_corpus, read_page
from autoscaler.adapters.pages.model import Distribution
from autoscaler.model import Histogram
from policies.model import Missing
from tests.autoscaler.reader.test_corpus import FILES, text
from tests.autoscaler.reader.test_traps import (
    DECODE,
    DP,
    FRONTEND,
    RANKS,
    RAY,
    ROUTER,
    SMG,
    STREAMING,
    TWICE,
    histogram,
)

TTFT = "vllm:time_to_first_token_seconds"
GOOD = {"1": 95.0, "2.5": 100.0, "+Inf": 100.0}


def ttft(page: str) -> Distribution | Missing:
    return read_page("vllm:num_requests_running 1\n" + page).totals.ttft


@pytest.mark.parametrize("bound", ["1", "1.0", "1e0"])
def test_a_bucket_is_a_number(bound: str) -> None:
    page = histogram(TTFT, "", {bound: 95, "2.5": 100, "+Inf": 100}, 62.5)
    assert ttft(page) == Distribution(100, 62.5, Histogram((1.0, 2.5, math.inf), (95, 100, 100), 62.5))


def test_engines_with_differently_spelled_bounds_add_up() -> None:
    page = histogram(TTFT, 'engine="0",', GOOD, 60) + histogram(TTFT, 'engine="1",', {"1.0": 5, "2.5": 5, "+Inf": 5}, 2)
    assert ttft(page) == Distribution(105, 62, Histogram((1.0, 2.5, math.inf), (100, 105, 105), 62))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (('le="+Inf"', 'le="5"'), "has no bucket +Inf"),
        (('le="1"', 'le="one"'), "has no bucket +Inf"),
        (("} 95.0", "} 101.0"), "not cumulative"),
        (("} 95.0", "} NaN"), "not cumulative"),
        (("_count 100.0", "_count 101"), "has 100 in bucket +Inf and counts 101"),
        (
            (f'{TTFT}_bucket{{le="1"}} 95.0', f'{TTFT}_bucket{{le="1"}} 95.0\n{TTFT}_bucket{{le="1.0"}} 94'),
            "not cumulative",
        ),
    ],
)
def test_bad_buckets_leave_count_and_sum(change: tuple[str, str], why: str) -> None:
    found = ttft(histogram(TTFT, "", GOOD, 60).replace(*change))
    assert isinstance(found, Distribution)
    assert found.sum_s == 60
    assert isinstance(found.buckets, Missing)
    assert why in found.buckets.missing


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("_sum 60", "_other 60"), "_sum is not on the page"),
        (("_sum 60", "_sum NaN"), "which says nothing"),
        (("_count 100.0", "_count -1"), "which says nothing"),
        (("_count 100.0", "_count +Inf"), "which says nothing"),
    ],
)
def test_a_histogram_without_count_or_sum_is_missing(change: tuple[str, str], why: str) -> None:
    found = ttft(histogram(TTFT, "", GOOD, 60).replace(*change))
    assert isinstance(found, Missing)
    assert why in found.missing


def test_a_histogram_without_count_is_counted_by_its_last_bucket() -> None:
    assert ttft(histogram(TTFT, "", GOOD, 60).replace("_count", "_other")) == ttft(histogram(TTFT, "", GOOD, 60))


def test_engines_with_different_buckets_keep_count_and_sum() -> None:
    page = histogram(TTFT, 'engine="0",', GOOD, 60) + histogram(TTFT, 'engine="1",', {"3": 5, "+Inf": 5}, 2)
    assert ttft(page) == Distribution(105, 62, Missing("its parts have different buckets"))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("1.53", "is 1.53, a unit error: it is at most 1"),
        ("44", "is 44, a unit error: it is at most 1"),
        ("-1", "is -1, which says nothing"),
        ("NaN", "is nan, which says nothing"),
        ("+Inf", "is inf, which says nothing"),
        ("1e300", "is 1e+300, a unit error"),
        ("0.4\nvllm:kv_cache_usage_perc 0.5", "twice with different values"),
    ],
)
def test_a_bad_value_is_missing_with_its_reason_and_alone(value: str, why: str) -> None:
    totals = read_page(f"vllm:kv_cache_usage_perc {value}\nvllm:num_requests_running 3\n").totals
    assert isinstance(totals.kv_usage, Missing)
    assert isinstance(totals.kv_usage_max, Missing)
    assert why in totals.kv_usage.missing
    assert totals.running == 3


def test_numbers_too_large_to_add_up_are_missing() -> None:
    page = "".join(f'vllm:prompt_tokens_total{{engine="{engine}"}} 1.7e308\n' for engine in range(3))
    assert isinstance(read_page(page).totals.prompt_tokens_total, Missing)
    assert isinstance(ttft(histogram(TTFT, "", {"1": 1.7e308, "+Inf": 1.7e308}, 1.7e308)), Missing)


def test_an_engine_that_does_not_say_its_state_is_not_idle() -> None:
    totals = read_page(DP + 'vllm:num_requests_running{engine="2"} 1\n').totals
    assert totals.running == 67
    assert totals.waiting == Missing("vllm:num_requests_waiting is not said of this engine")


def test_a_rank_whose_role_is_not_known_takes_no_totals_away() -> None:
    page = read_page(
        'sglang:num_running_reqs{dp_rank="0",engine_type="prefill"} 1\n'
        'sglang:num_running_reqs{dp_rank="1",engine_type="dynamic"} 2\n'
    )
    assert (page.totals.running, page.role) == (3, None)
    assert [unit.role for unit in page.units] == ["prefill", None]


def test_no_two_families_hide_each_other() -> None:
    over = {(family.engine, other) for family in FAMILIES for other in family.over}
    assert not [pair for pair in over if pair[0] != pair[1] and pair[::-1] in over]


FAMILY = [
    (DP, "vllm", "engine"),
    (DP.replace('engine="', 'version="1",model="'), "triton-vllm", "engine"),
    ('vllm:request_success_total{finish_reason="stop",model_name="m"} 1\n', "llm-d-inference-sim", "engine"),
    ("vllm:num_requests_running 1\nvllm:lora_requests_info 1.7e9\n", "llm-d-inference-sim", "engine"),
    (TWICE, "aibrix-runtime", "engine"),
    ("aibrix:queue_size 1\naibrix:token_usage 0.2\nsglang:num_running_reqs 3\n", "aibrix-runtime", "engine"),
    ("gateway_request_total 4\n", "aibrix-gateway", "gateway"),
    (RAY, "ray-vllm", "engine"),
    (RAY.replace("vllm_num_requests_running", "sglang_num_running_reqs"), "ray-sglang", "engine"),
    (ROUTER, "vllm-router", "router"),
    ("vllm_router_requests_total 4\n", "vllm-router", "router"),
    (RANKS, "sglang", "engine"),
    (SMG, "smg", "gateway"),
    ("smg_http_requests_total 4\n", "smg", "gateway"),
    ("sgl_router_requests_total 4\n", "sgl-router", "router"),
    ("trtllm_num_requests_running 4\n", "trtllm", "engine"),
    ('time_to_first_token_seconds_count{engine_type="trtllm"} 4\n', "trtllm", "engine"),
    ('nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 4\n', "triton-trtllm", "engine"),
    ("ctx_total_requests_total 4\ngen_total_requests_total 4\n", "trtllm-disaggregated", "router"),
    (FRONTEND, "dynamo", "frontend"),
    (FRONTEND.replace("dynamo_frontend_", "nv_llm_http_service_"), "dynamo", "frontend"),
    ('dynamo_component_requests_total{dynamo_component="prefill",dynamo_endpoint="generate"} 4\n', "dynamo", "engine"),
    (DP + "dynamo_component_requests_total 4\n", "vllm", "engine"),
    (RANKS + "dynamo_component_requests_total 4\n", "sglang", "engine"),
    ('llm_d_epp_ready_endpoints{name="p"} 4\n' + DP, "llm-d-epp", "gateway"),
    ('inference_model_request_total{model_name="m"} 4\n', "llm-d-epp", "gateway"),
    ("tgi_queue_size 4\n", "tgi", "engine"),
    ("llamacpp:requests_processing 4\n", "llama.cpp", "engine"),
    ('lmdeploy:num_requests_running{engine="0"} 4\n', "lmdeploy", "engine"),
    ('roleratio_router_requests_total{target_namespace="a",target_service="b"} 4\n', "roleratio-router", "router"),
]


@pytest.mark.parametrize(("page", "engine", "kind"), FAMILY)
def test_a_family_is_recognised(page: str, engine: str, kind: str) -> None:
    found = read_page(page)
    assert (found.engine, found.kind, found.problem) == (engine, kind, "")


def test_every_family_is_tested() -> None:
    assert {engine for _, engine, _ in FAMILY} | {"nim"} == {family.engine for family in FAMILIES}


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (DP + RANKS, "two kinds of engines on one page, sglang and vllm"),
        ("go_goroutines 7\nprocess_cpu_seconds_total 3\n", "no engine's names are on the page (go_*, process_*)"),
        ("vllm:unknown 1\n", "no engine's names are on the page (vllm:*)"),
    ],
)
def test_a_page_that_is_nobodys_says_so(page: str, why: str) -> None:
    found = read_page(page)
    assert (found.kind, found.engine, found.units, found.totals) == ("none", None, (), Signals())
    assert found.problem.startswith(why)
    assert as_corpus(found)["error"] == found.problem


def test_what_was_not_used_is_named() -> None:
    page = read_page(TWICE + "vllm:iteration_tokens_total_count 3\ngo_goroutines 1\ngo_threads 2\n")
    ignored = {one.names: one.why for one in page.ignored}
    assert ignored["vllm:iteration_tokens_total"] == "a histogram of steps, not a counter of tokens"
    assert ignored["aibrix:queue_size"] == "the engine's own name for it is read"
    assert ignored["go_* (2)"] == "not needed"
    assert "vllm:num_requests_running" not in ignored


@pytest.mark.timeout(20)
def test_a_page_of_too_many_engines_is_refused_soon() -> None:
    page = "".join(f'vllm:num_requests_running{{engine="{index}"}} 1\n' for index in range(50_000))
    with pytest.raises(PageError, match="has more than 512 engines"):
        read_page(page)


def test_what_was_not_used_is_bounded() -> None:
    page = read_page("vllm:num_requests_running 1\n" + "".join(f"m{index}_x 1\n" for index in range(1000)))
    assert len(page.ignored) == 201
    assert page.ignored[-1].names == "800 more"


def test_a_router_of_ours_tells_services_apart() -> None:
    page = read_page(
        'roleratio_router_requests_total{target_namespace="a",target_service="x"} 4\n'
        'roleratio_router_requests_total{target_namespace="a",target_service="y"} 6\n'
        'roleratio_router_requests_in_flight{stage="prefill",target_namespace="a",target_service="y"} 2\n'
        'roleratio_router_requests_in_flight{stage="decode",target_namespace="a",target_service="y"} 3\n'
        + "".join(
            f'roleratio_router_requests_finished_total{{outcome="{one}",target_namespace="a",target_service="y"}} 1\n'
            for one in ("ok", "aborted", "failed", "rejected")
        )
    )
    unit = next(unit for unit in page.units if unit.id == {"target_namespace": "a", "target_service": "y"})
    assert (unit.signals.arrivals_total, unit.signals.finished_total, unit.signals.failed_total) == (6, 4, 2)
    assert unit.signals.in_flight_by_stage == {"decode": 3, "prefill": 2}
    assert page.totals.arrivals_total == 10


def test_our_workers_say_what_they_hold() -> None:
    totals = read_page(DECODE + "roleratio_worker_held_kv_requests 5\nroleratio_worker_draining 1\n").totals
    assert (totals.held_kv, totals.draining) == (5, 1)


def test_tables_fill_signals_that_exist() -> None:
    known = {field.name for field in fields(Signals)}
    assert {name for family in FAMILIES for name in family.signals} <= known
    assert all(family.names <= NAMES for family in FAMILIES)


@given(st.sampled_from([DP, RANKS, RAY, SMG, FRONTEND, DECODE, TWICE, STREAMING]), st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter(page: str, chance: random.Random) -> None:
    lines = page.splitlines()
    chance.shuffle(lines)
    assert read_page("\n".join(lines)) == read_page(page)


@pytest.mark.parametrize("name", [name for name in FILES if "json" not in name])
def test_the_order_of_a_real_pages_lines_does_not_matter(name: str) -> None:
    lines = text(name).splitlines()
    random.Random(7).shuffle(lines)
    assert read_page("\n".join(lines)) == read_page(text(name))


def read_or_refused(page: str) -> Page | str:
    """A page, or the one error that reading may raise."""
    try:
        return read_page(page)
    except PageError as error:
        return str(error)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_page_or_a_page_error(body: bytes) -> None:
    assert isinstance(read_or_refused(body.decode("utf-8", errors="replace")), Page | str)


MUTATED = st.tuples(
    st.integers(0, 10**6), st.sampled_from(["cut", "drop", "twice", "value", "label", "byte", "splice"])
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([name for name in FILES if "json" not in name]), st.lists(MUTATED, min_size=1, max_size=12))
def test_a_mutated_page_is_read_or_refused(name: str, mutations: list[tuple[int, str]]) -> None:
    page = text(name)
    for place, mutation in mutations:
        page = mutate(page, place, mutation)
    found = read_or_refused(page)
    if isinstance(found, str):
        assert found
        assert "\n" not in found
        return
    for value in (found.totals.kv_usage, found.totals.kv_usage_max):
        assert isinstance(value, Missing) or 0 <= value <= 1
    for spread in (found.totals.ttft, found.totals.itl, found.totals.queue_time):
        assert isinstance(spread, Missing) or (spread.count >= 0 and math.isfinite(spread.sum_s))


def mutate(page: str, place: int, mutation: str) -> str:
    """One small damage at some place of a page."""
    lines = page.split("\n")
    index, at = place % len(lines), place % max(1, len(page))
    line = lines[index]
    changed = {
        "drop": [],
        "twice": [line, line],
        "value": [line.rpartition(" ")[0] + [" NaN", " -1", " 1e308", " 7"][place % 4]],
        "label": [line.replace('="', '="\\"', 1)],
        "splice": [line, lines[(place * 31) % len(lines)]],
    }
    if mutation == "cut":
        return page[:at]
    if mutation == "byte":
        return page[:at] + '\x00"{}\\ \n'[place % 7] + page[at + 1 :]
    return "\n".join([*lines[:index], *changed[mutation], *lines[index + 1 :]])
