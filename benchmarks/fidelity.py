"""How near the simulated engine comes to recorded runs of real vLLM, from the layer profiles alone.

`python -m benchmarks.fidelity --run PREFIX --json OUT` judges one run (PREFIX = its path without `_meta.json`) and
writes its signed relative errors, (simulated - measured) / measured; without --run it judges all shared runs. Exit
code 2 for a run that cannot be judged.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figure import Figure, figure, table
from benchmarks.processes import BenchmarkError
from benchmarks.recorded import Latencies, Run, RunError, load_run, simulate
from benchmarks.shared import shared
from roleratio.cli import Parser

FOLDER = "data/validation"
LIMITS_PERCENT = {"ttft_mean": 7, "ttft_p99": 10, "itl_mean": 3, "itl_p99": 10, "e2e_mean": 4, "e2e_p99": 10}

Errors = dict[str, float]
"""Signed relative errors, under the keys of `LIMITS_PERCENT`."""


def judge(run: Run) -> Errors:
    """Simulate a run and compare. Raises RunError where engine or profile do not reach as far as the run."""
    found, real = _statistics(simulate(run)), _statistics(run.measured())
    return {name: (found[name] - real[name]) / real[name] for name in LIMITS_PERCENT}


def _statistics(seconds: Latencies) -> dict[str, float]:
    means = {f"{name}_mean": sum(values) / len(values) for name, values in seconds.items()}
    return means | {f"{name}_p99": percentile(values, 0.99) for name, values in seconds.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the ranks, as numpy's default."""
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])


def shared_runs() -> list[str]:
    """The prefixes of the shared runs. Raises BenchmarkError without any."""
    folder = shared(FOLDER)
    found = sorted(str(path).removesuffix("_meta.json") for path in folder.glob("*_meta.json"))
    if not found:
        raise BenchmarkError(f"{folder}: no recorded runs (*_meta.json)")
    return found


def measure() -> list[Figure]:
    """The size of each error on the shared runs, with its limit."""
    return [one for prefix in shared_runs() for one in _figures(Path(prefix).name, _judged(prefix))]


def _judged(prefix: str) -> Errors:
    try:
        return judge(load_run(prefix))
    except RunError as error:
        raise BenchmarkError(str(error)) from error


def _figures(name: str, errors: Errors) -> list[Figure]:
    return [
        figure(f"{name}: {key} ({error:+.1%})", "% off", [100 * abs(error)], median=LIMITS_PERCENT[key])
        for key, error in errors.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Judge one run or all; the exit code."""
    parser = Parser(
        prog="python -m benchmarks.fidelity",
        description="Compare the simulated engine with recorded runs of real vLLM.",
        epilog="example: python -m benchmarks.fidelity --run runs/H100_Llama-3.1-8B --json errors.json",
    )
    parser.add_argument("--run", metavar="PREFIX", help="one run, its path without _meta.json (default: all shared)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the signed relative errors to OUT")
    arguments = parser.parse_args(argv)
    try:
        prefixes = [arguments.run] if arguments.run else shared_runs()
        results = {Path(prefix).name: judge(load_run(prefix)) for prefix in prefixes}
        if arguments.json:
            written = results[Path(arguments.run).name] if arguments.run else results
            arguments.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    except (RunError, BenchmarkError) as error:
        print("\n".join(f"fidelity: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fidelity: {error.filename}: {error.strerror}; give another path", file=sys.stderr)
        return 2
    print(table([one for name, errors in results.items() for one in _figures(name, errors)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
