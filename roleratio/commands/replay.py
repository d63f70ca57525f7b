"""`roleratio replay JOURNAL`: decide every line again; exit code 1 at the first difference."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "roleratio replay decisions.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The journal."""
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="a decision journal")


def run(arguments: argparse.Namespace) -> int:
    """Replay and say how it went."""
    from autoscaler.drivers.replay import replay

    result = replay(arguments.journal)
    if result.first_difference is not None:
        print(f"{arguments.journal}: differs: {result.first_difference}")
        return 1
    print(f"{arguments.journal}: {result.ticks} decisions, no difference")
    return 0
