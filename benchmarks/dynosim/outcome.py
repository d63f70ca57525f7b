"""What came of the runs: a table, a picture per scenario of attainment over GPU-hours, and JSON; pure.

Rules:
1. Several seeds of a policy are one row: the medians.
2. A policy is on the frontier of its kind where none spends less and attains as much.
3. The picture shows misses, not attainment, on a scale of powers of ten: 99 % and 99.9 % are not the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

Row = Mapping[str, Any]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 70, 20, 40, 46
LEAST_MISS = 1e-4
KINDS = {"ours": "#0b6e4f", "planner": "#b23a48", "static": "#6b7280", "oracle": "#2563a6", "other": "#a16207"}
HEADER = (
    "scenario",
    "policy",
    "n",
    "attained %",
    "GPU-h",
    "TTFT p95 s",
    "ITL p95 ms",
    "changes",
    "most of what missed",
)


def kind_of(policy: str) -> str:
    """Which family a policy is of."""
    name = policy.partition(":")[0].partition("=")[0]
    return name if name in KINDS else "other"


def summed(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row per scenario and policy, medians over the seeds."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["scenario"], row["policy"]), []).append(row)
    return [_median(scenario, policy, found) for (scenario, policy), found in groups.items()]


def _median(scenario: str, policy: str, rows: Sequence[Row]) -> dict[str, Any]:
    causes = sorted({cause for row in rows for cause in row["missed"]})
    return {
        "scenario": scenario,
        "policy": policy,
        "n": len(rows),
        "attained": median(row["attained"] for row in rows),
        "gpu_hours": median(row["gpu_hours"] for row in rows),
        "ttft_ms_p95": _middle(row["ttft_ms_p95"] for row in rows),
        "itl_ms_p95": _middle(row["itl_ms_p95"] for row in rows),
        "changes": median(row["changes"] for row in rows),
        "missed": {cause: median(row["missed"].get(cause, 0.0) for row in rows) for cause in causes},
    }


def _middle(values: Iterable[float | None]) -> float | None:
    """The median, or nothing where no request gave a value."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def table(rows: Sequence[Row]) -> str:
    """Aligned text, best attainment first in each scenario."""
    ordered = sorted(rows, key=lambda row: (row["scenario"], -row["attained"], row["gpu_hours"]))
    cells = [HEADER, *(_cells(row) for row in ordered)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    causes = sorted(row["missed"].items(), key=lambda item: -item[1])[:2]
    return (
        row["scenario"],
        row["policy"].partition("=")[0],
        str(row["n"]),
        f"{100 * row['attained']:.2f}",
        f"{row['gpu_hours']:.2f}",
        "" if row["ttft_ms_p95"] is None else f"{row['ttft_ms_p95'] / 1e3:.2f}",
        "" if row["itl_ms_p95"] is None else f"{row['itl_ms_p95']:.1f}",
        f"{row['changes']:g}",
        ", ".join(f"{cause} {100 * share:.1f} %" for cause, share in causes if share >= 0.0005),
    )


def frontier(rows: Iterable[Row]) -> list[Row]:
    """Those that no other of them beats in both, in order of cost."""
    best, kept = -1.0, []
    for row in sorted(rows, key=lambda row: (row["gpu_hours"], -row["attained"])):
        if row["attained"] > best:
            best = row["attained"]
            kept.append(row)
    return kept


def picture(scenario: str, about: str, rows: Sequence[Row]) -> str:
    """One scenario as SVG: GPU-hours to the right, misses upwards being fewer."""
    most_h = 1.1 * max(row["gpu_hours"] for row in rows)
    parts = [_frame(scenario, about, most_h)]
    for kind, colour in KINDS.items():
        own = [row for row in rows if kind_of(row["policy"]) == kind]
        line = " ".join(f"{_x(row['gpu_hours'], most_h):.1f},{_y(row['attained']):.1f}" for row in frontier(own))
        if kind == "static" and line:
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-dasharray="4 3"/>')
        parts += [_mark(row, colour, most_h) for row in own]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _x(gpu_hours: float, most_h: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * gpu_hours / most_h


def _y(attained: float) -> float:
    share = math.log10(max(LEAST_MISS, 1 - attained)) / math.log10(LEAST_MISS)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _frame(scenario: str, about: str, most_h: float) -> str:
    lines = [f'<text x="{LEFT}" y="20" font-size="14">{escape(f"{scenario}: {about}")}</text>']
    for attained, label in ((0.0, "0"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (1.0, "99.99+")):
        y = _y(attained)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label} %</text>')
    step = 10 ** math.floor(math.log10(most_h / 2))
    for mark in range(int(most_h / step) + 1):
        x = _x(mark * step, most_h)
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mark * step:g}</text>')
    lines.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">GPU-hours (requests within the SLO: up)</text>'
    )
    return "\n".join(lines)


def _mark(row: Row, colour: str, most_h: float) -> str:
    x, y = _x(row["gpu_hours"], most_h), _y(row["attained"])
    title = f"{row['policy']}: {100 * row['attained']:.2f} % at {row['gpu_hours']:.2f} GPU-h"
    return (
        f'<g><title>{escape(title)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
        f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(row["policy"].partition("=")[0])}</text></g>'
    )
