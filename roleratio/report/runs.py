"""`report.html` of simulated runs of one scenario: a table, attainment over cost, and the groups of each run over time.

Rule: the page computes no number that the JSON has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import Any

from roleratio.records import Span
from roleratio.report.charts import LEFT, RIGHT, WIDTH, Chart, nice_step
from roleratio.report.parts import FleetRow, card, group_charts, milliseconds, most_groups, page, percent, table

MOST_CHARTS = 12
HEIGHT, TOP, BOTTOM = 320.0, 16.0, 44.0
LETTER = 6.3
"""About the width of one."""
SHIFTS = (0.0, 13.0, -13.0, 26.0, -26.0, 39.0, -39.0, 52.0)


@dataclass(frozen=True, slots=True)
class ShownRun:
    """One run: its name, its summary, its fleet over time, the phases of its load."""

    name: str
    summary: dict[str, Any]
    fleet: Sequence[FleetRow]
    spans: Sequence[Span]


def render_runs(title: str, runs: Sequence[ShownRun], style: str, notes: Sequence[str] = ()) -> str:
    """The page. `notes`: what is to be known of the demand and the fleet."""
    cards = [_compared(runs), _pareto(runs), _about(notes), _load(runs[0])]
    shown = runs[:MOST_CHARTS]
    top = max(most_groups(run.fleet) for run in shown)
    cards += [_groups(run, top) for run in shown]
    return page(title, _lead(runs[0]), "".join(cards), style)


def _about(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return card("What was assumed", "", "", f"<ul>{items}</ul>") if notes else ""


def _lead(run: ShownRun) -> str:
    slo = run.summary["slo"]
    return f"{run.summary['requests']:,} requests · SLO: TTFT {slo['ttft_ms']:g} ms, ITL {slo['itl_ms']:g} ms"


def _compared(runs: Sequence[ShownRun]) -> str:
    rows = [
        [
            escape(run.name),
            percent(run.summary["slo_attainment"]),
            f"{run.summary['gpu_hours_total']:.2f}",
            f"{over:.2f}" if (over := run.summary["oracle"]["gpu_hours_over_oracle"]) is not None else "–",
            milliseconds(run.summary["ttft_ms"]["p95"]),
            milliseconds(run.summary["mean_itl_ms"]["p95"]),
            f"{run.summary['requests_failed'] + run.summary['requests_unfinished']:,}",
            f"{run.summary['max_groups']['prefill']} + {run.summary['max_groups']['decode']}",
            str(len(run.summary["scale_events"])),
            escape(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in run.summary["misses"].items())),
        ]
        for run in runs
    ]
    heads = ["run", "attainment", "GPU-hours", "/ oracle", "TTFT p95", "mean ITL p95", "failed", "most groups"]
    heads += ["changes", "why requests missed"]
    note = "Failed and unfinished requests are misses. A group costs from when it is asked for until its pods are gone."
    return card("Runs", note, "", table(heads, rows, numeric=range(1, 9)))


def _pareto(runs: Sequence[ShownRun]) -> str:
    """Attainment over GPU-hours / oracle: up and to the left is better."""
    points = [
        (over, attained * 100, run.name)
        for run in runs
        if (over := run.summary["oracle"]["gpu_hours_over_oracle"]) is not None
        and (attained := run.summary["slo_attainment"]) is not None
    ]
    if not points:
        return ""
    note = (
        "Requests within the SLO, in %, over GPU-hours / oracle: up and left is better. The oracle is a lower bound "
        "for what always meets the demand; left of 1 (dashed) a fleet was too small at times."
    )
    return card("Attainment over cost", note, "", pareto(points))


def pareto(
    points: Sequence[tuple[float, float, str]], lines: Mapping[str, Sequence[tuple[float, float]]] | None = None
) -> str:
    """Points of (GPU-hours / oracle, attainment in %, name) as SVG; `lines` between such, by their CSS class."""
    lines = lines or {}
    plane = Plane.around([*((over, attained) for over, attained, _ in points), *chain.from_iterable(lines.values())])
    parts = [*plane.axes()]
    for css, through in lines.items():
        corners = " ".join(f"{plane.x(over):.1f},{plane.y(attained):.1f}" for over, attained in through)
        parts.append(f'<polyline class="line {css}" points="{corners}"/>')
    placed: dict[tuple[int, int], list[str]] = {}
    for over, attained, name in points:
        x, y = plane.x(over), plane.y(attained)
        label = escape(f"{name}: {attained:.2f} % at {over:.2f}")
        parts.append(f'<circle class="dot decode" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{label}</title></circle>')
        placed.setdefault((round(x / 4), round(y / 4)), []).append(name)
    parts += _names([(4.0 * x, 4.0 * y, ", ".join(names)) for (x, y), names in placed.items()])
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="attainment over cost">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a cost and an attainment are, in a picture that shows little beside the points."""

    left: float
    right: float
    low: float
    step_x: float
    step_y: float

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]]) -> Plane:
        """For these points and for 1 and 100 %."""
        costs, shares = [1.0, *(x for x, _ in points)], [100.0, *(y for _, y in points)]
        step_x, step_y = nice_step(max(0.2, max(costs) - min(costs))), nice_step(max(0.2, 100 - min(shares)))
        left = max(0.0, math.floor(min(costs) / step_x - 0.2) * step_x)
        right = math.ceil(max(costs) / step_x + 0.2) * step_x
        return cls(left, right, max(0.0, 100 - math.ceil((100 - min(shares)) / step_y + 0.2) * step_y), step_x, step_y)

    def x(self, cost: float) -> float:
        """Where a cost is."""
        return LEFT + (WIDTH - LEFT - RIGHT) * (cost - self.left) / (self.right - self.left)

    def y(self, share: float) -> float:
        """Where an attainment in % is."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (100 - share) / (100 - self.low)

    def axes(self) -> Iterator[str]:
        """Grid, numbers, names, and the oracle's cost."""
        bottom = self.y(self.low)
        for number in range(round((100 - self.low) / self.step_y) + 1):
            share = self.low + number * self.step_y
            y = self.y(share)
            yield f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="tick y" x="{LEFT - 6:g}" y="{y + 3.5:.1f}">{share:.10g}</text>'
        for number in range(round((self.right - self.left) / self.step_x) + 1):
            cost = self.left + number * self.step_x
            yield f'<text class="tick x" x="{self.x(cost):.1f}" y="{bottom + 15:.1f}">{cost:.10g}</text>'
        one = self.x(1.0)
        yield f'<line class="line fixed" x1="{one:.1f}" x2="{one:.1f}" y1="{TOP:g}" y2="{bottom:.1f}"/>'
        middle = (LEFT + WIDTH - RIGHT) / 2
        yield f'<text class="tick x" x="{middle:.1f}" y="{HEIGHT - 4:g}">GPU-hours / oracle</text>'
        yield f'<text class="unit" transform="translate(12,{(TOP + bottom) / 2:.1f}) rotate(-90)">attained %</text>'


