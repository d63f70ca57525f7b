"""The referee's scenarios in our own simulator, without Dynamo: scenario files, orders compared, the command."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.dynosim import mirror, ranking
from benchmarks.dynosim.agreement import Swapped, agreement, kendall, text
from benchmarks.dynosim.context import load_context, settings_of
from benchmarks.dynosim.runs import Bench, Run
from benchmarks.dynosim.scenarios import SCENARIOS, Scenario
from policies.model import ROLES, Pair
from roleratio.simulation import Prepared

TABLES = json.loads((Path(__file__).parent / "data/dynosim_context.json").read_text(encoding="utf-8"))
VALUES = st.lists(st.integers(0, 4), min_size=2, max_size=7)


def row(attained: float, gpu_hours: float) -> dict[str, Any]:
    return {"attained": attained, "gpu_hours": gpu_hours}


def folder_of(tmp_path: Path, scenario: Scenario, requests: int = 40) -> Bench:
    """A folder as the referee's bench prepares it, with a trace of a few requests and tables of other engines."""
    bench = Bench(tmp_path, Path("no-dynamo-here"))
    run = Run(scenario, "ours", 1)
    trace, context = bench.trace(run), bench.context(run)
    lines = [{"timestamp": 3e3 * n, "input_length": 4000, "output_length": 100} for n in range(requests)]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    trace.with_suffix(".count").write_text(str(requests), encoding="utf-8")
    context.write_text(json.dumps({**TABLES, **scenario.facts()}), encoding="utf-8")
    return bench


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),
        ([1, 1, 2], [1, 2, 3], 2 / 6**0.5),
        ([1, 1, 1], [1, 2, 3], None),
        ([1], [1], None),
    ],
)
def test_agreement_of_two_orders(first: list[float], second: list[float], tau: float | None) -> None:
    assert kendall(first, second) == (tau if tau is None else pytest.approx(tau))


@given(VALUES, st.randoms(use_true_random=False))
def test_tau_is_symmetric_and_does_not_depend_on_who_comes_first(values: list[int], rng: Any) -> None:
    other = [rng.randrange(5) for _ in values]
    found = kendall(values, other)
    assert found == kendall(other, values)
    assert found is None or -1 - 1e-9 <= found <= 1 + 1e-9
    for order in [*permutations(range(len(values)))][:5]:
        again = kendall([values[n] for n in order], [other[n] for n in order])
        assert again == (None if found is None else pytest.approx(found))


