"""`python -m benchmarks.dynosim [SCENARIO...] [--policy NAME]...`: scenarios under policies in Dynamo's simulator.

Writes into --out: runs.jsonl (what is finished, and is not run again), table.txt (what came of it, and what the misses
are), results.json and a picture of each scenario. Exit code 1 when a run failed, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from autoscaler.errors import UserError
from benchmarks.dynosim import outcome, roster
from benchmarks.dynosim.options import add_common
from benchmarks.dynosim.picture import picture
from benchmarks.dynosim.runs import Bench, Row, Run
from benchmarks.dynosim.scenarios import SCENARIOS
from benchmarks.errors import BenchmarkError
from roleratio.cli import Parser

DEFAULT = ("ours", "oracle", "oracle:1.2", *(f"planner:{name}" for name in roster.PLANNERS))


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and write what came of it; the exit code."""
    arguments = _parser().parse_args(argv)
    scenarios = [SCENARIOS[name] for name in arguments.scenarios or SCENARIOS]
    bench = Bench(arguments.out, arguments.python, arguments.reports)
    try:
        if not arguments.python.exists():
            raise UserError(f"--python {arguments.python}: no such file; `make dynosim-env` makes it")
        runs = [
            Run(scenario, policy, seed)
            for scenario in scenarios
            for policy in arguments.policy or (*DEFAULT, *(f"static:{p.prefill},{p.decode}" for p in scenario.static))
            for seed in arguments.seed or (1,)
        ]
        for run in runs:
            roster.check(run.policy, run.scenario)
        finished = set() if arguments.again else {(row["scenario"], row["policy"], row["seed"]) for row in bench.rows()}
        failures = bench.run_all([run for run in runs if run.key not in finished], arguments.jobs, _tell)
        _write(bench, arguments.out)
    except UserError as error:
        print(f"referee: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BenchmarkError as error:
        print(f"referee: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if failures else 0


def _tell(row: Row) -> None:
    print(
        f"{row['scenario']} {row['policy']} seed {row['seed']}: {100 * row['attained']:.2f} % at "
        f"{row['gpu_hours']:.2f} GPU-h, {row['changes']} changes, {row['wall_s']:.0f} s, missed {row['missed']}",
        flush=True,
    )


def _write(bench: Bench, out: Path) -> None:
    rows = outcome.summed(bench.rows())
    parts = [outcome.table(rows), outcome.causes(rows), outcome.matrix(rows), "\n".join(outcome.verdicts(rows))]
    text = "\n\n".join(parts).rstrip()
    (out / "table.txt").write_text(text + "\n", encoding="utf-8")
    (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for name, scenario in SCENARIOS.items():
        if own := [row for row in rows if row["scenario"] == name]:
            (out / f"{name}.svg").write_text(picture(name, scenario.about, own), encoding="utf-8")
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.dynosim",
        description="Scenarios under policies in Dynamo's simulator.",
        epilog="example: python -m benchmarks.dynosim sine --policy ours --policy static:3,4; see docs/referee.md",
    )
    add_common(parser)
    parser.add_argument("--policy", action="append", metavar="NAME", help=f"{', '.join(roster.NAMES)} (default: all)")
    parser.add_argument("--reports", action="store_true", help="also write what each policy saw and answered")
    return parser


if __name__ == "__main__":
    # A SIGTERM unwinds like Ctrl-C, so that processes are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
