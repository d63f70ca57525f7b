"""What came of the runs: sums per policy, the frontier of fixed sizes, who beats ours at its cost, a table; pure.

Rules:
1. A policy is judged over all parts and seeds of its scenario, or not at all: requests, misses and GPU-hours are added
   up, GPU-hours and the oracle's per seed. Failed and unfinished requests are misses.
2. A percentile is of all requests that have the time, from buckets: right to 1 %.
3. A baseline beats a run of ours that attains no more and costs no less. Who knows what comes is none: the oracle, and
   ours with forecasts made of the arrivals.
4. What fixed sizes attain at a cost is read from their upper hull: as if a fleet had one size for a share of the
   requests and another one for the rest, which is more than any one of them can do. Below the cheapest of them
   nothing is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.decisions.plan import NEEDS, Key, Part, Run
from benchmarks.decisions.runs import BUCKET, Row

ORACLE = "oracle"
SHOWN = 0.00005
"""A cause of fewer of the requests is not in the table; the JSON has all."""
TOLD = "told"
HEADER = (
    "policy",
    "attained %",
    "GPU-h",
    "/oracle",
    "TTFT p95 ms",
    "ITL p95 ms",
    "started ahead %",
    "most groups",
    "changes",
    "misses",
)


@dataclass(frozen=True, slots=True)
class Settled:
    """A policy once its runs have settled (`runs.settled_s`); as in a Score."""

    requests: int
    attainment: float
    gpu_hours: float
    over_oracle: float


@dataclass(frozen=True, slots=True)
class Score:
    """One policy over a whole scenario. `gpu_hours` are of one seed; `max_groups` of the worst part; `ramps`: what
    `simulator.ramps` counts, of both roles and all parts; it and `settled` are not there where a run did not tell it.
    """

    policy: str
    requests: int
    attainment: float
    gpu_hours: float
    over_oracle: float
    ttft_ms_p95: float | None
    itl_ms_p95: float | None
    max_groups: Mapping[str, int]
    peak_gpus: int
    changes: int
    misses: Mapping[str, int]
    ramps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    settled: Settled | None = None

    def started(self, *which: str) -> Counter[str]:
        """What is counted of such ramps, `lasting` or `bursts`; of all if none is named."""
        counts: Counter[str] = Counter()
        for name in which or tuple(self.ramps):
            counts.update(self.ramps.get(name, {}))
        return counts

    def ahead(self, *which: str) -> float | None:
        """The share of the groups of such ramps that were started one cold start ahead; None of none."""
        found = self.started(*which)
        return found["ahead"] / found["groups"] if found["groups"] else None

    @property
    def kind(self) -> str:
        """Which family it is of."""
        return self.policy.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run of ours beside the others. `static_attainment`: of fixed sizes at the same GPU-hours."""

    policy: str
    attainment: float
    gpu_hours: float
    static_attainment: float | None
    beaten_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario. `unfinished`: policies of which parts are missing, with how many are there."""

    scenario: str
    parts: int
    requests: int
    oracle_gpu_hours: float
    scores: tuple[Score, ...]
    verdicts: tuple[Verdict, ...]
    unfinished: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def outcome(parts: Sequence[Part], rows: Mapping[Key, Row]) -> Outcome | None:
    """What came of one scenario's parts; None while it is not known what they need."""
    needs = [rows.get(Run(part, NEEDS).key) for part in parts]
    known = [row for row in needs if row is not None]
    if len(known) < len(parts):
        return None
    seeds = len({part.seed for part in parts})
    least = sum(row["gpu_hours"] for row in known) / seeds
    stretches = {(part.seed, part.start_s, part.duration_s) for part in parts}
    found: dict[str, list[Row]] = {}
    for (scenario, policy, *stretch), row in rows.items():
        if scenario == parts[0].scenario and policy != NEEDS and tuple(stretch) in stretches:
            found.setdefault(policy, []).append(row)
    whole = {policy: own for policy, own in found.items() if len(own) == len(parts)}
    settled = sum(row["settled"]["gpu_hours"] for row in known if "settled" in row) / seeds
    scores = [_score(policy, own, seeds, least, settled) for policy, own in whole.items()]
    scores.sort(key=lambda one: one.gpu_hours)
    return Outcome(
        parts[0].scenario,
        len(parts),
        sum(row["requests"] for row in known),
        least,
        tuple(scores),
        tuple(verdicts(scores)),
        {policy: len(own) for policy, own in found.items() if policy not in whole},
    )


def _score(policy: str, rows: Sequence[Row], seeds: int, least: float, least_settled: float) -> Score:
    requests = sum(row["requests"] for row in rows)
    misses: Counter[str] = sum((Counter(row["misses"]) for row in rows), Counter())
    gpu_hours = sum(row["gpu_hours"] for row in rows) / seeds
    return Score(
        policy,
        requests,
        1 - misses.total() / requests if requests else 1.0,
        gpu_hours,
        gpu_hours / least,
        percentile_ms((row["ttft_s"] for row in rows), 0.95),
        percentile_ms((row["itl_s"] for row in rows), 0.95),
        {role: max(row["max_groups"][role] for row in rows) for role in rows[0]["max_groups"]},
        max(row["peak_gpus"] for row in rows),
        sum(row["changes"] for row in rows),
        dict(misses.most_common()),
        _ramps(rows),
        _settled(rows, seeds, least_settled),
    )


