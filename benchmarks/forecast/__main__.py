"""`python -m benchmarks.forecast [--data FILE...] [--steps 1,2,6] [--json OUT]`: every model on the same origins.

Rules:
1. Without --data the shared traces are scored, each at its own horizons.
2. A peer whose package is absent is told, and costs only its own rows; the exit code is 1 then, 2 for wrong arguments.
3. OUT holds the rows as a JSON list; it is written after every series, so that an interrupt loses one series at most.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.forecast import peers
from benchmarks.forecast.cache import cached
from benchmarks.forecast.origins import Row, Task, score
from benchmarks.forecast.ours import NAME, ours
from benchmarks.forecast.pictures import draw
from benchmarks.forecast.report import shift_lines, table_lines
from benchmarks.forecast.sets import STEPS, from_files, from_shared
from benchmarks.processes import BenchmarkError
from forecasting.series import SeriesError
from roleratio.cli import Parser

MODELS = (NAME, *peers.PEERS)


def main(argv: Sequence[str] | None = None) -> int:
    """Score and print; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        tasks = from_files(arguments.data, arguments.steps) if arguments.data else from_shared()
        if arguments.json:
            with arguments.json.open("a", encoding="utf-8") as out:
                out.write("" if out.tell() else "[]\n")
    except (SeriesError, BenchmarkError, OSError) as error:
        print(f"benchmarks.forecast: {error}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    shifts: list[str] = []
    absent: dict[str, str] = {}
    try:
        for task in tasks:
            rows += _scored(task, arguments, absent, shifts)
            if arguments.json:
                text = json.dumps([row.to_json() for row in rows], indent=1, allow_nan=False)
                arguments.json.write_text(text + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        return 130
    print("\n".join([*table_lines(rows), *shifts]))
    for name, why in absent.items():
        print(f"benchmarks.forecast: {name}: {why}; pip install 'roleratio[bench]'", file=sys.stderr)
    return 1 if absent else 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.forecast",
        description="Score forecasts by rolling origin: ours, its parts and its peers.",
        epilog="example: python -m benchmarks.forecast --data demand.csv.gz --steps 1,2,6 --json rows.json",
    )
    add = parser.add_argument
    add("--data", nargs="+", type=Path, metavar="FILE", help="CSV or CSV.gz: header, time (s or ISO 8601), value")
    add("--steps", type=_steps, default=STEPS, metavar="N,N", help="horizons in steps of the data (default 1,2,6)")
    add("--json", type=Path, metavar="OUT", help="write the rows to OUT")
    add("--models", type=_models, default=MODELS, metavar="NAME,NAME", help=f"of {', '.join(MODELS)} (default: all)")
    add("--cache", type=Path, metavar="DIR", help="keep forecasts of slow peers in DIR")
    add("--pictures", type=Path, metavar="DIR", help="draw where a peer is better than ours")
    add("--no-parts", action="store_true", help="leave out the rows of our parts")
    return parser


def _steps(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers above 0, as 1,2,6")
    return tuple(sorted({int(part) for part in parts}))


def _models(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected names of {', '.join(MODELS)}")
    return names


def _scored(task: Task, arguments: argparse.Namespace, absent: dict[str, str], shifts: list[str]) -> list[Row]:
    """The rows of one series. A horizon that the series is too short for has none, and is told."""
    short = [steps for steps in task.steps if len(task.origins(steps)) == 0]
    for steps in short:
        print(f"benchmarks.forecast: {task.name}: nothing to score {steps} steps ahead", file=sys.stderr)
    task = Task(task.name, task.grid, tuple(steps for steps in task.steps if steps not in short))
    rows: list[Row] = []
    every: dict[str, peers.Forecasts] = {}
    for name in arguments.models if task.steps else ():
        began_s = time.monotonic()
        try:
            found = _forecasts(name, task, arguments)
        except ImportError as error:
            absent[name] = f"not installed ({error})"
            continue
        every |= found
        for model, forecasts in found.items():
            rows += [score(task, steps, model, forecasts[steps]) for steps in task.steps]
        if name == NAME:
            shifts += shift_lines(task, found[NAME])
        print(f"{task.name}: {name}: {time.monotonic() - began_s:.1f} s", file=sys.stderr, flush=True)
    if arguments.pictures and every:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        draw(arguments.pictures, task, every)
    return rows


def _forecasts(name: str, task: Task, arguments: argparse.Namespace) -> dict[str, peers.Forecasts]:
    if name == NAME:
        return ours(task, parts=not arguments.no_parts)
    work = peers.PEERS[name]
    if name not in peers.SLOW:
        return {name: work(task)}
    return {name: cached(arguments.cache, name, task, peers.version(name), work)}


if __name__ == "__main__":
    # Peers report every fit.
    logging.disable(logging.INFO)
    sys.exit(main())
