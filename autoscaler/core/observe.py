"""Observe: one observation understood as demand, latencies, what workers say of themselves, and what was odd.

Rules:
1. Demand is what arrived, in tokens per second, never what completed and never what is in flight.
2. What users saw comes from the router; where none says it, workers are read instead, and it is called estimated.
3. What could not be read is told once per cause, with the first few names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoscaler.core import demand, histogram
from autoscaler.core.flows import HISTORY_S, LATENCY_WINDOW_S, Reading, accumulate, of_router, of_worker, seen_by_router
from autoscaler.core.groups import CAUSES_MAX, damaged, damaged_count, engines, named, role_signals, unit_errors
from autoscaler.core.models import mismatch
from autoscaler.model import (
    ORIGINS,
    Demand,
    Histogram,
    Latency,
    Observation,
    Origin,
    RoleFleet,
    RouterSample,
    Signals,
    State,
    WorkerSample,
)
from autoscaler.settings import Settings, Slo
from policies.model import ROLES, Code, Detail, Missing, Reason, Role, Stage

NO_ARRIVALS = "no arrival signal: no router counts arrivals"


@dataclass(frozen=True, slots=True)
class Observed:
    """Signals, the state that carries them on, and what was odd."""

    signals: Signals
    state: State
    why: tuple[Reason, ...]


def observe(state: State, seen: Observation, settings: Settings) -> Observed:
    """Understand one observation. Linear in its samples and in the kept history."""
    limits = settings.spec.metrics
    routers = [sample for sample in seen.samples.routers if seen.now_s - sample.at_s <= limits.stale_after_s]
    workers = [sample for sample in seen.samples.workers if seen.now_s - sample.at_s <= limits.stale_after_s]
    readings = _readings(routers, workers)
    state, why = accumulate(state, readings, seen.now_s, limits.stale_after_s)
    arrivals = _arrivals(state, seen, readings, limits.model)
    offered = demand.measure(state, seen.now_s, limits.window_s, arrivals)
    roles = {role: role_signals(seen, role, workers, settings, state.engines.get(role, 1.0)) for role in ROLES}
    state = replace(
        state,
        demands=_remember(state.demands, offered),
        engines={role: roles[role].engines_per_group for role in ROLES},
    )
    ttft, itl = _latencies(state, seen.now_s, settings, readings)
    partial = _partial(seen, routers)
    signals = Signals(offered, ttft, itl, roles[Role.PREFILL], roles[Role.DECODE], partial)
    why += [*_oddities(seen, signals), *unit_errors(workers), *damaged([*routers, *workers])]
    return Observed(signals, state, tuple(why))


def _remember(history: tuple[Demand, ...], offered: Demand) -> tuple[Demand, ...]:
    """What is known of neither role is not remembered."""
    if all(isinstance(offered.tokens_per_s(role), Missing) for role in ROLES):
        return history
    oldest_s = offered.at_s - HISTORY_S
    return (*[old for old in history if old.at_s > oldest_s], offered)


def _readings(routers: Sequence[RouterSample], workers: Sequence[WorkerSample]) -> list[Reading]:
    serving = {worker.uid for worker in engines(workers)}
    return [*map(of_router, routers), *(of_worker(worker, worker.uid in serving) for worker in workers)]


def _arrivals(state: State, seen: Observation, readings: Sequence[Reading], model: str | None) -> demand.Arrivals:
    """Who counts arrivals now. With a router that cannot be read, nobody does."""
    if wrong := mismatch(model, seen.samples.models) if readings or seen.samples.models else "":
        return demand.Arrivals(None, wrong)
    if not any(reading.counted for reading in readings):
        nobody = "; ".join(("no router or worker gave a sample", *seen.fleet.problems))
        return demand.Arrivals(None, _causes(seen) or nobody)
    if _router_failed(seen) and not any(reading.origin == "router" for reading in readings):
        return demand.Arrivals(None, _causes(seen))
    latest = state.totals[-1]
    why = ""
    for origin in ORIGINS:
        if latest.of(origin, "arrivals") is not None:
            return demand.Arrivals(origin, why)
        if origin != "router":
            why = why or _lacking(seen, readings, origin)
    return demand.Arrivals(None, why)


def _lacking(seen: Observation, readings: Sequence[Reading], origin: Origin) -> str:
    """Why an origin that is read gives no arrivals."""
    if not any(reading.origin == origin for reading in readings):
        return f"no {origin} worker can be read" + (f": {causes}" if (causes := _causes(seen)) else "")
    samples = [worker for worker in seen.samples.workers if worker.role.value == origin]
    parts = {"finished requests": "finished", "requests in flight": "in_flight"}
    for words, field in parts.items():
        values = [getattr(sample, field) for sample in samples]
        lacking = next((value for value in values if isinstance(value, Missing)), None)
        if lacking and all(isinstance(value, Missing) for value in values):
            return f"{NO_ARRIVALS}, and no {origin} worker counts {words}: {lacking.missing}"
    return f"{NO_ARRIVALS}, and no {origin} worker counts both finished requests and those in flight"


def _router_failed(seen: Observation) -> bool:
    if not seen.samples.failures:
        return False
    fleets = (seen.fleet.prefill, seen.fleet.decode)
    pods = {pod for fleet in fleets if isinstance(fleet, RoleFleet) for group in fleet.groups for pod in group.pods}
    return any(source not in pods for source in seen.samples.failures)


def _partial(seen: Observation, routers: Sequence[RouterSample]) -> str:
    """Why what is known of arrivals is a lower bound."""
    if seen.samples.partial:
        return seen.samples.partial
    if routers and _router_failed(seen):
        return f"not every source of arrivals can be read: {_causes(seen)}"
    return next((f"{router.pod}: {why}" for router in routers if (why := damaged_count(router))), "")


def _by_cause(seen: Observation) -> dict[str, list[str]]:
    causes: dict[str, list[str]] = {}
    for source, why in sorted(seen.samples.failures.items()):
        causes.setdefault(why, []).append(source)
    return causes


def _causes(seen: Observation) -> str:
    """All failures in a line of bounded length."""
    causes = _by_cause(seen)
    shown = [f"{named(sources)}: {why}" for why, sources in list(causes.items())[:CAUSES_MAX]]
    more = [f"and {len(causes) - CAUSES_MAX} more causes"] if len(causes) > CAUSES_MAX else []
    return "; ".join(shown + more)


def _oddities(seen: Observation, signals: Signals) -> list[Reason]:
    why = [
        Reason(Stage.OBSERVE, Code.SCRAPE_FAILED, None, {"sources": len(pods), "named": named(pods), "why": text})
        for text, pods in list(_by_cause(seen).items())[:CAUSES_MAX]
    ]
    if seen.samples.ghosts:
        detail: Detail = {"pods": len(seen.samples.ghosts), "named": named(seen.samples.ghosts)}
        why.append(Reason(Stage.OBSERVE, Code.GHOSTS_DROPPED, None, detail))
    if signals.partial:
        why.append(Reason(Stage.OBSERVE, Code.METRICS_PARTIAL, None, {"why": signals.partial}))
    why += _of_demand(signals.demand)
    for name, latency in (("ttft", signals.ttft), ("itl", signals.itl)):
        if latency.basis == "estimated" and seen.samples.workers:
            detail = {"signal": name, "why": "no router or gateway says it"}
            why.append(Reason(Stage.OBSERVE, Code.LATENCY_ESTIMATED, None, detail))
    why += [Reason(Stage.OBSERVE, Code.WORKLOAD_PROBLEM, None, {"why": text}) for text in seen.fleet.problems]
    return why


def _of_demand(offered: Demand) -> list[Reason]:
    lacking = {role: rate.missing for role in ROLES if isinstance(rate := offered.tokens_per_s(role), Missing)}
    if len(set(lacking.values())) == 1 and len(lacking) == len(ROLES):
        return [Reason(Stage.OBSERVE, Code.DEMAND_MISSING, None, {"why": lacking[Role.PREFILL]})]
    why = [Reason(Stage.OBSERVE, Code.DEMAND_MISSING, role, {"why": text}) for role, text in lacking.items()]
    tokens_per_s = offered.prompt_tokens_per_s
    if offered.requests_per_s == 0:
        why.append(Reason(Stage.OBSERVE, Code.NO_TRAFFIC))
    elif offered.burst and not isinstance(tokens_per_s, Missing):
        detail: Detail = {"prompt_tokens_per_s": tokens_per_s, "over_s": offered.window_s}
        why.append(Reason(Stage.OBSERVE, Code.BURST, None, detail))
    return why


def _latencies(state: State, now_s: float, settings: Settings, readings: Sequence[Reading]) -> tuple[Latency, Latency]:
    slo = settings.spec.slo
    routed = {name: seen_by_router(readings, name) for name in ("ttft", "itl")}
    if not state.latencies:
        nothing = Missing("no sample yet")
        return _latency(nothing, slo.ttft, routed["ttft"]), _latency(nothing, slo.itl, routed["itl"])
    older = [entry for entry in state.latencies if entry.at_s <= now_s - LATENCY_WINDOW_S]
    latest, base = state.latencies[-1], older[-1] if older else state.latencies[0]
    ttft = histogram.increase(base.ttft, latest.ttft)
    itl = histogram.increase(base.itl, latest.itl)
    return _latency(ttft, slo.ttft, routed["ttft"]), _latency(itl, slo.itl, routed["itl"])


def _latency(window: Histogram | Missing, slo: Slo, routed: bool) -> Latency:
    value = histogram.percentile_s(window, slo.percentile)
    return Latency(
        value_ms=value if isinstance(value, Missing) else value * 1000,
        attained=histogram.share_within(window, slo.target_ms / 1000),
        basis="router" if routed else "estimated",
    )
