"""What a run gives: every request, the fleet over time, and the numbers made of them.

Rules:
1. Requests that failed or did not finish are misses; nothing is left out of the denominator.
2. A request meets the SLO when its TTFT and its own mean ITL are within the targets; a single token has no ITL to miss.
3. A group costs its GPUs from the moment it is asked for until its pods are gone: cold start and drain are paid.
4. A percentile of nothing is None. Equal runs give equal results, to the last bit.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import floor, isnan, nan
from typing import Any, NamedTuple

from perfmodel.profile import Profile
from policies.model import ROLES, Role
from simulator.flight import Cause, Flight, Outcome


@dataclass(frozen=True, slots=True)
class Target:
    """What a request must meet."""

    ttft_s: float
    itl_s: float


class FleetRow(NamedTuple):
    """One role from a moment on, in TP groups. `starting` are asked for and not ready, `paid` are all that cost."""

    t_s: float
    role: Role
    wanted: int
    ready: int
    starting: int
    draining: int

    @property
    def paid(self) -> int:
        """Groups that cost."""
        return self.ready + self.starting + self.draining


class ScaleRow(NamedTuple):
    """A change of a role's wanted groups, and why, as the policy says."""

    t_s: float
    role: Role
    before: int
    after: int
    why: tuple[str, ...] = ()


class Span(NamedTuple):
    """A named stretch of the load."""

    name: str
    start_s: float
    end_s: float


@dataclass(slots=True)
class Requests:
    """All requests that ended, as columns, in the order of their ends; NaN where a time is not known."""

    at_s: array[float] = field(default_factory=lambda: array("d"))
    ttft_s: array[float] = field(default_factory=lambda: array("d"))
    itl_s: array[float] = field(default_factory=lambda: array("d"))
    end_s: array[float] = field(default_factory=lambda: array("d"))
    prompt_tokens: array[int] = field(default_factory=lambda: array("l"))
    output_tokens: array[int] = field(default_factory=lambda: array("l"))
    outcome: array[int] = field(default_factory=lambda: array("b"))
    cause: array[int] = field(default_factory=lambda: array("b"))

    def __len__(self) -> int:
        return len(self.at_s)

    def add(self, flight: Flight, outcome: Outcome, cause: Cause, end_s: float) -> None:
        """Keep one."""
        itl_s = flight.mean_itl_s
        self.at_s.append(flight.at_s)
        self.ttft_s.append(nan if flight.first_s is None else flight.first_s - flight.at_s)
        self.itl_s.append(nan if itl_s is None else itl_s)
        self.end_s.append(end_s)
        self.prompt_tokens.append(flight.prompt_tokens)
        self.output_tokens.append(flight.output_tokens)
        self.outcome.append(outcome)
        self.cause.append(cause)

    def met(self, index: int) -> bool:
        """Whether one met the SLO."""
        return self.cause[index] == Cause.NONE