def test_only_clear_differences_are_told_and_a_namesake_is_compared() -> None:
    referee = {
        "ours": row(0.95, 5.0),
        "static:3,4": row(0.99, 8.0),
        "planner:both": row(0.3, 5.04),
        "planner:load": row(0, 1),
    }
    ours = {"ours": row(0.999, 5.0), "static:3,4": row(0.98, 8.0), "dynamo": row(0.305, 4.99), "keda": row(0.5, 3.0)}
    found = agreement(referee, ours)
    assert found.policies == 3
    assert found.swapped == {"attained": (Swapped("static:3,4", "ours"),), "gpu_hours": ()}
    assert found.tau == {"attained": pytest.approx(1 / 3), "gpu_hours": pytest.approx(1 / 3)}
    lines = text("sine", referee, ours, found).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["static:3,4", "ours", "dynamo", "keda"]
    assert "dynamo (planner:both)" in lines[3]
    assert "referee alone puts static:3,4 over ours" in lines[5]
    assert "no clear difference" in lines[6]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_file_says_what_the_referee_does(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    bench = folder_of(tmp_path, scenario)
    ready = Prepared(ranking.Mirror(bench).scenario(scenario, 1))
    context = load_context(str(bench.context(Run(scenario, "ours", 1))))
    found, spec = ready.scenario, settings_of(context, None).spec
    assert found.autoscaler.model_copy(update={"profile": spec.profile}) == spec
    assert Pair(*(found.fleet.role(role).groups for role in ROLES)) == scenario.initial
    assert {role: found.shape(role, ready.profile.gpus).gpus for role in ROLES} == scenario.tp
    assert (found.start.typical_s, found.tail_s) == (scenario.startup_s, 300.0)
    assert found.router.bind == ("arrival" if scenario.router == "kv_router" else "turn")
    assert len([*ready.load(1).requests]) == 40
    table = {(new, cached): ms for new, cached, ms in context.prefill_ms}
    assert ready.profile.prefill_ms(8192) == pytest.approx(table[8192, 0])
    assert (found.autoscaler.gpu_budget, found.faults) == (context.max_gpus, ())


def test_the_hard_variant_has_gangs_faults_and_no_more_nodes_than_budget(tmp_path: Path) -> None:
    scenario = SCENARIOS["mooncake"]
    ready = Prepared(ranking.Mirror(folder_of(tmp_path, scenario), hard=True).scenario(scenario, 1))
    found = ready.scenario
    budget = found.autoscaler.gpu_budget
    assert found.fleet.nodes.count * found.fleet.nodes.gpus == budget == 8
    assert (found.fleet.prefill.pods_per_group, found.fleet.decode.pods_per_group) == (4, 2)
    assert (found.autoscaler.prefill.max_groups, found.autoscaler.decode.max_groups) == (1, 2)
    assert {fault.kind for fault in found.faults} == {"groupDies", "nodeLost", "engineHangs", "scrapeFails"}
    assert all(0 < fault.at_s < found.duration_s for fault in found.faults)
    assert mirror.hard_budget({"prefill": 3, "decode": 1}, scenario) == 16


def test_the_command_runs_once_compares_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path, SCENARIOS["sine"])
    referee = [
        {
            "scenario": "sine",
            "seed": 1,
            "policy": policy,
            "attained": 1.0,
            "gpu_hours": hours,
            "changes": 0,
            "missed": {},
        }
        | {"ttft_ms_p95": None, "itl_ms_p95": None}
        for policy, hours in (("static:1,1", 0.2), ("static:3,4", 1.0))
    ]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in referee), encoding="utf-8")
    arguments = ["sine", "--out", str(tmp_path), "--policy", "static:1,1", "--policy", "static:3,4"]
    assert ranking.main(arguments) == 0
    first = capsys.readouterr()
    assert "GPU-hours: Kendall's tau 1.00 over 2 policies" in first.out
    assert len(first.err.splitlines()) == 2
    assert ranking.main(arguments) == 0
    assert capsys.readouterr() == (first.out, "")
    rows = [json.loads(line) for line in (tmp_path / "mirror.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["requests"] for one in rows] == [40, 40]
    assert rows[0]["gpu_hours"] < rows[1]["gpu_hours"]
    assert all(sum(one["missed"].values()) == pytest.approx(1 - one["attained"], abs=1e-5) for one in rows)
    assert (tmp_path / "ranking.txt").read_text(encoding="utf-8") == first.out


def test_the_hard_variant_is_a_table_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path, SCENARIOS["sine"])
    assert ranking.main(["sine", "--hard", "--out", str(tmp_path), "--policy", "static:1,1"]) == 0
    out = capsys.readouterr().out
    assert "static:1,1 (4 of 8 GPUs)" in out
    (found,) = [json.loads(line) for line in (tmp_path / "mirror-hard.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found["peak_gpus"] <= found["gpu_budget"]
    assert found["attained"] < 0.5, "one prefill group hangs, and its node is lost: nothing else is there"


def test_tables_that_are_not_there_need_dynamo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = folder_of(tmp_path, SCENARIOS["sine"])
    bench.context(Run(SCENARIOS["sine"], "ours", 1)).unlink()
    assert ranking.main(["sine", "--out", str(tmp_path), "--python", str(tmp_path / "none")]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "make dynosim-env" in said


def test_a_policy_that_is_not_known_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path, SCENARIOS["sine"])
    assert ranking.main(["sine", "--out", str(tmp_path), "--policy", "planner:both"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "planner:both" in said
