"""Flows: cumulative counts of many processes become sums per origin that no restart, gap or absence bends.

Rules:
1. A counter that falls was reset: what it shows now came since. Each counter of each source is looked at by itself.
   Where a pod's engines are summed, only one of them may have restarted: then nothing is known to have come. The same
   holds when engines of a pod come or go.
2. A source unseen for longer than `stale_after_s`, and one that was there before us, only gives a new baseline; a pod
   that has just become ready counts from zero.
3. A count whose family was not on the page and is given now began at zero: engines show many only after their first
   request. One that was there, but damaged, gives a baseline. A count that is not given keeps its last value.
4. Pages that are all as old as those before say nothing: a rate ends with the newest page, and is unknown after it.
5. What a worker has accepted is what it finished, runs and holds in queues: completions alone would hide saturation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.core import histogram
from autoscaler.model import (
    COLUMNS,
    NOT_ON_PAGE,
    ORIGINS,
    Count,
    Counts,
    Histogram,
    LatencyTotals,
    Number,
    Origin,
    RouterSample,
    Source,
    State,
    Totals,
    WorkerSample,
)
from policies.model import Code, Missing, Reason, Role, Stage

HISTORY_S = 300.0
LATENCY_SPACING_S = 5.0
LATENCY_WINDOW_S = 30.0
FORGET_SOURCE_S = 600.0
_FALLS: frozenset[Count] = frozenset({"served"})
_ALL_FALL: frozenset[Count] = frozenset({"served", "arrivals"})
_NO_TTFT = Missing("decode workers do not see TTFT")
_NO_ITL = Missing("prefill workers do not see ITL")


@dataclass(frozen=True, slots=True)
class Reading:
    """A fresh sample as a source. `signed`: counts that may fall without a reset, as requests in flight do.

    `counted`: whether it is a source of its own; a rank that idles beside its leader is only remembered.
    """

    origin: Origin
    source: Source
    start_s: float
    ready_s: float
    signed: frozenset[Count] = _FALLS
    counted: bool = True


def of_router(sample: RouterSample) -> Reading:
    """What a router, gateway or frontend has counted."""
    in_flight = sample.in_flight if isinstance(sample.in_flight, Missing) else sum(sample.in_flight.values())
    ended = _sum(sample.finished, sample.failed) if not isinstance(sample.failed, Missing) else sample.finished
    at_end = sample.tokens_at == "end"
    decoding = {} if at_end or isinstance(sample.in_flight, Missing) else sample.in_flight
    given: dict[Count, Number] = {
        "arrivals": _either(sample.arrivals, _sum(ended, in_flight)),
        "prompt_tokens" if at_end else "offered_tokens": sample.prompt_tokens,
        "generation_tokens": sample.generation_tokens,
        "finished": sample.finished,
        "served": _sum(sample.finished, decoding.get("decode", 0.0) / 2),
    }
    if at_end:
        given |= {"prompts": sample.prompts, "cached_tokens": sample.cached_tokens}
    counts, unsure = _given(given)
    source = Source(sample.uid, sample.at_s, counts, sample.ttft, sample.itl, unsure=unsure)
    return Reading("router", source, sample.start_s, sample.ready_s, _signed(sample.arrivals))


def of_worker(sample: WorkerSample, counted: bool) -> Reading:
    """What a worker has counted: TTFT is taken from prefill and ITL from decode, since the other's is another thing."""
    prefill = sample.role is Role.PREFILL
    given: dict[Count, Number] = {
        "arrivals": _either(sample.arrivals, _sum(sample.finished, sample.in_flight)),
        "prompt_tokens": sample.prompt_tokens,
        "prompts": sample.prompts,
        "cached_tokens": sample.cached_tokens,
        "generation_tokens": sample.generation_tokens,
        "finished": sample.finished,
        "served": _sum(sample.finished, 0.0 if isinstance(sample.running, Missing) else sample.running / 2),
    }
    counts, unsure = _given(given)
    source = Source(
        uid=sample.uid,
        at_s=sample.at_s,
        counts=counts,
        ttft=sample.ttft if prefill else _NO_TTFT,
        itl=_NO_ITL if prefill else sample.itl,
        engines=sample.ranks,
        unsure=unsure,
    )
    origin: Origin = "prefill" if prefill else "decode"
    return Reading(origin, source, sample.start_s, sample.ready_s, _signed(sample.arrivals), counted)


