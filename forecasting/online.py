"""One series as it comes: samples in, quantiles at a few horizons out, a few milliseconds a step.

Rules:
1. Samples are averaged into steps of `step_s`; a step is closed by the first sample after it, or by `refresh`. A step
   with less than half of the usual number of samples is partial, and partial is missing.
2. A sample that is no number, infinite, negative or late is refused and counted, never used.
3. A horizon is rounded up to one of STEPS; each that is asked for is learned along from then on, KEPT_HORIZONS of
   them. A new one replays the history, REPLAY steps at each `refresh`, and until then a neighbour answers for it.
4. The state as JSON is the values themselves: what was learned is learned again from them, so that no version of the
   code has to read what another has learned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forecasting.history import HISTORY, History
from forecasting.learner import Learner
from forecasting.model import QUANTILES, Fallback, Forecast, Measured
from forecasting.series import VALUE_MAX, Grid, SeriesError, Sieve, regular

STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 144, 200, 288, 400, 576, 800, 1008)
KEPT_HORIZONS = 3
REPLAY = 4
YOUNG = 20
"""Targets below which a forecast is called young."""


class Online:
    """The incremental state of one series."""

    def __init__(self, step_s: float, quantiles: Sequence[float] = QUANTILES) -> None:
        """Raises SeriesError for a step or quantiles of which nothing can be made."""
        if not (math.isfinite(step_s) and step_s > 0):
            raise SeriesError(f"step {step_s}: expected a number of seconds above 0")
        self.step_s, self.quantiles = float(step_s), checked(quantiles)
        self.refused = self.partial = 0
        self._forget()

    def _forget(self) -> None:
        self.history = History()
        self.sieve = Sieve()
        self.learners: dict[int, Learner] = {}
        self.replays: dict[int, Replay] = {}
        self.start_s = math.nan
        """Where the first step begins."""
        self._open = Bin()
        self._usual_count = 0.0

    # ---- samples in ------------------------------------------------------------------------------------------

    def update(self, at_s: float, value: float) -> None:
        """Take one sample. Steps that it closes are learned from."""
        if not (math.isfinite(at_s) and 0 <= value <= VALUE_MAX):
            self.refused += 1
            return
        if math.isnan(self.start_s):
            self.start_s = at_s
        index = math.floor((at_s - self.start_s) / self.step_s + 1e-9)
        if index < self._open.index:
            self.refused += 1
            return
        if index - self._open.index > HISTORY:
            # So long a silence leaves nothing to go on from: the history would hold nothing but holes.
            self._forget()
            self.start_s, index = at_s, 0
        self._close_until(index)
        self._open.add(value)

    def refresh(self, now_s: float) -> None:
        """Close the steps that have ended by now, and go on with what is being replayed."""
        if not math.isnan(self.start_s) and math.isfinite(now_s):
            index = math.floor((now_s - self.start_s) / self.step_s + 1e-9)
            self._close_until(min(index, self._open.index + HISTORY))
        self.replay(REPLAY)

    def replay(self, steps: int | None = None) -> None:
        """Replay so many steps of each horizon that is new; all of them if not said."""
        for horizon, replay in list(self.replays.items()):
            if replay.go(steps):
                self.learners[horizon] = replay.learner
                del self.replays[horizon]

    def add(self, value: float) -> None:
        """Take the value of one whole step; NaN is missing."""
        if self.sieve.is_partial(value):
            self.partial += 1
            value = math.nan
        if not self.history.count and math.isnan(value):
            if not math.isnan(self.start_s):
                self.start_s += self.step_s
                self._open.index -= 1
            return
        self.history.add(value)
        for learner in self.learners.values():
            learner.step(self.history)
        for replay in self.replays.values():
            replay.values.append(value)

    def _close_until(self, index: int) -> None:
        while self._open.index < index:
            done, self._open = self._open, Bin(self._open.index + 1)
            self.add(self._value(done))

    def _value(self, done: Bin) -> float:
        if done.count == 0:
            return math.nan
        if done.count < 0.5 * self._usual_count:
            self.partial += 1
            return math.nan
        self._usual_count += 0.2 * (done.count - self._usual_count) if self._usual_count else done.count
        return done.total / done.count

    # ---- forecasts out ---------------------------------------------------------------------------------------

    def forecast(self, horizon_s: float) -> Forecast:
        """The quantiles one horizon after the last closed step. Raises SeriesError for a horizon that is none, or
        beyond what a history of HISTORY steps supports, and while no value is known.
        """
        steps = self.steps(horizon_s)
        if not self.history.count:
            return self._first(steps)
        if steps not in self.learners and steps not in self.replays:
            self._begin(steps)
        return self.now(steps)

    def now(self, steps: int) -> Forecast:
        """The forecast of a horizon that is followed, or of which the history is being replayed."""
        at_s = self.start_s + (self.history.now + 1) * self.step_s
        ready = steps in self.learners
        nearest = steps if ready else min(self.learners, key=lambda known: abs(math.log(known / steps)), default=0)
        if not nearest:
            return self._naive(at_s, steps)
        # What is asked for is kept longest.
        learner = self.learners[nearest] = self.learners.pop(nearest)
        values = self.quantiles_at(nearest, max(1.0, steps / nearest))
        return Forecast(
            at_s,
            steps * self.step_s,
            self.quantiles,
            tuple(values),
            self._fallback(ready, learner, self.history.since_known > steps),
            learner.measured() if ready else Measured(),
            learner.model_weights(),
        )

    def quantiles_at(self, steps: int, stretch: float = 1.0) -> list[float]:
        """The quantiles of a horizon that is followed, in steps, `stretch` times as far ahead."""
        learner = self.learners[steps]
        # Errors grow about like the root of time: to a longer horizon, and over steps without a value.
        wider = (stretch * (1 + self.history.since_known / steps)) ** 0.5
        middle = learner.median
        plain, given = learner.said.plain.tolist(), learner.said.given.tolist()
        values = [max(0.0, middle + wider * (value - middle)) for value in plain]
        # The envelope of a burst is a value that was seen: it stays where it is.
        return [
            max(value, said) if said > before else value
            for value, said, before in zip(values, given, plain, strict=True)
        ]

    def follow(self, steps: int) -> Learner:
        """Learn a horizon of exactly so many steps from the next value on."""
        learner = self.learners[steps] = Learner(steps, self.step_s, self.quantiles)
        return learner

    def steps(self, horizon_s: float) -> int:
        """The horizon in steps, rounded up to one of STEPS. Raises SeriesError."""
        if not (math.isfinite(horizon_s) and horizon_s > 0):
            raise SeriesError(f"horizon {horizon_s} s: expected a number above 0")
        needed = horizon_s / self.step_s - 1e-9
        found = next((steps for steps in STEPS if steps >= needed), None)
        if found is None:
            raise SeriesError(
                f"horizon {horizon_s:g} s: expected at most {STEPS[-1] * self.step_s:g} s, half of the history of "
                f"{HISTORY} steps of {self.step_s:g} s; give a longer step"
            )
        return found

    def _begin(self, steps: int) -> None:
        """Start to learn a horizon; the one unused longest makes room."""
        while len(self.learners) + len(self.replays) >= KEPT_HORIZONS:
            group: dict[int, Learner] | dict[int, Replay] = self.learners or self.replays
            del group[next(iter(group))]
        known = [
            self.history.root(moment) ** 2 if self.history.is_known(moment) else math.nan
            for moment in range(max(0, self.history.count - HISTORY), self.history.count)
        ]
        self.replays[steps] = Replay(Learner(steps, self.step_s, self.quantiles), known)
        if len(known) <= REPLAY:
            self.replay()

    def _naive(self, at_s: float, steps: int) -> Forecast:
        """Before anything is learned: the last value, below an envelope of what was seen lately."""
        value = self.history.root(self.history.now) ** 2
        highest = float(self.history.last(max(12, 2 * steps)).max()) ** 2
        values = [value if level <= 0.5 else max(value, highest) for level in self.quantiles]
        return Forecast(
            at_s, steps * self.step_s, self.quantiles, tuple(values), "catching up", weights={"last_value": 1.0}
        )

    def _first(self, steps: int) -> Forecast:
        """Before a step is closed: what its samples say. Raises SeriesError while there are none."""
        if not self._open.count:
            raise SeriesError("no value is known yet; expected at least one")
        value = self._open.total / self._open.count
        values = (value,) * len(self.quantiles)
        return Forecast(self.start_s, steps * self.step_s, self.quantiles, values, "young", weights={"last_value": 1.0})

    def _fallback(self, ready: bool, learner: Learner, stale: bool) -> Fallback:
        if stale:
            return "stale"
        if not ready:
            return "catching up"
        if learner.said.lifted:
            return "burst"
        return "young" if learner.targets < YOUNG else "none"

    # ---- state -----------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The state: step, quantiles, horizons and values (null: missing), some 15 KB at a full history."""
        first = max(0, self.history.count - HISTORY)
        return {
            "step_s": self.step_s,
            "start_s": None if math.isnan(self.start_s) else self.start_s + first * self.step_s,
            "quantiles": list(self.quantiles),
            "horizons": sorted({*self.learners, *self.replays}),
            "values": [
                float(f"{self.history.root(moment) ** 2:.7g}") if self.history.is_known(moment) else None
                for moment in range(first, self.history.count)
            ],
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Online:
        """A state that was written by `to_json`; what it had learned is replayed as `refresh` is called."""
        self = cls(state["step_s"], state["quantiles"])
        if state["start_s"] is not None:
            self.start_s = float(state["start_s"])
        for value in state["values"]:
            self.add(math.nan if value is None else float(value))
        self._open = Bin(self.history.count)
        for steps in state["horizons"] if self.history.count else ():
            self._begin(int(steps))
        return self


class Bin:
    """The samples of one step."""

    __slots__ = ("count", "index", "total")

    def __init__(self, index: int = 0) -> None:
        self.index, self.count, self.total = index, 0, 0.0

    def add(self, value: float) -> None:
        """Take one sample."""
        self.count += 1
        self.total += value


class Replay:
    """A learner on its way through the history."""

    __slots__ = ("history", "learner", "place", "values")

    def __init__(self, learner: Learner, values: list[float]) -> None:
        self.learner, self.values = learner, values
        self.history = History()
        self.place = 0

    def go(self, steps: int | None) -> bool:
        """Learn from the next so many steps, or all; whether there are none left."""
        end = len(self.values) if steps is None else min(len(self.values), self.place + steps)
        for value in self.values[self.place : end]:
            if self.history.count or not math.isnan(value):
                self.history.add(value)
                self.learner.step(self.history)
        self.place = end
        return self.place >= len(self.values)


def forecast(
    series: Grid | Iterable[tuple[float, float]], horizon_s: float, quantiles: Sequence[float] = QUANTILES
) -> Forecast:
    """Learn a whole series (a grid, or points of time in s and value) and forecast one horizon after its end.

    Raises SeriesError. Takes some 0.5 ms per step; `Online` is the same at 0.5 ms per refresh.
    """
    grid = series if isinstance(series, Grid) else regular(series)
    online = Online(grid.step_s, quantiles)
    online.start_s = grid.start_s
    steps = online.steps(horizon_s)
    known = grid.values[-HISTORY:]
    online.start_s += (len(grid.values) - len(known)) * grid.step_s
    online.follow(steps)
    for value in known.tolist():
        online.add(value)
    return online.forecast(horizon_s)


def checked(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Quantiles in ascending order. Raises SeriesError."""
    if not quantiles:
        raise SeriesError("quantiles: none given; expected numbers between 0 and 1")
    for level in quantiles:
        if not 0 < level < 1:
            raise SeriesError(f"quantile {level}: expected a number between 0 and 1, both excluded")
    return tuple(sorted({float(level) for level in quantiles}))
