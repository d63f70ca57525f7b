"""SGLang, under Ray, and behind its model gateway (smg, once sgl-router).

What to know: `tp_rank`, `pp_rank`, `moe_ep_rank` repeat one scheduler, `dp_rank` tells schedulers apart, also where
they vary together. Tokens and latencies belong to the whole server. A gauge with `priority=""` is the total of all.
`token_usage` is the largest use of several pools. `engine_type="unified"` means nothing before 0.5.7, where
`moe_ep_rank` came; "dynamic" says that the role may change. `num_retracted_reqs` is of the last batch, not a total.
`prompt_tokens_total` and `generation_tokens_total` count when a request ends.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.adapters.pages.family import (
    ByName,
    Counter,
    Family,
    Gauge,
    Label,
    Mark,
    Product,
    RoleLabel,
    Source,
    Times,
    UnitLabel,
    dynamo_roles,
    spelled,
)

PREFIXES = ("sglang:", "sglang_")
RAY = ("ray_sglang_", "ray_sglang:")
QUEUES = (
    "num_prefill_prealloc_queue_reqs",
    "num_prefill_bootstrap_queue_reqs",
    "num_prefill_infight_queue_reqs",
    "num_prefill_inflight_queue_reqs",
    "num_decode_prealloc_queue_reqs",
    "num_decode_transfer_queue_reqs",
)


def signals(prefixes: tuple[str, ...]) -> Mapping[str, tuple[Source, ...]]:
    """SGLang's table under other prefixes."""

    def named(*stems: str) -> tuple[str, ...]:
        return spelled(prefixes, *stems)

    config = named("cache_config_info")
    return {
        "running": (Gauge(named("num_running_reqs")),),
        "waiting": (Gauge(named("num_queue_reqs")),),
        "disagg_queues": (ByName(prefixes, QUEUES),),
        "kv_usage": (Gauge(named("token_usage"), most=1, fold="max"),),
        "kv_capacity_tokens": (
            Gauge(named("max_total_num_tokens"), fold="max"),
            Product(Gauge(named("page_size"), fold="max"), Gauge(named("num_pages"), fold="max")),
            Product(Label(config, "page_size"), Label(config, "num_pages")),
        ),
        "preemptions_total": (Counter(named("num_retracted_requests_total", "total_retracted_reqs")),),
        "prompt_tokens_total": (Counter(named("prompt_tokens_total")),),
        "prompt_tokens_cached_total": (Counter(named("cached_tokens_total")),),
        "prompt_tokens_computed_total": (Counter(named("realtime_tokens_total"), {"mode": ("prefill_compute",)}),),
        "generation_tokens_total": (Counter(named("generation_tokens_total")),),
        "arrivals_total": (
            Counter(
                named("http_requests_total"), {"endpoint": ("/v1/chat/completions", "/v1/completions", "/generate")}
            ),
        ),
        "finished_total": (Counter(named("num_requests_total", "e2e_request_latency_seconds_count")),),
        "failed_total": (Counter(named("num_aborted_requests_total")),),
        "ttft": (Times(named("time_to_first_token_seconds")),),
        "itl": (Times(named("inter_token_latency_seconds", "time_per_output_token_seconds")),),
        "queue_time": (Times(named("queue_time_seconds", "queue_time_s")),),
    }


def marks(prefixes: tuple[str, ...]) -> tuple[Mark, ...]:
    """Names of which an engine's page has at least one."""
    return (
        Mark(
            spelled(
                prefixes,
                "num_running_reqs",
                "num_queue_reqs",
                "token_usage",
                "prompt_tokens_total",
                "generation_tokens_total",
                "max_total_num_tokens",
            )
        ),
    )


def role(prefixes: tuple[str, ...]) -> tuple[RoleLabel, ...]:
    """What the schedulers' label says. The tokenizer's series name the mode at the start, which may have changed."""
    names = spelled(prefixes, "num_running_reqs", "num_queue_reqs", "token_usage")
    scheduler = RoleLabel(
        names=names,
        label="engine_type",
        roles={"prefill": "prefill", "decode": "decode", "unified": "both"},
        only_with={"unified": Mark(names, labels=("moe_ep_rank",))},
    )
    return scheduler, dynamo_roles(names)


