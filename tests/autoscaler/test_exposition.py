"""Metrics pages become samples: sums over engines, Missing for what is absent, one reason for what is garbage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.adapters.exposition import PageError, parse_page, router_sample, worker_sample
from autoscaler.model import Histogram, WorkerSample
from policies.model import Missing, Role
from tests.autoscaler.pages import ROUTER, SERVICE, WORKER
from tests.shared_data import shared


def read_worker(page: str) -> WorkerSample:
    return worker_sample(parse_page(page), "uid", "decode-0", Role.DECODE, 5.0)


def test_engines_of_one_page_add_up() -> None:
    seen = read_worker(WORKER)
    assert (seen.running, seen.waiting, seen.waiting_deferred) == (66.0, 7.0, 4.0)
    assert seen.kv_usage == pytest.approx(0.5)
    assert (seen.prompt_tokens, seen.generation_tokens, seen.finished) == (1010.0, 505.0, 23.0)
    assert seen.ttft == Histogram((0.5, 1.0, math.inf), (49.0, 100.0, 110.0), 91.0)
    assert (seen.uid, seen.pod, seen.role, seen.at_s) == ("uid", "decode-0", Role.DECODE, 5.0)


@given(st.permutations(WORKER.splitlines()))
def test_order_of_lines_does_not_matter(lines: list[str]) -> None:
    assert read_worker("\n".join(lines)) == read_worker(WORKER)


def test_absent_is_missing_and_never_zero() -> None:
    seen = read_worker("vllm:num_requests_running 3\n")
    assert seen.running == 3.0
    for value in (seen.waiting, seen.waiting_deferred, seen.kv_usage, seen.prompt_tokens, seen.finished):
        assert isinstance(value, Missing)
    assert isinstance(seen.ttft, Missing)
    assert isinstance(seen.itl, Missing)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_not_a_number_is_missing(value: str) -> None:
    seen = read_worker(f'vllm:num_requests_running{{engine="0"}} 3\nvllm:kv_cache_usage_perc {value}\n')
    assert isinstance(seen.kv_usage, Missing)
    assert seen.running == 3.0


def test_the_same_series_twice_counts_once() -> None:
    assert read_worker(WORKER + WORKER) == read_worker(WORKER)


def test_the_older_name_is_read_where_the_newer_is_absent_and_only_there() -> None:
    older = 'vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc{engine="0"} 0.25\n'
    assert read_worker(older).kv_usage == 0.25
    assert read_worker(older + 'vllm:kv_cache_usage_perc{engine="0"} 0.75\n').kv_usage == 0.75


@pytest.mark.parametrize("spelling", ["1", "1.0", "1e0"])
def test_bucket_bounds_are_numbers(spelling: str) -> None:
    page = parse_page(ROUTER.replace('le="1.0"', f'le="{spelling}"'))
    assert router_sample(page, "uid", 0.0, SERVICE).ttft == Histogram((1.0, 2.5, math.inf), (95, 100, 100), 62.5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (('le="+Inf"', 'le="5"'), "has no bucket +Inf"),
        (("} 95.0", "} 101.0"), "not cumulative"),
        (("} 95.0", "} NaN"), "not cumulative"),
        (("seconds_sum", "seconds_other"), "_sum is not on the page"),
    ],
)
def test_a_broken_histogram_is_missing(change: tuple[str, str], why: str) -> None:
    ttft = router_sample(parse_page(ROUTER.replace(*change)), "uid", 0.0, SERVICE).ttft
    assert isinstance(ttft, Missing)
    assert why in ttft.missing


def test_router() -> None:
    seen = router_sample(parse_page(ROUTER), "uid", 9.0, SERVICE)
    assert (seen.arrivals, seen.prompt_tokens, seen.generation_tokens) == (120.0, 120000.0, 24000.0)
    assert (seen.finished, seen.failed) == (103.0, 7.0)
    assert seen.in_flight == {"prefill": 4.0, "decode": 6.0}
    assert seen.itl == Histogram((0.05, math.inf), (23000.0, 23900.0), 800.0)


def test_router_of_another_service_is_named() -> None:
    with pytest.raises(PageError, match=r"not a router page of service chat: .* it serves other"):
        router_sample(parse_page(ROUTER.replace("chat", "other")), "uid", 0.0, SERVICE)


def test_router_without_a_counter_is_refused() -> None:
    lines = [line for line in ROUTER.splitlines() if "prompt_tokens" not in line]
    with pytest.raises(PageError, match="roleratio_router_prompt_tokens_total is not on the page"):
        router_sample(parse_page("\n".join(lines)), "uid", 0.0, SERVICE)


@pytest.mark.parametrize(
    "page",
    ["", "\x00\xff\xfe", "<html><body>It works!</body></html>", '[{"a": 1}]', "go_goroutines 7\n", "vllm:unknown 1\n"],
)
def test_garbage_is_one_clear_reason(page: str) -> None:
    with pytest.raises(PageError, match="is not a vLLM page") as caught:
        parse_page(page)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["vllm:num_requests_running{engine=", "vllm:num_requests_running abc", "vllm:num_requests_running "]
)
def test_a_broken_line_of_a_known_family_refuses_the_page(line: str) -> None:
    with pytest.raises(PageError, match="not in the exposition format"):
        parse_page(WORKER + line + "\n")


@given(st.text(max_size=200))
def test_no_text_does_more_than_raise_page_error(noise: str) -> None:
    try:
        seen = read_worker(f"vllm:num_requests_running 3\nvllm:num_requests_waiting{noise}")
    except PageError:
        return
    assert isinstance(seen.running, float)


def test_a_router_that_uses_engine_names_is_not_an_engine() -> None:
    with pytest.raises(PageError, match="speaks for other pods"):
        read_worker('vllm:num_requests_running{server="http://10.0.0.1:8000"} 10\n')


def corpus() -> tuple[Path, dict[str, Any]]:
    """The folder of real pages, and what each of them says."""
    folder = shared("data/metrics")
    return folder, json.loads((folder / "expected.json").read_text())


def test_real_vllm_pages() -> None:
    folder, expected = corpus()
    names = [name for name in expected if name.startswith("vllm_")]
    assert len(names) >= 5
    for name in names:
        wanted = expected[name]["totals"]
        seen = read_worker((folder / name).read_text())
        assert [seen.running, seen.waiting] == [wanted["running"], wanted["waiting"]], name
        assert seen.kv_usage == pytest.approx(wanted["kv_usage"]), name
        assert seen.prompt_tokens == wanted["prompt_tokens_total"], name
        assert seen.generation_tokens == wanted["generation_tokens_total"], name
        for histogram, key in ((seen.ttft, "ttft"), (seen.itl, "itl")):
            assert isinstance(histogram, Histogram), name
            assert histogram.counts[-1] == wanted[key]["count"], name
            assert histogram.sum_s == pytest.approx(wanted[key]["sum"]), name


def test_pages_of_routers_gateways_and_other_engines_are_refused() -> None:
    folder, expected = corpus()
    speaks_vllm = ("vllm", "aibrix-runtime", "llm-d-inference-sim")
    others = [name for name, page in expected.items() if page["engine"] not in speaks_vllm]
    assert len(others) >= 10
    for name in others:
        with pytest.raises(PageError):
            read_worker((folder / name).read_text())
