"""The bench of decisions, on a service of two minutes: what is run, what is kept, and what is said of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autoscaler.errors import UserError
from benchmarks import decisions
from benchmarks.decisions import __main__ as command
from benchmarks.decisions.bench import Bench
from benchmarks.decisions.plan import DEFAULTS, NEEDS, OURS, Key, Part, Run, chosen, fixed_sizes, parts
from benchmarks.decisions.runs import BUCKET, Finished, Row, run
from benchmarks.decisions.score import Score, attained_at, frontier, outcome, percentile_ms, verdicts
from policies.model import Role
from roleratio.simulation import load_scenario
from roleratio.sweep import Task, run_task

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = """
name: tiny
durationS: 120
load:
  clients:
    - {process: poisson, rateRps: 3, prompt: {mean: 2000}, output: {mean: 60}}
fleet:
  nodes: {count: 4, gpus: 8}
  prefill: {groups: 1}
  decode: {groups: 1}
start: {loadS: 10}
autoscaler:
  profile: qwen3-32b-h200-tp2
  slo: {ttft: {percentile: 95, targetMs: 2000}, itl: {percentile: 95, targetMs: 50}}
  gpuBudget: 16
  prefill: {minGroups: 1, maxGroups: 4, coldStartS: 10}
  decode: {minGroups: 1, maxGroups: 4, coldStartS: 10}
  syncPeriodS: 5
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


def score(policy: str, attainment: float, gpu_hours: float) -> Score:
    return Score(policy, 100, attainment, gpu_hours, gpu_hours / 10, None, None, {}, 0, 0, {})


def test_two_weeks_are_run_day_by_day() -> None:
    days = parts("m-large-weeks", (1, 2))
    assert [part.start_s for part in days if part.seed == 1] == [day * 86_400.0 for day in range(14)]
    assert len(days) == len({Run(part, "ours").key for part in days}) == 28
    (hour,) = parts("m-large-weeks", quick=True)
    assert (hour.start_s, hour.duration_s) == (43_200.0, 3600.0)
    (whole,) = parts("azure-code")
    assert (whole.start_s, whole.duration_s) == (0.0, 3420.0)


def test_a_part_is_the_scenario_from_its_start_on() -> None:
    day = parts("m-large-weeks")[3]
    scenario = day.of(load_scenario(day.path))
    assert scenario.load.servegen is not None
    assert (scenario.load.servegen.start_s, scenario.duration_s) == (3 * 86_400.0, 86_400.0)


def test_fixed_sizes_go_from_the_mean_to_the_peak_within_the_bounds(tiny: Path) -> None:
    scenario = load_scenario(tiny)
    mean, peak = {Role.PREFILL: 1.2, Role.DECODE: 0.8}, {Role.PREFILL: 4.0, Role.DECODE: 2.0}
    found = fixed_sizes(mean, peak, scenario, 8, 3)
    assert {"static:2,1", "static:3,2", "static:4,2", "static:3,1", "static:4,3"} <= set(found)
    assert "static:5,2" not in found
    assert not {one for one in found if one.endswith(",0")}
    assert "static:4,3" not in fixed_sizes(mean, peak, scenario, 6, 3)


def test_policies_are_chosen_by_kind_or_exactly() -> None:
    every = [*OURS, *DEFAULTS, "static:2,1"]
    assert chosen(every, ()) == every
    assert {"oracle", "keda", "kpa", "hpa-queue", "wva-v2", "dynamo"} <= set(DEFAULTS)
    assert chosen(every, ("static", "ours:tolerance=0.1")) == ["static:2,1", "ours:tolerance=0.1"]
    assert chosen(every, ("ours",)) == list(OURS)


def test_a_row_says_what_simulate_says(tiny: Path) -> None:
    (part,) = parts(str(tiny))
    row, needs = run(Run(part, "ours"), None), run(Run(part, NEEDS), None)
    said = run_task(Task(tiny, "ours", part.seed)).summary
    assert row["requests"] == said["requests"] == needs["requests"] > 200
    assert row["misses"] == said["misses"]
    assert row["gpu_hours"] == pytest.approx(said["gpu_hours_total"], abs=1e-4)
    assert needs["gpu_hours"] == pytest.approx(said["oracle"]["gpu_hours"], abs=1e-4)
    assert needs["peak"] == said["oracle"]["max_groups"]
    assert 1 <= needs["mean"]["prefill"] <= needs["peak"]["prefill"]
    for name, ours in (("ttft_s", "ttft_ms"), ("itl_s", "mean_itl_ms")):
        assert percentile_ms([row[name]], 0.95) == pytest.approx(said[ours]["p95"], rel=0.03)


def test_percentiles_are_of_all_parts_together() -> None:
    slow = {"0": 10}
    fast = {"-100": 90}
    assert percentile_ms([slow, fast], 0.5) == pytest.approx(1e3 * BUCKET**-99.5)
    assert percentile_ms([fast, slow], 0.95) == pytest.approx(1e3 * BUCKET**0.5)
    assert percentile_ms([{}], 0.95) is None


def test_the_frontier_is_read_between_its_points_and_never_below_them() -> None:
    fixed = [score("static:1,1", 0.5, 2), score("static:2,1", 0.4, 3), score("static:3,1", 0.9, 4)]
    assert [one.policy for one in frontier(fixed)] == ["static:1,1", "static:3,1"]
    hardly_better = score("static:1,2", 0.51, 3.9)
    assert attained_at(3.0, [*fixed, hardly_better]) == pytest.approx(0.7)
    assert attained_at(3.0, fixed) == pytest.approx(0.7)
    assert attained_at(9.0, fixed) == 0.9
    assert attained_at(2.0, fixed) == 0.5
    assert attained_at(1.9, fixed) is None
    assert attained_at(1.9, []) is None