@dataclass(frozen=True, slots=True)
class Result:
    """One run. `peak_gpus`: the most GPUs that pods had or waited for at once, beside the budget; `left_out`: requests
    that are too long for the model; `problems`: invariants that did not hold, none of them in a right simulator.
    """

    scenario: str
    policy: str
    seed: int
    window_s: float
    target: Target
    gpus_per_group: Mapping[Role, int]
    requests: Requests
    fleet: Sequence[FleetRow]
    events: Sequence[ScaleRow]
    spans: Sequence[Span]
    left_out: int
    ticks: int
    minimum_changes: int
    peak_gpus: int
    budget_gpus: int
    problems: Sequence[str]

    @property
    def attainment(self) -> float | None:
        """The share of requests that met the SLO; None of none."""
        return sum(cause == Cause.NONE for cause in self.requests.cause) / len(self.requests) if self.requests else None

    def gpu_hours(self, role: Role, start_s: float = 0.0, end_s: float | None = None) -> float:
        """What one role cost over the window, or a part of it."""
        groups = _integral(self.fleet, role, start_s, self.window_s if end_s is None else end_s, _paid)
        return groups * self.gpus_per_group[role] / 3600

    @property
    def gpu_hours_total(self) -> float:
        """What both roles cost."""
        return sum(self.gpu_hours(role) for role in ROLES)

    def summary(self) -> dict[str, Any]:
        """The numbers, as plain JSON."""
        outcomes = [self.requests.outcome.count(outcome) for outcome in Outcome]
        causes = {cause.name.lower(): self.requests.cause.count(cause) for cause in Cause if cause is not Cause.NONE}
        return {
            "scenario": self.scenario,
            "policy": self.policy,
            "seed": self.seed,
            "requests": len(self.requests),
            "requests_ok": outcomes[Outcome.OK],
            "requests_failed": outcomes[Outcome.FAILED],
            "requests_unfinished": outcomes[Outcome.UNFINISHED],
            "requests_left_out": self.left_out,
            "slo": {"ttft_ms": self.target.ttft_s * 1e3, "itl_ms": self.target.itl_s * 1e3},
            "slo_attainment": rounded(self.attainment, 6),
            "ttft_ms": percentiles_ms(self.requests.ttft_s),
            "mean_itl_ms": percentiles_ms(self.requests.itl_s),
            "gpu_hours": {role.value: rounded(self.gpu_hours(role), 4) for role in ROLES},
            "gpu_hours_total": rounded(self.gpu_hours_total, 4),
            "max_groups": {role.value: max_groups(self.fleet, role, self.window_s) for role in ROLES},
            "misses": {name: count for name, count in causes.items() if count},
            "window_s": rounded(self.window_s),
            "phases": [self._phase(span) for span in self.spans],
            "series": self.series(),
            "fleet": [[rounded(row.t_s), row.role.value, *row[2:]] for row in self.fleet],
            "scale_events": [
                {"t_s": rounded(t_s), "role": role.value, "from": before, "to": after, "reasons": list(why)}
                for t_s, role, before, after, why in self.events
            ],
            "min_count_changes": self.minimum_changes,
            "ticks": self.ticks,
            "peak_gpus": self.peak_gpus,
            "gpu_budget": self.budget_gpus,
        }

    def series(self, most: int = 120) -> dict[str, Any]:
        """What arrived in each stretch of the window, at most `most` of them: counts, tokens, misses. Linear."""
        width_s = self.window_s / most
        counts: dict[str, list[int]] = {
            name: [0] * most for name in ("requests", "misses", "prompt_tokens", "output_tokens")
        }
        rows = self.requests
        for at_s, prompt, output, cause in zip(
            rows.at_s, rows.prompt_tokens, rows.output_tokens, rows.cause, strict=True
        ):
            index = min(most - 1, int(at_s / width_s))
            counts["requests"][index] += 1
            counts["misses"][index] += cause != Cause.NONE
            counts["prompt_tokens"][index] += prompt
            counts["output_tokens"][index] += output
        return {"width_s": rounded(width_s, 6), **counts}

    def _phase(self, span: Span) -> dict[str, Any]:
        """The requests that arrived in one phase, what it cost, and the groups that were ready in it."""
        rows = [i for i, at_s in enumerate(self.requests.at_s) if span.start_s <= at_s < span.end_s]
        length_s = span.end_s - span.start_s
        hours = {role: self.gpu_hours(role, span.start_s, span.end_s) for role in ROLES}
        return {
            "name": span.name,
            "start_s": rounded(span.start_s),
            "end_s": rounded(span.end_s),
            "requests": len(rows),
            "slo_attainment": rounded(sum(map(self.requests.met, rows)) / len(rows), 4) if rows else None,
            "ttft_ms": percentiles_ms(self.requests.ttft_s[i] for i in rows),
            "mean_itl_ms": percentiles_ms(self.requests.itl_s[i] for i in rows),
            "gpu_hours": {role.value: rounded(hours[role], 4) for role in ROLES},
            "ready_groups_mean": {
                role.value: rounded(_integral(self.fleet, role, span.start_s, span.end_s, _ready) / length_s, 2)
                for role in ROLES
            },
        }


