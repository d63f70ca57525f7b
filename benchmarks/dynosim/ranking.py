"""`python -m benchmarks.dynosim.ranking [SCENARIO...]`: the referee's scenarios in our own simulator.

Beside ours, fixed sizes and the oracle run all baselines of our simulator. What the referee has run as well
(`python -m benchmarks.dynosim`, the same --out) is compared: who is above whom, in attainment and in GPU-hours.
`--hard`: with gangs, faults and a budget that cannot be exceeded, which the referee has not.

Writes into --out: mirror.jsonl or mirror-hard.jsonl (what is finished, and is not run again), ranking.txt or hard.txt,
and the scenario files, which `roleratio simulate` takes. Exit code 1 where an invariant of our simulator did not hold
or something is absent, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscaler.errors import UserError
from benchmarks.decisions.plan import DEFAULTS
from benchmarks.dynosim import mirror, outcome
from benchmarks.dynosim.agreement import agreement, text
from benchmarks.dynosim.options import add_common
from benchmarks.dynosim.runs import Bench, Row, Run, finished, last_arrival_s
from benchmarks.dynosim.scenarios import SCENARIOS, Scenario
from benchmarks.errors import BenchmarkError
from policies.model import ROLES
from roleratio.cli import Parser
from roleratio.simulation import Prepared
from roleratio.sweep import Outcome, Task, sweep
from simulator.roster import oracle_needs

POLICIES = ("ours", *DEFAULTS)
"""With all that our simulator knows beside ours."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """The bench's folder, and which variant of its scenarios is run."""

    bench: Bench
    hard: bool = False

    @property
    def path(self) -> Path:
        """The file of finished runs."""
        return self.bench.folder / f"mirror{'-hard' if self.hard else ''}.jsonl"

    def scenario(self, scenario: Scenario, seed: int) -> Path:
        """The scenario file, made from what the referee's bench prepares. Raises UserError and BenchmarkError."""
        run = Run(scenario, "ours", seed)
        self.bench.prepare(run)
        plain = self._written(run, None)
        if not self.hard:
            return plain
        ready = Prepared(plain)
        needs = oracle_needs(ready.scenario, ready.profile, ready.load(seed).requests)
        peak = {role.value: max(groups for _, groups in need.steps) for role, need in needs.items()}
        return self._written(run, mirror.hard_budget(peak, scenario))

    def run_all(self, tasks: Mapping[Task, str], jobs: int) -> list[str]:
        """Run all, each kept as soon as it is finished; what is wrong with the simulator. Raises UserError."""
        wrong: list[str] = []

        def keep(found: Outcome) -> None:
            row = row_of(tasks[found.task], found)
            wrong.extend(f"{row['scenario']} {row['policy']}: {one}" for one in found.summary["problems"])
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
            print(
                f"{row['scenario']} {row['policy']} seed {row['seed']}: {100 * row['attained']:.2f} % at "
                f"{row['gpu_hours']:.2f} GPU-h, {row['wall_s']:.0f} s",
                file=sys.stderr,
                flush=True,
            )

        sweep([*tasks], jobs, keep)
        return wrong

    def _written(self, run: Run, budget_gpus: int | None) -> Path:
        context, trace = self.bench.context(run), self.bench.trace(run)
        # The last request comes within the load, not at its end.
        span_s = last_arrival_s(trace) + 1e-3
        name = f"mirror-{run.scenario.name}-{run.seed}"
        made = mirror.document(run.scenario, context, f"{name}-profile.json", trace, span_s, budget_gpus)
        return mirror.write(self.bench.folder, f"{name}{'-hard' if budget_gpus else ''}", made, context)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for, compare, and print; the exit code."""
    arguments = _parser().parse_args(argv)
    ours = Mirror(Bench(arguments.out, arguments.python), arguments.hard)
    try:
        tasks = _tasks(ours, arguments)
        done = (
            set() if arguments.again else {(row["scenario"], row["policy"], row["seed"]) for row in finished(ours.path)}
        )
        wrong = ours.run_all(
            {task: name for task, name in tasks.items() if (name, task.policy, task.seed) not in done}, arguments.jobs
        )
        told = _hard(finished(ours.path)) if arguments.hard else _compared(ours)
    except UserError as error:
        print(f"ranking: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BenchmarkError as error:
        print(f"ranking: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    (arguments.out / ("hard.txt" if arguments.hard else "ranking.txt")).write_text(told + "\n", encoding="utf-8")
    print(told)
    for line in wrong:
        print(f"ranking: the simulator is wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _tasks(ours: Mirror, arguments: argparse.Namespace) -> dict[Task, str]:
    """What is to be run, and the name of its scenario. Raises UserError for a policy that is not known."""
    tasks: dict[Task, str] = {}
    for name in arguments.scenarios or SCENARIOS:
        scenario = SCENARIOS[name]
        for seed in arguments.seed or (1,):
            path = ours.scenario(scenario, seed)
            ready = Prepared(path)
            for policy in arguments.policy or [*POLICIES, *_fixed(scenario, ready)]:
                ready.check_policy(policy)
                tasks[Task(path, policy, seed)] = name
    return tasks


def _fixed(scenario: Scenario, ready: Prepared) -> list[str]:
    """The scenario's fixed sizes that its budget can hold."""
    budget = ready.scenario.autoscaler.gpu_budget
    pairs = (pair for pair in scenario.static if sum(pair[role] * scenario.tp[role] for role in ROLES) <= budget)
    return [f"static:{pair.prefill},{pair.decode}" for pair in pairs]


