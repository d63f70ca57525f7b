"""Demand: what arrived over a window, in tokens per second and role, or why that is not known.

Rules:
1. Arrivals are counted where requests come in: at the router where there is one, else at prefill, else at decode, and
   then for decode alone. A router that should be there and cannot be read leaves demand unknown.
2. Prompt tokens of a decode worker are never demand: prefill computed those prompts. Only their mean length is used.
3. Output length is tokens generated per request finished, where a request that came to be running counts half: right
   from the first seconds, while long requests still run, and while decode is saturated.
4. What is not known of one role does not take the other's demand with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoscaler.model import Count, Demand, Number, Origin, State, Totals
from policies.model import Missing

SHORTEST_WINDOW_S = 3.0
# The last third of the window is a burst when it exceeds what came before by more than chance would do: Poisson
# arrivals of prompts whose lengths vary like an exponential (squared coefficient of variation 1).
BURST_SIGMAS = 3.0
LENGTH_CV2 = 1.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Who counts arrivals now, or why nobody does; and why prefill's are not known where decode stands in."""

    origin: Origin | None
    why: str = ""


def unknown(now_s: float, why: str) -> Demand:
    """Nothing is known, for one reason."""
    missing = Missing(why)
    return Demand(now_s, 0.0, missing, missing, missing, missing, missing, basis="none")


def measure(state: State, now_s: float, window_s: float, arrivals: Arrivals) -> Demand:
    """Offered work over the window, or over its last third where that is a burst against what came before."""
    if arrivals.origin is None:
        return unknown(now_s, arrivals.why)
    mean = _over(state, now_s, window_s, arrivals)
    if state.totals[0].at_s > now_s - window_s:
        return mean
    short = _over(state, now_s, window_s / 3, arrivals)
    return replace(short, burst=True) if _is_burst(mean, short) else mean


def _is_burst(mean: Demand, short: Demand) -> bool:
    rates = (mean.requests_per_s, short.requests_per_s, mean.prompt_tokens_per_s, short.prompt_tokens_per_s)
    rps, short_rps, tps, short_tps = (0.0 if isinstance(rate, Missing) else rate for rate in rates)
    if any(isinstance(rate, Missing) for rate in rates):
        return False
    before_s = max(mean.window_s - short.window_s, 1e-9)
    before_rps = (rps * mean.window_s - short_rps * short.window_s) / before_s
    before_tps = (tps * mean.window_s - short_tps * short.window_s) / before_s
    chance = math.sqrt((1 + LENGTH_CV2) / max(1.0, before_rps * short.window_s))
    return short_tps > (1 + BURST_SIGMAS * chance) * before_tps


def _over(state: State, now_s: float, window_s: float, arrivals: Arrivals) -> Demand:
    origin = arrivals.origin
    assert origin is not None
    came, span_s = _increase(state, origin, "arrivals", now_s - window_s)
    if span_s < min(SHORTEST_WINDOW_S, window_s):
        return unknown(now_s, f"only {span_s:.1f} s of counters seen")
    # Scrapes are not atomic: a request may leave a queue before it is counted as finished.
    came = max(0.0, came)
    rate = came / span_s
    # Lengths change slower than rates, and need more requests to be seen.
    length_from_s = now_s - 2 * max(window_s, span_s)
    prompt = _prompt_mean(state, origin, now_s - window_s, length_from_s, came)
    output = _output_mean(state, length_from_s) if came else 0.0
    return Demand(
        at_s=now_s,
        window_s=span_s,
        requests_per_s=rate,
        prompt_tokens_per_s=Missing(arrivals.why) if origin == "decode" else _times(rate, prompt),
        output_tokens_per_s=_times(rate, output),
        prompt_tokens_mean=prompt,
        output_tokens_mean=output,
        basis=origin,
    )


def _prompt_mean(state: State, origin: Origin, start_s: float, length_from_s: float, came: float) -> Number:
    if not came:
        return 0.0
    offered, span_s = _increase(state, origin, "offered_tokens", start_s)
    if span_s > 0:
        return offered / came
    for source in (origin, "prefill", "decode"):
        tokens, _ = _increase(state, source, "prompt_tokens", length_from_s)
        prompts, span_s = _increase(state, source, "prompts", length_from_s)
        if span_s > 0 and prompts > 0:
            return tokens / prompts
    return _remembered(state, "prompt_tokens_mean", "no prompt is computed yet, so the prompt length is not known")


def _output_mean(state: State, length_from_s: float) -> Number:
    generated = 0.0
    for source in ("router", "decode"):
        tokens, span_s = _increase(state, source, "generation_tokens", length_from_s)
        finished, counted_s = _increase(state, source, "finished", length_from_s)
        served, _ = _increase(state, source, "served", length_from_s)
        if min(span_s, counted_s) > 0 and finished > 0:
            return tokens / max(finished / 2, served)
        if min(span_s, counted_s) > 0:
            generated = tokens
            break
    mean = _remembered(state, "output_tokens_mean", "no request has finished yet, so the output length is not known")
    return mean if isinstance(mean, Missing) else max(mean, generated)


def _remembered(state: State, name: str, why: str) -> Number:
    """The last known length, while its traffic lasts and we have watched it."""
    last, oldest_s = state.demands[-1] if state.demands else None, state.totals[0].at_s
    mean = getattr(last, name) if last and last.at_s >= oldest_s else 0.0
    return mean if isinstance(mean, float) and mean > 0 else Missing(why)


def _increase(state: State, origin: Origin, count: Count, start_s: float) -> tuple[float, float]:
    """By how much a count has grown since `start_s` (since it is known, if that is later), and over how many seconds.

    Both are 0 where nobody gives it now. Logarithmic effort is not worth it: the history is a few hundred entries.
    """
    latest = state.totals[-1]
    if count not in latest.counts.get(origin, {}):
        return 0.0, 0.0
    base = latest
    for entry in reversed(state.totals):
        if count in entry.counts.get(origin, {}):
            base = entry
            if entry.at_s <= start_s:
                break
    return _of(latest, origin)[count] - _of(base, origin)[count], latest.at_s - base.at_s


def _of(totals: Totals, origin: Origin) -> Mapping[Count, float]:
    return totals.counts[origin]


def _times(rate: float, mean: Number) -> Number:
    if rate == 0:
        return 0.0
    return mean if isinstance(mean, Missing) else rate * mean
