"""`python -m benchmarks [NAME...] [--json FILE] [--list]`: measure and print figures next to their claims.

Rules:
1. Exit code 0 also when a claim is missed; 1 when a benchmark could not measure; 2 for wrong arguments.
2. A benchmark that fails does not keep the others from running; what was measured before an interrupt is in FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.figure import Figure, table
from benchmarks.processes import BenchmarkError
from kubeapi.errors import ApiError
from roleratio.cli import Parser

NAMES = (
    "localcluster",
    "workers",
    "streaming",
    "tick",
    "scheduler",
    "scheduler_core",
    "gang_binding",
    "metrics_pages",
    "prometheus",
    "rest",
    "fidelity",
    "simulator_speed",
    "fleet_speed",
    "decisions",
    "sizing",
    "forecast_speed",
    "fleet_ticks",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen benchmarks; the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.list:
        for name in NAMES:
            print(f"{name:<17}{_about(name)}")
        return 0
    if arguments.json and (problem := _cannot_write(arguments.json)):
        print(f"benchmarks: --json {arguments.json}: {problem}; give another path", file=sys.stderr)
        return 2
    results: dict[str, list[Figure]] = {}
    failures: dict[str, str] = {}
    try:
        for name in NAMES:
            if name in (arguments.names or NAMES):
                _run(name, results, failures)
    except KeyboardInterrupt:
        return 130
    finally:
        if arguments.json:
            arguments.json.write_text(json.dumps(_report(results, failures), indent=2) + "\n", encoding="utf-8")
    missed = [f"{name}: {one.name}" for name, figures in results.items() for one in figures if one.missed]
    print(f"claims missed: {'; '.join(missed) or 'none'}")
    return 1 if failures else 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks",
        description="Measure the sizes and speeds that the README claims.",
        epilog="example: python -m benchmarks tick streaming --json figures.json",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", type=_known, help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--list", action="store_true", help="say what there is, measure nothing")
    return parser


def _known(name: str) -> str:
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"{name!r}: expected one of {', '.join(NAMES)}")
    return name


def _about(name: str) -> str:
    return (import_module(f"benchmarks.{name}").__doc__ or "").partition("\n")[0]


def _cannot_write(path: Path) -> str | None:
    """Why a file cannot be written: better asked before minutes of measuring than after."""
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _run(name: str, results: dict[str, list[Figure]], failures: dict[str, str]) -> None:
    """Measure one benchmark and print what came of it."""
    print(f"{name}: {_about(name)}", flush=True)
    began_s = time.monotonic()
    try:
        results[name] = import_module(f"benchmarks.{name}").measure()
    except (BenchmarkError, ApiError, aiohttp.ClientError, psutil.Error, OSError) as error:
        failures[name] = " ".join(str(error).split()) or type(error).__name__
        print(f"benchmarks: {name}: {failures[name]}", file=sys.stderr, flush=True)
        return
    print(f"{table(results[name])}\n({time.monotonic() - began_s:.0f} s)\n", flush=True)


def _report(results: dict[str, list[Figure]], failures: dict[str, str]) -> dict[str, Any]:
    machine = {"cpus": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    figures = {name: [one.to_json() for one in found] for name, found in results.items()}
    return {"machine": machine, "figures": figures, "failures": failures}


if __name__ == "__main__":
    # A SIGTERM unwinds like Ctrl-C, so that processes are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
