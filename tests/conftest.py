"""Order: what is fast first, then what needs a control plane, then whole demos."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_weight)


def _weight(item: pytest.Item) -> int:
    if item.get_closest_marker("demo"):
        return 3
    parts = item.path.parts
    return 2 if "apiserver" in parts else 1 if "dashboards" in parts or "benchmarks" in parts else 0