def test_a_baseline_beats_ours_where_it_attains_as_much_for_no_more_and_the_oracle_is_none() -> None:
    ours = [score("ours:a", 0.9, 4), score("ours:b", 0.95, 5)]
    others = [score("keda", 0.9, 4), score("static:1,1", 0.95, 5.1), score("oracle", 1.0, 3), score("kpa", 0.8, 1)]
    found = {one.policy: one for one in verdicts([*ours, *others])}
    assert found["ours:a"].beaten_by == ("keda",)
    assert found["ours:b"].beaten_by == ()
    assert found["ours:b"].static_attainment is None


def test_a_policy_of_which_a_part_is_missing_is_not_judged() -> None:
    days = [Part("two-days", Path("two-days.yaml"), 7, day * 86_400.0, 86_400.0) for day in range(2)]
    full = {
        "requests": 100,
        "gpu_hours": 2.0,
        "misses": {"burst": 3},
        "ttft_s": {"0": 100},
        "itl_s": {"-200": 100},
        "max_groups": {"prefill": 2, "decode": 1},
        "peak_gpus": 6,
        "changes": 4,
    }
    rows = {Run(day, policy).key: {**full} for day in days for policy in (NEEDS, "ours")}
    rows[Run(days[0], "keda").key] = {**full}
    found = outcome(days, rows)
    assert found is not None
    assert [(one.policy, one.requests, one.attainment, one.gpu_hours) for one in found.scores] == [
        ("ours", 200, 0.97, 4.0)
    ]
    assert (found.scores[0].over_oracle, found.unfinished) == (1.0, {"keda": 1})
    del rows[Run(days[1], NEEDS).key]
    assert outcome(days, rows) is None


def test_the_command_writes_all_and_goes_on_where_it_was(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [str(tiny), "--traces", str(tmp_path), "--jobs", "1", "--out", str(out), "--quick"]
    assert command.main([*words, "--policy", "static", "--policy", "oracle"]) == 0
    first = (out / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    assert command.main([*words, "--policy", OURS[0]]) == 0
    lines = (out / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[: len(first)] == first
    assert [json.loads(line)["policy"] for line in lines[len(first) :]] == [OURS[0]]
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))["tiny"]
    kinds = {one["policy"].partition(":")[0] for one in results["scores"]}
    assert kinds == {"ours", "static", "oracle"}
    assert [one["policy"] for one in results["verdicts"]] == [OURS[0]]
    page = (out / "tiny.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 1
    assert '<polyline class="line fixed"' in page
    assert OURS[0] in page
    assert OURS[0] in (out / "table.txt").read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("GPU-h: ") == 1


def test_after_the_limit_no_run_is_begun_and_the_next_call_goes_on(tiny: Path, tmp_path: Path) -> None:
    scenarios = [parts(str(tiny))]
    rows: dict[Key, Row] = {}
    Bench(None, policies=("oracle",), limit_s=0.0).run(scenarios, rows, again=False, done=lambda row: None)
    assert {key[1] for key in rows} == {NEEDS}
    Bench(None, policies=("oracle",)).run(scenarios, rows, again=False, done=lambda row: None)
    assert {key[1] for key in rows} == {NEEDS, "oracle"}


def test_runs_of_other_sources_are_told_and_made_anew_on_demand(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tiny), "--traces", str(tmp_path), "--jobs", "1", "--out", str(tmp_path), "--policy", "oracle"]
    assert command.main(words) == 0
    file = tmp_path / "runs.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('"sources": "', '"sources": "old-'), encoding="utf-8")
    capsys.readouterr()
    assert command.main(words) == 0
    assert "finished runs that other sources made: 1" in capsys.readouterr().err
    assert command.main([*words, "--again"]) == 0
    assert all(not row["sources"].startswith("old-") for row in Finished(file).rows().values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing-such"], "no such scenario"),
        (["TINY", "--policy", "ours:no.such=1"], "expected KEY=VALUE"),
        (["TINY", "--out", "TINY"], "cannot be written"),
        (["m-large-weeks", "--day", "15"], "--day 15: m-large-weeks has 14; give one from 1 to 14"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    words: list[str], said: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(tiny) if word == "TINY" else word for word in words]
    assert command.main(["--traces", str(tmp_path), "--out", str(tmp_path / "out"), "--jobs", "1", *asked]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_a_damaged_file_of_runs_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text('{"scenario": "tiny"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"runs.jsonl:1: not a finished run"):
        Finished(file).rows()


def test_the_quick_form_gives_figures_with_claims(tiny: Path, tmp_path: Path) -> None:
    sizes = decisions.Sizes((str(tiny),), tmp_path, ("static", OURS[0]), 1)
    figures = decisions.measure(sizes)
    assert [one.unit for one in figures] == ["%", "baselines"]
    assert [len(one.claims) for one in figures] == [0, 1]


BLOCKER = """
import sys
from importlib.machinery import PathFinder

NEEDED = {"annotated_types", "cloudpickle", "joblib", "numpy", "pydantic", "pydantic_core", "typing_extensions",
          "typing_inspection", "yaml"}


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if "." in name or name in sys.stdlib_module_names or name in NEEDED:
            return None
        found = PathFinder.find_spec(name)
        if found is not None and found.origin and "site-packages" in found.origin:
            raise ModuleNotFoundError(f"{name} is not there", name=name)
        return None


sys.meta_path.insert(0, Blocker())
from benchmarks.decisions.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


def test_it_runs_where_little_is_installed(tiny: Path, tmp_path: Path) -> None:
    words = [str(tiny), "--traces", str(tmp_path), "--jobs", "1", "--out", str(tmp_path), "--policy", OURS[0]]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert OURS[0] in done.stdout
