"""What the dashboard of one service shows: rows of panels, each with its queries, as data.

Rules:
1. A query selects one service by `target_namespace` and `target_service`, which no scrape adds or renames.
2. It aggregates away where a series was scraped, so that a restarted controller draws one line, not two.
3. No matcher on `le`: Prometheus 3 writes whole numbers differently from Prometheus 2.
4. Nothing here needs a recording rule. Only "One line per worker" needs labels that a scrape has to add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "state-timeline"]
Draw = Literal["lines", "stacked", "bars"]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression and how its series are named."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `width` is in 24ths of the page; `text` is what its (i) says; `maximum` fixes the axis."""

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    draw: Draw = "lines"
    width: int = 8
    maximum: float | None = None
    names_only: bool = False
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading; all of them are equally high."""

    title: str
    height: int
    panels: tuple[Panel, ...]


SERVICE = 'target_namespace="$target_namespace",target_service="$target_service"'
WORKERS = 'namespace="$target_namespace",roleratio_service="$target_service"'
RATE = "[$__rate_interval]"


def controller(name: str, by: str = "", **labels: str) -> str:
    """A gauge of the controller, one series for each value of the labels `by`."""
    more = "".join(f',{key}="{value}"' for key, value in labels.items())
    return f"max{f' by ({by})' if by else ''} (roleratio_controller_{name}{{{SERVICE}{more}}})"


def rate(name: str, by: str, selector: str = SERVICE) -> str:
    """A counter per second, summed over its sources."""
    return f"sum by ({by}) (rate({name}{{{selector}}}{RATE}))"


def quantile(share: float, histogram: str, selector: str = SERVICE) -> str:
    """A percentile of a histogram."""
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', 'le', selector)})"


def _percentiles(histogram: str, *shares: float) -> tuple[Query, ...]:
    return tuple(Query(quantile(share, histogram), f"p{share * 100:g}") for share in shares)


def _latency(title: str, name: str, objective: str) -> Panel:
    """What users saw, and what the SLO's percentile must stay below."""
    return Panel(
        title,
        "Percentiles as the router measured them, with queueing, retries and KV transfer. "
        "The dashed line is the SLO's target.",
        (
            *_percentiles(f"roleratio_router_{name}_seconds", 0.5, 0.95, 0.99),
            Query(controller("latency_target_seconds", objective=objective), "SLO target"),
        ),
        unit="s",
    )


def _demand(role: str, tokens: str) -> Panel:
    return Panel(
        f"Demand for {role}",
        f"Offered work: {tokens} per second, measured at arrival. The forecast drawn now is for one cold start "
        "from now: what is expected (q0.5), and what covers the wanted share of the work, for which the role is sized.",
        (
            Query(controller("demand_tokens_per_second", role=role), "offered"),
            Query(controller("forecast_tokens_per_second", "quantile", role=role), "forecast q{{quantile}}"),
        ),
        width=12,
    )


def _outlook(series: str, what: str, came: str, **role: str) -> Panel:
    """What is learned of a series, beside what comes."""
    return Panel(
        f"Foretold {what}",
        f"Learned from the {what} per second of up to a day and a half, for the end of a cold start; drawn now.",
        (
            Query(controller(came, **role), "offered"),
            Query(controller("outlook_value", "quantile", series=series), "q{{quantile}}"),
        ),
    )


def _groups(role: str) -> Panel:
    names = {
        "desired_groups": "desired",
        "current_groups": "current (spec)",
        "ready_groups": "ready",
        "present_groups": "present, draining included",
        "floor_groups": "floor of the gang minimum",
    }
    limits = Query(controller("group_limit", "bound", role=role), "limit {{bound}}")
    return Panel(
        f"TP groups of {role}",
        "Desired is absent, not equal to current, while it is not known. Never above what fits: see the scheduler.",
        (*(Query(controller(name, role=role), legend) for name, legend in names.items()), limits),
        width=8,
    )


def _ratio(name: str) -> str:
    above = controller(name, role="prefill")
    return f"{above} / ({controller(name, role='decode')} > 0)"


