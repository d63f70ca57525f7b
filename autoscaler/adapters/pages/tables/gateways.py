"""Gateways and our own router: processes that see every request, and no engine.

What to know: the endpoint picker changed its names twice (`inference_model_*`, `inference_objective_*`, `llm_d_epp_*`)
and shows two generations at once. Its averages are means over pods, its running requests are those in the gateway.
"""

from __future__ import annotations

from autoscaler.adapters.pages.family import ByLabel, Counter, Family, Gauge, Mark, Times, UnitLabel

_OLD = ("inference_objective_", "inference_model_")


def _names(new: str, old: str = "", pool: str = "") -> tuple[str, ...]:
    """One thing under the names of all generations, the newest first."""
    found = [f"llm_d_epp_{new}"]
    if old:
        found += [prefix + old for prefix in _OLD]
    if pool:
        found += [f"inference_pool_{pool}"]
    return tuple(found)


def _flow(stem: str) -> tuple[str, ...]:
    return (f"llm_d_epp_flow_control_{stem}", f"inference_extension_flow_control_{stem}")


_KV = _names("average_kv_cache_utilization", pool="average_kv_cache_utilization")
_QUEUE = _names("average_queue_size", pool="average_queue_size")
_TTFT = (
    "llm_d_epp_request_ttft_seconds",
    "inference_objective_request_ttft_seconds",
    "inference_objective_ttft_seconds",
)

EPP = Family(
    engine="llm-d-epp",
    kind="gateway",
    signals={
        "running": (Gauge(_names("request_running", "running_requests")),),
        "waiting": (Gauge(_names("per_endpoint_queue_size", pool="per_pod_queue_size")),),
        "kv_usage": (Gauge(_KV, most=1, fold="max"),),
        "prompt_tokens_total": (
            Counter(_names("request_input_tokens_sum", "input_tokens_sum")),
            Counter(_names("request_input_tokens_sum", "request_input_tokens_sum")),
        ),
        "prompt_tokens_cached_total": (
            Counter((*_names("request_cached_tokens_sum"), "inference_objective_prompt_cached_tokens_sum")),
        ),
        "generation_tokens_total": (Counter(_names("request_output_tokens_sum", "output_tokens_sum")),),
        "arrivals_total": (Counter(_names("request_total", "request_total")),),
        "failed_total": (Counter(_names("request_error_total", "request_error_total")),),
        "finished_total": (Counter(_names("request_duration_seconds_count", "request_duration_seconds_count")),),
        "gateway_queue": (Gauge(_flow("queue_size")),),
        "pool_average_queue": (Gauge(_QUEUE),),
        "pool_average_running": (Gauge(_names("average_running_requests", pool="average_running_requests")),),
        "pool_ready": (Gauge(_names("ready_endpoints", pool="ready_pods")),),
        "ttft": (
            # Without streaming the first token comes with the last.
            Times(_TTFT, {"streaming": ("true",)}),
            Times(_TTFT),
        ),
        "itl": (
            Times(
                (
                    "llm_d_epp_request_streaming_itl_seconds",
                    "inference_objective_request_streaming_itl_seconds",
                    "inference_objective_itl_seconds",
                )
            ),
        ),
    },
    marks=(
        Mark((*_KV, *_QUEUE)),
        Mark(_names("request_total", "request_total")),
        Mark(_names("ready_endpoints", pool="ready_pods")),
        Mark(_flow("queue_size")),
    ),
    over=frozenset(("vllm", "sglang", "llm-d-inference-sim")),
    units=(UnitLabel(("name", "inference_pool"), shown="pool"),),
    notes={
        "inference_": "an older name, or the gateway's own work",
        "llm_d_epp_flow_control_pool_saturation": "may exceed 1",
        "llm_d_epp_average_": "a mean over pods, not a sum",
    },
)

ROLERATIO_ROUTER = Family(
    engine="roleratio-router",
    kind="router",
    signals={
        "in_flight": (Gauge(("roleratio_router_requests_in_flight",)),),
        "in_flight_by_stage": (ByLabel(("roleratio_router_requests_in_flight",), "stage"),),
        "arrivals_total": (Counter(("roleratio_router_requests_total",)),),
        "prompt_tokens_total": (Counter(("roleratio_router_prompt_tokens_total",)),),
        "generation_tokens_total": (Counter(("roleratio_router_generation_tokens_total",)),),
        "finished_total": (Counter(("roleratio_router_requests_finished_total",)),),
        # A rejected request has no output, and would make outputs look short just when the service is overloaded.
        "failed_total": (Counter(("roleratio_router_requests_finished_total",), {"outcome": ("failed", "rejected")}),),
        "ttft": (Times(("roleratio_router_time_to_first_token_seconds",)),),
        "itl": (Times(("roleratio_router_inter_token_latency_seconds",)),),
    },
    marks=(Mark(("roleratio_router_requests_total",)),),
    units=(UnitLabel(("target_namespace",)), UnitLabel(("target_service",))),
    models=("model_name", "model"),
)

FAMILIES = (EPP, ROLERATIO_ROUTER)