def _signed(arrivals: Number) -> frozenset[Count]:
    return _ALL_FALL if isinstance(arrivals, Missing) else _FALLS


def accumulate(state: State, readings: Sequence[Reading], now_s: float, stale_s: float) -> tuple[State, list[Reason]]:
    """Add what came since each source was last seen. Linear in the readings."""
    before = {source.uid: source for source in state.sources}
    if not _says_more(readings, before):
        return state, []
    sums: dict[Origin, dict[Count, float]] = {origin: dict(state.sums.get(origin, {})) for origin in ORIGINS}
    given: dict[Origin, set[Count]] = {origin: set() for origin in ORIGINS}
    why: list[Reason] = []
    for reading in readings:
        if not reading.counted:
            continue
        origin = reading.origin
        given[origin].update(reading.source.counts)
        for count, more in _increases(state, reading, before.get(reading.source.uid), stale_s, why).items():
            sums[origin][count] = sums[origin].get(count, 0.0) + more
    latencies = _latencies(state, readings, before, now_s, stale_s)
    sources = before | {
        reading.source.uid: _kept(before.get(reading.source.uid), reading.source) for reading in readings
    }
    oldest_s = now_s - HISTORY_S
    state = replace(
        state,
        sources=tuple([source for source in sources.values() if now_s - source.at_s < FORGET_SOURCE_S]),
        sums=sums,
        totals=(*[old for old in state.totals if old.at_s >= oldest_s], Totals(now_s, _row(sums, given))),
        latencies=_kept_latencies(state.latencies, latencies),
    )
    return state, why


def _says_more(readings: Iterable[Reading], before: Mapping[str, Source]) -> bool:
    """Whether any page is newer than what is known: old pages read again are no time in which nothing came."""
    return any(
        (known := before.get(reading.source.uid)) is None or reading.source.at_s > known.at_s
        for reading in readings
        if reading.counted
    )


def _row(sums: Mapping[Origin, Counts], given: Mapping[Origin, set[Count]]) -> tuple[float | None, ...]:
    row: list[float | None] = []
    for origin, columns in COLUMNS.items():
        own, known = sums[origin], given[origin]
        row += [own[count] if count in known else None for count in columns]
    return tuple(row)


def _increases(
    state: State, reading: Reading, before: Source | None, stale_s: float, why: list[Reason]
) -> dict[Count, float]:
    """What each count of a source has grown by; 0 where this is the first look at it."""
    now = reading.source.counts
    if not _goes_on(state, reading, before, stale_s):
        return dict.fromkeys(now, 0.0)
    then: Counts = before.counts if before else {}
    reset = {count for count, value in now.items() if value < then.get(count, 0.0) and count not in reading.signed}
    if not (reset or (before and before.unsure)):
        return {count: value - then.get(count, 0.0) for count, value in now.items()}
    for count in sorted(reset):
        detail = {"source": reading.source.uid, "counter": count}
        why.append(Reason(Stage.OBSERVE, Code.COUNTER_RESET, None, detail))
    if "finished" in reset:
        reset |= reading.signed
    began = dict.fromkeys(reset, 0.0)
    if len(reading.source.engines) > 1:
        began = {count: now[count] for count in reset if count in now}
    began |= {count: now[count] for count in before.unsure if count in now} if before else {}
    return {count: value - began.get(count, then.get(count, 0.0)) for count, value in now.items()}


def _goes_on(state: State, reading: Reading, before: Source | None, stale_s: float) -> bool:
    """Whether all that a source has counted since `before` (since its start, if that is None) came under our eyes."""
    if before is not None:
        return reading.source.at_s - before.at_s <= stale_s and reading.source.engines == before.engines
    began_s = state.started_s
    return began_s is not None and reading.start_s > began_s and reading.source.at_s - reading.ready_s <= stale_s


