"""`roleratio replay JOURNAL...`: decide every line again; exit code 1 at a file's first difference."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "roleratio replay decisions.jsonl*"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The journals."""
    parser.add_argument("journals", type=Path, nargs="+", metavar="JOURNAL", help="a decision journal's file")


def run(arguments: argparse.Namespace) -> int:
    """Replay each, and say how it went."""
    from autoscaler.drivers.replay import replay

    differs = 0
    for journal in arguments.journals:
        result = replay(journal)
        if result.first_difference is None:
            print(f"{journal}: {result.ticks} decisions, no difference")
        else:
            print(f"{journal}: differs: {result.first_difference}")
            differs = 1
    return differs