def _settled(rows: Sequence[Row], seeds: int, least: float) -> Settled | None:
    if not least or not all("settled" in row for row in rows):
        return None
    requests, missed, gpu_hours = (
        sum(row["settled"][name] for row in rows) for name in ("requests", "missed", "gpu_hours")
    )
    hours = gpu_hours / seeds
    return Settled(requests, 1 - missed / requests if requests else 1.0, hours, hours / least)


def _ramps(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    if not all("ramps" in row for row in rows):
        return {}
    sums: dict[str, Counter[str]] = {}
    for row in rows:
        for role in row["ramps"].values():
            for which, counts in role.items():
                sums.setdefault(which, Counter()).update(counts)
    return {which: dict(counts) for which, counts in sums.items()}


def percentile_ms(counted: Iterable[Mapping[str, int]], share: float) -> float | None:
    """The nearest rank of all that was counted, in milliseconds; None of nothing."""
    counts: Counter[int] = Counter()
    for buckets in counted:
        counts.update({int(bucket): count for bucket, count in buckets.items()})
    left = share * counts.total()
    for bucket in sorted(counts):
        left -= counts[bucket]
        if left <= 0:
            return 1e3 * float(BUCKET ** (bucket + 0.5))
    return None


def frontier(scores: Iterable[Score]) -> list[Score]:
    """The corners of the upper hull of these, in order of cost: each further one buys less per GPU-hour. Linear after
    sorting.
    """
    kept: list[Score] = []
    for one in sorted(scores, key=lambda one: (one.gpu_hours, -one.attainment)):
        if kept and one.attainment <= kept[-1].attainment:
            continue
        while len(kept) > 1 and _gain(kept[-2], kept[-1]) <= _gain(kept[-2], one):
            kept.pop()
        kept.append(one)
    return kept


def _gain(cheap: Score, dear: Score) -> float:
    """Attainment bought per GPU-hour."""
    return (dear.attainment - cheap.attainment) / (dear.gpu_hours - cheap.gpu_hours)


Mixture = Sequence[tuple[Score, float]]
"""Runs with their shares, which sum to 1; empty: nothing is known."""


def mixture(gpu_hours: float, ordered: Sequence[Score]) -> Mixture:
    """The corners of a frontier beside a cost: none below the cheapest, the dearest alone above it."""
    if not ordered or gpu_hours < ordered[0].gpu_hours:
        return ()
    for below, above in pairwise(ordered):
        if gpu_hours < above.gpu_hours:
            share = (gpu_hours - below.gpu_hours) / (above.gpu_hours - below.gpu_hours)
            return (below, 1 - share), (above, share)
    return ((ordered[-1], 1.0),)


def attained_at(gpu_hours: float, scores: Iterable[Score]) -> float | None:
    """What the frontier of these attains at a cost; None below the cheapest of them."""
    found = mixture(gpu_hours, frontier(scores))
    return sum(one.attainment * share for one, share in found) if found else None


def verdicts(scores: Sequence[Score]) -> list[Verdict]:
    """Each of ours beside the others, in order of cost."""
    fixed = [one for one in scores if one.kind == "static"]
    others = [one for one in scores if one.kind not in ("ours", TOLD, ORACLE)]
    return [
        Verdict(
            ours.policy,
            ours.attainment,
            ours.gpu_hours,
            attained_at(ours.gpu_hours, fixed),
            tuple(
                one.policy for one in others if one.attainment >= ours.attainment and one.gpu_hours <= ours.gpu_hours
            ),
        )
        for ours in scores
        if ours.kind == "ours"
    ]


def text(found: Outcome) -> str:
    """The scenario as aligned text: who is best first, then what is to be said of ours."""
    title = (
        f"{found.scenario}: {found.requests:,} requests, {found.parts} part{'s'[: found.parts > 1]}, "
        f"oracle {found.oracle_gpu_hours:.2f} GPU-h"
    )
    lines = aligned([HEADER, *map(cells, best_first(found.scores))], {0, len(HEADER) - 1})
    left = [f"{policy}: {count} of {found.parts} parts, not judged" for policy, count in found.unfinished.items()]
    return "\n".join([title, *lines, *map(said, found.verdicts), *left])


def best_first(scores: Iterable[Score]) -> list[Score]:
    """By attainment, then by cost."""
    return sorted(scores, key=lambda one: (-one.attainment, one.gpu_hours))


def said(verdict: Verdict) -> str:
    """One verdict as a line."""
    static = verdict.static_attainment
    beside = "no fixed size is as cheap" if static is None else f"fixed sizes at this cost attain {100 * static:.2f} %"
    beaten = f"{', '.join(verdict.beaten_by) or 'no baseline'} attains as much for no more"
    return f"{verdict.policy}: {100 * verdict.attainment:.2f} % at {verdict.gpu_hours:.2f} GPU-h: {beaten}; {beside}"


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Rows as lines; the columns `left` begin at the same place, the others end there."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def cells(one: Score) -> tuple[str, ...]:
    """A row under HEADER."""
    return (
        one.policy,
        f"{100 * one.attainment:.2f}",
        f"{one.gpu_hours:.2f}",
        f"{one.over_oracle:.3f}",
        "" if one.ttft_ms_p95 is None else f"{one.ttft_ms_p95:,.0f}",
        "" if one.itl_ms_p95 is None else f"{one.itl_ms_p95:.1f}",
        "" if (ahead := one.ahead()) is None else f"{100 * ahead:.1f}",
        " + ".join(map(str, one.max_groups.values())),
        str(one.changes),
        ", ".join(
            f"{cause.replace('_', ' ')} {100 * count / one.requests:.2f} %"
            for cause, count in one.misses.items()
            if count / one.requests >= SHOWN
        ),
    )
