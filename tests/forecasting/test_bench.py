"""The benchmark of forecasts: the same origins for all, honest losses, rows as promised, and clear errors."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.forecast.__main__ import main
from benchmarks.forecast.cache import cached
from benchmarks.forecast.empirical import quantiled
from benchmarks.forecast.origins import Task, level_shifts, pinball, score
from benchmarks.forecast.ours import ours
from benchmarks.forecast.peers import last_value, seasonal_naive
from forecasting.series import regular

KEYS = {"series", "horizon_s", "model", "pinball", "wape", "coverage90", "coverage99", "n"}


def task(values: list[float], *steps: int) -> Task:
    return Task("x", regular([(i * 600.0, value) for i, value in enumerate(values)]), steps)


def noisy(count: int, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [100 * math.exp(rng.gauss(0, 0.1)) for _ in range(count)]


def test_origins_have_known_values_at_both_ends() -> None:
    values = noisy(100)
    values[50] = math.nan
    origins = task(values, 3).origins(3).tolist()
    assert origins[0] == 25
    assert origins[-1] == 96
    assert not {47, 50} & set(origins)


def test_the_loss_is_that_of_koenker_and_bassett() -> None:
    found = pinball(np.array([10.0, 10.0]), np.array([[8.0, 10.0, 12.0], [12.0, 12.0, 12.0]]))
    assert found == pytest.approx([(0.5 * 2 + 0 + 0.01 * 2) / 3, (0.5 * 2 + 0.1 * 2 + 0.01 * 2) / 3])


def test_only_errors_known_at_the_origin_make_quantiles() -> None:
    values = [10.0] * 60 + [1000.0] * 60
    one = task(values, 5)
    said = quantiled(one, 5, one.filled(), relative=False)
    origins = one.origins(5).tolist()
    assert said[origins.index(59)] == pytest.approx(10.0)
    assert said[origins.index(60), :2] == pytest.approx(1000.0)
    assert said[origins.index(60), 2] > 1400.0


def test_every_model_is_scored_at_every_origin() -> None:
    one = task(noisy(200), 1, 4)
    every = {**ours(one), "last_value": last_value(one), "seasonal_naive": seasonal_naive(one)}
    for steps in one.steps:
        rows = [score(one, steps, name, found[steps]) for name, found in every.items()]
        assert {row.n for row in rows} == {len(one.origins(steps))}
        assert all(math.isfinite(row.pinball) and 0 <= row.coverage90 <= row.coverage99 <= 1 for row in rows)


def test_a_forecast_that_is_no_number_is_an_error_not_left_out() -> None:
    one = task(noisy(50), 1)
    said = last_value(one)[1]
    said[3, 1] = math.nan
    with pytest.raises(ValueError, match="broken on x"):
        score(one, 1, "broken", said)


def test_what_we_forecast_does_not_change_with_what_comes_later() -> None:
    values = noisy(160)
    whole, cut = task(values, 2), task(values[:120], 2)
    early = ours(cut, parts=False)["roleratio"][2]
    # The whole starts to be scored later: compare the origins that both have.
    shared = [place for place in cut.origins(2).tolist() if place in set(whole.origins(2).tolist())]
    late = ours(whole, parts=False)["roleratio"][2]
    for place in shared:
        row, other = cut.origins(2).tolist().index(place), whole.origins(2).tolist().index(place)
        assert early[row] == pytest.approx(late[other])


def test_a_level_shift_is_found_once() -> None:
    assert len(list(level_shifts(task(noisy(400) + [4 * value for value in noisy(400, 2)], 1), 1))) == 1
    assert list(level_shifts(task(noisy(800), 1), 1)) == []


def test_a_cache_gives_what_was_made_for_the_same_values_only(tmp_path: Path) -> None:
    made: list[str] = []

    def work(one: Task) -> dict[int, np.ndarray]:
        made.append(one.name)
        return last_value(one)

    first, second = task(noisy(60), 1), task(noisy(60, 2), 1)
    for one in (first, first, second):
        assert np.array_equal(cached(tmp_path, "slow", one, "1", work)[1], last_value(one)[1])
    assert len(made) == 2


def test_the_command_writes_rows_of_any_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["when,load", *(f"{i * 60},{value:.3f}" for i, value in enumerate(noisy(150)))]
    data, out = tmp_path / "demand.csv.gz", tmp_path / "rows.json"
    data.write_bytes(gzip.compress("\n".join(lines).encode()))
    models = "roleratio,last_value,seasonal_naive"
    assert main(["--data", str(data), "--steps", "1,3", "--models", models, "--json", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert all(set(row) == KEYS for row in rows)
    names = {row["model"] for row in rows}
    assert {"roleratio", "last_value", "seasonal_naive", "roleratio:ridge", "roleratio:kalman"} <= names
    assert {(row["series"], row["horizon_s"]) for row in rows} == {("demand", 60.0), ("demand", 180.0)}
    for horizon_s in (60.0, 180.0):
        assert len({row["n"] for row in rows if row["horizon_s"] == horizon_s}) == 1
    assert "demand" in capsys.readouterr().out


def table(value: Callable[[int], object], step: Callable[[int], object] = lambda i: i * 60) -> bytes:
    return "\n".join(["t,v", *(f"{step(i)},{value(i)}" for i in range(60))]).encode()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty; expected a header"),
        (b"t,v\n", "a header and no line after it"),
        (b"0,1\n60,2\n", "no header"),
        (b"t,v\n0,\n", "none of 1 points"),
        (table(lambda i: "NaN"), "none of 60 points"),
        (table(lambda i: -1 - i), "none of 60 points"),
        (table(lambda i: "inf"), "none of 60 points"),
        (table(lambda i: "much" if i == 30 else i), "line 32: value 'much'"),
        (table(lambda i: i, lambda i: "soon"), "line 2: time 'soon'"),
        (b"t;v\n0;1\n", "expected two columns"),
        (b"t,v\n0,1\n1,2\n2,3\n1e12,4\n", "expected at most"),
        (gzip.compress(table(lambda i: i))[:40], "cannot be read"),
        (bytes(range(256)), "cannot be read"),
    ],
)
def test_bad_data_is_one_clear_error_that_names_the_file(
    raw: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "demand.csv"
    data.write_bytes(raw)
    assert main(["--data", str(data)]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert str(data) in said
    assert "\n" not in said


def test_a_file_that_is_not_there_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "/nowhere/at-all.csv"]) == 2
    said = capsys.readouterr().err.strip()
    assert "No such file" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "raw",
    [
        table(lambda i: 5),
        table(lambda i: 0),
        table(lambda i: "NaN" if i % 7 == 0 else i),
        table(lambda i: "inf" if i % 7 == 0 else i),
        table(lambda i: -i if i % 7 == 0 else i),
        table(lambda i: 1e308 if i % 7 == 0 else i),
        table(lambda i: i, lambda i: (i * 37 % 60) * 60),
        table(lambda i: i, lambda i: i // 2 * 60),
        table(lambda i: i, lambda i: f"2026-01-0{1 + i // 24}T{i % 24:02d}:00:00Z"),
        table(lambda i: i, lambda i: f"2026-01-0{1 + i // 24} {i % 24:02d}:00:00"),
        gzip.compress(table(lambda i: i)),
        table(lambda i: i).replace(b"\n", b"\r\n"),
    ],
    ids=[
        "constant",
        "idle",
        "missing",
        "infinite",
        "negative",
        "too large",
        "out of order",
        "twice",
        "ISO 8601",
        "with a blank",
        "gzip",
        "CRLF",
    ],
)
def test_odd_data_is_scored(raw: bytes, tmp_path: Path) -> None:
    data, out = tmp_path / "demand.csv", tmp_path / "rows.json"
    data.write_bytes(raw)
    assert main(["--data", str(data), "--steps", "1,2", "--models", "roleratio,last_value", "--json", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert {row["horizon_s"] for row in rows} == {row["horizon_s"] for row in rows if row["model"] == "last_value"}
    assert len({row["horizon_s"] for row in rows}) == 2
    assert all(math.isfinite(row["pinball"]) and row["n"] > 5 for row in rows)


@pytest.mark.parametrize("steps", ["0", "1,x", "", "-1"])
def test_bad_steps_are_refused(steps: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--steps", steps])
    assert caught.value.code == 2


def test_a_series_too_short_for_a_horizon_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "short.csv"
    data.write_text("t,v\n0,1\n60,2\n120,3\n180,4\n", encoding="utf-8")
    assert main(["--data", str(data), "--steps", "1,50", "--models", "roleratio,last_value"]) == 0
    said = capsys.readouterr()
    assert "nothing to score 50 steps ahead" in said.err
    assert "short" in said.out
