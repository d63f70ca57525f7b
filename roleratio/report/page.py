"""`report.html`: one self-contained page, readable in light and dark, on a screen and on paper.

Rules:
1. Nothing is loaded from anywhere: the style is inlined, the charts are SVG, there is no script.
2. Every text that came from outside (names, reasons, errors) is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from roleratio.records import Run
from roleratio.report import parts
from roleratio.report.charts import Chart, clock
from roleratio.report.numbers import ROLES, Bin, bins, gpu_hours
from roleratio.report.parts import card, group_charts, legend_of, milliseconds, most_groups, percent, table

_BIN_WIDTHS_S = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)


def render(run: Run, summary: dict[str, Any], style: str) -> str:
    """The page of a run; `summary` is its `report.json`, `style` the text of style.css."""
    width_s = next((w for w in _BIN_WIDTHS_S if run.end_s / w <= 100), _BIN_WIDTHS_S[-1])
    found = bins(run, width_s)
    cards = [
        _demand(run, found, width_s),
        _groups(run),
        _latencies(run, found),
        _cost(run, summary),
        _phases(summary),
        _events(summary),
    ]
    body = f"{_tiles(run, summary)}{''.join(cards)}{_footer(summary)}"
    return parts.page(run.title, _lead(run), body, style)


def _lead(run: Run) -> str:
    return f"{run.fleet} · {clock(run.window_s)} of load · SLO: TTFT {run.slo.ttft_ms:g} ms, ITL {run.slo.itl_ms:g} ms"


def _tiles(run: Run, summary: dict[str, Any]) -> str:
    attained = summary["slo_attainment"]
    failed = summary["requests_failed"]
    hours = sum(summary["gpu_hours"].values())
    saved = summary["static_fleet"]["saved_share"]
    ttft, itl = summary["ttft_ms"]["p95"], summary["itl_ms"]["p95"]
    tiles = [
        _tile("SLO attainment", percent(attained), "failed requests are misses", _verdict(attained, 0.95)),
        _tile(
            "Requests",
            f"{summary['requests_ok']:,}",
            f"{failed:,} failed of {summary['requests_sent']:,}",
            "bad" if failed else "",
        ),
        _tile("TTFT p95", milliseconds(ttft), f"target {run.slo.ttft_ms:g} ms", _within(ttft, run.slo.ttft_ms)),
        _tile("ITL p95", milliseconds(itl), f"target {run.slo.itl_ms:g} ms", _within(itl, run.slo.itl_ms)),
        _tile("GPU-hours", f"{hours:.2f}", _saved_note(saved), ""),
        _tile(
            "Most groups",
            " + ".join(str(summary["max_groups"][role]) for role in ROLES),
            f"prefill + decode, {run.gpus_per_group} GPUs each",
            "",
        ),
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(name: str, value: str, note: str, css: str) -> str:
    return (
        f'<div class="tile {css}"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)}</div><div class="note">{escape(note)}</div></div>'
    )


def _demand(run: Run, found: Sequence[Bin], width_s: float) -> str:
    charts: list[str] = []
    for field, unit, css in (
        ("requests_per_s", "requests/s", "plain"),
        ("input_tokens_per_s", "input tok/s", "prefill"),
        ("output_tokens_per_s", "output tok/s", "decode"),
    ):
        points = [((b.start_s + b.end_s) / 2, float(getattr(b, field))) for b in found]
        chart = Chart(run.end_s, max(v for _, v in points) or 1.0, unit, unit, height=112)
        chart.phases(run.spans, named=not charts)
        chart.area(points, css)
        chart.line(points, css)
        charts.append(chart.svg())
    note = f"Requests and input tokens when they arrived, output tokens when they were seen; means of {width_s:g} s."
    return card("Load", note, "", "".join(charts))


def _groups(run: Run) -> str:
    charts = group_charts(run.samples, run.end_s, run.spans, most_groups(run.samples))
    return card("TP groups per role", "Everything that is coloured is paid for.", "", charts)


def _latencies(run: Run, found: Sequence[Bin]) -> str:
    charts: list[str] = []
    for field, name, target, css in (
        ("ttft_ms", "TTFT ms", run.slo.ttft_ms, "prefill"),
        ("itl_ms", "ITL ms", run.slo.itl_ms, "decode"),
    ):
        rows = [((b.start_s + b.end_s) / 2, getattr(b, field)) for b in found]
        highest = max((row["p95"] for _, row in rows if row["p95"] is not None), default=target)
        chart = Chart(run.end_s, max(highest, target * 1.1), name, f"{name} percentiles over time")
        chart.phases(run.spans, named=not charts)
        chart.line([(t, row["p50"]) for t, row in rows], f"{css} faint")
        chart.line([(t, row["p95"]) for t, row in rows], css)
        chart.rule(target, f"SLO {target:g} ms")
        charts.append(chart.svg())
    legend = legend_of(
        ("thin c-prefill", "TTFT p95 (p50 faint)"),
        ("thin c-decode", "ITL p95 (p50 faint)"),
        ("dash c-target", "SLO"),
    )
    note = "As the client saw them, at the time at which it saw them."
    return card("Latency against the SLO", note, legend, "".join(charts))


def _cost(run: Run, summary: dict[str, Any]) -> str:
    moments = [run.window_s * i / 120 for i in range(121)]
    spent = [(t, sum(gpu_hours(run, role, t) for role in ROLES)) for t in moments]
    static = summary["static_fleet"]
    total = sum(static["groups"].values()) * run.gpus_per_group * run.window_s / 3600
    chart = Chart(run.end_s, total or 1.0, "GPU-hours", "cumulative GPU-hours", height=150)
    chart.phases(run.spans, named=True)
    chart.line([(0.0, 0.0), (run.window_s, total)], "fixed")
    chart.area(spent, "plain")
    chart.line(spent, "plain")
    groups = f"{static['groups']['prefill']} + {static['groups']['decode']}"
    legend = legend_of(("thin c-plain", "this run"), ("dash c-fixed", f"static fleet of its peak ({groups} groups)"))
    hours = summary["gpu_hours"]
    note = (
        f"Prefill {hours['prefill']:.2f}, decode {hours['decode']:.2f}, together {sum(hours.values()):.2f} GPU-hours; "
        f"the static fleet {total:.2f}. A group costs from the moment it is asked for until its pods are gone."
    )
    return card("GPU-hours", note, legend, chart.svg())


def _phases(summary: dict[str, Any]) -> str:
    rows = [
        [
            escape(phase["name"]),
            f"{phase['requests']:,}",
            percent(phase["slo_attainment"]),
            milliseconds(phase["ttft_ms"]["p95"]),
            milliseconds(phase["itl_ms"]["p95"]),
            f"{phase['ready_groups_mean']['prefill']:.1f} : {phase['ready_groups_mean']['decode']:.1f}",
        ]
        for phase in summary["phases"]
    ]
    heads = ["phase", "requests", "attainment", "TTFT p95", "ITL p95", "mean ready prefill : decode"]
    return card("Phases", "", "", table(heads, rows, numeric=range(1, 6)))


def _events(summary: dict[str, Any]) -> str:
    rows = [
        [
            clock(max(event["t_s"], 0)),
            f'<span class="role {escape(event["role"])}">{escape(event["role"])}</span>',
            f"{event['from']} → {event['to']}",
            escape("; ".join(event["reasons"]) or event["by"] or "unknown"),
        ]
        for event in summary["scale_events"]
    ]
    note = (
        f"{len(rows)} changes of replicas, {summary['min_count_patches']} of gang minimums; "
        "the reasons are the controller's own, from its decision journal."
    )
    restarts = "".join(f"<p>{clock(one['t_s'])} {escape(one['what'])}</p>" for one in summary["restarts"])
    body = table(["time", "role", "groups", "why"], rows) if rows else "<p>The fleet was never changed.</p>"
    return card("Scale events", note, "", body + restarts)


def _footer(summary: dict[str, Any]) -> str:
    versions = ", ".join(f"{escape(k)} {escape(v)}" for k, v in summary["versions"].items())
    journal = summary["decision_journal"]
    replay = f" Decision journal: <code>{escape(journal)}</code>." if journal else ""
    failures = "".join(f'<div class="miss">{count} × {escape(text)}</div>' for text, count in summary["errors"].items())
    return f"<footer>{failures}{versions}.{replay} All numbers: <code>report.json</code>.</footer>"


def _verdict(share: float | None, wanted: float) -> str:
    if share is None:
        return ""
    return "good" if share >= wanted else "bad"


def _within(value: float | None, target: float) -> str:
    if value is None:
        return ""
    return "good" if value <= target else "bad"


def _saved_note(saved: float | None) -> str:
    return "no groups" if saved is None else f"{saved * 100:.0f} % below a static fleet of the peak"