def _kept(before: Source | None, now: Source) -> Source:
    if before is None:
        return now
    counts = {**before.counts, **now.counts}
    unsure = {*before.unsure, *now.unsure} - counts.keys()
    ttft, itl = _later(before.ttft, now.ttft), _later(before.itl, now.itl)
    return Source(now.uid, now.at_s, counts, ttft, itl, now.engines, tuple(sorted(unsure)))


def _later(before: Histogram | Missing, now: Histogram | Missing) -> Histogram | Missing:
    """The last one given; where there is none, that it was once there is not forgotten."""
    if isinstance(now, Missing) and (isinstance(before, Histogram) or not _absent(before)):
        return before
    return now


def _latencies(
    state: State, readings: Sequence[Reading], before: Mapping[str, Source], now_s: float, stale_s: float
) -> LatencyTotals:
    """What users saw, where a router says it; else what workers say."""
    last = state.latencies[-1] if state.latencies else LatencyTotals(now_s, histogram.NO_TRAFFIC, histogram.NO_TRAFFIC)
    totals: dict[str, Histogram | Missing] = {"ttft": last.ttft, "itl": last.itl}
    for name in totals:
        routed = seen_by_router(readings, name)
        for reading in readings:
            now: Histogram | Missing = getattr(reading.source, name)
            if isinstance(now, Missing) or not reading.counted or routed != (reading.origin == "router"):
                continue
            source = before.get(reading.source.uid)
            then: Histogram | Missing | None = getattr(source, name) if source else None
            if _goes_on(state, reading, source, stale_s) and _is_whole(reading, then, now):
                totals[name] = histogram.add(totals[name], histogram.increase(then, now))
    return LatencyTotals(now_s, totals["ttft"], totals["itl"])


def _is_whole(reading: Reading, then: Histogram | Missing | None, now: Histogram) -> bool:
    """Whether the difference of two looks is what was observed between them."""
    if isinstance(then, Missing):
        return _absent(then)
    fell = then is not None and now.counts[-1] < then.counts[-1]
    return not (fell and len(reading.source.engines) > 1)


def seen_by_router(readings: Iterable[Reading], name: str) -> bool:
    """Whether a router gives the histogram `name` (ttft or itl)."""
    return any(r.origin == "router" and isinstance(getattr(r.source, name), Histogram) for r in readings)


def _kept_latencies(before: Sequence[LatencyTotals], latest: LatencyTotals) -> tuple[LatencyTotals, ...]:
    """The newest entry is always the running total; older ones are spaced, since each holds whole histograms."""
    older = list(before)
    if len(older) >= 2 and older[-1].at_s - older[-2].at_s < LATENCY_SPACING_S:
        older.pop()
    kept = [entry for entry in older if entry.at_s >= latest.at_s - LATENCY_WINDOW_S - LATENCY_SPACING_S]
    return (*kept, latest)


def _given(values: Mapping[Count, Number]) -> tuple[Counts, tuple[Count, ...]]:
    """The counts that are given, and those that are damaged."""
    counts: dict[Count, float] = {}
    unsure: list[Count] = []
    for count, value in values.items():
        if not isinstance(value, Missing):
            counts[count] = value
        elif not _absent(value):
            unsure.append(count)
    return counts, tuple(sorted(unsure))


def _absent(signal: Missing) -> bool:
    """Whether the page has not got it, rather than a damaged one."""
    return signal.missing.endswith(NOT_ON_PAGE)


def _sum(first: Number, second: Number) -> Number:
    """Where both are missing, a damaged one says more than one that is not there."""
    if isinstance(first, Missing):
        return second if isinstance(second, Missing) and _absent(first) and not _absent(second) else first
    return second if isinstance(second, Missing) else first + second


def _either(first: Number, second: Number) -> Number:
    return second if isinstance(first, Missing) else first
