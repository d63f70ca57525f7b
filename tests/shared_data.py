"""Where tests find the shared material: $ROLERATIO_SHARED, else ../shared beside the repository.

Rule: without it a test skips and says so; with ROLERATIO_REQUIRE_SHARED=1 it fails instead.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared(path: str) -> Path:
    """The file or folder `path` of the shared material."""
    base = Path(os.environ.get("ROLERATIO_SHARED") or ROOT.parent / "shared")
    found = base / path
    if found.exists():
        return found
    message = f"shared material is absent: {path} (set ROLERATIO_SHARED to the folder that holds it)"
    if os.environ.get("ROLERATIO_REQUIRE_SHARED") == "1":
        pytest.fail(message)
    pytest.skip(message)
