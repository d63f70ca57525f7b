"""The benchmark of whole services measures what it says."""

from __future__ import annotations

from benchmarks import fleet_speed
from tests.shared_data import shared


def test_it_runs_what_it_is_told_to() -> None:
    shared("data/traces/azure_llm_2023_code.csv.gz")
    figures = fleet_speed.measure(fleet_speed.Sizes(repeats=2, cases=[("azure-code", "ours", 60.0)]))
    (one,) = figures
    assert one.name.startswith("azure-code, 60 s, ours: ")
    assert len(one.values) == 2
    assert one.unit == "us/request"
