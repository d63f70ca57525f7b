"""Our forecaster and its parts at the same origins."""

from __future__ import annotations

from benchmarks.forecast.empirical import with_errors
from benchmarks.forecast.origins import Task
from benchmarks.forecast.peers import Forecasts
from forecasting.rolling import PARTS, POINTS, rolled

NAME = "roleratio"


def ours(task: Task, *, parts: bool = True) -> dict[str, Forecasts]:
    """Forecasts by name: the whole as NAME, a part as NAME:PART (a model of one number with its own past errors)."""
    found: dict[str, Forecasts] = {}
    for steps in task.steps:
        run, origins = rolled(task.grid, steps), task.origins(steps)
        found.setdefault(NAME, {})[steps] = run.forecasts[origins]
        if parts:
            for column, name in enumerate(POINTS):
                found.setdefault(f"{NAME}:{name}", {})[steps] = with_errors(task, steps, run.points[:, column])
            for column, name in enumerate(PARTS):
                found.setdefault(f"{NAME}:spread_{name}", {})[steps] = run.parts[origins, column].clip(min=0)
    return found
