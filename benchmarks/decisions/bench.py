"""The bench itself: first what every part needs, which also tells the fixed sizes to try, then all policies."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from benchmarks.decisions.plan import (
    DEAREST,
    DEFAULTS,
    NEEDS,
    OURS,
    QUICK_SIZES,
    SIZES,
    Key,
    Part,
    Run,
    chosen,
    fixed_sizes,
)
from benchmarks.decisions.runs import Row, prepared, run_all, sources
from policies.model import ROLES

Done = Callable[[Row], object]


@dataclass(frozen=True, slots=True)
class Bench:
    """How it is run. `policies`: those wanted, all if none is (`plan.chosen`); `limit_s`: none is begun later."""

    traces: Path | None
    jobs: int = 1
    policies: Sequence[str] = ()
    quick: bool = False
    limit_s: float = math.inf

    def check(self, scenarios: Iterable[Sequence[Part]]) -> None:
        """Whatever is wrong is wrong now, not after an hour. Raises UserError."""
        for parts in scenarios:
            ready = prepared(parts[0].path, self.traces)
            for policy in chosen([*OURS, *DEFAULTS], self.policies):
                ready.check_policy(policy)

    def run(self, scenarios: Sequence[Sequence[Part]], rows: dict[Key, Row], again: bool, done: Done) -> None:
        """Run what is not among the rows, and `again` what other sources made, the largest first; `rows` gets what is
        new. Equal sources give equal numbers, so nothing else is worth a second run.
        """

        def keep(row: Row) -> None:
            rows[row["scenario"], row["policy"], row["seed"], row["start_s"], row["duration_s"]] = row
            done(row)

        end_s = time.monotonic() + self.limit_s
        needs = [Run(part, NEEDS) for parts in scenarios for part in parts]
        run_all([one for one in needs if _is_stale(one, rows)], self.traces, self.jobs, keep)
        runs = [Run(part, policy) for parts in scenarios for policy in self._all(parts, rows) for part in parts]
        old = sum(one.key in rows and _is_stale(one, rows) for one in runs)
        if old and not again:
            print(f"decisions: finished runs that other sources made: {old}; --again runs them anew", file=sys.stderr)
        left = [one for one in runs if one.key not in rows or (again and _is_stale(one, rows))]
        left.sort(key=lambda one: -rows[Run(one.part, NEEDS).key]["requests"])
        run_all(takewhile(lambda _: time.monotonic() < end_s, left), self.traces, self.jobs, keep)

    def _all(self, parts: Sequence[Part], rows: dict[Key, Row]) -> list[str]:
        """The policies of one scenario, once it is known what it needs."""
        needs = [rows[Run(part, NEEDS).key] for part in parts]
        mean = {role: sum(row["mean"][role] for row in needs) / len(needs) for role in ROLES}
        peak = {role: max(row["peak"][role] for row in needs) for role in ROLES}
        scenario = prepared(parts[0].path, self.traces).scenario
        oracle_gpus = sum(row["gpu_hours"] for row in needs) / sum(part.duration_s / 3600 for part in parts)
        most_gpus = min(DEAREST * oracle_gpus, scenario.autoscaler.gpu_budget or math.inf)
        sizes = QUICK_SIZES if self.quick else SIZES
        fixed = fixed_sizes(mean, peak, scenario, most_gpus / needs[0]["gpus_per_group"], sizes)
        return chosen([*OURS, *DEFAULTS, *fixed], self.policies)


def _is_stale(one: Run, rows: dict[Key, Row]) -> bool:
    """Whether a run is not there, or was made by other sources."""
    row = rows.get(one.key)
    return row is None or row.get("sources") != sources(one.part.path)
