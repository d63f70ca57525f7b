"""`roleratio forecast`: from a table and from a real Prometheus, as text, JSON and picture; bad input in one line."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import time
import xml.dom.minidom
from pathlib import Path

import pytest

from roleratio.cli import main
from tests.dashboards.conftest import prometheus, promtool
from tests.dashboards.queries import running

__all__ = ("prometheus", "promtool")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "demand.csv"
    lines = [f"{i * 600},{100 + 50 * math.sin(i / 23) + i % 7:.3f}" for i in range(400) if not 200 <= i < 210]
    path.write_text("\n".join(["t_s,rps", *lines]) + "\n", encoding="utf-8")
    return path


def test_a_table_as_text(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", "--csv", str(table), "--horizon-s", "1200"]) == 0
    said = capsys.readouterr().out
    assert "400 steps of 600 s, 390 known" in said
    assert "1200 s ahead" in said
    assert "pinball" in said


def test_a_table_as_json(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", "--csv", str(table), "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["horizon_s"] == 600
    assert said["quantiles"]["0.5"] <= said["quantiles"]["0.9"] <= said["quantiles"]["0.99"]
    assert sum(said["weights"].values()) == pytest.approx(1)


def test_a_picture_shows_history_gap_past_forecasts_and_fan(table: Path, tmp_path: Path) -> None:
    picture = tmp_path / "forecast.svg"
    assert main(["forecast", "--csv", str(table), "--horizon-s", "1800", "--plot", str(picture)]) == 0
    document = xml.dom.minidom.parse(str(picture))
    classes = [one.getAttribute("class") for one in document.getElementsByTagName("polyline")]
    assert classes.count("line actual") == 2
    assert "line past" in classes
    assert "line fan" in classes
    assert [one.getAttribute("class") for one in document.getElementsByTagName("polygon")].count("band fan") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected one of --csv FILE and --prometheus URL QUERY"),
        (["--csv", "/nowhere/at-all.csv"], "cannot be read"),
        (["--csv", "{table}", "up"], "only with --prometheus"),
        (["--prometheus", "http://127.0.0.1:1"], "no QUERY"),
        (["--prometheus", "127.0.0.1:1", "up"], "expected http://"),
        (["--prometheus", "http://127.0.0.1:1", "up"], "cannot connect"),
        (["--csv", "{table}", "--horizon-s", "1e9"], "expected at most"),
        (["--csv", "{table}", "--plot", "/nowhere/at-all.svg"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forecast", *(argument.format(table=table) for argument in arguments)]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


async def test_a_prometheus_is_asked_for_its_past(
    prometheus: str, promtool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_s = (int(time.time()) - 8 * 3600) // 60 * 60
    lines = ["# TYPE load gauge"]
    for pod in ("a", "b"):
        lines += [f'load{{pod="{pod}"}} {10 + i // 5 % 5} {start_s + 60 * i}' for i in range(7 * 60)]
    (tmp_path / "past.om").write_text("\n".join([*lines, "# EOF"]) + "\n", encoding="utf-8")
    make = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "past.om"), str(tmp_path / "data")]
    done = await asyncio.to_thread(subprocess.run, make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    common = ["--history-s", "28800", "--step-s", "300", "-o", "json"]
    async with running(prometheus, tmp_path, {"scrape_configs": []}, tmp_path / "data") as store:
        ask = ["forecast", "--prometheus", store.url]
        assert await asyncio.to_thread(main, [*ask, "sum(load)", *common]) == 0
        said = json.loads(capsys.readouterr().out)
        assert await asyncio.to_thread(main, [*ask, "load", *common]) == 2
        assert "gives 2 series" in capsys.readouterr().err
    assert said["step_s"] == 300
    assert said["known"] > 80
    assert 19 < said["quantiles"]["0.5"] < 29
