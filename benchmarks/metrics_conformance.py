"""`python -m benchmarks.metrics_conformance DIR --json OUT`: read every `*.prom` of a folder, write what it says.

The result is one JSON object, file name -> page in the form of the metrics corpus; an unreadable page is
`{"error": "..."}`. Exit code 0 also when a page cannot be read; 2 for wrong arguments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoscaler.adapters.pages import PageError, as_corpus, read_page
from roleratio.cli import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Read the folder; the exit code."""
    parser = Parser(
        prog="python -m benchmarks.metrics_conformance",
        description="Read every metrics page of a folder and write what was understood of it.",
        epilog="example: python -m benchmarks.metrics_conformance pages/ --json understood.json",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="holds the pages, *.prom")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the result goes")
    arguments = parser.parse_args(argv)
    files = sorted(arguments.folder.glob("*.prom"))
    if not files:
        return _refuse(f"{arguments.folder}: expected a folder with *.prom files; give another one")
    try:
        read = {file.name: understood(file) for file in files}
        arguments.json.write_text(json.dumps(read, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}; give another path")
    failed = [f"{name}: {page['error']}" for name, page in read.items() if "error" in page]
    print(f"{len(read)} pages read, {len(failed)} of them not understood", *failed, sep="\n")
    return 0


def understood(file: Path) -> dict[str, Any]:
    """One page in the form of the corpus. Raises OSError."""
    try:
        return as_corpus(read_page(file.read_bytes().decode("utf-8", errors="replace")))
    except PageError as error:
        return {"error": str(error)}


def _refuse(problem: str) -> int:
    print(f"metrics_conformance: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
