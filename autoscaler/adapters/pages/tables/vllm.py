"""vLLM, and those that show its names: Ray, NIM, Triton, llm-d's simulator, the routers of the production stack.

What to know: label `engine` is a data-parallel rank (none before 0.8: one engine), `pid` is an API server, no engine.
`num_gpu_blocks` is the sum over the ranks, repeated on each, while `kv_cache_size_tokens` (0.23 on) is each rank's own.
`kv_cache_usage_perc` is 0..1 in spite of its name. `waiting` contains what waits for remote KV (`deferred`, split from
0.20 on). Prompt tokens on a decode worker were computed elsewhere (`external_kv_transfer`).
"""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.adapters.pages.family import (
    ByLabel,
    Counter,
    Family,
    Gauge,
    Label,
    Mark,
    Product,
    Source,
    Times,
    UnitLabel,
    dynamo_roles,
    spelled,
)

PREFIXES = ("vllm:", "vllm_")
RAY = ("ray_vllm_", "ray_vllm:")


def signals(prefixes: tuple[str, ...]) -> Mapping[str, tuple[Source, ...]]:
    """vLLM's table under other prefixes. Under Ray, counters may keep the source's name, without `_total`."""

    def counter(*stems: str) -> tuple[str, ...]:
        return spelled(prefixes, *(stem + suffix for stem in stems for suffix in ("_total", "")))

    def named(*stems: str) -> tuple[str, ...]:
        return spelled(prefixes, *stems)

    config = named("cache_config_info")
    by_source = counter("prompt_tokens_by_source")
    finished = counter("request_success", "request_finish")
    return {
        "running": (Gauge(named("num_requests_running")),),
        "waiting": (
            Gauge(named("num_requests_waiting", "queue_size")),
            Gauge(named("num_requests_waiting_by_reason")),
        ),
        "waiting_by_reason": (ByLabel(named("num_requests_waiting_by_reason"), "reason"),),
        "swapped": (Gauge(named("num_requests_swapped")),),
        "held_kv": (Gauge(("roleratio_worker_held_kv_requests",)),),
        "draining": (Gauge(("roleratio_worker_draining",)),),
        "awake": (Gauge(named("engine_sleep_state"), {"sleep_state": ("awake",)}),),
        "kv_usage": (Gauge(named("kv_cache_usage_perc", "gpu_cache_usage_perc"), most=1, fold="max"),),
        "kv_capacity_tokens": (
            Label(config, "kv_cache_size_tokens"),
            Product(Label(config, "block_size"), Label(config, "num_gpu_blocks"), shared=True),
        ),
        "preemptions_total": (Counter(counter("num_preemptions")),),
        "prompt_tokens_total": (Counter(counter("prompt_tokens")),),
        "prompt_tokens_cached_total": (Counter(counter("prompt_tokens_cached", "prefix_cache_hits")),),
        "prompt_tokens_computed_total": (Counter(by_source, {"source": ("local_compute",)}),),
        "prompt_tokens_received_total": (Counter(by_source, {"source": ("external_kv_transfer",)}),),
        "generation_tokens_total": (Counter(counter("generation_tokens")),),
        "kv_transfers_total": (Counter(named("nixl_xfer_time_seconds_count")),),
        "finished_total": (
            Counter(finished),
            Counter(named("e2e_request_latency_seconds_count")),
        ),
        "failed_total": (
            Counter(finished, {"finished_reason": ("error",)}),
            Counter(finished, {"finish_reason": ("error",)}),
            Counter(counter("request_failure")),
        ),
        "ttft": (Times(named("time_to_first_token_seconds")),),
        "itl": (Times(named("inter_token_latency_seconds", "time_per_output_token_seconds")),),
        "queue_time": (Times(named("request_queue_time_seconds", "time_in_queue_requests")),),
    }


def marks(prefixes: tuple[str, ...]) -> tuple[Mark, ...]:
    """Names of which an engine's page has at least one, also when it is cut down."""
    return (
        Mark(
            spelled(
                prefixes,
                "num_requests_running",
                "num_requests_waiting",
                "kv_cache_usage_perc",
                "gpu_cache_usage_perc",
                "prompt_tokens_total",
                "generation_tokens_total",
                "cache_config_info",
            )
        ),
    )


NOTES = {
    "iteration_tokens_total": "a histogram of steps, not a counter of tokens",
    "num_requests_kv_fetch_by_stage": "a part of what waits, split another way",
    "request_time_per_output_token": "one observation per request: not ITL",
    "request_prompt_tokens": "of finished requests only",
    "request_generation_tokens": "of finished requests only",
    "cpu_cache_usage_perc": "swap space, not KV use",
    "lora_requests_info": "its value is a Unix time",
    "prompt_tokens_cached_by_source": "a split of what is counted already",
    "hisparse_host_cache_usage_perc": "host memory, not KV use",
}