def row_of(scenario: str, found: Outcome) -> Row:
    """A finished run as a line of the file."""
    told = found.summary
    requests = max(1, told["requests"])
    return {
        "scenario": scenario,
        "policy": found.task.policy,
        "seed": found.task.seed,
        "requests": told["requests"],
        "attained": told["slo_attainment"] or 0.0,
        "gpu_hours": told["gpu_hours_total"],
        "ttft_ms_p95": told["ttft_ms"]["p95"],
        "itl_ms_p95": told["mean_itl_ms"]["p95"],
        "changes": len(told["scale_events"]),
        "peak_gpus": told["peak_gpus"],
        "gpu_budget": told["gpu_budget"],
        "missed": {cause: count / requests for cause, count in told["misses"].items()},
        "wall_s": round(found.wall_s, 1),
    }


def _compared(ours: Mirror) -> str:
    """Each scenario that our simulator has run beside the referee's."""
    sides = [_by_scenario(outcome.summed(rows)) for rows in (ours.bench.rows(), finished(ours.path))]
    referee, own = sides
    parts = []
    for name in (name for name in SCENARIOS if name in own):
        beside = referee.get(name, {})
        parts.append(text(name, beside, own[name], agreement(beside, own[name])))
    return "\n\n".join(parts)


def _hard(rows: Sequence[Row]) -> str:
    """The table of the hard variant: behind each policy the most GPUs that were there or waited for, of the budget."""
    peaks: dict[tuple[str, str], int] = {}
    budgets = {row["scenario"]: row["gpu_budget"] for row in rows}
    for row in rows:
        key = row["scenario"], row["policy"]
        peaks[key] = max(peaks.get(key, 0), row["peak_gpus"])
    told = outcome.summed(rows)
    named = [
        {**one, "policy": f"{policy} ({peaks[scenario, policy]} of {budgets[scenario]} GPUs)"}
        for one in told
        for scenario, policy in [(one["scenario"], one["policy"])]
    ]
    return f"{outcome.table(named)}\n\n{outcome.matrix(told)}"


def _by_scenario(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["scenario"], {})[row["policy"]] = row
    return found


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.dynosim.ranking",
        description="The referee's scenarios in our own simulator, and whether both rank the policies alike.",
        epilog="example: python -m benchmarks.dynosim.ranking sine --policy ours --hard; see docs/referee.md",
    )
    add_common(parser)
    parser.add_argument(
        "--policy", action="append", metavar="NAME", help="as `roleratio simulate` has them (default: all)"
    )
    parser.add_argument("--hard", action="store_true", help="with gangs, faults and a budget that cannot be exceeded")
    return parser


if __name__ == "__main__":
    # A SIGTERM unwinds like Ctrl-C, so that processes are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
