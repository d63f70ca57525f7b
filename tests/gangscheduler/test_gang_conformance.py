"""The neutral corpus through the pure core, and the command that does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gangscheduler.conformance import main, run
from gangscheduler.scenario import World
from tests.shared_data import shared

NOT_YET = {
    *(f"evict-{number:02}" for number in (1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17)),
    *("defrag-01", "defrag-02", "defrag-04", "defrag-05", "stale-02", "stale-04", "auto-02"),
}


def corpus() -> Path:
    return shared("data/gang/scenarios.json")


def scenarios() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(corpus().read_text())["scenarios"]
    return found


def test_every_scenario_that_evicts_nothing_ends_as_the_corpus_says() -> None:
    results = [run(scenario) for scenario in scenarios()]
    assert {result.id for result in results if result.not_yet} == NOT_YET
    assert {result.id: result.problems for result in results if result.problems and not result.not_yet} == {}
    assert sum(1 for result in results if not result.not_yet) == 77


def test_no_step_over_commits_a_node_or_binds_what_another_step_moved() -> None:
    """Whatever a scenario expects: amounts, readiness and places that were taken hold in every step."""
    for scenario in scenarios():
        result, capacity = run(scenario), {node["name"]: node["capacity"] for node in scenario["nodes"]}
        world = World(scenario)
        before: dict[str, str] = {}
        for step, played in zip(scenario["steps"], result.steps, strict=True):
            world.apply(step["do"])
            while world.arrive():
                pass
            used: dict[tuple[str, str], int] = {}
            fillers = {name: one.node for name, one in world.members.items() if not one.gang}
            for name, node in (played["bound"] | fillers).items():
                for resource, amount in world.members[name].raw["request"].items():
                    used[node, resource] = used.get((node, resource), 0) + amount if node else 0
            assert all(amount <= capacity[node].get(resource, 0) for (node, resource), amount in used.items() if node)
            kept = {name: node for name, node in before.items() if name in world.members}
            assert {name: played["bound"].get(name) for name in kept} == kept
            before = played["bound"]


def test_the_command_writes_the_placements_of_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "placements.json"
    assert main([str(corpus()), "--placements", str(out)]) == 0
    said = capsys.readouterr().out
    assert "77 passed, 0 failed" in said
    assert "not yet" in said
    assert "evict-01" in said
    found = {one["id"]: one["steps"] for one in json.loads(out.read_text())}
    assert len(found) == len(scenarios())
    assert found["flat-05"] == [
        {
            "bound": {},
            "nominated": {"a-0": "n0", "a-1": "n0"},
            "evicted": [],
            "reasons": found["flat-05"][0]["reasons"],
        }
    ]
    assert found["auto-05"][0]["reasons"]["g"]["detail"]["groups_fit"] == 3


def test_a_wrong_expectation_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = json.loads(corpus().read_text())
    raw["scenarios"] = raw["scenarios"][:1]
    raw["scenarios"][0]["steps"][0]["expect"] = {"unbound": ["a-0"], "colour": "red"}
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(raw))
    assert main([str(path)]) == 1
    said = capsys.readouterr().out
    assert "a-0 is on n0" in said
    assert "colour: not a known expectation" in said


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "Expecting"),
        ('{"format": "other"}', "expected 'gang-scenarios/v1'"),
        ('{"format": "gang-scenarios/v1", "scenarios": [{"id": "x"}]}', "gangs"),
        (
            '{"format": "gang-scenarios/v1", "scenarios": [{"id": "x", "nodes": [], "gangs": [],'
            ' "steps": [{"do": {"action": "dance"}, "expect": {}}]}]}',
            "dance",
        ),
    ],
)
def test_bad_input_is_one_line(text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert str(path) in said
    assert said.count("\n") == 1


def test_a_missing_file_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere.json")]) == 2
    assert "nowhere.json" in capsys.readouterr().err
