"""The traps of real pages, one small page each: what a hasty reader gets wrong."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.adapters.pages import Page, as_corpus, read_page
from policies.model import Missing


def at(page: Page, path: str) -> Any:
    """A value of the page's JSON form, else a signal of its totals or of a unit."""
    first, *steps = path.split(".")
    if first == "signals":
        return getattr(page.totals, steps[0])
    found: Any = as_corpus(page)[first]
    for step in steps:
        found = found[int(step)] if isinstance(found, list) else found[step]
    return found


def histogram(name: str, labels: str, bounds: dict[str, float], total: float) -> str:
    lines = [f'{name}_bucket{{{labels}le="{bound}"}} {count}' for bound, count in bounds.items()]
    plain = f"{{{labels.rstrip(',')}}}" if labels else ""
    return "\n".join([*lines, f"{name}_count{plain} {list(bounds.values())[-1]}", f"{name}_sum{plain} {total}"]) + "\n"


DP = """
vllm:num_requests_running{engine="0",model_name="m"} 64
vllm:num_requests_running{engine="1",model_name="m"} 2
vllm:num_requests_waiting{engine="0",model_name="m"} 7
vllm:num_requests_waiting{engine="1",model_name="m"} 0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.98
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.02
"""
BLOCKS = """
vllm:cache_config_info{block_size="32",engine="0",num_gpu_blocks="144"} 1
vllm:cache_config_info{block_size="32",engine="1",num_gpu_blocks="144"} 1
"""
RANK = 'engine_type="decode",model_name="m",moe_ep_rank="{rank}",tp_rank="{rank}",dp_rank="{dp}"'
SCHEDULER = {"num_running_reqs": 3, "num_queue_reqs": 2, "token_usage": 0.5, "max_total_num_tokens": 100}
RANKS = "".join(
    f"sglang:{name}{{{RANK.format(rank=rank, dp=rank // 2)}}} {value}\n"
    for name, value in SCHEDULER.items()
    for rank in range(4)
)
PREFILL = """
vllm:num_requests_running{engine="0"} 0
vllm:num_requests_waiting{engine="0"} 0
vllm:kv_cache_usage_perc{engine="0"} 0.73
vllm:generation_tokens_total{engine="0"} 20
vllm:time_to_first_token_seconds_count{engine="0"} 20
vllm:time_to_first_token_seconds_sum{engine="0"} 4
vllm:inter_token_latency_seconds_count{engine="0"} 0
vllm:inter_token_latency_seconds_sum{engine="0"} 0
vllm:nixl_xfer_time_seconds_count{engine="0"} 0
"""
DECODE = """
vllm:num_requests_running{engine="0"} 0
vllm:num_requests_waiting{engine="0"} 6
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2
vllm:num_requests_waiting_by_reason{engine="0",reason="deferred"} 4
vllm:kv_cache_usage_perc{engine="0"} 0.92
vllm:prompt_tokens_total{engine="0"} 8067
vllm:prompt_tokens_by_source_total{engine="0",source="local_compute"} 0
vllm:prompt_tokens_by_source_total{engine="0",source="external_kv_transfer"} 8067
"""
RAY = "".join(
    f'ray_vllm_num_requests_running{{ReplicaId="{replica}",WorkerId="w{replica}",engine="0",model_name="m"}} {value}\n'
    for replica, value in (("a", 23), ("b", 31))
)
TRTLLM_EARLY = (
    'request_success_total{engine_type="undefined",finished_reason="stop",model_name="undefined"} 9\n'
    + "".join(
        histogram(name, 'engine_type="undefined",model_name="undefined",', {"1": 5, "+Inf": 9}, 12)
        for name in ("time_to_first_token_seconds", "time_per_output_token_seconds", "request_queue_time_seconds")
    )
)
FRONTEND = """
dynamo_frontend_inflight_requests{model="m"} 24
dynamo_frontend_active_requests{model="m"} 24
dynamo_frontend_queued_requests{model="m"} 13
dynamo_frontend_model_total_kv_blocks{model="m"} 512
dynamo_frontend_model_kv_cache_block_size{model="m"} 16
dynamo_frontend_worker_active_decode_blocks{worker_id="1",worker_type="decode"} 782
dynamo_frontend_output_tokens_total{model="m"} 149
dynamo_frontend_output_sequence_tokens_sum{model="m"} 4765
dynamo_frontend_inter_token_latency_seconds_count{model="m"} 100
dynamo_frontend_inter_token_latency_seconds_sum{model="m"} 98
dynamo_component_inflight_requests{model="m"} 3
"""
SMG = """
sglang_num_running_reqs{engine_type="prefill",model_name="m",worker_addr="http://10.0.0.1"} 2
sglang_num_running_reqs{engine_type="decode",model_name="m",worker_addr="http://10.0.0.2"} 30
sglang_prompt_tokens_total{model_name="m",worker_addr="http://10.0.0.1"} 500
sglang_prompt_tokens_total{model_name="m",worker_addr="http://10.0.0.2"} 500
"""
STREAMING = """
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",priority=""} 9
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",priority="1"} 4
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",priority="2"} 5
sglang:prompt_tokens_total{is_streaming="true",model_name="m",priority="1"} 10
sglang:prompt_tokens_total{is_streaming="false",model_name="m",priority="2"} 30
"""
TWICE = """
vllm:num_requests_running{engine="0"} 3
vllm:num_requests_running{engine="0"} 3
aibrix:queue_size{engine="0"} 7
vllm:num_requests_waiting{engine="0"} 7
vllm:gpu_cache_usage_perc{engine="0"} 0.4
vllm:kv_cache_usage_perc{engine="0"} 0.4
"""
ROUTER = """
vllm:num_requests_running{server="http://10.0.0.11:8000"} 10
vllm:avg_itl{server="http://10.0.0.11:8000"} -1
vllm:num_incoming_requests_total{model="m"} 108
"""
POOL = """
inference_pool_average_queue_size{name="p"} 3.25
inference_pool_average_kv_cache_utilization{name="p"} 0.5
inference_pool_ready_pods{name="p"} 4
llm_d_epp_average_queue_size{name="p"} 3.25
llm_d_epp_ready_endpoints{name="p"} 4
"""

