"""The learned forecasts of one service, beside its ticks: fed with what each tick has seen arrive, asked before each.

Rules:
1. What is said goes into the Observation as data, so that a tick stays a function of its inputs, and the journal
   replays it. Nothing here decides anything.
2. Each series is a step of STEP_S after the other; what a tick does not know is missing, never zero, and so is a pause
   that was longer than sources stay fresh.
3. It is learned, and said anew, once a step, at another moment for each service; between two of these the same is said.
4. What it knows is lost with its process: a history, of a Prometheus or a journal, gives it back. Numpy is loaded when
   the first series has something to say.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import get_args

from autoscaler.core.forecast import arrived
from autoscaler.model import Decision, Outlook, Series
from autoscaler.settings import Settings
from forecasting.history import HISTORY
from forecasting.model import Forecast
from forecasting.online import Online
from forecasting.series import SeriesError
from policies.model import ROLES, Role

STEP_S = 60.0
SERIES: tuple[Series, ...] = get_args(Series)
DIGITS = 6
"""Significant digits of what is said: the journal keeps it at every tick."""

LOOK_S = STEP_S / 4
"""What came is taken so often at most: counters keep it."""
HISTORY_S = HISTORY * STEP_S
"""More than that is not kept."""

History = Mapping[Series, Sequence[tuple[float, float]]]
"""Points of time in Unix seconds and value, in order of time: what arrived before anybody of us looked."""


def leads_s(settings: Settings, last: Decision | None) -> dict[Role, float]:
    """How far ahead each role has to be foreseen: as the last tick has measured it, before any as the settings say."""
    return {role: last.signals[role].lead_s if last else settings.spec.role(role).cold_start_s for role in ROLES}


class Learned:
    """One service's series, and what they last said."""

    def __init__(
        self, settings: Settings, history: History | None = None, leads: Mapping[Role, float] | None = None
    ) -> None:
        """`history`: what to begin with, as a Prometheus has it, learned for `leads` (of the settings, if none are
        given): a second of work for a day and a half of it.
        """
        self._stale_after_s = settings.spec.metrics.stale_after_s
        self._shift_s = zlib.crc32(f"{settings.metadata.namespace}/{settings.spec.service}".encode()) % STEP_S
        self._series: dict[Series, Online] = {}
        self._seen_s = -math.inf
        self._turn: float | None = None
        self._said = Outlook()
        horizons_s = _horizons_s(leads or leads_s(settings, None))
        for name, points in (history or {}).items():
            series = self._series[name] = Online(STEP_S)
            with suppress(SeriesError):
                # Of groups that take longer to start than any history supports nothing is foretold.
                series.follow(series.steps(horizons_s[name]))
            for at_s, value in points:
                self._take(name, at_s, value)

    def see(self, decision: Decision) -> None:
        """What has arrived since it was taken last, as this tick has understood it."""
        now_s, before_s = decision.signals.demand.at_s, self._seen_s
        if (now_s - self._shift_s) // LOOK_S == (before_s - self._shift_s) // LOOK_S:
            return
        self._seen_s, span_s = now_s, now_s - before_s
        if not 0 < span_s <= max(2 * LOOK_S, self._stale_after_s):
            return
        for name, value in arrived(decision.state, decision.signals, now_s, span_s).items():
            # A tick may be longer than a step.
            parts = math.ceil(span_s / STEP_S)
            for part in range(parts):
                self._take(name, before_s + (part + 0.5) * span_s / parts, value)

    def say(self, now_s: float, leads: Mapping[Role, float]) -> Outlook:
        """What is foretold at this moment, for each role as far ahead as its groups take to start."""
        # What has come since is not seen yet: a step that ends in between is not whole.
        whole_s = self._seen_s if math.isfinite(self._seen_s) else now_s
        turn = (whole_s - self._shift_s) // STEP_S
        if turn != self._turn or not self._said.series:
            self._turn = turn
            horizons_s = _horizons_s(leads)
            found = ((name, self._foretell(name, whole_s, horizons_s[name])) for name in self._series)
            self._said = Outlook({name: foretold for name, foretold in found if foretold is not None})
        return self._said

    def _foretell(self, name: Series, whole_s: float, horizon_s: float) -> Forecast | None:
        series = self._series[name]
        series.refresh(whole_s)
        try:
            return _rounded(series.forecast(horizon_s))
        except SeriesError:
            # Nothing is known yet, or groups take longer to start than any history supports.
            return None

    def _take(self, name: Series, at_s: float, value: float) -> None:
        if name not in self._series:
            self._series[name] = Online(STEP_S)
        series = self._series[name]
        if math.isnan(series.start_s):
            series.start_s = self._shift_s + (at_s - self._shift_s) // STEP_S * STEP_S
        series.update(at_s, value)


def _horizons_s(leads: Mapping[Role, float]) -> dict[Series, float]:
    """A whole number of steps, the middle of the last of which is a role's lead after what is said for a step is half
    over.
    """
    steps = {role: max(1, round(lead_s / STEP_S + 1)) for role, lead_s in leads.items()}
    return {
        "requests_per_s": max(steps.values()) * STEP_S,
        "prompt_tokens_per_s": steps[Role.PREFILL] * STEP_S,
        "output_tokens_per_s": steps[Role.DECODE] * STEP_S,
        "cached_share": steps[Role.PREFILL] * STEP_S,
    }


def _rounded(said: Forecast) -> Forecast:
    measured = said.measured
    return replace(
        said,
        values=tuple(map(_short, said.values)),
        weights={name: round(weight, 4) for name, weight in said.weights.items()},
        measured=replace(
            measured,
            pinball=_short(measured.pinball),
            pinball_last_value=_short(measured.pinball_last_value),
            wape=_short(measured.wape),
            coverage=tuple(round(share, 4) for share in measured.coverage),
        ),
    )


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
