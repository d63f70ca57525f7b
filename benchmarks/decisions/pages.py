"""A page per scenario: what was attained over what it cost, ours and fixed sizes as lines, and the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from benchmarks.decisions.plan import KNOB
from benchmarks.decisions.score import HEADER, Outcome, Score, best_first, cells, frontier, said
from roleratio.report.parts import card, page, table
from roleratio.report.runs import pareto

UPPER = 0.9
"""There is a picture from here on and one below: what matters is near the top, and one bad policy hides it."""


def render(found: Outcome) -> str:
    """The page. Deterministic."""
    lead = f"{found.requests:,} requests; the oracle spends {found.oracle_gpu_hours:.2f} GPU-hours"
    good = [one for one in found.scores if one.attainment >= UPPER]
    bad = [one for one in found.scores if one.attainment < UPPER]
    pictures = [_picture(good, good, f"From {100 * UPPER:.0f} % on"), _picture(bad, found.scores, "Below")]
    style = resources.files("roleratio.report").joinpath("style.css").read_text(encoding="utf-8")
    verdicts = "".join(f"<li>{escape(said(one))}</li>" for one in found.verdicts)
    cards = [*pictures, card("Ours beside the others", "", "", f"<ul>{verdicts}</ul>"), _table(found.scores)]
    return page(f"Decisions: {found.scenario}", lead, "".join(cards), style)


def _picture(shown: Sequence[Score], joined: Sequence[Score], title: str) -> str:
    """Some as points; ours and the frontier of fixed sizes, among those that are to be joined, as lines."""
    if not shown:
        return ""
    points = [(one.over_oracle, 100 * one.attainment, one.policy.replace(f":{KNOB}=", " ")) for one in shown]
    lines = {
        css: [(one.over_oracle, 100 * one.attainment) for one in ordered]
        for css, ordered in (
            ("decode", [one for one in joined if one.kind == "ours"]),
            ("fixed", frontier(one for one in joined if one.kind == "static")),
        )
    }
    note = (
        "Requests within the SLO, in %, over GPU-hours / oracle: up and left is better. Lines: ours over its safety "
        "knob, and (dashed) the upper hull of fixed sizes, which are chosen with hindsight."
    )
    return card(title, note, "", pareto(points, lines))


def _table(scores: Iterable[Score]) -> str:
    rows = [[escape(cell) for cell in cells(one)] for one in best_first(scores)]
    return card("Policies", "", "", table(HEADER, rows, numeric=range(1, len(HEADER) - 1)))
