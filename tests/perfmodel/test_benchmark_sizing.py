"""The benchmark of sizing sizes what it says it does."""

from __future__ import annotations

from benchmarks import sizing
from perfmodel.profile import load_profile


def test_more_demand_needs_more_groups_of_both_roles() -> None:
    profile = load_profile("qwen3-32b-h200-tp2")
    prefill_few, decode_few, prefill_many, decode_many = sizing.size(profile, sizing.Service(1000, 1, 200, (1, 60)))
    assert 1 <= prefill_few < prefill_many
    assert 1 <= decode_few < decode_many


def test_each_service_is_timed() -> None:
    figures = sizing.measure(sizing.Sizes(services=5))
    assert [len(one.values) for one in figures] == [5, 1]
