"""`report.html` of simulated runs of one scenario: a table, attainment over cost, and the groups of each run over time.

Rules:
1. Nothing is loaded from anywhere, as in page.py; the page computes no number that the JSON has.
2. A chart shows at most about one step per pixel, whatever the length of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

from roleratio.records import Span
from roleratio.report.charts import LEFT, RIGHT, WIDTH, Chart, nice_step
from roleratio.report.parts import card, legend_of, milliseconds, percent, table

MOST_CHARTS = 12
_PIXELS = 900
HEIGHT, TOP, BOTTOM = 300.0, 16.0, 40.0


class Row(Protocol):
    """One role from a moment on."""

    @property
    def t_s(self) -> float:
        """Since when."""

    @property
    def role(self) -> str:
        """Which role."""

    @property
    def wanted(self) -> int:
        """Groups asked for."""

    @property
    def ready(self) -> int:
        """Groups that serve."""

    @property
    def starting(self) -> int:
        """Groups that are asked for and not ready."""

    @property
    def draining(self) -> int:
        """Groups on their way out."""


@dataclass(frozen=True, slots=True)
class ShownRun:
    """One run: its name, its summary, its fleet over time, the phases of its load."""

    name: str
    summary: dict[str, Any]
    fleet: Sequence[Row]
    spans: Sequence[Span]


def render_runs(title: str, runs: Sequence[ShownRun], style: str) -> str:
    """The page."""
    cards = [_compared(runs), _pareto(runs), _load(runs[0]), *(_groups(run) for run in runs[:MOST_CHARTS])]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(_lead(runs[0]))}</p>{"".join(cards)}</main></body></html>\n'
    )


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
    right = max(1.5, *(over for over, _, _ in points)) * 1.05
    low = max(0.0, min(attained for _, attained, _ in points) - 2)
    parts = [*_axis_x(right), *_axis_y(low)]
    for over, attained, name in points:
        x, y = _x(over, right), _y(attained, low)
        label = escape(f"{name}: {attained:.2f} % at {over:.2f}")
        parts.append(f'<circle class="dot decode" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{label}</title></circle>')
        parts.append(_named(x, y, name))
    svg = f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="attainment over cost">{"".join(parts)}</svg>'
    note = (
        "Attainment in % over GPU-hours / oracle, a lower bound of what always meets the demand: up and left is better."
    )
    return card("Attainment over cost", note, "", svg)


def _named(x: float, y: float, name: str) -> str:
    """A point's name, on the side where there is room."""
    anchor, shift = ("end", -7) if x > 0.75 * WIDTH else ("start", 7)
    style = f"text-anchor:{anchor}"
    return f'<text class="tick y" style="{style}" x="{x + shift:.1f}" y="{y + 3:.1f}">{escape(name)}</text>'


def _axis_x(right: float) -> list[str]:
    step = nice_step(right)
    marks = [number * step for number in range(int(right / step) + 1)]
    return [f'<text class="tick x" x="{_x(mark, right):.1f}" y="{HEIGHT - 16:g}">{mark:g}</text>' for mark in marks]


def _axis_y(low: float) -> list[str]:
    parts = []
    step = nice_step(100 - low)
    for number in range(int(100 / step) + 1):
        value = number * step
        if value >= low:
            y = _y(value, low)
            parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick y" x="{LEFT - 6:g}" y="{y + 3.5:.1f}">{value:g}</text>')
    return parts


def _x(value: float, right: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / right


def _y(value: float, low: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (100 - low))


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
        chart.phases(run.spans, named=not charts)
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


def _groups(run: ShownRun) -> str:
    end_s = run.summary["window_s"]
    top = max((row.ready + row.starting + row.draining for row in run.fleet), default=1)
    charts: list[str] = []
    for role in ("prefill", "decode"):
        chart = Chart(end_s, top, f"{role} groups", f"{role} groups of {run.name} over time", whole=True)
        chart.phases(run.spans, named=not charts)
        steps = _lasting([row for row in run.fleet if row.role == role], end_s)
        chart.blocks([(row.t_s, end, 0, row.ready, "") for row, end in steps], f"{role} ready")
        starting = [(row.t_s, end, row.ready, row.ready + row.starting, "") for row, end in steps]
        chart.blocks(starting, f"{role} starting")
        paid = [(row.t_s, end, row.ready + row.starting, _paid(row), "") for row, end in steps]
        chart.blocks(paid, f"{role} draining")
        charts.append(chart.svg())
    legend = legend_of(
        ("c-prefill", "prefill, ready"),
        ("c-prefill-soft", "starting"),
        ("c-decode", "decode, ready"),
        ("c-decode-soft", "starting"),
        ("c-drain", "draining"),
    )
    note = "Everything that is coloured is paid for. Below: the share of requests that missed, by their arrival."
    return card(f"Groups: {run.name}", note, legend, "".join((*charts, _missed(run))))


def _paid(row: Row) -> int:
    return row.ready + row.starting + row.draining


def _lasting(rows: Sequence[Row], end_s: float) -> list[tuple[Row, float]]:
    """Rows with their ends, the last one of each pixel."""
    width_s = end_s / _PIXELS
    kept: list[Row] = []
    for row in rows:
        if kept and int(max(row.t_s, 0.0) / width_s) == int(max(kept[-1].t_s, 0.0) / width_s):
            kept.pop()
        kept.append(row)
    return list(zip(kept, [*(row.t_s for row in kept[1:]), end_s], strict=True)) if kept else []
