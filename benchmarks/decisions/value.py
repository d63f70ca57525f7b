"""What a forecast is worth: the same controller under forecasts of different quality, at equal GPU-hours; pure.

Sizing, policies and holds are the same in all: ours, and ours that is told other forecasts (`simulator.roster.TOLD`).
Rules:
1. Each forecast is run over a knob, so that it has attainments over a stretch of costs: the share of the work to cover
   where errors are learned, a factor where there are none.
2. Forecasts are compared at the GPU-hours of each run of ours, read from their upper hulls as fixed sizes are
   (`score`): a mixture of the two runs beside that cost. Below the cheapest run nothing is known; above the dearest,
   at least what that one reaches.
3. The share of ramps that was started ahead is that of the same mixture.
4. All of it is of runs that have settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from benchmarks.decisions.plan import KNOB
from benchmarks.decisions.score import TOLD, Mixture, Outcome, Score, aligned, frontier, mixture

SHARES = (0.6, 0.8, 0.9, 0.95, 0.975)
FACTORS = (0.7, 0.8, 0.9, 1.0, 1.15, 1.3)
UNCOVERED = 0.51
"""A share that adds next to nothing to a forecast that a factor has made smaller."""
OURS = tuple(f"ours:{KNOB}={share:g}" for share in SHARES)
FOREKNOWN = (
    *(f"{TOLD}:{kind},{KNOB}={share:g}" for kind in ("nothing", "learned", "last", "half") for share in SHARES),
    *(f"{TOLD}:{kind},{KNOB}={UNCOVERED:g},times={factor:g}" for kind in ("horizon", "path") for factor in FACTORS),
)
POLICIES = (*OURS, *FOREKNOWN)
FORECASTS = {
    "ours": "ours",
    "told:nothing": "ours, nothing learned",
    "told:learned": "learned alone",
    "told:last": "last value",
    "told:half": "half way",
    "told:horizon": "perfect",
    "told:path": "perfect until then",
}
"""Families of policies, and what a table calls their forecast."""


@dataclass(frozen=True, slots=True)
class AtCost:
    """What one forecast reaches at a cost. `ahead`: the share of the groups of ramps that were started ahead, and
    that of ramps that last; `late_s`: by how much a group was late on average. `gpu_hours`: what it
    costs, at most, to attain as much as ours does at the given cost. None: not known.
    """

    forecast: str
    attainment: float | None
    ahead: float | None
    ahead_lasting: float | None
    late_s: float | None
    gpu_hours: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All forecasts at the GPU-hours of one run of ours."""

    policy: str
    gpu_hours: float
    over_oracle: float
    attainment: float
    forecasts: tuple[AtCost, ...]


def comparisons(found: Outcome) -> list[Comparison]:
    """In order of cost, one per run of ours; nothing where no other forecast was run."""
    families = by_forecast(found.scores)
    if not any(scores for family, scores in families.items() if family != "ours"):
        return []
    return [
        Comparison(
            ours.policy,
            ours.gpu_hours,
            ours.over_oracle,
            ours.attainment,
            tuple(_at(name, ours, families[family]) for family, name in FORECASTS.items() if families[family]),
        )
        for ours in families["ours"]
    ]


def by_forecast(scores: Iterable[Score]) -> dict[str, list[Score]]:
    """The runs of each family of FORECASTS, in order of cost, as they are once settled."""
    found: dict[str, list[Score]] = {family: [] for family in FORECASTS}
    for one in scores:
        if (family := family_of(one)) in found and (then := one.settled) is not None:
            found[family].append(
                replace(one, attainment=then.attainment, gpu_hours=then.gpu_hours, over_oracle=then.over_oracle)
            )
    return {family: sorted(own, key=lambda one: one.gpu_hours) for family, own in found.items()}


def family_of(one: Score) -> str:
    """Whose forecast it is."""
    return one.policy.partition(",")[0] if one.kind == TOLD else one.kind


def _at(name: str, ours: Score, scores: Iterable[Score]) -> AtCost:
    ordered = frontier(scores)
    mixed = mixture(ours.gpu_hours, ordered)
    return AtCost(
        name,
        _of(mixed, lambda one: one.attainment),
        _of(mixed, lambda one: one.ahead()),
        _of(mixed, lambda one: one.ahead("lasting")),
        _of(mixed, _late_s),
        cost_of(ours.attainment, ordered),
    )


def _late_s(one: Score) -> float | None:
    found = one.started()
    return found["late_s"] / found["groups"] if found["groups"] else None


def _of(mixed: Mixture, value: Callable[[Score], float | None]) -> float | None:
    values = [(value(one), share) for one, share in mixed]
    known = [(number, share) for number, share in values if number is not None]
    return sum(number * share for number, share in known) if known and len(known) == len(values) else None


def cost_of(attainment: float, ordered: Sequence[Score]) -> float | None:
    """At how many GPU-hours a hull attains so much, its cheapest run if that attains more; None if none attains it."""
    if not ordered or attainment > ordered[-1].attainment:
        return None
    for below, above in pairwise(ordered):
        if below.attainment < attainment <= above.attainment:
            share = (attainment - below.attainment) / (above.attainment - below.attainment)
            return below.gpu_hours + share * (above.gpu_hours - below.gpu_hours)
    return ordered[0].gpu_hours


def to_json(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """As plain JSON."""
    return [asdict(one) for one in found]


HEADER = (
    "at the cost of",
    "forecast",
    "attained %",
    "GPU-h for as much",
    "started ahead %",
    "lasting ahead %",
    "late s",
)


def text(found: Sequence[Comparison]) -> str:
    """Aligned text: a line per run of ours and forecast."""
    return "\n".join(["what a forecast is worth, at equal GPU-hours:", *aligned([HEADER, *cells(found)], {0, 1})])


def cells(found: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Rows under HEADER."""
    return [
        (
            "" if index else f"{at.policy}: {at.gpu_hours:.2f} GPU-h",
            one.forecast,
            _percent(one.attainment),
            "" if one.gpu_hours is None else f"{one.gpu_hours:.2f}",
            _percent(one.ahead),
            _percent(one.ahead_lasting),
            "" if one.late_s is None else f"{one.late_s:.1f}",
        )
        for at in found
        for index, one in enumerate(at.forecasts)
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"
