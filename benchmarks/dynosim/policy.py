"""`python -m benchmarks.dynosim.policy --stdio [--settings FILE]`: our controller in Dynamo's simulator.

One report of `on_tick` as JSON a line on standard input, one answer a line on standard output:
{"target_prefill", "target_decode", "next_tick_ms"}. The first report is wanted at 5 s. The environment variable
REFEREE_CONTEXT names a JSON file with the deployment's facts (context.py).

Rule: what cannot be read ends the process with one line on standard error and exit code 2; nothing is guessed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from autoscaler.errors import UserError
from benchmarks.dynosim.bridge import Bridge
from benchmarks.dynosim.context import ENVIRONMENT, load_context, profile_of, settings_of
from benchmarks.dynosim.report import parse_report
from roleratio.cli import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Answer reports until there are no more; the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        context = load_context(os.environ.get(ENVIRONMENT))
        bridge = Bridge(context, settings_of(context, arguments.settings), profile_of(context))
        answer(bridge, sys.stdin, sys.stdout)
    except UserError as error:
        print(f"policy: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever asked has gone: there is nobody left to tell.
        sys.stderr.close()
        return 141
    return 0


def answer(bridge: Bridge, lines: Iterable[str], out: TextIO) -> None:
    """Answer each line. Raises UserError for the first that is no report, or is not later than the one before."""
    before_ms = -1.0
    for number, line in enumerate(lines, 1):
        report = parse_report(line, number)
        if report.now_ms <= before_ms:
            raise UserError(
                f"report {number}: now_ms: {report.now_ms:g}: expected later than {before_ms:g}, the report before it"
            )
        before_ms = report.now_ms
        print(json.dumps(bridge.answer(report).to_json()), file=out, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.dynosim.policy",
        description="Our controller as a scaling policy of Dynamo's simulator.",
        epilog=f"{ENVIRONMENT} names a JSON file with the deployment's facts; see docs/referee.md",
    )
    parser.add_argument(
        "--stdio", action="store_true", required=True, help="reports on standard input, answers on output"
    )
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="a RoleRatioAutoscaler, or keys of its spec (YAML)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
