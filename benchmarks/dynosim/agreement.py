"""Whether two simulators put the same policies in the same order; pure.

Agreement is Kendall's tau-b (Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945): of all pairs
of policies the share that both order alike less the share that they order differently, with ties taken into account; 1
is the same order, -1 the opposite one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from benchmarks.dynosim.outcome import aligned

Row = Mapping[str, Any]

LEAST = {"attained": 0.01, "gpu_hours": 0.02}
"""Differences that count as a different order: a point of attainment, 2 % of the larger GPU-hours."""
ALIKE = {"dynamo": "planner:both"}
"""Baselines of ours that are written after a policy of the referee's, and compared with it."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """Two policies that are clearly ordered in both simulators, and differently: the referee has `first` above."""

    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """One scenario. `tau` is None where either simulator sees no difference at all, or fewer than two policies."""

    policies: int
    tau: Mapping[str, float | None]
    swapped: Mapping[str, tuple[Swapped, ...]]


def agreement(referee: Mapping[str, Row], ours: Mapping[str, Row]) -> Agreement:
    """How alike the rows (by policy, with `attained` and `gpu_hours`) of two simulators are ordered. Quadratic."""
    pairs = {name: (there, row) for name, row in ours.items() if (there := _beside(referee, name)) is not None}
    tau, swapped = {}, {}
    for key in LEAST:
        values = {name: (float(one[key]), float(two[key])) for name, (one, two) in pairs.items()}
        tau[key] = kendall(*zip(*values.values(), strict=True)) if len(values) > 1 else None
        swapped[key] = tuple(_swapped(values, key))
    return Agreement(len(pairs), tau, swapped)


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Tau-b of two equally long sequences; None where one of them is constant."""
    signs = [(_sign(first[a] - first[b]), _sign(second[a] - second[b])) for a, b in combinations(range(len(first)), 2)]
    ordered = math.prod(sum(pair[place] != 0 for pair in signs) for place in (0, 1))
    return sum(one * two for one, two in signs) / math.sqrt(ordered) if ordered else None


def _beside(referee: Mapping[str, Row], name: str) -> Row | None:
    """The referee's row of a policy of ours."""
    return referee.get(ALIKE.get(name, name))


def _swapped(values: Mapping[str, tuple[float, float]], key: str) -> list[Swapped]:
    found = []
    for (one, mine), (two, other) in combinations(values.items(), 2):
        signs = [_clear(a, b, key) for a, b in zip(mine, other, strict=True)]
        if signs[0] * signs[1] < 0:
            found.append(Swapped(one, two) if signs[0] > 0 else Swapped(two, one))
    return found


def _clear(a: float, b: float, key: str) -> int:
    """The order of two values; 0 where they are nearly the same."""
    least = LEAST[key] * (max(a, b) if key == "gpu_hours" else 1.0)
    return _sign(a - b) if abs(a - b) >= least else 0


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def text(scenario: str, referee: Mapping[str, Row], ours: Mapping[str, Row], found: Agreement) -> str:
    """One scenario: a line per policy, best of the referee first, and what is to be said of the order."""
    names = sorted(ours, key=lambda name: (-_attained(_beside(referee, name)), -ours[name]["attained"]))
    header = (scenario, "referee %", "GPU-h", "our simulator %", "GPU-h")
    cells = [
        header,
        *((_title(name), *_pair(_beside(referee, name)), *_pair(ours[name])) for name in names),
    ]
    return "\n".join([aligned(cells), *_said(found)])


def _said(found: Agreement) -> list[str]:
    lines = []
    for key, what in (("attained", "attainment"), ("gpu_hours", "GPU-hours")):
        tau = found.tau[key]
        value = "not known" if tau is None else f"{tau:.2f}"
        pairs = ", ".join(f"{one.first} over {one.second}" for one in found.swapped[key])
        lines.append(
            f"{what}: Kendall's tau {value} over {found.policies} policies; "
            + (f"the referee alone puts {pairs}" if pairs else "no clear difference in the order")
        )
    return lines


def _title(name: str) -> str:
    return f"{name} ({ALIKE[name]})" if name in ALIKE else name


def _pair(row: Row | None) -> tuple[str, str]:
    return ("", "") if row is None else (f"{100 * row['attained']:.2f}", f"{row['gpu_hours']:.2f}")


def _attained(row: Row | None) -> float:
    return -1.0 if row is None else row["attained"]
