"""What the median is regressed on: differences from what is now, in roots, so that zero coefficients mean last value.

Rules:
1. One vector per origin; a feature that cannot be known yet is zero.
2. Everything is seen from the origin; nothing looks ahead.
"""

from __future__ import annotations

from forecasting.history import History
from forecasting.seasons import DAY_S, HOUR_S, WEEK_S, PhaseMeans, change_known, period, same_time

NAMES = ("one", "back", "back_up", "mean_short", "hour", "mean_middle", "mean_long", "days_level", "day", "week")
SHORT = ("one", "back", "back_up", "mean_short", "hour")
TILTING = [NAMES.index(name) for name in NAMES if name not in ("one", "back_up", "week")]
HOUR_RATE, DAY_RATE = 0.1, 0.4


class Features:
    """The features of one horizon; keeps what past hours and days did over that many steps."""

    __slots__ = ("day", "day_changes", "hour", "hour_changes", "steps", "week")

    def __init__(self, steps: int, step_s: float) -> None:
        self.steps = steps
        self.hour, self.day, self.week = (period(season_s, step_s) for season_s in (HOUR_S, DAY_S, WEEK_S))
        self.hour_changes = PhaseMeans(self.hour, HOUR_RATE) if self.hour else None
        self.day_changes = PhaseMeans(self.day, DAY_RATE) if self.day else None

    def learn(self, history: History) -> None:
        """Take the change that has just become known."""
        began = history.now - self.steps
        change = change_known(history, began, self.steps)
        if change is not None:
            for changes in (self.hour_changes, self.day_changes):
                if changes:
                    changes.add(began, change)

    def at(self, history: History, typical: float) -> list[float]:
        """The vector for a forecast from now, in the order of NAMES; `typical`: the usual error, for the constant."""
        now, root = history.now, history.root(history.now)
        back = history.root(now - 1) - root if history.holds(now - 1) else 0.0
        short, middle, long = (mean - root for mean in history.means)
        levels = [
            level
            for season in (self.day, 2 * self.day, 3 * self.day, self.week)
            if (level := same_time(history, season, self.steps)) is not None
        ]
        return [
            0.1 * typical,
            back,
            max(back, 0.0),
            short,
            self.hour_changes.at(now) if self.hour_changes else 0.0,
            middle,
            long,
            sum(levels) / len(levels) - root if levels else 0.0,
            self.day_changes.at(now) if self.day_changes else 0.0,
            self._since(history, self.week),
        ]

    def _since(self, history: History, season: int) -> float:
        """What one season ago the next steps did; 0 where it is not kept."""
        if not season:
            return 0.0
        began = history.now - season * -(-self.steps // season)
        return change_known(history, began, self.steps) or 0.0
