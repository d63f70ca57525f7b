"""What `simulate` and `backtest` share: options, checks before, bars meanwhile, table and files after."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoscaler.errors import UserError
from roleratio.commands.common import whole
from roleratio.problems import collected

if TYPE_CHECKING:
    from roleratio.simulation import Prepared
    from roleratio.sweep import Outcome, Task


def add_run_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Policies, seeds, how many at once, and what to write. `default`: which policies run unless told."""
    add = parser.add_argument
    policy = f"{default} (default), ours:KEY=VALUE,... (of the spec), or another one (--list); may be given again"
    add("--list", action="store_true", help="name the shipped scenarios and the policies")
    add("--policy", action="append", metavar="P", help=policy)
    add("--seed", action="append", type=whole(0), metavar="N", help="default: the scenario's; may be given again")
    add("--jobs", type=whole(1), metavar="N", help="runs at once (default: as many as there are cores)")
    add("--json", type=Path, metavar="OUT", help="write all numbers to OUT")
    add("--report", type=Path, metavar="DIR", help="write DIR/report.html and DIR/report.json")


def list_all() -> int:
    """Print what there is."""
    from roleratio.simulation import SHIPPED, load_scenario, shipped_scenarios
    from simulator.roster import NAMES

    for name in shipped_scenarios():
        scenario = load_scenario(SHIPPED / f"{name}.yaml")
        print(f"{name:<20}{scenario.duration_s / 3600:.2f} h, profile {scenario.autoscaler.profile}")
    print(f"policies: {', '.join(NAMES)}")
    return 0


def check(arguments: argparse.Namespace, policies: Iterable[str], check_policy: Callable[[str], None]) -> None:
    """Everything that could be wrong is wrong now, not after an hour. Raises UserError."""
    problems: list[str] = []
    for policy in policies:
        with collected(problems):
            check_policy(policy)
    for file in (arguments.json, _page(arguments)):
        if file is None:
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            problems.append(f"{file}: cannot be written: {error.strerror}; give another path")
    if problems:
        raise UserError(*problems)


def run_all(prepared: Prepared, tasks: list[Task], jobs: int | None) -> list[Outcome]:
    """Run, in this process if it is one run, with a bar over simulated time; else with a bar over runs."""
    from roleratio.bars import bars
    from roleratio.sweep import run_task, sweep

    with bars() as bar:
        if len(tasks) == 1:
            name = f"{prepared.scenario.name}, {tasks[0].policy}"
            shown = bar.add_task(name, total=prepared.scenario.duration_s)
            return [run_task(tasks[0], prepared, lambda now_s: bar.update(shown, completed=now_s))]
        shown = bar.add_task(f"{len(tasks)} runs", total=len(tasks))
        return sweep(tasks, min(jobs or -1, len(tasks)), lambda _: bar.advance(shown))


def finish(
    arguments: argparse.Namespace, prepared: Prepared, outcomes: list[Outcome], title: str, notes: Sequence[str] = ()
) -> int:
    """Print and write. The exit code: 1 when an invariant of the simulator did not hold."""
    _print(prepared, outcomes, notes)
    _write(arguments, prepared, outcomes, title, notes)
    return 1 if any(outcome.summary["problems"] for outcome in outcomes) else 0


def _page(arguments: argparse.Namespace) -> Path | None:
    return None if arguments.report is None else arguments.report / "report.html"


def _print(prepared: Prepared, outcomes: list[Outcome], notes: Sequence[str]) -> None:
    print(f"{prepared.scenario.name}: {prepared.scenario.duration_s:g} s, {outcomes[0].summary['requests']:,} requests")
    for note in notes:
        print(f"  {note}")
    rows = [HEADS, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join((row[0].ljust(widths[0]), *cells)))
    for outcome in outcomes:
        misses = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in outcome.summary["misses"].items())
        print(f"{_name(outcome)}: misses: {misses or 'none'}")
        for problem in outcome.summary["problems"]:
            print(f"{_name(outcome)}: the simulator is wrong: {problem}")


HEADS = (
    "policy",
    "seed",
    "attained",
    "GPU-h",
    "/oracle",
    "TTFT p50",
    "p95",
    "p99 ms",
    "ITL p50",
    "p95",
    "p99 ms",
    "failed",
    "groups",
    "changes",
    "req/s",
)


def _cells(outcome: Outcome) -> tuple[str, ...]:
    said = outcome.summary
    return (
        said["policy"],
        str(said["seed"]),
        _or_dash(said["slo_attainment"], "{:.2%}"),
        f"{said['gpu_hours_total']:.3f}",
        _or_dash(said["oracle"]["gpu_hours_over_oracle"], "{:.3f}"),
        *(_or_dash(said["ttft_ms"][share], "{:,.0f}") for share in ("p50", "p95", "p99")),
        *(_or_dash(said["mean_itl_ms"][share], "{:.1f}") for share in ("p50", "p95", "p99")),
        f"{said['requests_failed'] + said['requests_unfinished']:,}",
        f"{said['max_groups']['prefill']}+{said['max_groups']['decode']}",
        str(len(said["scale_events"])),
        f"{said['requests'] / outcome.wall_s:,.0f}",
    )


def _or_dash(value: float | None, text: str) -> str:
    return "–" if value is None else text.format(value)


def _name(outcome: Outcome) -> str:
    return f"{outcome.task.policy}, seed {outcome.task.seed}"


def _write(
    arguments: argparse.Namespace, prepared: Prepared, outcomes: list[Outcome], title: str, notes: Sequence[str]
) -> None:
    document: dict[str, Any] = {
        "scenario": prepared.scenario.name,
        "notes": list(notes),
        "runs": [outcome.summary for outcome in outcomes],
    }
    text = json.dumps(document, indent=2) + "\n"
    if arguments.json is not None:
        arguments.json.write_text(text, encoding="utf-8")
    if (page := _page(arguments)) is not None:
        from roleratio.records import Span
        from roleratio.report.runs import ShownRun, render_runs

        seeds = {one.task.seed for one in outcomes}
        shown = [
            ShownRun(
                _name(one) if len(seeds) > 1 else one.task.policy,
                one.summary,
                one.fleet,
                [Span(*span) for span in one.spans],
            )
            for one in outcomes
        ]
        style = resources.files("roleratio.report").joinpath("style.css").read_text(encoding="utf-8")
        page.write_text(render_runs(title, shown, style, notes), encoding="utf-8")
        page.with_suffix(".json").write_text(text, encoding="utf-8")
