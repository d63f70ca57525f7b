"""Demand: what arrived over a window, in tokens per second and role, or why that is not known.

Rules:
1. Arrivals are counted where requests come in: at the router where there is one, else at prefill, else at decode, and
   then for decode alone. A router that should be there and cannot be read leaves demand unknown.
2. Prompt tokens of a decode worker are never demand: prefill computed those prompts. Only their mean length is used.
3. Output length is tokens generated per request finished, where a request that came to be running counts half: right
   from the first seconds, while long requests still run, and while decode is saturated.
4. Of prompts, what a prefix cache had is told apart, never left out: what will be found there is not known.
5. What is not known of one role does not take the other's demand with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoscaler.model import COLUMNS, Count, Demand, Number, Origin, State, Totals
from policies.model import Missing

SHORTEST_WINDOW_S = 3.0
# The last third of the window is a burst when it exceeds what came before by more than chance would do: Poisson
# arrivals of prompts whose lengths vary like an exponential (squared coefficient of variation 1).
BURST_SIGMAS = 3.0
LENGTH_CV2 = 1.0
# A few prompts say little of what is found: long ones are, short ones are not.
CACHED_WINDOW_S = 120.0
NOT_CACHED = Missing("nobody counts cached prompt tokens")


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
    mean = over(state, now_s, window_s, arrivals)
    if state.totals[0].at_s > now_s - window_s:
        return mean
    short = over(state, now_s, window_s / 3, arrivals)
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


def over(state: State, now_s: float, window_s: float, arrivals: Arrivals) -> Demand:
    """Offered work over any window that the history holds."""
    origin = arrivals.origin
    assert origin is not None
    window = _Since(state.totals, now_s - window_s)
    came, span_s = window.increase(origin, "arrivals")
    if span_s < min(SHORTEST_WINDOW_S, window_s):
        return unknown(now_s, f"only {span_s:.1f} s of counters seen")
    # Scrapes are not atomic: a request may leave a queue before it is counted as finished.
    came = max(0.0, came)
    rate = came / span_s
    # Lengths change slower than rates, and need more requests to be seen.
    longer = _Since(state.totals, now_s - 2 * max(window_s, span_s))
    prompt = _prompt_mean(state, origin, window, longer, came)
    output = _output_mean(state, longer) if came else 0.0
    return Demand(
        at_s=now_s,
        window_s=span_s,
        requests_per_s=rate,
        prompt_tokens_per_s=Missing(arrivals.why) if origin == "decode" else _times(rate, prompt),
        output_tokens_per_s=_times(rate, output),
        prompt_tokens_mean=prompt,
        output_tokens_mean=output,
        cached_share=_cached_share(_Since(state.totals, now_s - CACHED_WINDOW_S)),
        basis=origin,
    )


class _Since:
    """What has come since `start_s`. The entry that it begins with is sought once for all counts."""

    def __init__(self, totals: Sequence[Totals], start_s: float) -> None:
        self._totals, self._start_s = totals, start_s
        older = (index for index in range(len(totals) - 1, 0, -1) if totals[index].at_s <= start_s)
        self._first = totals[next(older, 0)]

    def increase(self, origin: Origin, count: Count) -> tuple[float, float]:
        """By how much a count has grown (since it is known, if that is later), and over how many seconds.

        Both are 0 where nobody gives it now. Constant effort, but for a count that was not given all the time.
        """
        column, latest, base = COLUMNS[origin][count], self._totals[-1], self._first
        now = latest.row[column]
        if now is None:
            return 0.0, 0.0
        if (then := base.row[column]) is None:
            base, then = self._known(column)
        return now - then, latest.at_s - base.at_s

    def _known(self, column: int) -> tuple[Totals, float]:
        """The newest entry at or before the start that has a count; if none has, the oldest one that has it."""
        known = [(entry, value) for entry in self._totals if (value := entry.row[column]) is not None]
        return next((one for one in reversed(known) if one[0].at_s <= self._start_s), known[0])


def _prompt_mean(state: State, origin: Origin, window: _Since, longer: _Since, came: float) -> Number:
    if not came:
        return 0.0
    offered, span_s = window.increase(origin, "offered_tokens")
    if span_s > 0:
        return offered / came
    for source in (origin, "prefill", "decode"):
        tokens, _ = longer.increase(source, "prompt_tokens")
        prompts, span_s = longer.increase(source, "prompts")
        if span_s > 0 and prompts > 0:
            return tokens / prompts
    return _remembered(state, "prompt_tokens_mean", "no prompt is computed yet, so the prompt length is not known")


def _cached_share(window: _Since) -> Number:
    """Of the prompt tokens that whoever computed them has counted, those that were in a prefix cache."""
    for source in ("prefill", "router"):
        cached, span_s = window.increase(source, "cached_tokens")
        prompts, counted_s = window.increase(source, "prompt_tokens")
        if min(span_s, counted_s) > 0 and prompts > 0:
            return min(1.0, max(0.0, cached / prompts))
    return NOT_CACHED


def _output_mean(state: State, longer: _Since) -> Number:
    generated = 0.0
    for source in ("router", "decode"):
        tokens, span_s = longer.increase(source, "generation_tokens")
        finished, counted_s = longer.increase(source, "finished")
        served, _ = longer.increase(source, "served")
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


def _times(rate: float, mean: Number) -> Number:
    if rate == 0:
        return 0.0
    return mean if isinstance(mean, Missing) else rate * mean
