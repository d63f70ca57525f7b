"""Measured rates: holes are closed, requests follow the rates, and a file is read as it was written."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from autoscaler.errors import UserError
from roleratio.measured import HEADER, Gaps, Measured, Stretch, joined, parse, read, requests, write
from roleratio.simulation import streams
from simulator.arrivals import gaps

UNIX_S = 1_795_000_000.0
HOLED = (
    Stretch(UNIX_S, UNIX_S + 60, 2.0, 1000.0, 100.0),
    Stretch(UNIX_S + 60, UNIX_S + 120, 0.0, 0.0, 0.0),
    Stretch(UNIX_S + 300, UNIX_S + 360, 6.0, 2000.0, 50.0),
)


@pytest.mark.parametrize(("how", "end_s"), [("cut", 180.0), ("line", 360.0)])
def test_holes_are_closed(how: Gaps, end_s: float) -> None:
    found = joined(HOLED, how)
    assert found[0].start_s == 0
    assert all(before.end_s == pytest.approx(after.start_s) for before, after in pairwise(found))
    assert found[-1].end_s == pytest.approx(end_s)
    assert [one for one in found if one.requests_per_s == 0] == [Stretch(60, 120, 0.0, 0.0, 0.0)]


def test_a_hole_is_filled_in_by_a_line_with_the_lengths_of_the_side_that_has_requests() -> None:
    _, _, *filled, _ = joined(HOLED, "line")
    assert [one.requests_per_s for one in filled] == [1.0, 3.0, 5.0]
    assert {one.prompt_tokens_mean for one in filled} == {2000.0}
    assert [one.length_s for one in filled] == [60.0] * 3


def test_missing_time_is_a_share_of_the_period_and_means_are_weighted() -> None:
    found = Measured("x", UNIX_S, UNIX_S + 360, HOLED)
    assert found.missing_share == pytest.approx(0.5)
    assert found.requests == 480
    assert found.means == pytest.approx((1750, 62.5))


def test_requests_follow_rates_and_lengths_and_a_seed() -> None:
    stretches = (Stretch(0, 1000, 10, 400, 20), Stretch(1000, 2000, 0, 0, 0), Stretch(2000, 3000, 2, 4000, 200))
    found = list(requests(stretches, gaps("poisson"), 1.0, 100_000, streams(3)))
    assert found == list(requests(stretches, gaps("poisson"), 1.0, 100_000, streams(3)))
    assert found != list(requests(stretches, gaps("poisson"), 1.0, 100_000, streams(4)))
    parts = [[one for one in found if begin <= one[0] < begin + 1000] for begin in (0, 1000, 2000)]
    assert [len(part) for part in parts] == [pytest.approx(10_000, rel=0.05), 0, pytest.approx(2000, rel=0.1)]
    assert statistics.mean(one[1] for one in parts[0]) == pytest.approx(400, rel=0.06)
    assert statistics.mean(one[2] for one in parts[2]) == pytest.approx(200, rel=0.12)


def test_burstiness_is_that_of_counts_and_the_longest_fits() -> None:
    stretches = (Stretch(0, 5000, 4, 3000, 300),)

    def spread(cv: float) -> float:
        """Variance over mean of the counts of ten seconds: about cv squared."""
        counts = [0] * 500
        for at_s, prompt, output in requests(stretches, gaps("gamma", cv), 1.0, 4096, streams(5)):
            counts[int(at_s / 10)] += 1
            assert prompt >= 1 <= output
            assert prompt + output <= 4096
        return statistics.variance(counts) / statistics.mean(counts)

    assert spread(3.0) == pytest.approx(9, rel=0.3)
    assert spread(0.3) < 0.4


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "demand.csv"
    stretches = joined(HOLED, "cut")
    write(path, stretches)
    assert list(read(path)) == stretches


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "line 1: nothing: expected the header"),
        (["a,b"], "line 1: a,b: expected the header"),
        ([HEADER], "a header and no stretch"),
        ([HEADER, "0,10,1,5,x"], "line 2: 0,10,1,5,x: expected five numbers"),
        ([HEADER, "0,10,1,5,nan"], "line 2"),
        ([HEADER, "10,10,1,5,5"], "line 2"),
        ([HEADER, "0,10,1,0,5"], "means at least 1 where requests come"),
        ([HEADER, "0,10,0,0,0", "20,30,1,5,5"], "line 3: start_s 20: expected 10"),
        ([HEADER, "0,10,0,0,0", "5,30,1,5,5"], "line 3: start_s 5: expected 10"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(rows: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        parse(rows, "x")
    (line,) = error.value.problems
    assert line.startswith("measured demand x: ")
    assert says in line
