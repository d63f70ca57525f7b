"""`python -m benchmarks.decisions [SCENARIO...]`: ours over its safety knob beside all others, in the simulator; with
`--value`, beside itself under other forecasts.

Writes into --out: runs.jsonl (what is finished, and is not run again), table.txt, results.json and a page with the
Pareto plot of each scenario. Exit code 1 where an invariant of the simulator did not hold, 2 for what a user can put
right.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoscaler.errors import UserError
from benchmarks.decisions import value
from benchmarks.decisions.bench import Bench
from benchmarks.decisions.pages import render
from benchmarks.decisions.plan import NEEDS, QUICK, SCENARIOS, Key, Part, parts
from benchmarks.decisions.runs import Finished, Row
from benchmarks.decisions.score import Outcome, outcome, text
from benchmarks.decisions.value import Comparison, comparisons
from benchmarks.errors import BenchmarkError, whole_number
from benchmarks.shared import shared
from roleratio.cli import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and write what came of it; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        names = arguments.scenarios or (QUICK if arguments.quick else SCENARIOS)
        scenarios = [_parts(name, arguments) for name in names]
        traces, limit_s = arguments.traces or shared("data/traces"), arguments.limit_s or math.inf
        policies = [*(value.POLICIES if arguments.value else ()), *(arguments.policy or ())]
        bench = Bench(traces, arguments.jobs, policies, arguments.quick, limit_s)
        bench.check(scenarios)
        finished = _opened(arguments.out)
        rows = finished.rows()
        try:
            bench.run(scenarios, rows, arguments.again, lambda row: _keep(finished, row))
        finally:
            _write(arguments.out, scenarios, rows)
    except (UserError, BenchmarkError) as error:
        for problem in getattr(error, "problems", (error,)):
            print(f"decisions: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    wrong = [f"{row['scenario']} {row['policy']}: {one}" for row in rows.values() for one in row.get("problems", ())]
    for line in wrong:
        print(f"decisions: the simulator is wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _parts(name: str, arguments: argparse.Namespace) -> list[Part]:
    """A scenario's parts, or those that are asked for. Raises UserError."""
    found = parts(name, arguments.seed or (), quick=arguments.quick)
    if not arguments.day:
        return found
    starts_s = sorted({one.start_s for one in found})
    if max(arguments.day) > len(starts_s):
        raise UserError(f"--day {max(arguments.day)}: {name} has {len(starts_s)}; give one from 1 to {len(starts_s)}")
    wanted_s = {starts_s[day - 1] for day in arguments.day}
    return [one for one in found if one.start_s in wanted_s]


def _opened(out: Path) -> Finished:
    """The file of finished runs, in a folder that can be written. Raises UserError."""
    finished = Finished(out / "runs.jsonl")
    try:
        out.mkdir(parents=True, exist_ok=True)
        finished.path.touch()
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}; give another folder") from error
    return finished


def _keep(finished: Finished, row: Row) -> None:
    finished.add(row)
    what = (
        f"needs {row['mean']} groups on average, {row['peak']} at most"
        if row["policy"] == NEEDS
        else f"{row['requests'] - sum(row['misses'].values()):,} of {row['requests']:,} attained"
    )
    print(
        f"{time.strftime('%H:%M:%S')} {row['scenario']} {row['policy']} seed {row['seed']} from {row['start_s']:g} s: "
        f"{what}, {row['gpu_hours']:.2f} GPU-h ({row['wall_s']:.0f} s)",
        file=sys.stderr,
        flush=True,
    )


def _write(out: Path, scenarios: Sequence[Sequence[Part]], rows: Mapping[Key, Row]) -> None:
    """What can be told of the rows so far."""
    found = [one for one in (outcome(each, rows) for each in scenarios) if one is not None]
    compared = {one.scenario: comparisons(one) for one in found}
    table = "\n\n".join(_told(one, compared[one.scenario]) for one in found)
    (out / "table.txt").write_text(table + "\n", encoding="utf-8")
    results = {one.scenario: {**one.to_json(), "value": value.to_json(compared[one.scenario])} for one in found}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for one in found:
        if one.scores:
            (out / f"{one.scenario}.html").write_text(render(one, compared[one.scenario]), encoding="utf-8")
    print(table)


def _told(found: Outcome, compared: Sequence[Comparison]) -> str:
    return "\n".join([text(found), *([value.text(compared)] if compared else [])])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.decisions",
        description="Ours over its safety knob beside fixed sizes, every other policy and an oracle, in the simulator.",
        epilog="example: python -m benchmarks.decisions azure-code --jobs 8 --policy ours --policy static",
    )
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=f"shipped or a YAML file (default: {', '.join(SCENARIOS)})")
    add("--traces", type=Path, metavar="DIR", help="where the traces are (default: the shared material's)")
    add("--policy", action="append", metavar="P", help="a kind (ours, static, dynamo) or exactly one; may be repeated")
    add("--value", action="store_true", help="what a forecast is worth: ours under its own, last value, perfect ones")
    add("--seed", action="append", type=whole_number, metavar="N", help="default: the scenario's; may be repeated")
    add("--day", action="append", type=whole_number, metavar="N", help="from 1 on (default: all); may be repeated")
    add(
        "--jobs",
        type=whole_number,
        default=os.cpu_count() or 1,
        metavar="N",
        help="runs at once (default: as many as cores)",
    )
    add("--out", type=Path, default=Path("out-decisions"), metavar="DIR", help="default: out-decisions")
    add("--quick", action="store_true", help="short stretches and few fixed sizes: a minute or two")
    add("--limit-s", type=whole_number, metavar="S", help="begin no run after so many seconds; the next call goes on")
    add("--again", action="store_true", help="also run what other sources made")
    return parser


if __name__ == "__main__":
    # A SIGTERM unwinds like Ctrl-C, so that processes are ended and what is finished is told.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
