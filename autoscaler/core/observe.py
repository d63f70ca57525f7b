"""Observe: cumulative counters of many sources become offered work and latencies, or Missing.

Rules:
1. Demand is what arrived, in tokens per second, never what completed and never what is in flight.
2. A counter that falls was reset: what it shows now came since. A source unseen for longer than
   `stale_after_s` only gives a new baseline.
3. Output length is tokens generated per request finished in the window, where a request that came to be running
   counts half: right from the first seconds, while long requests still run, and while decode is saturated.
4. Without a router, workers are read instead, and the result is called estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from autoscaler.core import histogram
from autoscaler.model import (
    Demand,
    Histogram,
    Latency,
    LatencyTotals,
    Number,
    Observation,
    RoleFleet,
    RoleSignals,
    RouterSample,
    Signals,
    State,
    Totals,
    WorkerSample,
)
from autoscaler.settings import Settings, Slo
from policies.model import Code, Detail, Missing, Reason, Role, Stage

DEMAND_HISTORY_S = 300.0
LATENCY_SPACING_S = 5.0
LATENCY_WINDOW_S = 30.0
SHORTEST_WINDOW_S = 3.0
FORGET_SOURCE_S = 600.0
# The last third of the window is a burst when it exceeds what came before by more than chance would do: Poisson
# arrivals of prompts whose lengths vary like an exponential (squared coefficient of variation 1).
BURST_SIGMAS = 3.0
LENGTH_CV2 = 1.0


@dataclass(frozen=True, slots=True)
class Observed:
    """Signals, the state that carries them on, and what was odd."""

    signals: Signals
    state: State
    why: tuple[Reason, ...]


def observe(state: State, seen: Observation, settings: Settings) -> Observed:
    """Understand one observation. Linear in its samples and in the kept history."""
    limits = settings.spec.metrics
    estimated = not seen.samples.routers and not _router_failed(seen)
    sources = _as_sources(seen.samples.workers) if estimated else seen.samples.routers
    fresh = [sample for sample in sources if seen.now_s - sample.at_s <= limits.stale_after_s]
    state, why = _accumulate(state, fresh, seen.now_s, limits.stale_after_s, estimated)
    demand = _demand(state, seen.now_s, limits.window_s) if fresh else _no_source(seen)
    if isinstance(demand, Demand):
        kept = [old for old in state.demands if old.at_s > seen.now_s - DEMAND_HISTORY_S]
        state = replace(state, demands=(*kept, demand))
    why += _oddities(seen, demand, estimated)
    basis_ttft, basis_itl = _latencies(state, seen.now_s, settings, estimated)
    prefill, decode = (_role_signals(seen, role, settings) for role in (Role.PREFILL, Role.DECODE))
    return Observed(Signals(demand, basis_ttft, basis_itl, prefill, decode), state, tuple(why))


def _router_failed(seen: Observation) -> bool:
    return any(not _is_worker(source, seen) for source in seen.samples.failures)


def _is_worker(source: str, seen: Observation) -> bool:
    fleets = (seen.fleet.prefill, seen.fleet.decode)
    return any(source in fleet.leaders for fleet in fleets if isinstance(fleet, RoleFleet))


def _as_sources(workers: Iterable[WorkerSample]) -> list[RouterSample]:
    """Workers in a router's clothes. What a prefill worker has accepted is what it finished, runs and queues."""
    return [_as_source(worker) for worker in workers]


def _as_source(worker: WorkerSample) -> RouterSample:
    prefill = worker.role is Role.PREFILL
    accepted = sum(_or_zero(part) for part in (worker.finished, worker.running, worker.waiting))
    return RouterSample(
        uid=worker.uid,
        at_s=worker.at_s,
        arrivals=accepted if prefill else 0.0,
        prompt_tokens=_or_zero(worker.prompt_tokens) if prefill else 0.0,
        generation_tokens=0.0 if prefill else _or_zero(worker.generation_tokens),
        finished=0.0 if prefill else _or_zero(worker.finished),
        failed=0.0,
        ttft=worker.ttft if prefill else Missing("decode workers do not see TTFT"),
        itl=Missing("prefill workers do not see ITL") if prefill else worker.itl,
        in_flight={} if prefill else {"decode": _or_zero(worker.running)},
    )


def _or_zero(value: Number) -> float:
    """A term of a cumulative sum: one that is missing adds nothing to the increase."""
    return 0.0 if isinstance(value, Missing) else value