def notes(prefixes: tuple[str, ...]) -> Mapping[str, str]:
    """Notes under other prefixes."""
    return {
        prefix + stem: why
        for prefix in prefixes
        for stem, why in {
            "num_retracted_reqs": "of the last batch, not a total",
            "num_paused_reqs": "of the last batch, not a total",
            "routing_key_": "gauges with labels gt and le, not histograms",
            "num_grammar_queue_reqs": "waits for its grammar, not for room",
            "utilization": "-1 or 0 where nobody sets it",
            "kv_transfer_": "in milliseconds, a gauge or a histogram by version",
            "request_time_per_output_token": "one observation per request: not ITL",
            "full_token_usage": "one of the pools of token_usage",
            "swa_token_usage": "one of the pools of token_usage",
            "cache_hit_rate": "of the last batch",
        }.items()
    }


SGLANG = Family(
    engine="sglang",
    kind="engine",
    signals=signals(PREFIXES),
    marks=marks(PREFIXES),
    over=frozenset(("dynamo",)),
    units=(UnitLabel(("dp_rank",)),),
    totals=frozenset(("priority",)),
    roles=role(PREFIXES),
    behaves=True,
    notes=notes(PREFIXES),
)

RAY_SGLANG = Family(
    engine="ray-sglang",
    kind="engine",
    signals=signals(RAY),
    marks=marks(RAY),
    units=(UnitLabel(("ReplicaId", "WorkerId")), UnitLabel(("dp_rank",), quiet=True)),
    repeats=SGLANG.repeats | {"Pid"},
    totals=frozenset(("priority",)),
    roles=role(RAY),
    behaves=True,
    notes=notes(RAY),
)

SMG = Family(
    engine="smg",
    kind="gateway",
    signals={
        "arrivals_total": (Counter(("smg_router_requests_total", "smg_http_requests_total")),),
        "in_flight": (Gauge(("smg_worker_requests_active", "smg_http_connections_active")),),
        "prompt_tokens_total": (Counter(("smg_router_tokens_total",), {"token_type": ("input",)}),),
        "generation_tokens_total": (Counter(("smg_router_tokens_total",), {"token_type": ("output",)}),),
        "failed_total": (Counter(("smg_router_request_errors_total",)),),
        "ttft": (Times(("smg_router_ttft_seconds",)),),
    },
    marks=(
        Mark(
            (
                "smg_http_requests_total",
                "smg_http_connections_active",
                "smg_router_requests_total",
                "smg_worker_requests_active",
            )
        ),
    ),
    over=frozenset(("sglang", "vllm")),
    models=("model_id", "model", "model_name"),
    notes={
        "smg_router_tpot_seconds": "one observation per request: not ITL",
        "smg_worker_": "of the gateway's workers",
    },
)

SGL_ROUTER = Family(
    engine="sgl-router",
    kind="router",
    signals={
        "arrivals_total": (Counter(("sgl_router_requests_total", "sgl_router_pd_requests_total")),),
        "in_flight": (Gauge(("sgl_router_running_requests",)),),
    },
    marks=(
        Mark(
            (
                "sgl_router_requests_total",
                "sgl_router_pd_requests_total",
                "sgl_router_processed_requests_total",
                "sgl_router_running_requests",
                "sgl_router_active_workers",
            )
        ),
    ),
    over=frozenset(("sglang", "vllm")),
    units=None,
)

_WORKER = ("worker_addr", "worker_url", "worker", "worker_id")
_STATES = spelled(PREFIXES, "num_running_reqs", "num_queue_reqs", "token_usage")

SMG_ENGINES = Family(
    engine="smg",
    kind="gateway",
    signals=signals(PREFIXES),
    marks=(
        Mark((*_STATES, *spelled(PREFIXES, "prompt_tokens_total")), labels=_WORKER[:3]),
        # No engine is both at once.
        Mark(_STATES, labels=("engine_type",), values=frozenset(("prefill", "decode"))),
    ),
    over=frozenset(("sglang", "smg")),
    units=(UnitLabel(_WORKER), UnitLabel(("engine_type",), quiet=True), UnitLabel(("dp_rank",), quiet=True)),
    totals=frozenset(("priority",)),
    roles=role(PREFIXES),
    notes=notes(PREFIXES),
)

FAMILIES = (SGLANG, RAY_SGLANG, SMG, SGL_ROUTER, SMG_ENGINES)
