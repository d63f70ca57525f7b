"""Pieces of a report page: cards, legends, tables, and numbers as people read them.

Rule: what is called text is escaped here; the rest is HTML already.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


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
