"""Pieces of a report page: the page itself, cards, legends, tables, groups over time, and numbers as people read them.

Rules:
1. What is called text is escaped here; the rest is HTML already.
2. Nothing is loaded from anywhere: the style is inlined, the charts are SVG, there is no script.
3. A chart of groups shows at most about one step per pixel, whatever the length of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

from roleratio.records import Span
from roleratio.report.charts import Chart, clock
from roleratio.report.numbers import ROLES

_PIXELS = 900


class FleetRow(Protocol):
    """One role from a moment on, in TP groups: asked for, serving, asked for and not ready, on their way out."""

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


def page(title: str, lead: str, body: str, style: str) -> str:
    """A whole page; `body` is HTML, `style` CSS."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{body}</main></body></html>\n'
    )


def card(title: str, note: str, legend: str, body: str) -> str:
    """A titled part of the page; `legend` and `body` are HTML."""
    text = f"<p>{escape(note)}</p>" if note else ""
    return f'<section class="card"><h2>{escape(title)}</h2>{text}{legend}{body}</section>'


def legend_of(*entries: tuple[str, str]) -> str:
    """Entries of (CSS classes, text)."""
    items = "".join(f'<span><i class="{css}"></i>{escape(text)}</span>' for css, text in entries)
    return f'<div class="legend">{items}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """Rows of HTML cells under heads of text; `numeric` columns are aligned to the right."""

    def css(column: int) -> str:
        return ' class="num"' if column in numeric else ""

    head = "".join(f"<th{css(i)}>{escape(text)}</th>" for i, text in enumerate(heads))
    body = "".join("<tr>" + "".join(f"<td{css(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def percent(share: float | None) -> str:
    """A share for people."""
    return "–" if share is None else f"{share * 100:.1f} %"


def milliseconds(value: float | None) -> str:
    """A time for people."""
    if value is None:
        return "–"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"


def most_groups(fleet: Sequence[FleetRow]) -> int:
    """The most groups of a role that are wanted or paid for."""
    return max((max(row.wanted, _paid(row)) for row in fleet), default=1)


def group_charts(fleet: Sequence[FleetRow], end_s: float, spans: Sequence[Span], top: int) -> str:
    """A legend and a chart for each role, up to `top`: what is paid for, by what it does, under what is wanted."""
    charts: list[str] = []
    for role in ROLES:
        chart = Chart(end_s, top, f"{role} groups", f"{role} groups over time", whole=True)
        chart.phases(spans, named=not charts and len(spans) > 1)
        steps = _lasting((row for row in fleet if row.role == role), end_s)
        named = [(row, row.t_s, until_s, _says(row)) for row, until_s in steps]
        chart.blocks([(at, to, 0, row.ready, says) for row, at, to, says in named], f"{role} ready")
        starting = [(at, to, row.ready, row.ready + row.starting, says) for row, at, to, says in named]
        chart.blocks(starting, f"{role} starting")
        draining = [(at, to, row.ready + row.starting, _paid(row), says) for row, at, to, says in named]
        chart.blocks(draining, f"{role} draining")
        chart.stairs([(max(row.t_s, 0.0), to, row.wanted) for row, to in steps if to > 0], "want")
        charts.append(chart.svg())
    legend = legend_of(
        ("c-prefill", "prefill, ready"),
        ("c-prefill-soft", "starting"),
        ("c-decode", "decode, ready"),
        ("c-decode-soft", "starting"),
        ("c-drain", "draining"),
        ("dash c-want", "wanted"),
    )
    return legend + "".join(charts)


def _paid(row: FleetRow) -> int:
    return row.ready + row.starting + row.draining


def _says(row: FleetRow) -> str:
    return (
        f"{clock(max(row.t_s, 0))} {row.role}: wanted {row.wanted}, ready {row.ready}, "
        f"starting {row.starting}, draining {row.draining}"
    )


def _lasting(rows: Iterable[FleetRow], end_s: float) -> list[tuple[FleetRow, float]]:
    """Rows with their ends, the last one of each pixel."""
    width_s = end_s / _PIXELS
    kept: list[FleetRow] = []
    for row in rows:
        if row.t_s >= end_s:
            break
        if kept and int(max(row.t_s, 0.0) / width_s) == int(max(kept[-1].t_s, 0.0) / width_s):
            kept.pop()
        kept.append(row)
    return list(zip(kept, [*(row.t_s for row in kept[1:]), end_s], strict=True)) if kept else []
