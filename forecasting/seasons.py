"""What happened at the same phase of earlier hours, days and weeks.

Rules:
1. A season counts only where the history holds it and steps divide it: phases that drift say nothing.
2. A change is the difference of roots from a moment to `steps` later; it is known once the later moment has come.
"""

from __future__ import annotations

from forecasting.history import HISTORY, History

HOUR_S, DAY_S, WEEK_S = 3_600.0, 86_400.0, 604_800.0
SURE = 3.0
"""Observations of a phase after which its mean is believed in full."""


def period(season_s: float, step_s: float) -> int:
    """Steps in a season; 0 where there is no such whole number of at least 2, or the history is too short for two."""
    steps = round(season_s / step_s)
    exact = abs(steps * step_s - season_s) <= 1e-6 * season_s
    return steps if exact and 2 <= steps <= HISTORY * 5 // 6 else 0


class PhaseMeans:
    """An exponential mean per phase of one period, shrunk to `rest` while few values were seen."""

    __slots__ = ("means", "rate", "seen")

    def __init__(self, steps: int, rate: float) -> None:
        from array import array

        self.rate = rate
        self.means, self.seen = array("d", bytes(8 * steps)), array("B", bytes(steps))

    def add(self, moment: int, value: float) -> None:
        """Take a value of a moment's phase."""
        phase = moment % len(self.means)
        count = self.seen[phase]
        # A plain mean until the exponential one has seen as much.
        rate = max(self.rate, 1.0 / (count + 1))
        self.means[phase] += rate * (value - self.means[phase])
        self.seen[phase] = min(255, count + 1)

    def at(self, moment: int, rest: float = 0.0) -> float:
        """The mean of a moment's phase."""
        phase = moment % len(self.means)
        trust = self.seen[phase] / (self.seen[phase] + SURE) if self.seen[phase] < 255 else 1.0
        return rest + trust * (self.means[phase] - rest)


def change_known(history: History, moment: int, steps: int) -> float | None:
    """The change from a moment to `steps` later; None where either is not kept, not seen or yet to come."""
    if not (history.holds(moment) and history.holds(moment + steps)):
        return None
    if not (history.is_known(moment) and history.is_known(moment + steps)):
        return None
    return history.root(moment + steps) - history.root(moment)


def same_time(history: History, season: int, steps: int) -> float | None:
    """The root one season before the target `steps` after now; None where it is not kept."""
    if not season:
        return None
    moment = history.now + steps - season * -(-steps // season)
    return history.root(moment) if history.holds(moment) else None
