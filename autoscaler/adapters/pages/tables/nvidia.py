"""NVIDIA: TensorRT-LLM and its router, Triton with it, Dynamo's frontend and its workers.

What to know: TensorRT-LLM's page is at /prometheus/metrics; its `time_per_output_token_seconds` has one observation per
request, so there is no ITL. Triton's signal is a label, not a name. Dynamo's frontend counts stream chunks in
`output_tokens_total` and in its ITL; tokens are in the sums of its sequence histograms, of finished requests.
`worker_active_decode_blocks` counts blocks of requests that do not run yet: demand, not use.
"""

from __future__ import annotations

from autoscaler.adapters.pages.family import (
    ByLabel,
    Counter,
    Difference,
    Family,
    Gauge,
    Label,
    Mark,
    Product,
    Ratio,
    Times,
    UnitLabel,
    dynamo_roles,
    spelled,
)

# Without a prefix in the early versions, whose pages have five families and no gauge.
_TRTLLM = ("trtllm_", "trtllm:", "")
_RUNNING = spelled(_TRTLLM, "num_requests_running")


def _trtllm(*stems: str) -> tuple[str, ...]:
    return spelled(_TRTLLM, *stems)


TRTLLM = Family(
    engine="trtllm",
    kind="engine",
    signals={
        "running": (Gauge(_RUNNING, fold="max"),),
        "waiting": (Gauge(_trtllm("num_requests_waiting"), fold="max"),),
        "kv_usage": (
            Gauge(_trtllm("kv_cache_utilization"), most=1, fold="max"),
            Ratio(
                Gauge(_trtllm("kv_cache_used_blocks"), fold="max"),
                Gauge(_trtllm("kv_cache_max_blocks"), fold="max"),
                most=1,
            ),
        ),
        "kv_capacity_tokens": (
            Product(Gauge(_trtllm("kv_cache_max_blocks")), Gauge(_trtllm("kv_cache_tokens_per_block"))),
            Product(Gauge(_trtllm("kv_cache_max_blocks")), Label(_trtllm("kv_cache_config_info"), "page_size")),
        ),
        "prompt_tokens_total": (Counter(_trtllm("prompt_tokens_total")),),
        "prompt_tokens_cached_total": (Counter(_trtllm("prompt_cached_tokens_total")),),
        "generation_tokens_total": (Counter(_trtllm("generation_tokens_total")),),
        "finished_total": (Counter(_trtllm("request_success_total", "num_requests_completed_total")),),
        "failed_total": (Counter(_trtllm("request_error_total", "num_requests_failed_total")),),
        "ttft": (Times(_trtllm("time_to_first_token_seconds")),),
        "queue_time": (Times(_trtllm("request_queue_time_seconds")),),
    },
    marks=(
        Mark(
            _trtllm(
                "num_requests_running",
                "kv_cache_utilization",
                "kv_cache_hit_rate",
                "request_success_total",
                "time_to_first_token_seconds_count",
                "e2e_request_latency_seconds_count",
            ),
            labels=("engine_type",),
        ),
        Mark(spelled(_TRTLLM[:2], "num_requests_running", "kv_cache_utilization", "request_success_total")),
    ),
    over=frozenset(("dynamo", "nim")),
    roles=(dynamo_roles(_RUNNING),),
    notes={
        prefix + stem: why
        for prefix in _TRTLLM
        for stem, why in {
            "time_per_output_token_seconds": "one observation per request: not ITL",
            "num_paused_requests": "a gauge of now, not a count of preemptions",
            "total_context_tokens": "a gauge of one iteration",
            "kv_cache_host_utilization": "host memory, not KV use",
        }.items()
    },
)

TRTLLM_DISAGGREGATED = Family(
    engine="trtllm-disaggregated",
    kind="router",
    signals={
        "arrivals_total": (Counter(("total_requests_total",)),),
        "finished_total": (Counter(("total_responses_total",)),),
        "queue_time": (Times(("queue_latency_seconds",)),),
    },
    marks=(
        Mark(("ctx_total_requests_total", "gen_total_requests_total", "ctx_completed_requests_total")),
        Mark(("gen_completed_requests_total", "ctx_first_token_latency_seconds_count")),
    ),
    over=frozenset(("trtllm", "nim")),
    units=None,
    notes={"ctx_": "of all prefill workers together", "gen_": "of all decode workers together"},
)

_REQUESTS = ("nv_trt_llm_request_metrics",)
_BLOCKS = ("nv_trt_llm_kv_cache_block_metrics",)
_TYPE, _BLOCK = "request_type", "kv_cache_block_type"

