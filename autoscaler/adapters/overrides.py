"""The user's own queries in place of what pages say: results are joined to pods, and become their pages' signals. Pure.

Rules:
1. A query that is set replaces its signal for every pod that should have it: where it gives nothing, the signal is
   missing under the query's name, never 0 and never the page's.
2. States (running, waiting, KV use) are of engines. One result for a role is shared among its groups' leaders.
3. Counters are of routers, or of engines where the service has no router. A gateway that is no pod of the service is
   one result with the role `router`: a source of its own.
4. A pod whose page is not there or not understood is an engine that says only what queries say.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autoscaler.adapters.join import Read, Reading, ScrapeTarget
from autoscaler.adapters.pages import Kind, Page, Signals
from autoscaler.model import Number
from policies.model import Missing

STATES = {"running": "running", "waiting": "waiting", "kvUsage": "kv_usage"}
COUNTERS = {
    "arrivals": "arrivals_total",
    "promptTokens": "prompt_tokens_total",
    "generationTokens": "generation_tokens_total",
    "finished": "finished_total",
}
"""Key of `metrics.queries` -> the signal that it gives."""
GATEWAY = ScrapeTarget("metrics.queries", "metrics.queries", "router")
"""The source of counters that are told for the role `router`."""
_SHARED = ("running", "waiting")
_ROLE_LABELS = ("roleratio_role", "role")


@dataclass(frozen=True, slots=True)
class Told:
    """What one query gave: a number for pods, and for roles."""

    pods: Mapping[str, float] = field(default_factory=dict)
    roles: Mapping[str, float] = field(default_factory=dict)


def told(name: str, series: Iterable[Mapping[str, Any]]) -> Told:
    """The vector of the query `name`. Raises ValueError, one line, where it cannot be joined to pods or roles."""
    found: tuple[dict[str, float], dict[str, float]] = {}, {}
    for entry in series:
        labels, value = entry.get("metric"), entry.get("value")
        if not isinstance(labels, dict) or not isinstance(value, list) or len(value) != 2:
            raise ValueError("gives no vector of numbers; write it as an instant query")
        pod, number = labels.get("pod", ""), float(value[1])
        role = next((labels[label] for label in _ROLE_LABELS if label in labels), "")
        roles = ("router",) if name in COUNTERS else ("prefill", "decode")
        if not pod and role not in roles:
            expected = f"the label pod, or role={' or '.join(roles)}"
            raise ValueError(f"gives a result with the labels {sorted(labels)}: expected {expected}")
        known, key = (found[0], pod) if pod else (found[1], role)
        if key in known:
            raise ValueError(f"gives several results for {key}: aggregate them, as in sum by (pod) (...)")
        known[key] = number
    usable = [{key: value for key, value in part.items() if math.isfinite(value) and value >= 0} for part in found]
    return Told(*usable)


def overridden(
    readings: Mapping[ScrapeTarget, Reading],
    results: Mapping[str, Told],
    now_s: float,
    silent: Collection[str] = (),
    model: str | None = None,
) -> dict[ScrapeTarget, Reading]:
    """Readings with the signals that queries give. `silent`: pods of which there is no page at all."""
    changed = dict(readings)
    if not results:
        return changed
    routed = any(target.role == "router" for target in readings) or any(told.roles for told in _of(COUNTERS, results))
    leaders = {role: sum(t.leader and t.role == role for t in readings) for role in ("prefill", "decode")}
    for target, reading in readings.items():
        names = _expected(target, routed)
        said = {names[name]: _said(name, results[name], target, leaders) for name in names if name in results}
        if not target.leader:
            said = {signal: value for signal, value in said.items() if not isinstance(value, Missing)}
        if not said:
            continue
        page = reading.page if isinstance(reading, Read) else None
        if (page is None and target.pod in silent) or (page is not None and page.kind == "none"):
            if any(not isinstance(value, Missing) for value in said.values()):
                changed[target] = Read(_page(target, said, model), now_s)
        elif isinstance(reading, Read):
            changed[target] = replace(reading, page=_changed(reading.page, said))
    gateway = {COUNTERS[name]: one.roles["router"] for name, one in results.items() if "router" in one.roles}
    if gateway:
        changed[GATEWAY] = Read(_page(GATEWAY, gateway, model), now_s)
    return changed


def _of(names: Mapping[str, str], results: Mapping[str, Told]) -> list[Told]:
    return [results[name] for name in names if name in results]


def _expected(target: ScrapeTarget, routed: bool) -> Mapping[str, str]:
    """The queries that should speak of a pod."""
    if target.role == "router":
        return COUNTERS
    return STATES if routed else {**STATES, **COUNTERS}


def _said(name: str, result: Told, target: ScrapeTarget, leaders: Mapping[str, int]) -> Number:
    if target.pod in result.pods:
        return result.pods[target.pod]
    if target.leader and name in STATES and target.role in result.roles:
        return result.roles[target.role] / (leaders[target.role] if name in _SHARED else 1)
    return Missing(f"the query metrics.queries.{name} gives nothing for it")


def _changed(page: Page, said: Mapping[str, Number]) -> Page:
    """A page whose engines are known together only, as far as queries speak of them."""
    values: dict[str, Any] = dict(said)
    if "kv_usage" in values:
        values["kv_usage_max"] = values["kv_usage"]
    if "running" in values or "waiting" in values:
        values["in_flight"] = Missing("queries say it in parts")
    units = tuple(replace(unit, signals=replace(unit.signals, **values)) for unit in page.units)
    return replace(page, units=units, totals=replace(page.totals, **values))


def _page(target: ScrapeTarget, said: Mapping[str, Number], model: str | None) -> Page:
    kind: Kind = "router" if target.role == "router" else "engine"
    return _changed(Page("queries", kind, (model,) if model else (), totals=Signals()), said)