PIDS = "".join(
    f'vllm:kv_cache_usage_perc{{engine="0",pid="{pid}"}} {value}\n'
    for pid, value in enumerate([0, 0, 0.65, 0, 0, 0, 0, 0])
)
TRITON = """
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 8
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 5
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_inference_request_success{model="tensorrt_llm",version="1"} 90
nv_inference_request_success{model="preprocessing",version="1"} 90
"""

TRAPS = [
    ("1 blocks are the sum over engines, on each", DP + BLOCKS, "totals.kv_capacity_tokens", 144 * 32),
    ("1 of one engine", DP + BLOCKS, "units.1.kv_capacity_tokens", 72 * 32),
    (
        "1 a size in tokens is each engine's own",
        DP + BLOCKS.replace("num_gpu", 'kv_cache_size_tokens="2304",num_gpu'),
        "totals.kv_capacity_tokens",
        4608,
    ),
    ("2 tp ranks repeat, dp ranks add up", RANKS, "totals.running", 6),
    ("2 capacity of dp ranks", RANKS, "totals.kv_capacity_tokens", 200),
    ("2 units are dp ranks", RANKS, "units.1.id", {"dp_rank": "1"}),
    ("2 a gauge has its total", STREAMING, "totals.running", 9),
    ("2 a counter has none", STREAMING, "totals.prompt_tokens_total", 40),
    ("3 deferred is not load", DECODE, "totals.waiting_by_reason", {"capacity": 2, "deferred": 4}),
    ("3 idle with KV held is prefill", PREFILL, "role", "prefill"),
    ("3 llama.cpp's deferred is load", "llamacpp:requests_deferred 5\n", "totals.waiting", 5),
    ("4 one queue under two names", TWICE, "totals.waiting", 7),
    ("4 one series twice", TWICE, "totals.running", 3),
    ("4 one KV use under two names", TWICE, "totals.kv_usage", 0.4),
    ("4 active and inflight are the same", FRONTEND, "units.0.in_flight", 24),
    ("5 a router is not an engine", ROUTER, "kind", "router"),
    ("5 nor has it any load", ROUTER, "totals.running", None),
    ("5 an average over pods is no sum", POOL, "totals.waiting", None),
    ("5 two roles under one prefix", SMG, "totals", None),
    ("5 each of them by itself", SMG, "units.1.prompt_tokens_total", 500),
    ("5 by its worker", SMG, "units.0.id", {"worker_addr": "http://10.0.0.1"}),
    ("6 per request is not ITL", TRTLLM_EARLY, "totals.itl", None),
    ("7 demand is not use", FRONTEND, "totals.kv_usage", None),
    ("7 but is told", FRONTEND, "units.0.kv_demand_ratio", 782 / 512),
    ("8 unified by default is no role", 'sglang:num_running_reqs{engine_type="unified"} 1\n', "role", None),
    ("8 unified by choice is both", STREAMING, "role", "both"),
    ("8 a role that switches is no role", 'sglang:num_running_reqs{engine_type="dynamic"} 1\n', "role", None),
    (
        "8 what its queues show is",
        'sglang:num_running_reqs{engine_type="unified"} 1\nsglang:num_decode_transfer_queue_reqs 3\n',
        "role",
        "decode",
    ),
    ("9 prompts that came as KV", DECODE, "signals.prompt_tokens_received_total", 8067),
    ("9 are a decoder's", DECODE, "role", "decode"),
    ("10 None is no number", DP + BLOCKS.replace("144", "None"), "totals.kv_capacity_tokens", None),
    ("10 no counters, no tokens", "vllm:num_requests_running 3\n", "totals.generation_tokens_total", None),
    ("10 undefined is no model", TRTLLM_EARLY, "models", []),
    ("11 escaped", DP.replace("vllm:", "vllm_"), "totals.running", 66),
    ("11 escaped by values", DP.replace("vllm:num_requests_r", "U__vllm_3a_num__requests__r"), "totals.running", 66),
    ("11 under Ray", DP.replace("vllm:", "ray_vllm:"), "totals.running", 66),
    ("11 without prefix", DP.replace("vllm:", ""), "engine", "nim"),
    ("11 infight (sic)", "sglang:num_queue_reqs 1\nsglang:num_prefill_infight_queue_reqs 2\n", "role", "prefill"),
    ("12 two replicas are both engine 0", RAY, "totals.running", 54),
    ("12 and are told apart", RAY, "units.1.id", {"ReplicaId": "b"}),
    ("12 a pid is not an engine", PIDS, "totals.kv_usage", 0.65),
    ("12 nor is it a unit", PIDS, "units.0.id", {"engine": "0"}),
    ("13 retracted reqs is a gauge", RANKS + "sglang:num_retracted_reqs 3\n", "totals.preemptions_total", None),
    ("13 steps are no tokens", DP + "vllm:iteration_tokens_total_sum 9\n", "totals.generation_tokens_total", None),
    ("13 a counter called _count", FRONTEND + "dynamo_frontend_request_success_count 7\n", "signals.finished_total", 7),
    ("14 -1 is no data", "sglang:num_queue_reqs -1\n", "totals.waiting", None),
    ("14 NaN is no data", DP + 'vllm:num_requests_running{engine="2"} NaN\n', "totals.running", None),
    ("14 exponents", "llamacpp:prompt_tokens_total 1.5e+011", "totals.prompt_tokens_total", 1.5e11),
    ("14 waiting before there was a name for it", TRITON, "totals.waiting", 3),
    ("14 a step before the engine is no engine", TRITON, "models", ["tensorrt_llm"]),
    (
        "15 the largest use of the pools",
        "sglang:token_usage 0.3\nsglang:full_token_usage 0.1\n",
        "totals.kv_usage",
        0.3,
    ),
]


@pytest.mark.parametrize(("page", "path", "right"), [trap[1:] for trap in TRAPS], ids=[trap[0] for trap in TRAPS])
def test_a_trap(page: str, path: str, right: Any) -> None:
    assert at(read_page(page), path) == (pytest.approx(right) if isinstance(right, float) else right)


def test_a_full_engine_is_not_hidden_by_an_empty_one() -> None:
    totals = read_page(DP + BLOCKS).totals
    assert (totals.running, totals.waiting) == (66, 7)
    assert totals.kv_usage == pytest.approx(0.5)
    assert totals.kv_usage_max == 0.98


def test_chunks_are_not_tokens() -> None:
    page = read_page(FRONTEND)
    assert page.kind == "frontend"
    assert page.cautions == {"itl": "counts chunks, not tokens: 100 gaps for 4765 tokens"}


def test_what_is_missing_says_why() -> None:
    page = read_page(DP)
    assert page.totals.kv_capacity_tokens == Missing("vllm:cache_config_info is not on the page")
    assert page.totals.ttft == Missing("vllm:time_to_first_token_seconds is not on the page")