def _accumulate(
    state: State, fresh: Sequence[RouterSample], now_s: float, stale_s: float, estimated: bool
) -> tuple[State, list[Reason]]:
    known = {sample.uid: sample for sample in state.sources}
    last = state.totals[-1] if state.totals else Totals(now_s)
    sums = {name: getattr(last, name) for name in ("arrivals", "prompt_tokens", "generation_tokens", "finished")}
    ttft: Histogram | Missing = state.latencies[-1].ttft if state.latencies else histogram.NO_TRAFFIC
    itl: Histogram | Missing = state.latencies[-1].itl if state.latencies else histogram.NO_TRAFFIC
    why = []
    for sample in fresh:
        before = known.get(sample.uid)
        if (before is None and state.started_s is None) or (before and sample.at_s - before.at_s > stale_s):
            continue
        for name in sums:
            now, then = getattr(sample, name), getattr(before, name) if before else 0.0
            if now < then and not (estimated and name == "arrivals"):
                why.append(Reason(Stage.OBSERVE, Code.COUNTER_RESET, None, {"source": sample.uid, "counter": name}))
                then = 0.0
            sums[name] += max(0.0, now - then)
        ttft = histogram.add(ttft, histogram.increase(before.ttft if before else None, sample.ttft))
        itl = histogram.add(itl, histogram.increase(before.itl if before else None, sample.itl))
    if not fresh:
        return state, why
    sources = known | {sample.uid: sample for sample in fresh}
    kept = tuple(sample for sample in sources.values() if now_s - sample.at_s < FORGET_SOURCE_S)
    decoding = sum(sample.in_flight.get("decode", 0.0) for sample in fresh)
    totals = [*state.totals, Totals(now_s, **sums, decoding=decoding)]
    state = replace(state, sources=kept, totals=_since(totals, now_s - DEMAND_HISTORY_S))
    return _keep_latencies(state, LatencyTotals(now_s, ttft, itl)), why


def _since(totals: Sequence[Totals], start_s: float) -> tuple[Totals, ...]:
    return tuple(entry for entry in totals if entry.at_s >= start_s)


def _keep_latencies(state: State, latest: LatencyTotals) -> State:
    """The newest entry is always the running total; older ones are spaced, since each holds whole histograms."""
    older = list(state.latencies)
    if len(older) >= 2 and older[-1].at_s - older[-2].at_s < LATENCY_SPACING_S:
        older.pop()
    kept = [entry for entry in older if entry.at_s >= latest.at_s - LATENCY_WINDOW_S - LATENCY_SPACING_S]
    return replace(state, latencies=(*kept, latest))


def _demand(state: State, now_s: float, window_s: float) -> Demand | Missing:
    """Offered work over the window, or over its last third where that is a burst against what came before."""
    mean = _over(state, now_s, window_s, 2 * window_s)
    if isinstance(mean, Missing) or state.totals[0].at_s > now_s - window_s:
        return mean
    short = _over(state, now_s, window_s / 3, 2 * window_s)
    if isinstance(short, Missing):
        return mean
    before_s = max(mean.window_s - short.window_s, 1e-9)
    before_rps = (mean.requests_per_s * mean.window_s - short.requests_per_s * short.window_s) / before_s
    before_tps = (mean.prompt_tokens_per_s * mean.window_s - short.prompt_tokens_per_s * short.window_s) / before_s
    chance = math.sqrt((1 + LENGTH_CV2) / max(1.0, before_rps * short.window_s))
    burst = short.prompt_tokens_per_s > (1 + BURST_SIGMAS * chance) * before_tps
    return replace(short, burst=True) if burst else mean


def _over(state: State, now_s: float, window_s: float, length_window_s: float) -> Demand | Missing:
    latest, base = state.totals[-1], _baseline(state.totals, now_s - window_s)
    span_s = latest.at_s - base.at_s
    if span_s < min(SHORTEST_WINDOW_S, window_s):
        return Missing(f"only {span_s:.1f} s of counters seen")
    arrivals = latest.arrivals - base.arrivals
    prompt_tokens = latest.prompt_tokens - base.prompt_tokens
    output_mean = _output_mean(state, now_s, length_window_s)
    if isinstance(output_mean, Missing) and arrivals > 0:
        return output_mean
    mean = output_mean if isinstance(output_mean, float) else 0.0
    return Demand(
        at_s=now_s,
        window_s=span_s,
        requests_per_s=arrivals / span_s,
        prompt_tokens_per_s=prompt_tokens / span_s,
        output_tokens_per_s=arrivals / span_s * mean,
        prompt_tokens_mean=prompt_tokens / arrivals if arrivals else 0.0,
        output_tokens_mean=mean if arrivals else 0.0,
    )


def _baseline(totals: Sequence[Totals], at_s: float) -> Totals:
    """The newest entry that is at least as old as `at_s`, else the oldest."""
    older = [entry for entry in totals if entry.at_s <= at_s]
    return older[-1] if older else totals[0]


