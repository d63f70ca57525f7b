"""A picture of a forecast: what was, what had been forecast for it one horizon before, and the quantiles to come.

Rules:
1. One SVG file that needs nothing else; it reads in light and dark.
2. A missing value is a gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from roleratio.report.charts import LEFT, TOP, WIDTH, Chart

HEIGHT = 340.0
STYLE = """
svg { --ink: #1c2024; --soft: #5c656e; --rule: #e3e6e8; --paper: #fbfbfa; --fan: #2463c4; --past: #c25a10;
  background: var(--paper); font: 11px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --ink: #e8ebed; --soft: #9aa5ae; --rule: #2e353b; --paper: #14171a;
  --fan: #6ea6f5; --past: #f0964c; } }
text { fill: var(--soft); } .tick.y { text-anchor: end; } .tick.x, .unit { text-anchor: middle; }
.grid { stroke: var(--rule); } .line { fill: none; stroke-width: 1.4; stroke-linejoin: round; }
.actual { stroke: var(--ink); } .dot.actual { fill: var(--ink); } .past { stroke: var(--past); stroke-width: 1.1; }
.dot.past { fill: var(--past); } .fan { stroke: var(--fan); } .dot.fan { fill: var(--fan); }
.band { stroke: none; opacity: 0.16; } .band.past { fill: var(--past); } .band.fan { fill: var(--fan); opacity: 0.25; }
.now { stroke: var(--soft); stroke-dasharray: 4 4; }
"""

Quantiles = Sequence[float]
"""Ascending: the first is drawn as the line, bands reach from it to each of the others."""


@dataclass(frozen=True, slots=True)
class Picture:
    """All times in s; `past` and `fan` hold a time and ascending quantiles, or None where there was no forecast."""

    title: str
    actual: Sequence[tuple[float, float]]
    past: Sequence[tuple[float, Quantiles | None]]
    fan: Sequence[tuple[float, Quantiles]]
    now_s: float


def svg(picture: Picture) -> str:
    """The picture as a file."""
    start_s = picture.actual[0][0]
    ends = [at_s for at_s, _ in picture.actual] + [at_s for at_s, _ in picture.fan]
    values = [value for _, value in picture.actual if not math.isnan(value)]
    highs = [said[-1] for _, said in [*picture.past, *picture.fan] if said]
    # One wild quantile must not flatten the picture: what is above the top is drawn at the top.
    top = max([1e-9, *values, *sorted(highs)[: math.ceil(0.99 * len(highs))]])
    chart = Chart(max(ends) - start_s or 1.0, top, "", picture.title, height=HEIGHT)
    past = [(at_s - start_s, said) for at_s, said in picture.past]
    fan = [(at_s - start_s, said) for at_s, said in picture.fan]
    _bands(chart, past, "past")
    _bands(chart, fan, "fan")
    chart.line([(at_s, said[0] if said else None) for at_s, said in past], "past")
    chart.line([(at_s, said[0]) for at_s, said in fan], "fan")
    chart.line([(at_s - start_s, None if math.isnan(value) else value) for at_s, value in picture.actual], "actual")
    now = chart.x(picture.now_s - start_s)
    chart.parts.append(f'<line class="now" x1="{now:.1f}" x2="{now:.1f}" y1="{TOP:g}" y2="{HEIGHT - 24:g}"/>')
    chart.parts.append(f'<text x="{LEFT:g}" y="9">{escape(picture.title)}</text>')
    body = chart.svg()
    opening, rest = body.split(">", 1)
    return (
        f'{opening} xmlns="http://www.w3.org/2000/svg" width="{WIDTH:g}" height="{HEIGHT:g}">'
        f"<style>{STYLE}</style>{rest}\n"
    )


def _bands(chart: Chart, points: Sequence[tuple[float, Quantiles | None]], css: str) -> None:
    run: list[tuple[float, Quantiles]] = []
    for at_s, said in [*points, (0.0, None)]:
        if said is not None:
            run.append((at_s, said))
        elif run:
            for column in range(1, len(run[0][1])):
                upper = [f"{chart.x(t):.1f},{chart.y(q[column]):.1f}" for t, q in run]
                lower = [f"{chart.x(t):.1f},{chart.y(q[0]):.1f}" for t, q in reversed(run)]
                chart.parts.append(f'<polygon class="band {css}" points="{" ".join([*upper, *lower])}"/>')
            run = []
