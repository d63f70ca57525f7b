"""A page as one JSON object, in the form of the metrics corpus: absent is null, latencies are {count, sum}. Pure.

Totals are null where adding the units up is wrong in itself: engines of different roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoscaler.adapters.pages.model import Distribution, Page, Signals
from policies.model import Missing

PLAIN = (
    "running",
    "waiting",
    "waiting_by_reason",
    "kv_usage",
    "kv_capacity_tokens",
    "preemptions_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "ttft",
    "itl",
    "queue_time",
)
EXTRAS = (
    "in_flight",
    "swapped",
    "disagg_queues",
    "kv_demand_ratio",
    "gateway_queue",
    "pool_average_queue",
    "pool_average_running",
    "pool_ready",
)
"""Signals that only some engines have: in a unit where known, and nowhere else."""


def as_corpus(page: Page) -> dict[str, Any]:
    """Engine, kind, role and its basis, models, units and totals; `error` says why the kind is `none`."""
    units = [{"id": dict(unit.id), **_said(unit.signals, PLAIN), **_extras(unit.signals)} for unit in page.units]
    totals = _said(page.totals, (*PLAIN, "kv_usage_max"))
    if (queues := _plain(page.totals.disagg_queues)) is not None:
        totals["disagg_queues"] = queues
    said: dict[str, Any] = {
        "engine": page.engine,
        "kind": page.kind,
        "role": page.role,
        "role_basis": page.role_basis,
        "models": list(page.models),
        "units": units,
        "totals": None if len({unit.role for unit in page.units if unit.role}) > 1 else totals,
    }
    if page.kind == "router" and (in_flight := _plain(page.totals.in_flight)) is not None:
        said["router_in_flight"] = in_flight
    if page.problem:
        said["error"] = page.problem
    return said


def _said(signals: Signals, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _plain(getattr(signals, name)) for name in names}


def _extras(signals: Signals) -> dict[str, Any]:
    return {name: value for name, value in _said(signals, EXTRAS).items() if value is not None}


def _plain(value: object) -> Any:
    match value:
        case Missing():
            return None
        case Distribution(count, sum_s):
            return {"count": count, "sum": sum_s}
        case Mapping():
            return dict(value)
        case _:
            return value
