"""`roleratio simulate`: a whole service in virtual time, under our controller or another policy."""

from __future__ import annotations

import argparse
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoscaler.errors import UserError
from roleratio.commands.common import whole

if TYPE_CHECKING:
    from roleratio.simulation import Prepared
    from roleratio.sweep import Outcome, Task

EXAMPLE = """roleratio simulate demo
  roleratio simulate sine --policy ours --policy dynamo --policy static:20,20 --report out
  roleratio simulate azure-code --traces ../shared/data/traces --policy ours:forecastQuantile=0.95 --seed 1 --seed 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to run, under which policies and seeds, and what to write."""
    add = parser.add_argument
    add("scenario", metavar="SCENARIO", help="a shipped scenario by its name (--list), or a YAML file", nargs="?")
    add("--list", action="store_true", help="name the shipped scenarios and the policies")
    policy = "ours (default), ours:KEY=VALUE,... (of the spec), or another one (--list); may be given again"
    add("--policy", action="append", metavar="P", help=policy)
    add("--seed", action="append", type=whole(0), metavar="N", help="default: the scenario's; may be given again")
    add("--traces", type=Path, metavar="DIR", help="where the scenario's traces are (default: beside it)")
    add("--jobs", type=whole(1), metavar="N", help="runs at once (default: as many as there are cores)")
    add("--json", type=Path, metavar="OUT", help="write all numbers to OUT")
    add("--report", type=Path, metavar="DIR", help="write DIR/report.html and DIR/report.json")


def run(arguments: argparse.Namespace) -> int:
    """Check everything, run, print a table. Exit code 1 when an invariant of the simulator did not hold."""
    from roleratio.simulation import Prepared, find_scenario
    from roleratio.sweep import Task

    if arguments.list:
        return _list()
    if arguments.scenario is None:
        raise UserError("roleratio simulate: no scenario; give its name or its file, or --list to see what there is")
    path = find_scenario(arguments.scenario)
    prepared = Prepared(path, arguments.traces)
    seeds = list(dict.fromkeys(arguments.seed or [prepared.scenario.seed]))
    policies = list(dict.fromkeys(arguments.policy or ["ours"]))
    _check(prepared, policies, [one for one in (arguments.json, _page(arguments)) if one is not None])
    tasks = [Task(path, policy, seed, arguments.traces) for policy in policies for seed in seeds]
    outcomes = _one(prepared, tasks[0]) if len(tasks) == 1 else _many(tasks, arguments.jobs or -1)
    _print(prepared, outcomes)
    _write(arguments, prepared, outcomes)
    return 1 if any(outcome.summary["problems"] for outcome in outcomes) else 0


def _list() -> int:
    from roleratio.simulation import SHIPPED, load_scenario, shipped_scenarios
    from simulator.roster import NAMES

    for name in shipped_scenarios():
        scenario = load_scenario(SHIPPED / f"{name}.yaml")
        print(f"{name:<20}{scenario.duration_s / 3600:.2f} h, profile {scenario.autoscaler.profile}")
    print(f"policies: {', '.join(NAMES)}")
    return 0


def _page(arguments: argparse.Namespace) -> Path | None:
    return None if arguments.report is None else arguments.report / "report.html"


def _check(prepared: Prepared, policies: list[str], files: list[Path]) -> None:
    """Everything that could be wrong is wrong now, not after an hour."""
    problems: list[str] = []
    for policy in policies:
        try:
            prepared.check_policy(policy)
        except UserError as error:
            problems += error.problems
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            problems.append(f"{file}: cannot be written: {error.strerror}; give another path")
    if problems:
        raise UserError(*problems)


def _one(prepared: Prepared, task: Task) -> list[Outcome]:
    """One run, with a bar over simulated time."""
    from rich.progress import Progress

    from roleratio.sweep import run_task

    with Progress(transient=True) as bar:
        shown = bar.add_task(f"{prepared.scenario.name}, {task.policy}", total=prepared.scenario.duration_s)
        return [run_task(task, prepared, lambda now_s: bar.update(shown, completed=now_s))]


def _many(tasks: list[Task], jobs: int) -> list[Outcome]:
    """Many runs at once, with a bar over runs."""
    from rich.progress import Progress

    from roleratio.sweep import sweep

    with Progress(transient=True) as bar:
        shown = bar.add_task(f"{len(tasks)} runs", total=len(tasks))
        return sweep(tasks, min(jobs, len(tasks)), lambda _: bar.advance(shown))


def _print(prepared: Prepared, outcomes: list[Outcome]) -> None:
    print(f"{prepared.scenario.name}: {prepared.scenario.duration_s:g} s, {outcomes[0].summary['requests']:,} requests")
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
    "TTFT p95",
    "ITL p95",
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
        _or_dash(said["ttft_ms"]["p95"], "{:,.0f} ms"),
        _or_dash(said["mean_itl_ms"]["p95"], "{:.1f} ms"),
        f"{said['requests_failed'] + said['requests_unfinished']:,}",
        f"{said['max_groups']['prefill']}+{said['max_groups']['decode']}",
        str(len(said["scale_events"])),
        f"{said['requests'] / outcome.wall_s:,.0f}",
    )


def _or_dash(value: float | None, text: str) -> str:
    return "–" if value is None else text.format(value)


def _name(outcome: Outcome) -> str:
    return f"{outcome.task.policy}, seed {outcome.task.seed}"


def _write(arguments: argparse.Namespace, prepared: Prepared, outcomes: list[Outcome]) -> None:
    document: dict[str, Any] = {
        "scenario": prepared.scenario.name,
        "runs": [outcome.summary for outcome in outcomes],
    }
    text = json.dumps(document, indent=2) + "\n"
    if arguments.json is not None:
        arguments.json.write_text(text, encoding="utf-8")
    if (page := _page(arguments)) is not None:
        from roleratio.records import Span
        from roleratio.report.runs import ShownRun, render_runs

        shown = [ShownRun(_name(one), one.summary, one.fleet, [Span(*span) for span in one.spans]) for one in outcomes]
        style = resources.files("roleratio.report").joinpath("style.css").read_text(encoding="utf-8")
        page.write_text(render_runs(f"roleratio simulate: {prepared.scenario.name}", shown, style), encoding="utf-8")
        page.with_suffix(".json").write_text(text, encoding="utf-8")
