"""The controller's decision journals as demand, and what they say of the fleet.

Rules:
1. A tick's demand is what the controller measured over its window; it stands for the time since the tick before. Where
   that is too long ago, it stands for the window alone, and the time between is missing.
2. A tick that did not know the demand is missing time, with the controller's own reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from autoscaler.adapters.journal import Journal, Tick, read_journal
from autoscaler.errors import UserError
from autoscaler.model import Demand, RoleFleet
from autoscaler.settings import Settings
from perfmodel.profile import Profile
from policies.model import ROLES, Missing, Role
from roleratio.measured import Measured, Stretch

NO_DECISION = "no decision was recorded"
MISSED_PERIODS = 3
"""A decision that is so many periods late leaves a hole."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What journals say: the demand, the last file's settings and profile, the first fleet, measured cold starts.

    `gpu_hours` is what the recorded fleet cost in the time of which the demand is known; None where its GPUs are not.
    """

    measured: Measured
    settings: Settings
    profile: Profile
    fleet: dict[Role, RoleFleet]
    cold_starts_s: tuple[float, ...]
    gpu_hours: float | None


def recorded(paths: Sequence[Path]) -> Recorded:
    """Read the journals of one service, in order of time. Raises UserError with the problems of all files."""
    journals = _in_order(_read(paths))
    last = journals[-1]
    spec = last.settings.spec
    limit_s = max(MISSED_PERIODS * spec.sync_period_s, spec.metrics.stale_after_s)
    ticks = [tick for journal in journals for tick in journal.ticks]
    source = f"journal of {last.settings.metadata.namespace}/{spec.service}"
    measured, hours = _measured(ticks, limit_s, source)
    first = {role: found for role in ROLES if (found := _first(ticks, role)) is not None}
    starts = [time_s for role in ROLES for time_s in _cold_starts(ticks, role)]
    return Recorded(measured, last.settings, last.profile, first, tuple(starts), hours)


def _read(paths: Sequence[Path]) -> list[Journal]:
    problems: list[str] = []
    found: list[Journal] = []
    for path in paths:
        try:
            journal = read_journal(path)
        except UserError as error:
            problems += error.problems
            continue
        if not journal.ticks:
            problems.append(f"journal {path}: no decision in it; give one that has run for a while")
        found.append(journal)
    if services := sorted({f"{one.settings.metadata.namespace}/{one.settings.spec.service}" for one in found})[1:]:
        problems.append(f"--journal: of several services ({', '.join(services)} among them); give those of one")
    if problems:
        raise UserError(*problems)
    return found


def _in_order(journals: Sequence[Journal]) -> list[Journal]:
    ordered = sorted(journals, key=lambda one: one.ticks[0].observation.now_s)
    for before, after in pairwise(ordered):
        if after.ticks[0].observation.now_s <= before.ticks[-1].observation.now_s:
            raise UserError(
                f"--journal: {after.path} begins before {before.path} ends; give each file once, of one controller"
            )
    return ordered


def _first(ticks: Sequence[Tick], role: Role) -> RoleFleet | None:
    fleets = (tick.observation.fleet[role] for tick in ticks)
    return next((fleet for fleet in fleets if isinstance(fleet, RoleFleet)), None)


def _cold_starts(ticks: Sequence[Tick], role: Role) -> Iterator[float]:
    """The measured cold starts of a role: a tick tells those of all groups that are ready; new ones count."""
    before: Counter[float] = Counter()
    for tick in ticks:
        fleet = tick.observation.fleet[role]
        if isinstance(fleet, RoleFleet):
            now = Counter(fleet.ready_after_s)
            yield from (now - before).elements()
            before = now


def _measured(ticks: Sequence[Tick], limit_s: float, source: str) -> tuple[Measured, float | None]:
    """Stretches, the reasons for what is missing, and GPU-hours of the recorded fleet in the stretches."""
    stretches: list[Stretch] = []
    missing: dict[str, float] = {}
    hours: float | None = 0.0
    partial_s = 0.0
    before_s: float | None = None
    for tick in ticks:
        now_s, demand = tick.observation.now_s, tick.decision.signals.demand
        begin_s = before_s if before_s is not None and now_s - before_s <= limit_s else now_s - demand.window_s
        begin_s = begin_s if before_s is None else max(begin_s, before_s)
        if before_s is not None and begin_s > before_s:
            missing[NO_DECISION] = missing.get(NO_DECISION, 0.0) + begin_s - before_s
        before_s = now_s
        if begin_s >= now_s:
            continue
        one = _stretch(begin_s, now_s, demand)
        if isinstance(one, Missing):
            missing[one.missing] = missing.get(one.missing, 0.0) + now_s - begin_s
            continue
        stretches.append(one)
        partial_s += one.length_s if tick.decision.signals.partial else 0.0
        gpus = _gpus(tick)
        hours = None if hours is None or gpus is None else hours + gpus * one.length_s / 3600
    if not stretches:
        why = max(missing, key=lambda one: missing[one], default="only one decision")
        raise UserError(f"--journal: no decision knows the demand ({why}); give a journal of a controller that sees it")
    end_s = ticks[-1].observation.now_s
    begin_s = min(stretches[0].start_s, ticks[0].observation.now_s)
    notes = (f"a lower bound for {partial_s:,.0f} s, in which metrics were partial",) if partial_s else ()
    return Measured(source, begin_s, end_s, tuple(stretches), missing, notes), hours


def _stretch(start_s: float, end_s: float, demand: Demand) -> Stretch | Missing:
    rate, prompt, output = demand.requests_per_s, demand.prompt_tokens_mean, demand.output_tokens_mean
    if rate == 0:
        return Stretch(start_s, end_s, 0.0, 0.0, 0.0)
    known = [value for value in (rate, prompt, output) if not isinstance(value, Missing)]
    if len(known) == 3:
        return Stretch(start_s, end_s, known[0], max(1.0, known[1]), max(1.0, known[2]))
    why = next(value.missing for value in (rate, prompt, output) if isinstance(value, Missing))
    # Reasons that differ in their numbers alone are one reason.
    return Missing(re.sub(r"(?<![\w-])\d+(\.\d+)?(?![\w-])", "...", why))


def _gpus(tick: Tick) -> int | None:
    """GPUs that both roles have or wait for; None where that is not known."""
    total = 0
    for role in ROLES:
        fleet = tick.observation.fleet[role]
        if isinstance(fleet, Missing) or isinstance(fleet.gpus_per_group, Missing):
            return None
        total += (fleet.present + fleet.unborn) * fleet.gpus_per_group
    return total