TRITON = Family(
    engine="triton-trtllm",
    kind="engine",
    signals={
        # What is scheduled runs in this iteration; `active` contains what waits, `max` is a limit.
        "running": (Gauge(_REQUESTS, {_TYPE: ("scheduled",)}), Gauge(_REQUESTS, {_TYPE: ("active",)})),
        "waiting": (
            Gauge(_REQUESTS, {_TYPE: ("waiting",)}),
            Difference(Gauge(_REQUESTS, {_TYPE: ("active",)}), Gauge(_REQUESTS, {_TYPE: ("scheduled",)})),
        ),
        "kv_usage": (
            Gauge(_BLOCKS, {_BLOCK: ("fraction",)}, most=1, fold="max"),
            Ratio(Gauge(_BLOCKS, {_BLOCK: ("used",)}), Gauge(_BLOCKS, {_BLOCK: ("max",)}), most=1),
        ),
        "kv_capacity_tokens": (Product(Gauge(_BLOCKS, {_BLOCK: ("max",)}), Gauge(_BLOCKS, {_BLOCK: ("tokens_per",)})),),
        "prompt_tokens_total": (Counter(("nv_llm_input_token_len_sum",)),),
        "generation_tokens_total": (Counter(("nv_llm_output_token_len_sum",)),),
        "finished_total": (Counter(("nv_inference_request_success",)),),
        "failed_total": (Counter(("nv_inference_request_failure",)),),
    },
    marks=(Mark((*_REQUESTS, *_BLOCKS)),),
    units=(UnitLabel(("model",)), UnitLabel(("version",))),
    models=("model",),
    notes={
        "nv_inference_": "cumulative, in microseconds where it ends in _us",
        "nv_trt_llm_disaggregated_serving_metrics": "in milliseconds, cumulative",
        "nv_trt_llm_inflight_batcher_metrics": "of one iteration",
    },
)

_FRONTEND = ("dynamo_frontend_", "nv_llm_http_service_")
_BACKEND = ("dynamo_component_",)
_GENERATE = {"dynamo_endpoint": ("generate",)}


def _frontend(*stems: str) -> tuple[str, ...]:
    return spelled(_FRONTEND, *stems)


_TOTAL_BLOCKS = Gauge(_frontend("model_total_kv_blocks"))

DYNAMO_FRONTEND = Family(
    engine="dynamo",
    kind="frontend",
    signals={
        "waiting": (Gauge(_frontend("queued_requests", "queued_requests_total")),),
        "in_flight": (Gauge(_frontend("inflight_requests", "active_requests", "inflight_requests_total")),),
        "in_flight_by_stage": (ByLabel(_frontend("stage_requests"), "stage"),),
        "kv_capacity_tokens": (Product(_TOTAL_BLOCKS, Gauge(_frontend("model_kv_cache_block_size"))),),
        "kv_demand_ratio": (Ratio(Gauge(_frontend("worker_active_decode_blocks"), fold="max"), _TOTAL_BLOCKS),),
        "prompt_tokens_total": (Counter(_frontend("input_sequence_tokens_sum")),),
        "prompt_tokens_cached_total": (Counter(_frontend("cached_tokens_sum")),),
        "generation_tokens_total": (Counter(_frontend("output_sequence_tokens_sum")),),
        "arrivals_total": (Counter(_frontend("requests_started_total")),),
        "finished_total": (Counter(_frontend("requests_total", "request_success_count")),),
        "failed_total": (Counter(_frontend("requests_total"), {"status": ("error",)}),),
        "ttft": (Times(_frontend("time_to_first_token_seconds")),),
        "itl": (Times(_frontend("inter_token_latency_seconds")),),
    },
    marks=(
        Mark(
            _frontend(
                "inflight_requests",
                "active_requests",
                "requests_total",
                "queued_requests",
                "input_sequence_tokens_sum",
                "output_sequence_tokens_sum",
                "time_to_first_token_seconds_count",
                "inter_token_latency_seconds_count",
                "request_duration_seconds_count",
            )
        ),
    ),
    over=frozenset(("dynamo",)),
    models=("model",),
    notes={
        "dynamo_frontend_output_tokens_total": "counts stream chunks, not tokens",
        "dynamo_frontend_worker_last_": "last values, not averages",
        "dynamo_frontend_worker_active_": "demand that the router counts, not use",
        "dynamo_component_": "of the router inside the frontend",
        "dynamo_frontend_disconnected_clients": "a gauge, not a rate",
    },
)


def _backend(*stems: str) -> tuple[str, ...]:
    return spelled(_BACKEND, *stems)


DYNAMO_WORKER = Family(
    engine="dynamo",
    kind="engine",
    signals={
        # A worker has other endpoints besides `generate`, which are not inference.
        "in_flight": (
            Gauge(_backend("inflight_requests"), _GENERATE),
            Gauge(_backend("inflight_requests")),
        ),
        "kv_usage": (
            Gauge(_backend("gpu_cache_usage_percent", "kvstats_gpu_cache_usage_percent"), most=1, fold="max"),
            Ratio(Gauge(_backend("kvstats_active_blocks")), Gauge(_backend("kvstats_total_blocks")), most=1),
        ),
        "arrivals_total": (
            Counter(_backend("requests_total"), _GENERATE),
            Counter(_backend("requests_total")),
        ),
        "failed_total": (
            Counter(_backend("errors_total"), _GENERATE),
            Counter(_backend("errors_total")),
        ),
    },
    marks=(
        Mark(
            _backend(
                "inflight_requests",
                "requests_total",
                "kvstats_active_blocks",
                "kvstats_total_blocks",
                "kvstats_gpu_cache_usage_percent",
                "gpu_cache_usage_percent",
            )
        ),
    ),
    units=(UnitLabel(("dp_rank",)),),
    models=("model", "model_name"),
    roles=(dynamo_roles(_backend("inflight_requests", "requests_total", "gpu_cache_usage_percent")),),
    notes={
        "dynamo_component_request_duration_seconds": "a part of what the frontend measures",
        "dynamo_work_handler_": "waits before the engine, in the worker's runtime",
        "dynamo_component_": "of the worker's runtime",
    },
)

FAMILIES = (TRTLLM, TRTLLM_DISAGGREGATED, TRITON, DYNAMO_FRONTEND, DYNAMO_WORKER)
