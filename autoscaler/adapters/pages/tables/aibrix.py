"""AIBrix: the runtime beside an engine, which shows the engine's page and renames a part of it, and its gateway.

What to know: the original and the renamed series stand on one page, some originals twice. `aibrix:` alone does not tell
the engine. The gateway shows copies of its pods' gauges without a prefix, with a label `pod`.
"""

from __future__ import annotations

from autoscaler.adapters.pages.family import Counter, Family, Gauge, Mark, UnitLabel, spelled
from autoscaler.adapters.pages.tables import sglang, vllm

_PREFIXES = ("aibrix:", "aibrix_")
_SAME = dict.fromkeys(_PREFIXES, "the engine's own name for it is read")

RUNTIME = Family(
    engine="aibrix-runtime",
    kind="engine",
    signals=vllm.signals((*vllm.PREFIXES, *_PREFIXES)),
    marks=(
        Mark(
            spelled(
                _PREFIXES,
                "queue_size",
                "kv_cache_usage_perc",
                "gpu_cache_usage_perc",
                "time_to_first_token_seconds_count",
                "generation_tokens_total",
            )
        ),
    ),
    over=frozenset(("vllm", "trtllm")),
    units=(UnitLabel(("engine",)),),
    behaves=True,
    notes={**_SAME, **vllm.notes(vllm.PREFIXES)},
)

RUNTIME_SGLANG = Family(
    engine="aibrix-runtime",
    kind="engine",
    signals={
        **sglang.signals((*sglang.PREFIXES, *_PREFIXES)),
        "waiting": (Gauge((*spelled(sglang.PREFIXES, "num_queue_reqs"), *spelled(_PREFIXES, "queue_size"))),),
    },
    marks=(Mark(spelled(_PREFIXES, "token_usage", "generation_throughput", "gen_throughput", "cache_hit_rate")),),
    over=frozenset(("sglang", "aibrix-runtime")),
    units=sglang.SGLANG.units,
    totals=sglang.SGLANG.totals,
    roles=sglang.SGLANG.roles,
    behaves=True,
    notes={**_SAME, **sglang.notes(sglang.PREFIXES)},
)

GATEWAY = Family(
    engine="aibrix-gateway",
    kind="gateway",
    signals={
        "arrivals_total": (Counter(("gateway_request_total",)),),
        "in_flight": (Gauge(("gateway_in_flight_requests",)),),
    },
    marks=(
        Mark(("gateway_request_total", "gateway_in_flight_requests", "gateway_request_model_success_total")),
        Mark(("num_requests_running", "num_requests_waiting"), labels=("pod",)),
    ),
    over=frozenset(("nim", "trtllm")),
    models=("model",),
)

FAMILIES = (RUNTIME, RUNTIME_SGLANG, GATEWAY)
