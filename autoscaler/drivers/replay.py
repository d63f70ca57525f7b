"""Replay: decide every line of a journal again, to compare, or to go on where it ends.

Rules:
1. The state is handed from tick to tick as it was then; only the first one comes from the file.
2. Numbers agree to 1e-9, everything else exactly.
3. Going on is a convenience: a journal that cannot serve costs a line in the log, and nothing is remembered.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from autoscaler.adapters.journal import Recorded, read_journal
from autoscaler.codec import encode
from autoscaler.core import tick
from autoscaler.errors import UserError
from autoscaler.model import State
from autoscaler.settings import Settings

log = logging.getLogger("roleratio.controller")

TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """How many ticks were decided again, and where the first one came out differently."""

    ticks: int
    first_difference: str | None


def replay(path: Path) -> ReplayResult:
    """Decide a journal again, up to its first difference. Raises UserError if it is not a journal."""
    journal = read_journal(path)
    state = journal.state
    for count, line in enumerate(journal.ticks, start=1):
        decision = tick(state, line.observation, journal.settings, journal.profile)
        difference = _difference(encode(Recorded, line.decision), encode(Recorded, Recorded.of(decision)), "decision")
        if difference:
            return ReplayResult(count, f"line {line.line}: {difference}")
        state = decision.state
    return ReplayResult(len(journal.ticks), None)


def resume(path: Path, settings: Settings, now_s: float) -> State:
    """The state after a journal's last tick, for the process that takes over from the one that wrote it.

    An empty one where there is no such journal, where it is another service's, and where it ends longer ago than
    `metrics.staleAfterS`: sources that were unseen for so long only give a new baseline. Linear in the file.
    """
    if not path.exists() or not path.stat().st_size:
        return State()
    try:
        journal = read_journal(path)
    except UserError as error:
        return _begin_anew(str(error))
    if _service(journal.settings) != _service(settings):
        return _begin_anew(f"journal {path}: is of {'/'.join(_service(journal.settings))}")
    if not journal.ticks:
        return journal.state
    age_s, limit_s = now_s - journal.ticks[-1].observation.now_s, settings.spec.metrics.stale_after_s
    if not 0 <= age_s <= limit_s:
        return _begin_anew(f"journal {path}: ended {age_s:.1f} s ago, expected at most {limit_s:g} s")
    state = journal.state
    for line in journal.ticks:
        state = tick(state, line.observation, journal.settings, journal.profile).state
    log.info("journal %s: going on after its %d decisions, the last one %.1f s ago", path, len(journal.ticks), age_s)
    return state


def _begin_anew(why: str) -> State:
    log.info("%s; sizes are held until enough has been seen", why)
    return State()


def _service(settings: Settings) -> tuple[str, str]:
    return settings.metadata.namespace, settings.spec.service


def _difference(recorded: Any, decided: Any, field: str) -> str | None:
    """The first place where two JSON values differ. Linear in their size."""
    if isinstance(recorded, dict) and isinstance(decided, dict):
        keys = [*recorded, *(key for key in decided if key not in recorded)]
        parts = ((f"{field}.{key}", recorded.get(key), decided.get(key)) for key in keys)
    elif isinstance(recorded, list) and isinstance(decided, list):
        pairs = enumerate(zip_longest(recorded, decided))
        parts = ((f"{field}[{index}]", old, new) for index, (old, new) in pairs)
    elif _equal(recorded, decided):
        return None
    else:
        return f"{field.removeprefix('decision.')}: recorded {recorded!r}, decided {decided!r}"
    return next((found for name, old, new in parts if (found := _difference(old, new, name))), None)


def _equal(recorded: Any, decided: Any) -> bool:
    if _is_number(recorded) and _is_number(decided):
        return math.isclose(recorded, decided, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(recorded) is type(decided) and bool(recorded == decided)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
