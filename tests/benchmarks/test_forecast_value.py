"""What a forecast is worth: the comparison on numbers worked by hand, and the command on a service of some minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.decisions import __main__ as command
from benchmarks.decisions import value
from benchmarks.decisions.plan import NEEDS, Key, Part, Run, parts
from benchmarks.decisions.runs import Row, run, settled_s
from benchmarks.decisions.score import Outcome, Score, Settled, outcome
from roleratio.simulation import load_scenario
from simulator.roster import TOLD

JUMP = """
name: jump
durationS: 300
load:
  clients:
    - {process: gamma, cv: 0.2, rateRps: 4, prompt: {mean: 2000}, output: {mean: 20}}
  phases:
    - {name: low, share: 2}
    - {name: high, share: 1, rateFactor: 5}
fleet:
  nodes: {count: 4, gpus: 8}
start: {loadS: 20}
autoscaler:
  profile: qwen3-32b-h200-tp2
  slo: {ttft: {percentile: 95, targetMs: 2000}, itl: {percentile: 95, targetMs: 50}}
  gpuBudget: 32
  prefill: {minGroups: 1, maxGroups: 12, coldStartS: 20}
  decode: {minGroups: 1, maxGroups: 4, coldStartS: 20}
  syncPeriodS: 5
"""


@pytest.fixture
def jump(tmp_path: Path) -> Path:
    path = tmp_path / "jump.yaml"
    path.write_text(JUMP, encoding="utf-8")
    return path


def score(policy: str, attainment: float, gpu_hours: float, ahead: int = 0) -> Score:
    """A run whose numbers are those of its settled part alone."""
    settled = Settled(100, attainment, gpu_hours, gpu_hours / 10)
    ramps = {
        "lasting": {"groups": 10, "ahead": ahead, "late_s": 5.0 * (10 - ahead)},
        "bursts": {"groups": 10, "ahead": 0, "late_s": 0.0},
    }
    return Score(policy, 150, 0.1, 99.0, 9.9, None, None, {}, 0, 0, {}, ramps, settled)


def told(scores: list[Score]) -> Outcome:
    return Outcome("made up", 1, 150, 10.0, tuple(scores), (), {})


def test_forecasts_are_compared_at_the_cost_of_ours_by_the_mixture_of_the_runs_beside_it() -> None:
    ours = [score("ours:a=1", 0.9, 10, 5), score("ours:a=2", 0.96, 14, 8)]
    last = [score("told:last,a=1", 0.6, 8, 2), score("told:last,a=2", 0.8, 12, 4), score("told:last,a=3", 0.95, 20, 8)]
    path = [score("told:path,times=1", 0.99, 9, 10)]
    late = [score("told:horizon,times=1", 0.99, 15, 9)]
    first, second = value.comparisons(told([*ours, *last, *path, *late, score("keda", 0.99, 1)]))
    assert (first.policy, first.gpu_hours, first.attainment) == ("ours:a=1", 10, 0.9)
    found = {one.forecast: one for one in first.forecasts}
    assert set(found) == {"ours", "last value", "perfect", "perfect until then"}
    assert found["ours"].attainment == 0.9
    assert found["last value"].attainment == pytest.approx(0.7)
    assert found["last value"].ahead == pytest.approx(0.15)
    assert found["last value"].ahead_lasting == pytest.approx(0.3)
    assert found["last value"].late_s == pytest.approx((40 + 30) / 20 / 2)
    assert found["last value"].gpu_hours == pytest.approx(12 + 8 * (0.1 / 0.15))
    assert (found["perfect until then"].attainment, found["perfect until then"].gpu_hours) == (0.99, 9)
    assert (found["perfect"].attainment, found["perfect"].gpu_hours) == (None, 15)
    beside = {one.forecast: one for one in second.forecasts}
    assert beside["last value"].attainment == pytest.approx(0.8 + 0.15 * 2 / 8)
    assert beside["last value"].gpu_hours is None


def test_nothing_is_compared_where_no_other_forecast_was_run() -> None:
    assert value.comparisons(told([score("ours:a=1", 0.9, 10), score("static:1,1", 1.0, 9)])) == []


def test_every_kind_of_forecast_is_run_and_named() -> None:
    families = {policy.partition(",")[0].partition("=")[0] for policy in value.POLICIES}
    assert families == {"ours:forecastQuantile", *(f"told:{kind}" for kind in TOLD)}
    assert set(value.FORECASTS) == {"ours", *(f"told:{kind}" for kind in TOLD)}


def test_a_run_tells_what_came_once_it_had_settled(jump: Path) -> None:
    (part,) = parts(str(jump))
    assert settled_s(load_scenario(jump)) == 75.0
    rows = {policy: run(Run(part, policy), None) for policy in (NEEDS, "oracle", "static:1,1")}
    static, oracle = rows["static:1,1"], rows["oracle"]
    assert static["gpu_hours"] - static["settled"]["gpu_hours"] == pytest.approx(2 * 2 * 75 / 3600, abs=1e-5)
    assert 0 < static["settled"]["missed"] <= sum(static["misses"].values())
    assert static["requests"] * 0.7 < static["settled"]["requests"] < static["requests"] * 0.95
    assert rows[NEEDS]["settled"]["gpu_hours"] < rows[NEEDS]["gpu_hours"]
    jumps = {name: row["ramps"]["prefill"]["lasting"] for name, row in rows.items() if name != NEEDS}
    assert jumps["oracle"]["groups"] == jumps["static:1,1"]["groups"] > 0
    assert (jumps["oracle"]["ahead"], oracle["ramps"]["prefill"]["bursts"]["late_s"]) == (jumps["oracle"]["groups"], 0)
    assert (jumps["static:1,1"]["ahead"], jumps["static:1,1"]["late_s"]) == (0, jumps["static:1,1"]["needed_s"])


def test_runs_that_do_not_tell_it_are_scored_without(jump: Path) -> None:
    day = Part("days", Path("days.yaml"), 7, 0.0, 86_400.0)
    row = {"requests": 9, "gpu_hours": 2.0, "misses": {}, "ttft_s": {}, "itl_s": {}, "max_groups": {}}
    rows: dict[Key, Row] = {Run(day, name).key: {**row, "peak_gpus": 1, "changes": 0} for name in (NEEDS, "ours")}
    found = outcome([day], rows)
    assert found is not None
    assert (found.scores[0].settled, found.scores[0].ahead()) == (None, None)
    assert value.comparisons(found) == []


def test_the_command_tells_what_a_forecast_is_worth(
    jump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        command.main([str(jump), "--traces", str(tmp_path), "--jobs", "1", "--out", str(out), "--value", "--day", "1"])
        == 0
    )
    rows = [json.loads(line) for line in (out / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["policy"] for row in rows} == {NEEDS, *value.POLICIES}
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))["jump"]
    assert not [one for verdict in results["verdicts"] for one in verdict["beaten_by"]]
    assert {at["policy"] for at in results["value"]} == set(value.OURS)
    assert (costs := [at["gpu_hours"] for at in results["value"]]) == sorted(costs)
    dearest = {one["forecast"]: one for one in results["value"][-1]["forecasts"]}
    assert dearest["perfect until then"]["attainment"] > dearest["last value"]["attainment"]
    assert dearest["perfect until then"]["ahead"] > dearest["last value"]["ahead"]
    page = (out / "jump.html").read_text(encoding="utf-8")
    assert "What a forecast is worth" in page
    assert page.count('class="line want"') == 1
    printed = capsys.readouterr().out
    assert "what a forecast is worth, at equal GPU-hours:" in printed
    assert "perfect until then" in printed