def _output_mean(state: State, now_s: float, window_s: float) -> float | Missing:
    """Over twice the demand's window: lengths change slower than rates, and need more requests to be seen."""
    latest, base = state.totals[-1], _baseline(state.totals, now_s - window_s)
    finished = latest.finished - base.finished
    generated = latest.generation_tokens - base.generation_tokens
    if finished > 0:
        return generated / max(finished / 2, finished + (latest.decoding - base.decoding) / 2)
    if state.demands and state.demands[-1].output_tokens_mean > 0:
        return max(state.demands[-1].output_tokens_mean, generated)
    return Missing("no request has finished yet, so the output length is not known")


def _no_source(seen: Observation) -> Missing:
    failures = "; ".join(f"{source}: {why}" for source, why in sorted(seen.samples.failures.items()))
    return Missing(failures or "no router or worker gave a sample")


def _oddities(seen: Observation, demand: Demand | Missing, estimated: bool) -> list[Reason]:
    why = [
        Reason(Stage.OBSERVE, Code.SCRAPE_FAILED, None, {"source": source, "why": text})
        for source, text in sorted(seen.samples.failures.items())
    ]
    if seen.samples.ghosts:
        named = ", ".join(seen.samples.ghosts[:5])
        detail: Detail = {"pods": len(seen.samples.ghosts), "named": named}
        why.append(Reason(Stage.OBSERVE, Code.GHOSTS_DROPPED, None, detail))
    if isinstance(demand, Missing):
        why.append(Reason(Stage.OBSERVE, Code.DEMAND_MISSING, None, {"why": demand.missing}))
    elif demand.requests_per_s == 0:
        why.append(Reason(Stage.OBSERVE, Code.NO_TRAFFIC))
    elif demand.burst:
        rate = {"prompt_tokens_per_s": demand.prompt_tokens_per_s, "over_s": demand.window_s}
        why.append(Reason(Stage.OBSERVE, Code.BURST, None, rate))
    if estimated and seen.samples.workers:
        why.append(Reason(Stage.OBSERVE, Code.LATENCY_ESTIMATED, None, {"why": "no router or gateway is read"}))
    why += [Reason(Stage.OBSERVE, Code.WORKLOAD_PROBLEM, None, {"why": text}) for text in seen.fleet.problems]
    return why


def _latencies(state: State, now_s: float, settings: Settings, estimated: bool) -> tuple[Latency, Latency]:
    slo = settings.spec.slo
    if not state.latencies:
        nothing = Missing("no sample yet")
        return _latency(nothing, slo.ttft, estimated), _latency(nothing, slo.itl, estimated)
    older = [entry for entry in state.latencies if entry.at_s <= now_s - LATENCY_WINDOW_S]
    latest, base = state.latencies[-1], older[-1] if older else state.latencies[0]
    ttft = histogram.increase(base.ttft, latest.ttft)
    itl = histogram.increase(base.itl, latest.itl)
    return _latency(ttft, slo.ttft, estimated), _latency(itl, slo.itl, estimated)


def _latency(window: Histogram | Missing, slo: Slo, estimated: bool) -> Latency:
    value = histogram.percentile_s(window, slo.percentile)
    return Latency(
        value_ms=value if isinstance(value, Missing) else value * 1000,
        attained=histogram.share_within(window, slo.target_ms / 1000),
        basis="estimated" if estimated else "router",
    )


def _role_signals(seen: Observation, role: Role, settings: Settings) -> RoleSignals:
    fleet = seen.fleet[role]
    stale_s = settings.spec.metrics.stale_after_s
    workers = [w for w in seen.samples.workers if w.role is role and seen.now_s - w.at_s <= stale_s]
    ready_after = sorted(fleet.ready_after_s) if isinstance(fleet, RoleFleet) else []
    default_s = settings.spec.role(role).cold_start_s
    return RoleSignals(
        running=_total([worker.running for worker in workers]),
        waiting=_total([*(worker.waiting for worker in workers), *_held(seen, role, stale_s)]),
        waiting_deferred=_total([worker.waiting_deferred for worker in workers]),
        kv_usage=_mean([worker.kv_usage for worker in workers]),
        cold_start_s=ready_after[min(len(ready_after) - 1, len(ready_after) * 9 // 10)] if ready_after else default_s,
        blind=isinstance(fleet, RoleFleet) and fleet.ready > 0 and not workers,
    )


def _held(seen: Observation, role: Role, stale_s: float) -> list[Number]:
    """Requests that a router keeps until a prefill worker has room."""
    if role is Role.DECODE:
        return []
    fresh = [router for router in seen.samples.routers if seen.now_s - router.at_s <= stale_s]
    return [router.in_flight["unassigned"] for router in fresh if "unassigned" in router.in_flight]


def _known(values: Iterable[Number]) -> list[float]:
    return [value for value in values if not isinstance(value, Missing)]


def _total(values: Sequence[Number]) -> Number:
    known = _known(values)
    return sum(known) if known else Missing("no worker gave it")


def _mean(values: Sequence[Number]) -> Number:
    known = _known(values)
    return fmean(known) if known else Missing("no worker gave it")
