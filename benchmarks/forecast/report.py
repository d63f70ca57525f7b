"""What the rows say: ours against the best peer of each pair, the geometric means, coverage, and after level shifts.

Rules:
1. A pair is a series and a horizon; its best peer is the one with the lowest loss, whichever that is.
2. Pairs with under FEW forecasts are shown against last value, outside the mean; coverage counts from MANY on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.forecast.origins import SHIFT_SCORED, Row, Task, level_shifts
from benchmarks.forecast.ours import NAME
from benchmarks.forecast.peers import PEERS, Forecasts

FEW, MANY = 300, 1000


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The losses of ours and each peer, relative to the best peer of each pair."""
    pairs: dict[tuple[str, float], dict[str, Row]] = {}
    for row in rows:
        pairs.setdefault((row.series, row.horizon_s), {})[row.model] = row
    names = [name for name in (NAME, *PEERS) if any(name in found for found in pairs.values())]
    lines = [
        f"{'series':<22}{'horizon':>8}{'n':>6}" + "".join(f"{name:>15}" for name in names) + "  coverage 0.9, 0.99"
    ]
    for (series, horizon_s), found in pairs.items():
        best = _best(found)
        if best is None or NAME not in found:
            continue
        mine = found[NAME]
        shares = "".join(f"{found[name].pinball / best:>15.3f}" if name in found else f"{'-':>15}" for name in names)
        lines.append(f"{series:<22}{horizon_s:>8g}{mine.n:>6}{shares}  {mine.coverage90:.3f}, {mine.coverage99:.3f}")
    return [*lines, *_means(pairs, names), *_coverage(pairs)]


def shift_lines(task: Task, forecasts: Forecasts) -> list[str]:
    """Coverage in the forecasts that follow each change of the level, one line per horizon."""
    lines = []
    for steps in task.steps:
        shifts = list(level_shifts(task, steps))
        places = task.origins(steps)
        actual = task.grid.values[places + steps]
        covered = actual[:, None] <= forecasts[steps]
        after = [covered[first : first + SHIFT_SCORED].mean(axis=0) for first in shifts if first + 50 <= len(covered)]
        if after:
            shares = [sum(float(one[column]) for one in after) / len(after) for column in (1, 2)]
            lines.append(
                f"{task.name}, {steps} steps: after {len(after)} level shifts, {SHIFT_SCORED} forecasts each: "
                f"coverage {shares[0]:.3f}, {shares[1]:.3f}"
            )
    return lines


def _best(found: dict[str, Row]) -> float | None:
    losses = [row.pinball for name, row in found.items() if name in PEERS]
    return max(min(losses), 1e-12) if losses else None


def _means(pairs: dict[tuple[str, float], dict[str, Row]], names: Sequence[str]) -> list[str]:
    """Geometric means over pairs with enough forecasts; the others against last value."""
    many = [found for found in pairs.values() if NAME in found and found[NAME].n >= FEW and _best(found)]
    few = [found for found in pairs.values() if NAME in found and found[NAME].n < FEW and "last_value" in found]
    lines = []
    if many:
        shares = ", ".join(
            f"{name} {_geometric(found[name].pinball / (_best(found) or 1) for found in many if name in found):.3f}"
            for name in names
        )
        lines.append(f"geometric mean over {len(many)} pairs, best peer of each = 1: {shares}")
    if few:
        against_last = [found[NAME].pinball / max(found["last_value"].pinball, 1e-12) for found in few]
        lines.append(
            f"{len(few)} pairs of under {FEW} forecasts, last value = 1: ours {_geometric(against_last):.3f}, "
            f"worst {max(against_last):.3f}"
        )
    return lines


def _coverage(pairs: dict[tuple[str, float], dict[str, Row]]) -> list[str]:
    mine = [found[NAME] for found in pairs.values() if NAME in found and found[NAME].n >= MANY]
    if not mine:
        return []
    worst = [max(abs(row.coverage90 - 0.9) for row in mine), max(abs(row.coverage99 - 0.99) for row in mine)]
    return [
        f"coverage of pairs with {MANY} forecasts or more: off by {worst[0]:.3f} (0.9), {worst[1]:.3f} (0.99) at most"
    ]


def _geometric(shares: Iterable[float]) -> float:
    logs = [math.log(max(share, 1e-12)) for share in shares]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
