"""Forecasts of slow peers, kept in a file: the same values, horizons and code give the same forecasts."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.forecast.origins import Task, Values

Forecasts = dict[int, Values]


def cached(folder: Path | None, name: str, task: Task, version: str, work: Callable[[Task], Forecasts]) -> Forecasts:
    """What `work` gives, from `folder` where it holds it (None: never); `version` says what code made it."""
    if folder is None:
        return work(task)
    key = hashlib.sha256(f"{name} {version} {task.steps} {task.grid.step_s} {task.first} ".encode())
    key.update(np.ascontiguousarray(task.grid.values).tobytes())
    path = folder / f"{name}-{key.hexdigest()[:24]}.npz"
    try:
        with np.load(path) as kept:
            return {steps: kept[str(steps)] for steps in task.steps}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        pass
    found = work(task)
    folder.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(".part.npz")
    np.savez_compressed(made, **{str(steps): forecasts for steps, forecasts in found.items()})  # type: ignore[arg-type]
    made.replace(path)
    return found
