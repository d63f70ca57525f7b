"""The command line: which command, its module, its errors.

Rules:
1. Only the chosen command's module is imported, and only the chosen command's arguments are defined.
2. A `UserError` is printed line by line, as it is; exit code 2. Interrupted by the keyboard: 130.
3. A command module has `EXAMPLE`, `add_arguments(parser)` and `run(arguments) -> int`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from autoscaler.errors import UserError

COMMANDS = {
    "demo": "run everything on the embedded cluster: real processes, real traffic, a report",
    "controller": "scale the prefill and decode groups of one service",
    "recommend": "decide once and print what should change and why; change nothing",
    "explain": "say why a decision was made, from a journal or from the running controller",
    "replay": "decide every line of a journal again and name the first difference",
    "scheduler": "place TP groups all or nothing, the floors of all roles first",
    "serve": "run a router, a prefill worker or a decode worker (in a pod)",
    "localcluster": "run a small Kubernetes: API server, workload controllers, node agent",
    "simulate": "run a whole service in virtual time, under our controller or another policy",
    "backtest": "say what each policy would have done with the demand that really came",
    "forecast": "forecast a series from a Prometheus or a CSV, and say how good such forecasts were",
    "doctor": "say what the controller's selectors match, what it can read, and whether it could scale",
    "metrics": "say what is understood of one metrics page, and what is not used of it",
    "crd": "print the CustomResourceDefinition of RoleRatioAutoscaler",
    "profile": "make a profile from a table of measured latencies",
    "check": "say what a settings, profile, trace or journal file is, and every problem in it",
}


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where to read more; exit code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    """`--version`, looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"roleratio {version('roleratio')}")
        parser.exit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(next((word for word in words if not word.startswith("-")), ""))
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        code: int = arguments.run(arguments)
    except UserError as error:
        for problem in error.problems:
            print(f"roleratio {arguments.command}: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): there is nobody left to tell.
        sys.stderr.close()
        return 141
    return code


def build_parser(chosen: str) -> Parser:
    """The parser, complete for the `chosen` command; the others are only listed."""
    parser = Parser(
        prog="roleratio",
        description="Autoscaler for disaggregated LLM inference on Kubernetes.",
        epilog="example: roleratio demo --headless --report out",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            module = import_module(f"roleratio.commands.{name}")
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            command.epilog = f"example:\n  {module.EXAMPLE}"
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
