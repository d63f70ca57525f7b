"""Fixtures: the programs `prometheus` and `promtool`. ROLERATIO_REQUIRE_PROMETHEUS=1 makes their absence a failure."""

from __future__ import annotations

import os
import shutil

import pytest


def required(name: str) -> str:
    """The program's path; without it the test is skipped, or fails where Prometheus is required."""
    found = shutil.which(name)
    if found is None:
        missing = f"no `{name}` on PATH (Debian: apt-get install prometheus)"
        if os.environ.get("ROLERATIO_REQUIRE_PROMETHEUS") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture(scope="session")
def prometheus() -> str:
    return required("prometheus")


@pytest.fixture(scope="session")
def promtool() -> str:
    return required("promtool")