AT_A_GLANCE = Row(
    "Service",
    4,
    (
        Panel(
            "SLO attainment",
            "Share of the samples of the controller's last window that were within the SLO's target.",
            (Query(controller("attained_ratio", "objective"), "{{objective}}"),),
            unit="percentunit",
            kind="stat",
            width=6,
        ),
        Panel(
            "Ready TP groups",
            "TP groups with all ranks ready.",
            (Query(controller("ready_groups", "role"), "{{role}}"),),
            kind="stat",
            width=5,
        ),
        Panel(
            "GPUs of the budget",
            "GPUs of all groups that are present, as a share of gpuBudget.",
            (
                Query(
                    f"sum({controller('present_groups', 'role')} * on (role) {controller('gpus_per_group', 'role')})"
                    f" / {controller('gpu_budget')}",
                    "used",
                ),
            ),
            unit="percentunit",
            kind="stat",
            width=4,
        ),
        Panel(
            "Failed requests",
            "Requests that ended without an answer, as a share of all that ended.",
            (
                Query(
                    rate("roleratio_router_requests_finished_total", "target_service", f'{SERVICE},outcome="failed"')
                    + " / "
                    + rate("roleratio_router_requests_finished_total", "target_service"),
                    "failed",
                ),
            ),
            unit="percentunit",
            kind="stat",
            width=3,
        ),
        Panel(
            "Mode",
            "Whether decisions are carried out.",
            (Query(controller("mode", "mode"), "{{mode}}"),),
            kind="stat",
            width=3,
            names_only=True,
        ),
        Panel(
            "Last decision",
            "Time since the controller last decided; it should stay below a few sync periods.",
            (Query(f"time() - {controller('last_tick_timestamp_seconds')}", "ago"),),
            unit="s",
            kind="stat",
            width=3,
        ),
    ),
)

USERS = Row(
    "What users see",
    8,
    (
        _latency("Time to first token", "time_to_first_token", "ttft"),
        _latency("Inter-token latency", "inter_token_latency", "itl"),
        Panel(
            "SLO attainment",
            "Share of the samples within the target, and the share that the SLO's percentile asks for.",
            (
                Query(controller("attained_ratio", "objective"), "{{objective}}"),
                Query(controller("attained_target_ratio", "objective"), "SLO {{objective}}"),
            ),
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "Requests",
            "Arrivals at the router, and how requests ended.",
            (
                Query(rate("roleratio_router_requests_total", "target_service"), "arrived"),
                Query(rate("roleratio_router_requests_finished_total", "outcome"), "{{outcome}}"),
                Query(rate("roleratio_router_no_worker_total", "role"), "refused: no {{role}} worker"),
            ),
            unit="reqps",
            width=12,
        ),
        Panel(
            "Open requests",
            "Requests in the router by stage; unassigned ones wait there for room on a prefill worker.",
            (Query(f"sum by (stage) (roleratio_router_requests_in_flight{{{SERVICE}}})", "{{stage}}"),),
            draw="stacked",
            width=12,
        ),
    ),
)

DECISIONS = Row(
    "Demand and decisions",
    8,
    (
        _demand("prefill", "prompt tokens"),
        _demand("decode", "output tokens"),
        _groups("prefill"),
        _groups("decode"),
        Panel(
            "Prefill groups per decode group",
            "The ratio of ready and of desired groups; the dashed lines are the ratio band.",
            (
                Query(_ratio("ready_groups"), "ready"),
                Query(_ratio("desired_groups"), "desired"),
                Query(controller("ratio_limit", "bound"), "band {{bound}}"),
            ),
        ),
        Panel(
            "GPUs",
            "GPUs of all groups that are present, draining ones included; the dashed line is gpuBudget.",
            (
                Query(
                    f"{controller('present_groups', 'role')} * on (role) {controller('gpus_per_group', 'role')}",
                    "{{role}}",
                ),
                Query(controller("gpu_budget"), "budget"),
            ),
            draw="stacked",
        ),
        Panel(
            "Steps",
            "Changes that were decided: of replicas in TP groups, of the gang minimum in pods.",
            (
                Query(
                    f"sum by (role, kind, direction) (increase(roleratio_controller_steps_total{{{SERVICE}}}{RATE}))",
                    "{{role}} {{kind}} {{direction}}",
                ),
            ),
            draw="bars",
        ),
        Panel(
            "Reasons",
            "How often each reason was given. `roleratio explain` says them in full, with their numbers.",
            (
                Query(
                    f"sum by (role, code) (increase(roleratio_controller_reasons_total{{{SERVICE}}}{RATE}))",
                    "{{role}} {{code}}",
                ),
            ),
            draw="bars",
        ),
    ),
)

WORKLOAD = Row(
    "Workers",
    8,
    (
        Panel(
            "Queue",
            "Requests that wait on the workers; deferred ones wait for their KV to come over.",
            (
                Query(controller("waiting_requests", "role"), "{{role}} waiting"),
                Query(controller("deferred_requests", "role"), "{{role}} deferred"),
            ),
        ),
        Panel(
            "Running",
            "Requests in the batches.",
            (Query(controller("running_requests", "role"), "{{role}}"),),
        ),
        Panel(
            "KV cache in use",
            "The mean of each role's workers.",
            (Query(controller("kv_usage_ratio", "role"), "{{role}}"),),
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "One line per worker: KV cache in use",
            "From the engines themselves. Needs the scrape to set `namespace`, `pod` and `roleratio_service` "
            "(the pod's label roleratio.dev/service).",
            (Query(f"max by (pod) (vllm:kv_cache_usage_perc{{{WORKERS}}})", "{{pod}}"),),
            unit="percentunit",
            maximum=1,
            width=12,
        ),
        Panel(
            "Cold start",
            "From asking for a group to its being ready, as measured; the forecast looks this far ahead.",
            (Query(controller("cold_start_seconds", "role"), "{{role}}"),),
            unit="s",
            width=12,
        ),
    ),
)

