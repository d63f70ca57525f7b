"""What came of the runs: a table, what the misses are, and what is to be said of ours beside the others; pure.

Rules:
1. Several seeds of a policy are one row: attainment and its misses are those of the run with the median attainment, all
   else are medians. So what attained and the causes of what missed are 100 %.
2. A cause that is less than half of a hundredth of a per cent is left blank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Row = Mapping[str, Any]

SHOWN = 0.00005
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


def summed(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row per scenario and policy, medians over the seeds."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["scenario"], row["policy"]), []).append(row)
    return [_median(scenario, policy, found) for (scenario, policy), found in groups.items()]


def _median(scenario: str, policy: str, rows: Sequence[Row]) -> dict[str, Any]:
    middle = sorted(rows, key=lambda row: row["attained"])[(len(rows) - 1) // 2]
    return {
        "scenario": scenario,
        "policy": policy,
        "n": len(rows),
        "attained": middle["attained"],
        "gpu_hours": median(row["gpu_hours"] for row in rows),
        "ttft_ms_p95": _middle(row["ttft_ms_p95"] for row in rows),
        "itl_ms_p95": _middle(row["itl_ms_p95"] for row in rows),
        "changes": median(row["changes"] for row in rows),
        "missed": middle["missed"],
    }


def _middle(values: Iterable[float | None]) -> float | None:
    """The median, or nothing where no request gave a value."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def table(rows: Sequence[Row]) -> str:
    """A line per policy, best attainment first in each scenario."""
    return aligned([HEADER, *map(_cells, _ordered(rows))])


def matrix(rows: Sequence[Row]) -> str:
    """Policies that are the same in every scenario, beside each other: attained % @ GPU-hours."""
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    found: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: str(row["policy"])):
        if _kind(row) != "static":
            cell = f"{100 * row['attained']:.2f} @ {row['gpu_hours']:.2f}"
            found.setdefault(row["policy"].partition("=")[0], {})[row["scenario"]] = cell
    lines = [(policy, *(cells.get(name, "") for name in scenarios)) for policy, cells in found.items()]
    return aligned([("attained % @ GPU-h", *scenarios), *lines])


def causes(rows: Sequence[Row]) -> str:
    """The misses of each policy by cause, in % of all requests; with what attained they are 100."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row["missed"])
    names = [name for name, share in total.most_common() if share >= SHOWN]
    lines = [
        (
            row["scenario"],
            row["policy"].partition("=")[0],
            f"{100 * row['attained']:.2f}",
            *(_share(row["missed"].get(name, 0.0)) for name in names),
        )
        for row in _ordered(rows)
    ]
    return aligned([("scenario", "policy", "attained", *names), *lines])


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Of each run of ours: the best of Dynamo's planner, and the cheapest fixed size that attains as much."""
    found = []
    for ours in (row for row in _ordered(rows) if _kind(row) == "ours"):
        beside = [row for row in rows if row["scenario"] == ours["scenario"]]
        best = max((row for row in beside if _kind(row) == "planner"), key=lambda row: row["attained"], default=None)
        as_good = [row for row in beside if _kind(row) == "static" and row["attained"] >= ours["attained"]]
        cheapest = min(as_good, key=lambda row: row["gpu_hours"], default=None)
        parts = [
            f"{ours['scenario']}, {_said(ours)}",
            "no planner has run" if best is None else f"best of the planner's settings {_said(best)}",
            "no fixed size attains as much"
            if cheapest is None
            else f"cheapest fixed size with as much {_said(cheapest)}",
        ]
        found.append("; ".join(parts))
    return found


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of text; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if cell[:1].isdecimal() else cell.ljust(width)
            for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _ordered(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["scenario"], -row["attained"], row["gpu_hours"]))


def _kind(row: Row) -> str:
    return str(row["policy"]).partition(":")[0]


def _said(row: Row) -> str:
    return f"{row['policy']} {100 * row['attained']:.2f} % at {row['gpu_hours']:.2f} GPU-h"


def _share(share: float) -> str:
    return f"{100 * share:.2f}" if share >= SHOWN else ""


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
