"""Charts as inline SVG, all over the same time axis.

Rules:
1. Colours are CSS classes of the page (page.py), so that light, dark and print need one definition.
2. Every chart of a page has the same width and the same margins: a moment is at the same place in all.
3. A missing value is a gap in a line, never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from roleratio.records import Span

WIDTH = 960.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 12.0, 24.0

Point = tuple[float, float | None]
Step = tuple[float, float, float]


@dataclass(slots=True)
class Chart:
    """One chart that is drawn layer by layer: `spans`, then areas and lines, then `svg()`."""

    end_s: float
    top_value: float
    unit: str
    label: str
    height: float = 130.0
    whole: bool = False
    parts: list[str] = field(default_factory=list)
    step: float = field(init=False)

    def __post_init__(self) -> None:
        self.step = nice_step(self.top_value, whole=self.whole)
        self.top_value = max(self.step, math.ceil(self.top_value / self.step - 1e-9) * self.step)

    def x(self, t_s: float) -> float:
        """Where a moment is."""
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(t_s, 0.0), self.end_s) / self.end_s

    def y(self, value: float) -> float:
        """Where a value is; what is above the top is drawn at the top."""
        share = min(max(value, 0.0), self.top_value) / self.top_value
        return TOP + (self.height - TOP - BOTTOM) * (1 - share)

    def phases(self, spans: Sequence[Span], *, named: bool = False) -> None:
        """Stripes behind the chart, one per phase."""
        for number, span in enumerate(spans):
            left, right = self.x(span.start_s), self.x(span.end_s)
            shade = "phase odd" if number % 2 else "phase"
            self.parts.append(
                f'<rect class="{shade}" x="{left:.1f}" y="{TOP:g}" width="{right - left:.1f}" '
                f'height="{self.height - TOP - BOTTOM:g}"/>'
            )
            if named:
                middle = (left + right) / 2
                self.parts.append(
                    f'<text class="phase-name" x="{middle:.1f}" y="{TOP - 3:g}">{escape(span.name)}</text>'
                )

    def line(self, points: Iterable[Point], css: str) -> None:
        """A line through points; it breaks where a value is missing."""
        for run in _unbroken(points):
            path = " ".join(f"{self.x(t):.1f},{self.y(v):.1f}" for t, v in run)
            if len(run) == 1:
                self.parts.append(
                    f'<circle class="dot {css}" cx="{self.x(run[0][0]):.1f}" cy="{self.y(run[0][1]):.1f}" r="1.6"/>'
                )
            else:
                self.parts.append(f'<polyline class="line {css}" points="{path}"/>')

    def area(self, points: Iterable[Point], css: str) -> None:
        """A filled line."""
        for run in _unbroken(points):
            path = " ".join(f"{self.x(t):.1f},{self.y(v):.1f}" for t, v in run)
            base = self.y(0)
            self.parts.append(
                f'<polygon class="area {css}" points="{self.x(run[0][0]):.1f},{base:.1f} {path} '
                f'{self.x(run[-1][0]):.1f},{base:.1f}"/>'
            )

    def blocks(self, steps: Iterable[tuple[float, float, float, float, str]], css: str) -> None:
        """Rectangles (from, to, low, high, title): a stacked step area that keeps its edges sharp."""
        for start_s, stop_s, low, high, title in steps:
            if stop_s <= max(start_s, 0.0) or high <= low:
                continue
            left, right = self.x(start_s), self.x(stop_s)
            self.parts.append(
                f'<rect class="block {css}" x="{left:.1f}" y="{self.y(high):.1f}" width="{right - left:.2f}" '
                f'height="{self.y(low) - self.y(high):.1f}"><title>{escape(title)}</title></rect>'
            )

    def stairs(self, steps: Iterable[Step], css: str) -> None:
        """A line of (from, to, value) that jumps."""
        corners = [f"{self.x(t):.1f},{self.y(value):.1f}" for start, stop, value in steps for t in (start, stop)]
        if corners:
            self.parts.append(f'<polyline class="line {css}" points="{" ".join(corners)}"/>')

    def rule(self, value: float, text: str) -> None:
        """A horizontal target line with its name; none when it lies above the chart."""
        if value > self.top_value:
            return
        y = self.y(value)
        self.parts.append(f'<line class="target" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        self.parts.append(f'<text class="target-name" x="{WIDTH - RIGHT - 4:g}" y="{y - 4:.1f}">{escape(text)}</text>')

    def svg(self) -> str:
        """The finished chart."""
        return (
            f'<svg viewBox="0 0 {WIDTH:g} {self.height:g}" role="img" aria-label="{escape(self.label)}">'
            f"{''.join(self.parts)}{self._axes()}</svg>"
        )

    def _axes(self) -> str:
        marks: list[str] = []
        for number in range(round(self.top_value / self.step) + 1):
            value = number * self.step
            y = self.y(value)
            marks.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
            marks.append(f'<text class="tick y" x="{LEFT - 6:g}" y="{y + 3.5:.1f}">{short(value)}</text>')
        step_s = time_step(self.end_s)
        for number in range(int(self.end_s / step_s + 1e-9) + 1):
            t_s = number * step_s
            marks.append(f'<text class="tick x" x="{self.x(t_s):.1f}" y="{self.height - 8:g}">{clock(t_s)}</text>')
        middle = (TOP + self.height - BOTTOM) / 2
        marks.append(
            f'<text class="unit" transform="translate(12,{middle:.1f}) rotate(-90)">{escape(self.unit)}</text>'
        )
        return "".join(marks)


def nice_step(top: float, *, whole: bool = False, marks: int = 4) -> float:
    """A tick distance of 1, 2 or 5 times a power of ten, about `marks` of them up to `top`."""
    if top <= 0:
        return 1.0
    rough = top / marks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough - 1e-12)
    return max(1.0, step) if whole else step


def time_step(end_s: float) -> float:
    """A tick distance in seconds that people count in, at most about ten of them."""
    for step_s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10800, 21600):
        if end_s / step_s <= 10:
            return float(step_s)
    return 43200.0 * math.ceil(end_s / 432000)


def clock(t_s: float) -> str:
    """Minutes and seconds, hours and days where needed: 90 -> 1:30, 129600 -> 1 d 12:00."""
    minutes, seconds = divmod(round(t_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d" + (f" {hours}:{minutes:02}" if hours or minutes else "")
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def short(value: float) -> str:
    """A number for an axis: 12000 -> 12k."""
    if value >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.10g}"


def _unbroken(points: Iterable[Point]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for t_s, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((t_s, value))
    return [run for run in runs if run]
