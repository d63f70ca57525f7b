"""Forecast: each role's offered tokens/s at that role's own measured cold start.

Rules:
1. What arrived is looked at in even steps, never in moving averages: a burst keeps its height.
2. The quantile is a share of the work: the SLO's percentile, unless the settings give one.
3. Steps keep their grid however ticks come. What came between two ticks is spread evenly; where demand is not known,
   or no tick was for longer than sources stay fresh, a step is missing, not zero. Lengths are remembered for as long
   as work is expected.
4. Who speaks is looked at anew once a horizon, at least every REFIT_S, at another moment for each service; what is
   said, at every tick.
5. The least to expect is what came over the last horizon: a burst counts for as much of it as it has lasted, since one
   that ends before a group has started is helped by none. Where groups start within seconds, what arrives now counts.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import forecasting.recent as recent
from autoscaler.core import demand
from autoscaler.model import Course, Forecast, RoleForecast, Signals, State
from autoscaler.settings import Settings
from policies.model import ROLES, Missing, Role

STEP_S = 5.0
REFIT_S = 60.0
EARLY = 0.1
"""Of a step: a tick that comes so much too early ends it, too."""
FIRST_STEPS = 24
"""While no more than so many steps are known, every one of them counts."""
# Prompts wait for seconds, as the TTFT allows; answers take their time, and the batch feels their sum.
FELT_S = 10.0
FELT_MAX_S = 120.0


def forecast(state: State, signals: Signals, settings: Settings, now_s: float) -> tuple[Forecast, State]:
    """Each role's demand one cold start ahead; Missing where its demand is. Linear in the kept steps."""
    courses: dict[Role, Course] = {}
    found: dict[Role, RoleForecast | Missing] = {}
    for role in ROLES:
        horizon_s, share = signals[role].lead_s, settings.spec.covered(role)
        before = state.courses.get(role, Course(now_s))
        course = _seen(before, state, signals, role, settings, now_s)
        if _is_due(before, course, settings, horizon_s, now_s):
            felt_s = _felt_s(role, course, settings)
            fitted = recent.fit(course.values, STEP_S, horizon_s, share, felt_s, course.tokens_mean)
            course = replace(course, fit=fitted, fitted_s=now_s)
        courses[role] = course
        found[role] = _role(role, course, signals, settings, horizon_s, share)
    return Forecast(found[Role.PREFILL], found[Role.DECODE]), replace(state, courses=courses)


def _seen(before: Course, state: State, signals: Signals, role: Role, settings: Settings, now_s: float) -> Course:
    """With the steps that have ended by now. Counters say how much came since the last look, not when."""
    steps = int((now_s - before.end_s) / STEP_S + EARLY)
    if steps < 1:
        return before
    kept = recent.kept_steps(STEP_S, signals[role].lead_s)
    length = _length(before, signals, role, now_s)
    last = _offered(state, signals, role, now_s, now_s - before.end_s)
    fresh = now_s - before.end_s <= settings.spec.metrics.stale_after_s
    gap = (last if fresh else None,) * min(steps - 1, kept)
    values = (*before.values, *gap, last)[-kept:]
    return replace(before, end_s=before.end_s + steps * STEP_S, values=values, tokens_mean=length)


def _length(before: Course, signals: Signals, role: Role, now_s: float) -> float:
    """The mean length over about a horizon; as it was while nothing shows it, 0 before anything has."""
    mean = signals.demand.tokens_mean(role)
    if isinstance(mean, Missing) or mean <= 0:
        return before.tokens_mean
    if not before.tokens_mean:
        return mean
    kept = math.exp(-max(0.0, now_s - before.end_s) / max(STEP_S, signals[role].lead_s))
    return kept * before.tokens_mean + (1 - kept) * mean


def _offered(state: State, signals: Signals, role: Role, now_s: float, span_s: float) -> float | None:
    """Tokens/s that arrived in the last `span_s`. Answers' lengths need more requests to be seen than a step has."""
    offered = signals.demand
    if offered.basis == "none" or not state.totals:
        return None
    last = demand.over(state, now_s, span_s, demand.Arrivals(offered.basis))
    if role is Role.PREFILL:
        return None if isinstance(last.prompt_tokens_per_s, Missing) else last.prompt_tokens_per_s
    if isinstance(last.requests_per_s, Missing) or isinstance(offered.output_tokens_mean, Missing):
        return None
    return last.requests_per_s * offered.output_tokens_mean


def _is_due(before: Course, course: Course, settings: Settings, horizon_s: float, now_s: float) -> bool:
    if course.fit is None or len(course.values) <= FIRST_STEPS:
        return course is not before
    name = f"{settings.metadata.namespace}/{settings.metadata.name}"
    every_s = min(max(STEP_S, horizon_s), REFIT_S)
    shift_s = zlib.crc32(name.encode()) % every_s
    return (now_s + shift_s) // every_s != (course.fitted_s + shift_s) // every_s


def _felt_s(role: Role, course: Course, settings: Settings) -> float:
    if role is Role.PREFILL:
        return FELT_S
    return min(max(FELT_S, course.tokens_mean * settings.spec.slo.itl.target_ms / 1e3), FELT_MAX_S)


def _role(
    role: Role, course: Course, signals: Signals, settings: Settings, horizon_s: float, share: float
) -> RoleForecast | Missing:
    latest, silence_s = signals.demand, settings.spec.role(role).silence_s(horizon_s)
    current = latest.tokens_per_s(role)
    if isinstance(current, Missing):
        return current
    said = recent.predict(course.values, STEP_S, horizon_s, course.fit, silence_s) if course.fit else None
    short = horizon_s <= 2 * settings.spec.metrics.window_s
    expected, high = (said.expected, said.covering) if said else (current, current)
    return RoleForecast(
        horizon_s=horizon_s,
        quantile=share,
        tokens_per_s_q50=expected,
        tokens_per_s_high=max(high, _lasted(course, horizon_s), current if short else 0.0),
        tokens_mean=course.tokens_mean,
        model=said.model if said else "now",
    )


def _lasted(course: Course, horizon_s: float) -> float:
    """The mean of the last horizon, in which nothing came before it was looked at; missing steps are left out."""
    steps = max(1, round(horizon_s / STEP_S))
    last = course.values[-steps:]
    known = [value for value in last if value is not None]
    return sum(known) / max(1, steps - (len(last) - len(known)))
