"""A page per scenario: what was attained over what it cost, ours and fixed sizes as lines, and the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from benchmarks.decisions import value
from benchmarks.decisions.plan import KNOB
from benchmarks.decisions.score import HEADER, TOLD, Outcome, Score, best_first, cells, frontier, said
from roleratio.report.parts import card, page, table
from roleratio.report.runs import pareto

UPPER = 0.9
"""There is a picture from here on and one below: what matters is near the top, and one bad policy hides it."""


def render(found: Outcome, compared: Sequence[value.Comparison] = ()) -> str:
    """The page; `compared`: what forecasts are worth in it. Deterministic."""
    lead = f"{found.requests:,} requests; the oracle spends {found.oracle_gpu_hours:.2f} GPU-hours"
    able = [one for one in found.scores if one.kind != TOLD]
    good = [one for one in able if one.attainment >= UPPER]
    bad = [one for one in able if one.attainment < UPPER]
    pictures = [_picture(good, good, f"From {100 * UPPER:.0f} % on"), _picture(bad, able, "Below")]
    style = resources.files("roleratio.report").joinpath("style.css").read_text(encoding="utf-8")
    verdicts = "".join(f"<li>{escape(said(one))}</li>" for one in found.verdicts)
    worth = [_worth(found.scores, compared)] if compared else []
    cards = [*worth, *pictures, card("Ours beside the others", "", "", f"<ul>{verdicts}</ul>"), _table(found.scores)]
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


WORTH = {
    "ours": "decode",
    "told:last": "fixed",
    "told:learned": "plain",
    "told:horizon": "prefill",
    "told:path": "want",
}
"""Lines for the forecasts that are in the picture; the table has all."""


def _worth(scores: Sequence[Score], compared: Sequence[value.Comparison]) -> str:
    """What each forecast attains over its cost, and the same as a table."""
    runs = value.by_forecast(scores)
    hulls = {family: frontier(runs[family]) for family in WORTH}
    lines = {WORTH[family]: [(one.over_oracle, 100 * one.attainment) for one in hull] for family, hull in hulls.items()}
    # Each line bears its forecast's name once, at its dearest run.
    points = [(*lines[WORTH[family]][-1], value.FORECASTS[family]) for family, hull in hulls.items() if hull]
    note = (
        "Requests within the SLO, in %, over GPU-hours / oracle; all but the forecast is the same. Below: at the "
        "GPU-hours of each run of ours."
    )
    rows = [[escape(cell) for cell in row] for row in value.cells(compared)]
    body = pareto(points, lines) + table(value.HEADER, rows, numeric=range(2, len(value.HEADER)))
    return card("What a forecast is worth", note, "", body)


def _table(scores: Iterable[Score]) -> str:
    rows = [[escape(cell) for cell in cells(one)] for one in best_first(scores)]
    return card("Policies", "", "", table(HEADER, rows, numeric=range(1, len(HEADER) - 1)))
