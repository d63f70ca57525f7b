"""One scenario as a picture: GPU-hours to the right, upwards the fewer misses; SVG, pure.

Rules:
1. Misses are shown on a scale of powers of ten, not attainment: 99 % and 99.9 % are not the same.
2. A name stands beside its point, where it covers no other point or name; ours and the oracle choose first.
3. The frontier of fixed sizes is a dashed line.
4. What costs far more than all of ours, the oracle and fixed sizes stands at the right edge, with its cost: one bad
   policy does not squeeze all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

Row = Mapping[str, Any]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 480, 62, 20, 62, 50
LEAST_MISS = 1e-4
KINDS = {
    "ours": ("ours", "#0b6e4f"),
    "oracle": ("oracle (knows the trace)", "#2563a6"),
    "static": ("fixed sizes (prefill, decode)", "#6b7280"),
    "planner": ("Dynamo's planner", "#b23a48"),
    "other": ("others", "#a16207"),
}
TICKS = ((0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (1.0, "99.99+"))
RADIUS, NEAR, LINE, LETTER = 4.5, 7.0, 12.0, 6.2
FARTHEST_LINES = 9
FAR = 1.5
"""How many times the dearest of the others a policy may cost to be shown at its place."""


class Box(NamedTuple):
    """A rectangle in the picture."""

    left: float
    top: float
    right: float
    bottom: float

    def covers(self, other: Box) -> bool:
        """Whether two overlap."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


FRAME = Box(LEFT, TOP - 10, WIDTH - 4, HEIGHT - BOTTOM + 10)


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a cost and an attainment are, up to a cost."""

    most_h: float

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Scale:
        """For these rows."""
        usual = [row["gpu_hours"] for row in rows if kind_of(row["policy"]) not in ("planner", "other")]
        dearest: float = max(row["gpu_hours"] for row in rows)
        return cls(1.06 * min(dearest, FAR * max(usual, default=dearest)))

    def is_beyond(self, row: Row) -> bool:
        """Whether a row's place is right of the picture."""
        return bool(row["gpu_hours"] > self.most_h)

    def at(self, row: Row) -> tuple[float, float]:
        """A row's point."""
        return self.x(row["gpu_hours"]), self.y(row["attained"])

    def x(self, gpu_hours: float) -> float:
        """Where a cost is."""
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, gpu_hours / self.most_h)

    def y(self, attained: float) -> float:
        """Where an attainment is."""
        share = math.log10(max(LEAST_MISS, 1 - attained)) / math.log10(LEAST_MISS)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def kind_of(policy: str) -> str:
    """Which family a policy is of."""
    name = policy.partition(":")[0].partition("=")[0]
    return name if name in KINDS else "other"


def frontier(rows: Iterable[Row]) -> list[Row]:
    """Those that no other of them beats in both, in order of cost."""
    best, kept = -1.0, []
    for row in sorted(rows, key=lambda row: (row["gpu_hours"], -row["attained"])):
        if row["attained"] > best:
            best = row["attained"]
            kept.append(row)
    return kept


def picture(scenario: str, about: str, rows: Sequence[Row]) -> str:
    """The scenario's policies as SVG."""
    scale = Scale.of(rows)
    ordered = sorted(rows, key=lambda row: [*KINDS].index(kind_of(row["policy"])))
    fixed = frontier(row for row in rows if kind_of(row["policy"]) == "static")
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(scale.at, fixed))
    line = f'<polyline points="{corners}" fill="none" stroke="{KINDS["static"][1]}" stroke-dasharray="4 3"/>'
    parts = [*_frame(scenario, about, scale, {kind_of(row["policy"]) for row in rows}), line]
    parts += [_point(row, scale) for row in reversed(ordered)]
    parts += [_name(row, box, scale) for row, box in zip(ordered, placed(ordered, scale), strict=True)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def placed(rows: Sequence[Row], scale: Scale) -> list[Box]:
    """Where the rows' names go, the first ones choosing first. Quadratic."""
    taken = [_around(*scale.at(row)) for row in rows]
    found = []
    for row in rows:
        places = [*_places(*scale.at(row), LETTER * len(_short(row, scale)))]
        inside = [box for box in places if box.left >= FRAME.left and box.right <= FRAME.right]
        inside = [box for box in inside if box.top >= FRAME.top and box.bottom <= FRAME.bottom] or places
        free = (box for box in inside if not any(box.covers(other) for other in taken))
        found.append(next(free, inside[0]))
        taken.append(found[-1])
    return found


def _places(x: float, y: float, width: float) -> Iterator[Box]:
    """Beside a point, the nearest first: right, left, then further and further below and above."""
    for number in range(FARTHEST_LINES):
        for down in (number * LINE, -number * LINE) if number else (0.0,):
            top = y + down - LINE / 2
            yield Box(x + NEAR, top, x + NEAR + width, top + LINE)
            yield Box(x - NEAR - width, top, x - NEAR, top + LINE)


def _around(x: float, y: float) -> Box:
    return Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)


def _frame(scenario: str, about: str, scale: Scale, kinds: set[str]) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="20" font-size="14">{escape(f"{scenario}: {about}")}</text>'
    x = float(LEFT)
    for label, colour in (KINDS[kind] for kind in KINDS if kind in kinds):
        yield f'<circle cx="{x + RADIUS:.1f}" cy="37" r="{RADIUS}" fill="{colour}"/>'
        yield f'<text x="{x + 13:.1f}" y="41" fill="{colour}">{escape(label)}</text>'
        x += 13 + LETTER * len(label) + 18
    for attained, label in TICKS:
        y = scale.y(attained)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label} %</text>'
    step = _step(scale.most_h)
    for mark in range(int(scale.most_h / step) + 1):
        x = scale.x(mark * step)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#f3f4f6"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mark * step:g}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">GPU-hours; up: requests within the SLO</text>'


def _step(most_h: float) -> float:
    """A round distance of marks, 5 to 12 of them."""
    power: float = 10.0 ** math.floor(math.log10(most_h))
    return next(power * part for part in (1.0, 0.5, 0.2, 0.1) if most_h / (power * part) >= 5)


def _point(row: Row, scale: Scale) -> str:
    x, y = scale.at(row)
    title = f"{row['policy']}: {100 * row['attained']:.2f} % at {row['gpu_hours']:.2f} GPU-h"
    colour = KINDS[kind_of(row["policy"])][1]
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{colour}"><title>{escape(title)}</title></circle>'


def _name(row: Row, box: Box, scale: Scale) -> str:
    """The name, and a line to its point where it is not beside it."""
    x, y = scale.at(row)
    kind = kind_of(row["policy"])
    colour, weight = KINDS[kind][1], ' font-weight="bold"' if kind == "ours" else ""
    middle, near = (box.top + box.bottom) / 2, box.left if box.left > x else box.right
    lead = f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{near:.1f}" y2="{middle:.1f}" stroke="{colour}" stroke-width="0.5"/>'
    return (lead if abs(middle - y) > LINE / 2 else "") + (
        f'<text x="{box.left if near == box.left else box.right:.1f}" y="{middle + 4:.1f}" fill="{colour}"{weight} '
        f'text-anchor="{"start" if near == box.left else "end"}">{escape(_short(row, scale))}</text>'
    )


def _short(row: Row, scale: Scale) -> str:
    """The name without what its colour says already."""
    name: str = row["policy"].partition("=")[0]
    kind, _, rest = name.partition(":")
    cost = f" ({row['gpu_hours']:.0f} GPU-h)" if scale.is_beyond(row) else ""
    return (rest if kind in ("static", "planner") and rest else name) + cost
