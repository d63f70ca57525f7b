"""Queueing: known values, and searches that find the first number that is enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.queueing import erlang_c, fewest, largest


@pytest.mark.parametrize(
    ("servers", "load", "expected"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (10, 8.0, 0.4092), (3, 3.0, 1.0), (4, 9.0, 1.0)],
)
def test_erlang_c(servers: int, load: float, expected: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 6000))
def test_the_fewest_that_are_enough(needed: int, too_few: int, most: int) -> None:
    found = fewest(lambda servers: servers >= needed, too_few, most)
    assert found == min(most, max(needed, too_few + 1))


@given(st.floats(0, 1), st.floats(0.1, 1e4))
def test_the_largest_that_is_enough(limit: float, most: float) -> None:
    found = largest(lambda load: load <= limit * most, most)
    assert limit * most - most / 500 <= found <= limit * most
