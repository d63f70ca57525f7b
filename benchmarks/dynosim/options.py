"""Options that both commands of the bench have: which scenarios, which seeds, how many at once, and where to."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.dynosim.scenarios import SCENARIOS
from benchmarks.errors import whole_number
from benchmarks.processes import ROOT


def add_common(parser: argparse.ArgumentParser) -> None:
    """Define them."""
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", type=_known, help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument(
        "--seed", action="append", type=int, metavar="N", help="of the traces; again for more (default: 1)"
    )
    parser.add_argument("--jobs", type=whole_number, default=1, metavar="N", help="runs at once (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("out-referee"), metavar="DIR", help="default: out-referee")
    parser.add_argument("--again", action="store_true", help="also run what is finished")
    parser.add_argument(
        "--python", type=Path, default=ROOT / ".venv-dynosim/bin/python", help="where Dynamo is installed"
    )


def _known(name: str) -> str:
    if name not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"{name!r}: expected one of {', '.join(SCENARIOS)}")
    return name
