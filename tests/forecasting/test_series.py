"""A series on a grid: gaps, counters, and what is missing, partial or zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.series import PARTIAL_STEPS, SeriesError, rates, regular
from forecasting.table import read_points

NAN, INF = math.nan, math.inf


def steps(values: list[float], step_s: float = 60.0) -> list[tuple[float, float]]:
    return [(i * step_s, value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("points", "step_s", "values"),
    [
        ([(0, 1.0), (60, 2.0), (120, 3.0)], 60.0, [1, 2, 3]),
        ([(120, 3.0), (0, 1.0), (60, 2.0)], 60.0, [1, 2, 3]),
        ([(0, 1.0), (60, 2.0), (240, 3.0), (300, 4.0)], 60.0, [1, 2, None, None, 3, 4]),
        ([(0, 1.0), (60, 5.0), (60, 2.0), (120, 3.0)], 60.0, [1, 2, 3]),
        ([(0, 1.0), (60, NAN), (120, 3.0), (180, 4.0), (240, 5.0)], 60.0, [1, None, 3, 4, 5]),
        ([(7, 4.0)], 1.0, [4]),
        ([(0, 1.0), (61, 2.0), (119, 3.0), (181, 4.0)], 61.0, [1, 2, 3, 4]),
    ],
    ids=["regular", "out of order", "a gap", "two at one moment", "not a number", "one point", "jitter"],
)
def test_points_on_a_grid(points: list[tuple[float, float]], step_s: float, values: list[float | None]) -> None:
    grid = regular(points)
    assert grid.step_s == pytest.approx(step_s)
    assert [None if math.isnan(value) else value for value in grid.values.tolist()] == values


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "no points"),
        ([(0, NAN), (1, INF), (2, -1.0), (3, 1e31)], "none of 4 points"),
        ([(NAN, 1.0)], "none of 1 points"),
    ],
)
def test_nothing_usable_is_one_clear_error(points: list[tuple[float, float]], words: str) -> None:
    with pytest.raises(SeriesError, match=words) as caught:
        regular(points)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_grid_that_would_not_end_is_refused() -> None:
    with pytest.raises(SeriesError, match="at most"):
        regular([(0, 1.0), (1, 1.0), (2, 1.0), (1e12, 1.0)])


def test_zeros_are_holes_where_the_series_never_comes_near_zero() -> None:
    busy = [100.0 + i % 7 for i in range(100)]
    grid = regular(steps([*busy, 0.0, 0.0, *busy]))
    assert grid.zeros_missing
    assert np.isnan(grid.values[100:102]).all()


def test_zeros_are_idleness_where_the_series_comes_near_zero() -> None:
    bursty = [0.0 if i % 5 == 0 else 10.0 * (i % 5) ** 2 for i in range(100)]
    grid = regular(steps(bursty))
    assert not grid.zeros_missing
    assert np.isnan(grid.values).sum() == 0


def test_the_caller_may_say_what_a_zero_is() -> None:
    busy = [100.0] * 30 + [0.0] + [100.0] * 30
    assert regular(steps(busy), zeros="idle").values[30] == 0 or regular(steps(busy), zeros="idle").partial == 1
    assert math.isnan(regular(steps([1.0, 0.0, 2.0]), zeros="missing").values[1])


def test_a_value_far_below_all_of_the_last_day_is_partial_and_not_zero() -> None:
    grid = regular(steps([100.0] * 50 + [3.0] + [100.0] * 50))
    assert grid.partial == 1
    assert math.isnan(grid.values[50])


def test_what_stays_low_is_true() -> None:
    grid = regular(steps([100.0] * 50 + [3.0] * 40))
    assert grid.partial == PARTIAL_STEPS
    assert grid.values[-1] == 3.0


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(0, 0.0), (10, 50.0), (20, 100.0)], [(10, 5.0), (20, 5.0)]),
        ([(0, 1000.0), (10, 20.0), (20, 40.0)], [(10, 2.0), (20, 2.0)]),
        ([(0, 0.0), (10, 50.0), (500, 900.0), (510, 910.0)], [(10, 5.0), (510, 1.0)]),
    ],
    ids=["a counter", "a reset", "a gap has no rate"],
)
def test_rates_of_a_counter(samples: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    assert rates(samples, gap_s=60.0) == expected


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e6),
            st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=40,
    )
)
def test_any_points_give_a_grid_or_an_error(points: list[tuple[float, float]]) -> None:
    try:
        grid = regular(points, step_s=100.0)
    except SeriesError:
        return
    known = grid.values[~np.isnan(grid.values)]
    assert len(known) > 0
    assert (known >= 0).all()
    assert np.isfinite(known).all()


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("t,v\n0,1\n60,2\n", [(0.0, 1.0), (60.0, 2.0)]),
        ("when,v,more\n1970-01-01T00:01:00Z,1,x\n1970-01-01T00:02:00,2,y\n", [(60.0, 1.0), (120.0, 2.0)]),
        ("\ufefft,v\n0,1\n\n60,2\n", [(0.0, 1.0), (60.0, 2.0)]),
    ],
)
def test_a_table_is_read(text: str, points: list[tuple[float, float]]) -> None:
    assert read_points(text.encode(), "x.csv") == points


def test_a_missing_value_of_a_table_is_not_a_number() -> None:
    assert [math.isnan(value) for _, value in read_points(b"t,v\n0,1\n1,\n2,NaN\n", "x.csv")] == [False, True, True]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"t,v\n", "no line after"),
        (b"0,1\n1,2\n", "no header"),
        (b"t,v\nsoon,1\n", "line 2: time 'soon'"),
        (b"t,v\n0,much\n", "line 2: value 'much'"),
        (b"t\n0\n", "two columns"),
        (b"\x1f\x8bxx", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_bad_table_is_one_clear_error(raw: bytes, words: str) -> None:
    with pytest.raises(SeriesError, match=words) as caught:
        read_points(raw, "x.csv")
    assert str(caught.value).startswith("x.csv: ")
    assert "\n" not in str(caught.value)
