"""Production demand per client: what the files say is what comes."""

from __future__ import annotations

import gzip
import json
import random
from itertools import pairwise
from statistics import fmean

import pytest

from simulator.rng import Rng
from simulator.servegen import LENGTHS_S, ServeGenError, parse
from tests.shared_data import shared

WINDOWS = """client,t_s,rate_rps,cv,pattern,arg1,arg2
0,0,2.0,1,Gamma,1.0,0.5
0,600,4.0,1,Gamma,1.0,0.25
1,600,1.0,1,Weibull,1.0,1.0
""".splitlines()
LENGTHS = [
    '{"edges": [1, 10, 20, 40]}',
    '{"client": 0, "t_s": 0, "input_tokens": [[1, 1.0]], "output_tokens": [[0, 1.0]]}',
]
FOLDER = "data/traces/servegen"


def stream(name: str) -> Rng:
    return random.Random(f"1/{name}")


def test_rates_and_lengths_are_followed() -> None:
    found = parse(WINDOWS, LENGTHS)
    assert found.span_s == 1200
    sent = list(found.requests(stream, 0, 1200))
    assert [one[0] for one in sent] == sorted(one[0] for one in sent)
    assert sum(at_s < 600 for at_s, _, _ in sent) == pytest.approx(1200, abs=150)
    assert sum(at_s >= 600 for at_s, _, _ in sent) == pytest.approx(3000, abs=220)
    assert all(10 <= prompt < 20 and 1 <= output < 10 for _, prompt, output in sent)


def test_a_part_of_it_thinned_or_stretched_and_longer() -> None:
    found = parse(WINDOWS, LENGTHS)
    for stretch in (False, True):
        sent = list(found.requests(stream, 600, 300, 0.2, stretch=stretch, longer=3.0))
        assert len(sent) == pytest.approx(300, abs=60)
        assert all(at_s < 300 and 30 <= prompt <= 57 for at_s, prompt, _ in sent)
    assert list(found.requests(stream, 0, 100)) == list(found.requests(stream, 0, 100))


@pytest.mark.parametrize(
    ("windows", "lengths", "says"),
    [
        (WINDOWS[1:], LENGTHS, "line 1: '0,0,2.0"),
        ([*WINDOWS, "0,1200,x,1,Gamma,1,1"], LENGTHS, "line 5: '0,1200,x"),
        ([*WINDOWS, "0,1200,1,1,Pareto,1,1"], LENGTHS, "pattern Gamma or Weibull"),
        ([*WINDOWS, "0,600,1,1,Gamma,1,1"], LENGTHS, "rising t_s"),
        (WINDOWS[:1], LENGTHS, "empty: expected windows"),
        (WINDOWS, LENGTHS[:1], "empty: expected lengths"),
        (WINDOWS, [LENGTHS[0], LENGTHS[1].replace("[[1, 1.0]]", "[[7, 1.0]]")], "line 2"),
        (WINDOWS, ["nonsense"], "line 1"),
    ],
)
def test_bad_lines_are_named(windows: list[str], lengths: list[str], says: str) -> None:
    with pytest.raises(ServeGenError, match=r"line|empty") as caught:
        parse(windows, lengths)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def lines(name: str) -> list[str]:
    return gzip.decompress((shared(FOLDER) / f"m-large_{name}.gz").read_bytes()).decode().splitlines()


def test_m_large_sends_what_its_files_say() -> None:
    """Half a day at 1 %: the sum over clients is the total, thinned, and the lengths are those of who sends."""
    windows, lengths = lines("client_windows.csv"), lines("client_lengths.jsonl")
    half_day_s = 2 * LENGTHS_S
    total = sum(
        float(row.split(",")[1]) * 600 for row in lines("total_rate.csv")[1:] if float(row.split(",")[0]) < half_day_s
    )
    sent = list(parse(windows, lengths).requests(stream, 0, half_day_s, 0.01))
    assert len(sent) == pytest.approx(total * 0.01, rel=0.03)
    assert all(before[0] <= after[0] for before, after in pairwise(sent))
    known = {(row["client"], row["t_s"] // LENGTHS_S): row for row in map(json.loads, lengths[1:])}
    rates = [row.split(",")[:3] for row in windows[1:]]
    weighed = [
        (float(rate), known[int(client), float(t_s) // LENGTHS_S])
        for client, t_s, rate in rates
        if (int(client), float(t_s) // LENGTHS_S) in known and float(t_s) < half_day_s
    ]
    for position, key in ((1, "input_tokens_mean"), (2, "output_tokens_mean")):
        mean = sum(rate * row[key] for rate, row in weighed) / sum(rate for rate, _ in weighed)
        assert fmean(one[position] for one in sent) == pytest.approx(mean, rel=0.1)
