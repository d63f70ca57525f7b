"""`roleratio simulate`: its table, its files, several runs at once, and what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from roleratio.cli import main
from roleratio.sweep import Task, run_task, sweep
from tests.simulator.small import SMALL


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return path


def test_one_run(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(small), "--json", str(tmp_path / "out.json"), "--report", str(tmp_path / "page")]) == 0
    out = capsys.readouterr().out
    assert "attained" in out
    assert "ours, seed 7: misses:" in out
    said = json.loads((tmp_path / "out.json").read_text())
    (run,) = said["runs"]
    assert run["policy"] == "ours"
    assert run["problems"] == []
    assert run["requests"] == run["requests_ok"] > 100
    assert run["oracle"]["gpu_hours_over_oracle"] > 0.9
    html = (tmp_path / "page/report.html").read_text()
    assert "Attainment over cost" in html
    assert "http" not in html.replace("http-equiv", "")
    assert json.loads((tmp_path / "page/report.json").read_text()) == said


def test_several_policies_and_seeds_in_parallel_give_what_each_gives_alone(small: Path) -> None:
    tasks = [Task(small, policy, seed) for policy in ("ours", "static:2,2") for seed in (1, 2)]
    done: list[Task] = []
    together = sweep(tasks, jobs=2, done=lambda outcome: done.append(outcome.task))
    assert set(done) == set(tasks)
    assert [one.summary for one in sweep(tasks[:2], jobs=2)] == [one.summary for one in together[:2]]
    assert [one.task for one in together] == tasks
    assert [one.summary for one in together] == [run_task(task).summary for task in tasks]
    assert len({one.summary["gpu_hours_total"] for one in together}) > 1


def test_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--list"]) == 0
    out = capsys.readouterr().out
    assert "m-large-day" in out
    assert "policies: ours" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no scenario"),
        (["nope"], "shipped are"),
        (["./nope.yaml"], "cannot be read"),
        (["azure-code"], "no such file"),
        (["demo", "--policy", "nope", "--policy", "static:x"], "policy 'static:x'"),
        (["demo", "--json", "/proc/nope/x.json"], "cannot be written"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.out == ""


def test_three_mistakes_in_a_scenario_are_three_lines(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {**SMALL, "durationS": 0, "tailS": -1, "extra": True}
    small.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert main(["simulate", str(small)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