def judge(flight: Flight, outcome: Outcome, cause: Cause, target: Target, profile: Profile) -> Cause:
    """Why a request is a miss, or NONE. Linear in the prompt's chunks, and only for misses."""
    if outcome is not Outcome.OK or flight.first_s is None:
        return cause
    itl_s = flight.mean_itl_s
    if flight.first_s - flight.at_s > target.ttft_s:
        return _late(flight, flight.first_s, target, profile)
    if itl_s is not None and itl_s > target.itl_s:
        return Cause.COLD_START if flight.starting & STARTING[Role.DECODE] else Cause.DECODE_BATCH
    return Cause.NONE


STARTING = {Role.PREFILL: 1, Role.DECODE: 2}
"""Bits of `Flight.starting`."""


def _late(flight: Flight, first_s: float, target: Target, profile: Profile) -> Cause:
    """What its first token waited for longest."""
    alone_s = alone_ms(profile, flight.prompt_tokens) / 1e3
    if alone_s > target.ttft_s:
        return Cause.PROMPT
    computed_s = first_s if flight.computed_s is None else flight.computed_s
    room_s = computed_s if flight.room_s is None else flight.room_s
    arrived_s = room_s if flight.arrived_s is None else flight.arrived_s
    waits = {
        Cause.BURST: computed_s - flight.at_s - alone_s,
        Cause.DECODE_ROOM: room_s - computed_s,
        Cause.TRANSFER: arrived_s - room_s,
        Cause.DECODE_BATCH: first_s - arrived_s,
    }
    longest = max(waits, key=lambda one: waits[one])
    role = {Cause.BURST: Role.PREFILL, Cause.DECODE_ROOM: Role.DECODE}.get(longest)
    return Cause.COLD_START if role is not None and flight.starting & STARTING[role] else longest


def alone_ms(profile: Profile, prompt_tokens: int) -> float:
    """Prefill of one prompt on an idle group, chunk after chunk."""
    chunk = profile.prefill_chunk_tokens
    starts = range(0, prompt_tokens, chunk)
    return sum(profile.prefill_ms(min(chunk, prompt_tokens - start), start) for start in starts)


def percentiles_ms(values_s: Iterable[float]) -> dict[str, float | None]:
    """p50, p95, p99 and mean in milliseconds, of those that are known."""
    ordered = sorted(value for value in values_s if not isnan(value))
    found: dict[str, float | None] = {
        name: _ms(percentile(ordered, share)) for name, share in {"p50": 0.50, "p95": 0.95, "p99": 0.99}.items()
    }
    return {**found, "mean": _ms(sum(ordered) / len(ordered)) if ordered else None}


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Linear between the two nearest ranks of a sorted sequence; None of nothing."""
    if not ordered:
        return None
    rank = share * (len(ordered) - 1)
    low = floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def max_groups(fleet: Iterable[FleetRow], role: Role, until_s: float) -> int:
    """The most groups of a role that were paid for at once."""
    return max((row.paid for row in fleet if row.role is role and row.t_s < until_s), default=0)


def lasting(fleet: Iterable[FleetRow], role: Role, end_s: float) -> list[tuple[FleetRow, float]]:
    """A role's rows, each with the time until which it held."""
    own = [row for row in fleet if row.role is role and row.t_s < end_s]
    return [(row, after.t_s) for row, after in pairwise(own)] + ([(own[-1], end_s)] if own else [])


def rounded(value: float | None, digits: int = 3) -> float | None:
    """A number as it is printed; None stays None."""
    return None if value is None else round(value, digits)


def _integral(
    fleet: Iterable[FleetRow], role: Role, start_s: float, end_s: float, count: Callable[[FleetRow], int]
) -> float:
    """Groups times seconds."""
    return sum(count(row) * max(0.0, until_s - max(start_s, row.t_s)) for row, until_s in lasting(fleet, role, end_s))


def _paid(row: FleetRow) -> int:
    return row.paid


def _ready(row: FleetRow) -> int:
    return row.ready


def _ms(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s * 1e3, 2)