def _names(points: Sequence[tuple[float, float, str]]) -> Iterator[str]:
    """Names beside their points, on the side where there is room, each where no other is."""
    taken = [(x - 5, x + 5, y) for x, y, _ in points]
    for x, y, name in sorted(points):
        width = LETTER * len(name)
        is_left = x + 8 + width > WIDTH - RIGHT
        begin = x - 8 - width if is_left else x + 8
        at_y = next(
            (
                y + shift
                for shift in SHIFTS
                if TOP - 8 <= y + shift < HEIGHT - BOTTOM + 4
                and not any(
                    abs(y + shift - other_y) < 12 and begin < to and begin + width > at for at, to, other_y in taken
                )
            ),
            y,
        )
        taken.append((begin, begin + width, at_y))
        anchor = "end" if is_left else "start"
        edge = x - 8 if is_left else x + 8
        yield f'<text style="text-anchor:{anchor}" x="{edge:.1f}" y="{at_y + 3.5:.1f}">{escape(name)}</text>'


def _load(run: ShownRun) -> str:
    """What came, which is the same for all runs of one seed."""
    series, end_s = run.summary["series"], run.summary["window_s"]
    charts: list[str] = []
    for key, unit, css in (
        ("requests", "requests/s", "plain"),
        ("prompt_tokens", "prompt tok/s", "prefill"),
        ("output_tokens", "output tok/s", "decode"),
    ):
        points = _points(series, [count / series["width_s"] for count in series[key]])
        chart = Chart(end_s, max(value for _, value in points) or 1.0, unit, unit, height=112)
        chart.phases(run.spans, named=not charts and len(run.spans) > 1)
        chart.area(points, css)
        chart.line(points, css)
        charts.append(chart.svg())
    note = f"Of {run.name}; output tokens when their request arrived; means of {series['width_s']:.3g} s."
    return card("Load", note, "", "".join(charts))


def _points(series: dict[str, Any], values: Sequence[float]) -> list[tuple[float, float]]:
    return [((index + 0.5) * series["width_s"], value) for index, value in enumerate(values)]


def _missed(run: ShownRun) -> str:
    """Misses over time, in % of what arrived."""
    series = run.summary["series"]
    counts = zip(series["misses"], series["requests"], strict=True)
    points = _points(series, [100 * missed / came if came else 0.0 for missed, came in counts])
    chart = Chart(run.summary["window_s"], max(5.0, *(value for _, value in points)), "missed %", "misses over time")
    chart.phases(run.spans)
    chart.area(points, "plain")
    chart.line(points, "plain")
    return chart.svg()


def _groups(run: ShownRun, top: int) -> str:
    charts = group_charts(run.fleet, run.summary["window_s"], run.spans, top)
    note = "Everything that is coloured is paid for. Below: the share of requests that missed, by their arrival."
    return card(f"Groups: {run.name}", note, "", charts + _missed(run))
