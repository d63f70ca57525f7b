"""Where benchmarks find recorded runs and traces: $ROLERATIO_SHARED, else ../shared beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.errors import BenchmarkError


def shared(path: str) -> Path:
    """The file or folder `path` of the shared material. Raises BenchmarkError where it is absent."""
    base = Path(os.environ.get("ROLERATIO_SHARED") or Path(__file__).resolve().parent.parent.parent / "shared")
    if not (base / path).exists():
        raise BenchmarkError(f"shared material is absent: {path} (set ROLERATIO_SHARED to the folder that holds it)")
    return base / path