FORECASTS = Row(
    "Learned forecasts",
    8,
    (
        _outlook("prompt_tokens", "prompt tokens", "demand_tokens_per_second", role="prefill"),
        _outlook("output_tokens", "output tokens", "demand_tokens_per_second", role="decode"),
        _outlook("requests", "requests", "demand_requests_per_second"),
        Panel(
            "Coverage",
            "Share of what came that was at or below each quantile, fading over some 500 forecasts: q0.9 should be at "
            "0.9, q0.99 at 0.99.",
            (Query(controller("outlook_coverage_ratio", "series, quantile"), "{{series}} q{{quantile}}"),),
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "Loss against last value",
            "Pinball loss of the learned forecast over that of the last value in its place; below 1 it is the better "
            "one. WAPE: the summed errors of its median over the summed work.",
            (
                Query(
                    f"{controller('outlook_pinball', 'series', of='learned')} / "
                    f"({controller('outlook_pinball', 'series', of='last_value')} > 0)",
                    "{{series}} loss",
                ),
                Query(controller("outlook_wape_ratio", "series"), "{{series}} WAPE"),
            ),
        ),
        Panel(
            "Who forecasts",
            "The candidate that has been cheapest at the coverage wanted speaks for a role; told is the learned "
            "forecast. Below, what the learned forecasts fall back to.",
            (
                Query(controller("forecast_model", "role, model"), "{{role}} by {{model}}"),
                Query(controller("outlook_fallback", "series, fallback"), "{{series}} fallback: {{fallback}}"),
            ),
            kind="state-timeline",
            values=("", "speaks"),
        ),
    ),
)

HEALTH = Row(
    "Controller and scheduler",
    8,
    (
        Panel(
            "Conditions",
            "The conditions of the RoleRatioAutoscaler over time; their messages are in `kubectl describe rra`.",
            (
                Query(
                    f"{controller('condition', 'type', status='True')}"
                    f" + 2 * {controller('condition', 'type', status='Unknown')}",
                    "{{type}}",
                ),
            ),
            kind="state-timeline",
            width=12,
            values=("False", "True", "Unknown"),
        ),
        Panel(
            "Scheduler's verdicts",
            "Why each role's PodGroup stands as it does, and the resource that limits it.",
            (
                Query(
                    f"max by (role, reason, limiting_resource) (roleratio_scheduler_verdict{{{SERVICE}}})",
                    "{{role}}: {{reason}} {{limiting_resource}}",
                ),
            ),
            kind="state-timeline",
            width=12,
            values=("", "holds"),
        ),
        Panel(
            "TP groups in the scheduler",
            "Groups whose pods exist (desired), are bound (admitted), or would be bound now (placeable).",
            (Query(f"max by (role, state) (roleratio_scheduler_groups{{{SERVICE}}})", "{{role}} {{state}}"),),
        ),
        Panel(
            "Room for more groups",
            "TP groups that could be placed beside all that exist, as the controller asks the scheduler's solver.",
            (Query(controller("fit_groups", "role"), "{{role}}"),),
        ),
        Panel(
            "Sources without a sample",
            "Pods or queries that gave the controller nothing at its last look. A blind role never shrinks.",
            (Query(controller("failed_sources"), "failed sources"),),
        ),
        Panel(
            "Time of a tick",
            "The controller's own time for one decision on this service, without the network.",
            _percentiles("roleratio_controller_tick_seconds", 0.5, 0.99),
            unit="s",
        ),
        Panel(
            "Time of a scheduler cycle",
            "All services together.",
            (
                Query(quantile(0.5, "roleratio_scheduler_cycle_seconds", ""), "p50"),
                Query(quantile(0.99, "roleratio_scheduler_cycle_seconds", ""), "p99"),
            ),
            unit="s",
        ),
        Panel(
            "Bindings",
            "Pods bound by the scheduler, all services together.",
            (Query(rate("roleratio_scheduler_bindings_total", "result", ""), "{{result}}"),),
            unit="ops",
        ),
    ),
)

ROWS = (AT_A_GLANCE, USERS, DECISIONS, FORECASTS, WORKLOAD, HEALTH)
