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
6. What was learned outside of the tick is data of the observation, and one candidate among the others.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from autoscaler.core import demand
from autoscaler.model import WORK, Course, Forecast, Number, Outlook, RoleForecast, Series, Signals, State
from autoscaler.settings import Settings
from forecasting import recent
from forecasting.model import Forecast as Foretold
from forecasting.model import Measured
from policies.model import ROLES, Missing, Role

STEP_S = 5.0
REFIT_S = 60.0
EARLY = 0.1
"""Of a step: a tick that comes so much too early ends it, too."""
FIRST_STEPS = 24
"""While no more than so many steps are known, every one of them counts."""
# Prompts wait as the TTFT allows: a load of a third more than is taken uses it up within three of it. Answers take
# their time, and the batch feels their sum.
FELT_TARGETS = 3.0
FELT_MAX_S = 120.0
MEDIAN = 0.5
PROVEN = 100
"""Forecasts of which a learned model's errors must be known to count for what they are."""
NOTHING_TOLD = Outlook()


def forecast(
    state: State, signals: Signals, settings: Settings, now_s: float, outlook: Outlook = NOTHING_TOLD
) -> tuple[Forecast, State]:
    """Each role's demand one cold start ahead; Missing where its demand is. Linear in the kept steps."""
    courses: dict[Role, Course] = {}
    found: dict[Role, RoleForecast | Missing] = {}
    came = cache(lambda since_s: arrived(state, signals, now_s, now_s - since_s))
    for role in ROLES:
        horizon_s, share = signals[role].lead_s, settings.spec.covered(role)
        before = state.courses.get(role, Course(now_s))
        foretold = outlook.of(role)
        told = foretold.at(MEDIAN) if foretold else None
        course = _seen(before, came, signals, role, settings, now_s, told)
        if _is_due(before, course, settings, horizon_s, now_s):
            felt_s = _felt_s(role, course, settings)
            fitted = recent.fit(
                course.values,
                STEP_S,
                horizon_s,
                share,
                felt_s,
                course.tokens_mean,
                course.told,
                _record(foretold),
                outlook.only,
                waits=role is Role.PREFILL,
            )
            course = replace(course, fit=fitted, fitted_s=now_s)
        courses[role] = course
        found[role] = _role(role, course, signals, settings, share, told, outlook.only)
    return Forecast(found[Role.PREFILL], found[Role.DECODE]), replace(state, courses=courses)


def _record(foretold: Foretold | None) -> float:
    """What the errors of a learned forecast have been of last value's; 1 while that is not known, or where it loses."""
    measured = foretold.measured if foretold else Measured()
    if measured.targets < PROVEN or measured.pinball_last_value <= 0:
        return 1.0
    return min(1.0, measured.pinball / measured.pinball_last_value)


def _seen(
    before: Course,
    came: Callable[[float], Mapping[Series, float]],
    signals: Signals,
    role: Role,
    settings: Settings,
    now_s: float,
    told: float | None,
) -> Course:
    """With the steps that have ended by now. Counters say how much came since the last look, not when."""
    steps = int((now_s - before.end_s) / STEP_S + EARLY)
    if steps < 1:
        return before
    kept = recent.kept_steps(STEP_S, signals[role].lead_s)
    length = _length(before, signals, role, now_s)
    last = came(before.end_s).get(WORK[role])
    fresh = now_s - before.end_s <= settings.spec.metrics.stale_after_s
    gap = (last if fresh else None,) * min(steps - 1, kept)
    values = (*before.values, *gap, last)[-kept:]
    stands = before.told[-1] if fresh and before.told else None
    foretold = (*before.told, *(stands,) * len(gap), told)[-kept:] if before.told or told is not None else ()
    return replace(before, end_s=before.end_s + steps * STEP_S, values=values, told=foretold, tokens_mean=length)


def _length(before: Course, signals: Signals, role: Role, now_s: float) -> float:
    """The mean length over about a horizon; as it was while nothing shows it, 0 before anything has."""
    mean = signals.demand.tokens_mean(role)
    if isinstance(mean, Missing) or mean <= 0:
        return before.tokens_mean
    if not before.tokens_mean:
        return mean
    kept = math.exp(-max(0.0, now_s - before.end_s) / max(STEP_S, signals[role].lead_s))
    return kept * before.tokens_mean + (1 - kept) * mean


def arrived(state: State, signals: Signals, now_s: float, span_s: float) -> dict[Series, float]:
    """What arrived per second in the last `span_s`, without what is not known. Answers' lengths need more requests to
    be seen than a step has.
    """
    offered = signals.demand
    if offered.basis == "none" or not state.totals:
        return {}
    last = demand.over(state, now_s, span_s, demand.Arrivals(offered.basis))
    rate, length = last.requests_per_s, offered.output_tokens_mean
    answers = Missing("") if isinstance(rate, Missing) or isinstance(length, Missing) else rate * length
    found: dict[Series, Number] = {
        "requests_per_s": rate,
        "prompt_tokens_per_s": last.prompt_tokens_per_s,
        "output_tokens_per_s": answers,
        "cached_share": offered.cached_share,
    }
    return {name: value for name, value in found.items() if not isinstance(value, Missing)}


def _is_due(before: Course, course: Course, settings: Settings, horizon_s: float, now_s: float) -> bool:
    if course.fit is None or len(course.values) <= FIRST_STEPS:
        return course is not before
    name = f"{settings.metadata.namespace}/{settings.metadata.name}"
    every_s = min(max(STEP_S, horizon_s), REFIT_S)
    shift_s = zlib.crc32(name.encode()) % every_s
    return (now_s + shift_s) // every_s != (course.fitted_s + shift_s) // every_s


def _felt_s(role: Role, course: Course, settings: Settings) -> float:
    if role is Role.PREFILL:
        return min(FELT_TARGETS * settings.spec.slo.ttft.target_ms / 1e3, FELT_MAX_S)
    return min(course.tokens_mean * settings.spec.slo.itl.target_ms / 1e3, FELT_MAX_S)


def _role(
    role: Role, course: Course, signals: Signals, settings: Settings, share: float, told: float | None, only: bool
) -> RoleForecast | Missing:
    current, horizon_s = signals.demand.tokens_per_s(role), signals[role].lead_s
    if isinstance(current, Missing):
        return current
    silence_s = settings.spec.role(role).silence_s(horizon_s)
    said = recent.predict(course.values, STEP_S, horizon_s, course.fit, silence_s, told) if course.fit else None
    expected, high = (said.expected, said.covering) if said else (current, current)
    alone = only and said is not None and said.model == recent.TOLD
    return RoleForecast(
        horizon_s=horizon_s,
        quantile=share,
        tokens_per_s_q50=expected,
        tokens_per_s_high=high if alone else max(high, _least(role, course, signals, settings, horizon_s)),
        tokens_mean=course.tokens_mean,
        model=said.model if said else "now",
    )


def _least(role: Role, course: Course, signals: Signals, settings: Settings, horizon_s: float) -> float:
    """What is provided for in any case."""
    current = signals.demand.tokens_per_s(role)
    lasted = _lasted(course, horizon_s)
    if isinstance(current, Missing) or horizon_s > 2 * settings.spec.metrics.window_s:
        return lasted
    return max(lasted, current)


def _lasted(course: Course, horizon_s: float) -> float:
    """The mean of the last horizon, in which nothing came before it was looked at; missing steps are left out."""
    steps = max(1, round(horizon_s / STEP_S))
    last = course.values[-steps:]
    known = [value for value in last if value is not None]
    return sum(known) / max(1, steps - (len(last) - len(known)))
