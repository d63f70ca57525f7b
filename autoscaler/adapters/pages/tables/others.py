"""Text Generation Inference, llama.cpp and LMDeploy.

What to know: TGI and llama.cpp name no model. TGI counts tokens when a request ends, and has neither TTFT nor ITL;
`tgi_batch_current_max_tokens` is what is reserved, not what is used. llama.cpp's `requests_deferred` is plain waiting
for room; its `*_tokens_seconds` are rates. LMDeploy's `iter_token_latency` has no unit in its name: seconds, per step.
"""

from __future__ import annotations

from autoscaler.adapters.pages.family import (
    Counter,
    Family,
    Gauge,
    Mark,
    Times,
    UnitLabel,
    spelled,
)

TGI = Family(
    engine="tgi",
    kind="engine",
    signals={
        "running": (Gauge(("tgi_batch_current_size",)),),
        "waiting": (Gauge(("tgi_queue_size",)),),
        "kv_capacity_tokens": (Gauge(("tgi_batch_max_total_tokens",)),),
        "prompt_tokens_total": (Counter(("tgi_request_input_length_sum",)),),
        "generation_tokens_total": (Counter(("tgi_request_generated_tokens_sum",)),),
        "arrivals_total": (Counter(("tgi_request_count", "tgi_request_count_total")),),
        "finished_total": (Counter(("tgi_request_success", "tgi_request_success_total")),),
        "failed_total": (Counter(("tgi_request_failure", "tgi_request_failure_total")),),
        "queue_time": (Times(("tgi_request_queue_duration",)),),
    },
    marks=(
        Mark(
            (
                "tgi_batch_current_size",
                "tgi_queue_size",
                "tgi_request_count",
                "tgi_request_count_total",
                "tgi_request_success",
                "tgi_request_success_total",
                "tgi_request_queue_duration_count",
            )
        ),
    ),
    notes={
        "tgi_batch_current_max_tokens": "reserved tokens, not used ones",
        "tgi_request_mean_time_per_token_duration": "one observation per request: not ITL",
    },
)

_LLAMA = ("llamacpp:", "llamacpp_")

LLAMA_CPP = Family(
    engine="llama.cpp",
    kind="engine",
    signals={
        "running": (Gauge(spelled(_LLAMA, "requests_processing")),),
        "waiting": (Gauge(spelled(_LLAMA, "requests_deferred")),),
        "kv_usage": (Gauge(spelled(_LLAMA, "kv_cache_usage_ratio"), most=1, fold="max"),),
        "prompt_tokens_total": (Counter(spelled(_LLAMA, "prompt_tokens_total")),),
        "prompt_tokens_cached_total": (Counter(spelled(_LLAMA, "prompt_tokens_cached_total")),),
        "generation_tokens_total": (Counter(spelled(_LLAMA, "tokens_predicted_total")),),
    },
    marks=(Mark(spelled(_LLAMA, "requests_processing", "requests_deferred", "prompt_tokens_total")),),
    models=("model", "model_name"),
    notes={
        "llamacpp:prompt_tokens_seconds": "a rate of tokens per second, not a time",
        "llamacpp:predicted_tokens_seconds": "a rate of tokens per second, not a time",
        "llamacpp:n_tokens_max": "a maximum, not a counter",
    },
)

_LMDEPLOY = ("lmdeploy:", "lmdeploy_")

LMDEPLOY = Family(
    engine="lmdeploy",
    kind="engine",
    signals={
        "running": (Gauge(spelled(_LMDEPLOY, "num_requests_running")),),
        "waiting": (Gauge(spelled(_LMDEPLOY, "num_requests_waiting")),),
        "gateway_queue": (Gauge(spelled(_LMDEPLOY, "num_api_requests_waiting")),),
        "kv_usage": (Gauge(spelled(_LMDEPLOY, "gpu_cache_usage_perc"), most=1, fold="max"),),
        "prompt_tokens_total": (Counter(spelled(_LMDEPLOY, "prompt_tokens_total")),),
        "prompt_tokens_cached_total": (Counter(spelled(_LMDEPLOY, "cached_tokens_total")),),
        "generation_tokens_total": (Counter(spelled(_LMDEPLOY, "generation_tokens_total")),),
        "finished_total": (
            Counter(spelled(_LMDEPLOY, "request_success_total", "num_requests_succeeded", "num_requests_finished")),
        ),
        "failed_total": (Counter(spelled(_LMDEPLOY, "num_requests_failed")),),
        "ttft": (Times(spelled(_LMDEPLOY, "time_to_first_token_seconds")),),
        "itl": (
            Times(spelled(_LMDEPLOY, "iter_token_latency", "inter_token_latency_seconds")),
            Times(spelled(_LMDEPLOY, "time_per_output_token_seconds")),
        ),
        "queue_time": (Times(spelled(_LMDEPLOY, "request_queue_time_seconds")),),
    },
    marks=(Mark(spelled(_LMDEPLOY, "num_requests_running", "num_requests_waiting", "gpu_cache_usage_perc")),),
    units=(UnitLabel(("engine",)),),
    notes={
        "lmdeploy:time_per_output_token_seconds": "the gap divided by the tokens of its step",
        "lmdeploy:iteration_tokens_total": "a histogram of steps, not a counter of tokens",
    },
)

FAMILIES = (TGI, LLAMA_CPP, LMDEPLOY)
