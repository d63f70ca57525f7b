"""A measured figure next to what is claimed of it, as a row of a table and as JSON; pure.

Rules:
1. A figure keeps all its samples. Percentiles are nearest ranks, so a printed number is one that was measured.
2. A percentile is shown only where the samples suffice to tell it from the maximum.
3. A claim is an upper limit of one statistic; a figure without claims is for information.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Statistic = Literal["min", "median", "p95", "p99", "max"]

STATISTICS: tuple[Statistic, ...] = ("min", "median", "p95", "p99", "max")
_RANKS: dict[Statistic, float] = {"min": 0.0, "median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
_NEEDED: dict[Statistic, int] = {"min": 2, "median": 1, "p95": 20, "p99": 100, "max": 2}
_HEADER = ("figure", "unit", "n", *STATISTICS, "claim", "")
_TEXT_COLUMNS = (0, 1, 8, 9)


@dataclass(frozen=True, slots=True)
class Claim:
    """`statistic` stays below `limit`."""

    statistic: Statistic
    limit: float

    def __str__(self) -> str:
        return f"{self.statistic} < {_number(self.limit)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity."""

    name: str
    unit: str
    values: tuple[float, ...]
    claims: tuple[Claim, ...] = ()

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"figure {self.name!r}: no samples")

    def at(self, statistic: Statistic) -> float:
        """The value of one statistic."""
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(_RANKS[statistic] * len(ordered)) - 1)]

    @property
    def missed(self) -> tuple[Claim, ...]:
        """The claims that do not hold."""
        return tuple(claim for claim in self.claims if not self.at(claim.statistic) < claim.limit)

    def to_json(self) -> dict[str, Any]:
        """The figure without its single samples."""
        statistics: dict[str, float] = {one: self.at(one) for one in STATISTICS if self._shows(one)}
        claims = [
            {"statistic": claim.statistic, "limit": claim.limit, "met": claim not in self.missed}
            for claim in self.claims
        ]
        return {"name": self.name, "unit": self.unit, "n": len(self.values), **statistics, "claims": claims}

    def cells(self) -> tuple[str, ...]:
        """The figure as a row of the table."""
        shown = (_number(self.at(statistic)) if self._shows(statistic) else "" for statistic in STATISTICS)
        verdict = "MISSED" if self.missed else "ok" if self.claims else ""
        return (self.name, self.unit, str(len(self.values)), *shown, ", ".join(map(str, self.claims)), verdict)

    def _shows(self, statistic: Statistic) -> bool:
        return len(self.values) >= _NEEDED[statistic]


def figure(name: str, unit: str, values: Iterable[float], **limits: float) -> Figure:
    """`figure("API call", "ms", times, median=3)`: the keywords are claims."""
    claims = tuple(Claim(statistic, limits.pop(statistic)) for statistic in STATISTICS if statistic in limits)
    if limits:
        raise TypeError(f"{', '.join(limits)}: not a statistic; use one of {', '.join(STATISTICS)}")
    return Figure(name, unit, tuple(values), claims)


def table(figures: Sequence[Figure]) -> str:
    """Figures as aligned text."""
    rows = [_HEADER, *(one.cells() for one in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.ljust(width) if column in _TEXT_COLUMNS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()


def _number(value: float) -> str:
    """Three digits that matter, never an exponent for what people read as a plain number."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