def notes(prefixes: tuple[str, ...]) -> Mapping[str, str]:
    """Notes under other prefixes."""
    return {prefix + stem: why for prefix in prefixes for stem, why in NOTES.items()}


VLLM = Family(
    engine="vllm",
    kind="engine",
    signals=signals(PREFIXES),
    marks=marks(PREFIXES),
    over=frozenset(("dynamo",)),
    # Dynamo calls the rank of its own engines, which show vLLM's names, `dp_rank`.
    units=(UnitLabel(("engine", "dp_rank")),),
    models=("model_name", "model"),
    roles=(dynamo_roles(spelled(PREFIXES, "num_requests_running", "kv_cache_usage_perc")),),
    behaves=True,
    notes=notes(PREFIXES),
)

NIM = Family(
    engine="nim",
    kind="engine",
    signals=signals(("",)),
    marks=(
        Mark(
            ("num_requests_running", "num_requests_waiting", "gpu_cache_usage_perc", "kv_cache_usage_perc"),
            labels=("model_name",),
        ),
    ),
    units=(UnitLabel(("engine",)),),
    behaves=True,
    notes={"num_request_max": "a limit, not a load", **notes(("",))},
)

RAY_VLLM = Family(
    engine="ray-vllm",
    kind="engine",
    signals=signals(RAY),
    marks=marks(RAY),
    # Two replicas of one node both call themselves engine 0; outside Ray Serve, ReplicaId is empty.
    units=(UnitLabel(("ReplicaId", "WorkerId")), UnitLabel(("engine",), quiet=True)),
    repeats=VLLM.repeats | {"Pid"},
    behaves=True,
    notes={"ray_serve_": "of Ray Serve, not of an engine", "ray_node_": "of the node", **notes(RAY)},
)

TRITON_VLLM = Family(
    engine="triton-vllm",
    kind="engine",
    signals=signals(PREFIXES),
    marks=(Mark(marks(PREFIXES)[0].names, labels=("version",)),),
    over=frozenset(("vllm",)),
    units=(UnitLabel(("model",)), UnitLabel(("version",))),
    models=("model",),
    notes={"nv_": "of Triton, once per step of a request", **notes(PREFIXES)},
)

SIMULATOR = Family(
    engine="llm-d-inference-sim",
    kind="engine",
    signals=signals(PREFIXES),
    marks=(
        Mark(spelled(PREFIXES, "max_num_generation_tokens_sum", "max_num_generation_tokens_count")),
        Mark(spelled(PREFIXES, "request_success_total"), labels=("finish_reason",)),
        Mark(
            spelled(PREFIXES, "lora_requests_info"),
            lacking=spelled(PREFIXES, "prompt_tokens_total", "num_preemptions_total", "iteration_tokens_total_count"),
        ),
    ),
    over=frozenset(("vllm",)),
    units=(UnitLabel(("engine",)),),
    notes=notes(PREFIXES),
)

PRODUCTION_STACK_ROUTER = Family(
    engine="vllm-router",
    kind="router",
    signals={
        "in_flight": (Gauge(spelled(PREFIXES, "num_requests_running")),),
        "arrivals_total": (Counter(spelled(PREFIXES, "num_incoming_requests_total")),),
    },
    marks=(
        Mark(
            spelled(PREFIXES, "num_requests_running", "current_qps", "healthy_pods_total", "avg_itl"),
            labels=("server",),
        ),
        Mark(spelled(PREFIXES, "num_incoming_requests_total", "current_qps", "healthy_pods_total")),
    ),
    over=frozenset(("vllm", "llm-d-inference-sim")),
    units=None,
    models=("model_name", "model"),
    notes=dict.fromkeys(PREFIXES, "a router's view of its engines: each of them says it itself"),
)

RUST_ROUTER = Family(
    engine="vllm-router",
    kind="router",
    signals={
        "in_flight": (Gauge(("vllm_router_running_requests",)),),
        "arrivals_total": (Counter(("vllm_router_requests_total", "vllm_router_pd_requests_total")),),
    },
    marks=(
        Mark(
            (
                "vllm_router_requests_total",
                "vllm_router_pd_requests_total",
                "vllm_router_processed_requests_total",
                "vllm_router_running_requests",
                "vllm_router_active_workers",
            )
        ),
    ),
    units=None,
    notes={"vllm_router_agent_aware_": "copies of what its engines say", "vllm_tokenizer_": "of the router"},
)

FAMILIES = (VLLM, NIM, RAY_VLLM, TRITON_VLLM, SIMULATOR, PRODUCTION_STACK_ROUTER, RUST_ROUTER)
