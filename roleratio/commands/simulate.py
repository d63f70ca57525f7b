"""`roleratio simulate`: a whole service in virtual time, under our controller or another policy."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoscaler.errors import UserError
from roleratio.commands.runs import add_run_options, check, finish, list_all, run_all

EXAMPLE = """roleratio simulate demo
  roleratio simulate sine --policy ours --policy dynamo --policy static:20,20 --report out
  roleratio simulate azure-code --traces ../shared/data/traces --policy ours:forecastQuantile=0.95 --seed 1 --seed 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to run, under which policies and seeds, and what to write."""
    add = parser.add_argument
    add("scenario", metavar="SCENARIO", help="a shipped scenario by its name (--list), or a YAML file", nargs="?")
    add("--traces", type=Path, metavar="DIR", help="where the scenario's traces are (default: beside it)")
    add_run_options(parser, "ours")


def run(arguments: argparse.Namespace) -> int:
    """Check everything, run, print a table. Exit code 1 when an invariant of the simulator did not hold."""
    from roleratio.simulation import Prepared, find_scenario
    from roleratio.sweep import Task

    if arguments.list:
        return list_all()
    if arguments.scenario is None:
        raise UserError("roleratio simulate: no scenario; give its name or its file, or --list to see what there is")
    path = find_scenario(arguments.scenario)
    prepared = Prepared(path, arguments.traces)
    seeds = list(dict.fromkeys(arguments.seed or [prepared.scenario.seed]))
    policies = list(dict.fromkeys(arguments.policy or ["ours"]))
    check(arguments, policies, prepared.check_policy)
    tasks = [Task(path, policy, seed, arguments.traces) for policy in policies for seed in seeds]
    outcomes = run_all(prepared, tasks, arguments.jobs)
    return finish(arguments, prepared, outcomes, f"roleratio simulate: {prepared.scenario.name}")
