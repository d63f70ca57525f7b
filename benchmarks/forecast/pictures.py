"""Where a peer is better than ours, and why: a picture of the stretch that cost most against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.forecast.origins import Task, pinball
from benchmarks.forecast.ours import NAME
from benchmarks.forecast.peers import PEERS, Forecasts
from roleratio.forecast_plot import Picture, svg

SHOWN = 288


def draw(folder: Path, task: Task, found: Mapping[str, Forecasts]) -> list[Path]:
    """One picture per horizon at which the best peer loses less than ours; the files."""
    files: list[Path] = []
    for steps in task.steps:
        places = task.origins(steps)
        actual = task.grid.values[places + steps]
        losses = {name: pinball(actual, found[name][steps]) for name in (NAME, *PEERS) if name in found}
        rivals = [name for name in losses if name != NAME]
        if NAME not in losses or not rivals:
            continue
        best = min(rivals, key=lambda name: float(losses[name].mean()))
        if losses[best].mean() < losses[NAME].mean():
            path = folder / f"{task.name}-{steps}-{best}.svg"
            path.write_text(_picture(task, steps, best, found, losses[NAME] - losses[best]), encoding="utf-8")
            files.append(path)
    return files


def _picture(task: Task, steps: int, best: str, found: Mapping[str, Forecasts], worse: np.ndarray) -> str:
    """The SHOWN forecasts of which ours lost most against the best: ours as past forecasts, the peer's as the fan."""
    sums = np.cumsum(np.concatenate(([0.0], worse)))
    width = min(SHOWN, len(worse))
    first = int(np.argmax(sums[width:] - sums[:-width]))
    rows = range(first, first + width)
    places = task.origins(steps)
    at_s = [task.grid.start_s + float(places[row] + steps) * task.grid.step_s for row in rows]
    span = range(int(places[rows[0]]) + steps, int(places[rows[-1]]) + steps + 1)
    actual = [(task.grid.start_s + place * task.grid.step_s, float(task.grid.values[place])) for place in span]
    ours = [(moment, found[NAME][steps][row].tolist()) for moment, row in zip(at_s, rows, strict=True)]
    theirs = [(moment, found[best][steps][row].tolist()) for moment, row in zip(at_s, rows, strict=True)]
    title = f"{task.name}, {steps} steps ahead: actual (black), ours (orange), {best} (blue), where ours lost most"
    return svg(Picture(title, actual, ours, theirs, at_s[-1]))
