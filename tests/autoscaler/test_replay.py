"""Replay: a journal of a real run has no difference; a changed one is found at its line and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoscaler.adapters.journal import JournalWriter
from autoscaler.core import tick
from autoscaler.drivers.replay import ReplayResult, replay
from autoscaler.errors import UserError
from autoscaler.model import State
from perfmodel.profile import load_profile
from tests.autoscaler.pages import observations, settings

PROFILE = load_profile()
TICKS = 30


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A run in which prefill grows."""
    path, state, chosen = tmp_path / "journal.jsonl", State(), settings()
    writer, steps = JournalWriter(path), 0
    for observation in observations(TICKS):
        decision = tick(state, observation, chosen, PROFILE)
        writer.append(state, observation, chosen, PROFILE, decision)
        state, steps = decision.state, steps + (decision.step is not None)
    writer.close()
    assert steps > 0
    return path


def change(path: Path, line: int, edit: Callable[[Any], None]) -> None:
    lines = path.read_text().splitlines()
    data = json.loads(lines[line - 1])
    edit(data)
    lines[line - 1] = json.dumps(data)
    path.write_text("\n".join(lines) + "\n")


def with_target(path: Path) -> int:
    """The last line that has a target and a forecast."""
    lines = list(map(json.loads, path.read_text().splitlines()[1:]))
    return max(
        number
        for number, line in enumerate(lines, start=2)
        if line["decision"]["target"] and line["decision"]["forecast"]
    )


def test_a_run_replays_without_a_difference(journal: Path) -> None:
    assert replay(journal) == ReplayResult(TICKS, None)


def test_each_rotated_file_replays_alone(tmp_path: Path) -> None:
    path, state, chosen = tmp_path / "journal.jsonl", State(), settings()
    writer = JournalWriter(path, max_bytes=60_000)
    for observation in observations(TICKS):
        decision = tick(state, observation, chosen, PROFILE)
        writer.append(state, observation, chosen, PROFILE, decision)
        state = decision.state
    writer.close()
    results = [replay(file) for file in sorted(tmp_path.iterdir())]
    assert len(results) > 2
    assert all(result.first_difference is None for result in results)
    assert sum(result.ticks for result in results) == TICKS


def test_a_changed_target_is_found(journal: Path) -> None:
    line = with_target(journal)

    def edit(data: Any) -> None:
        data["decision"]["target"]["groups"]["prefill"] += 1

    before = json.loads(journal.read_text().splitlines()[line - 1])["decision"]["target"]["groups"]["prefill"]
    change(journal, line, edit)
    result = replay(journal)
    assert result.first_difference == f"line {line}: target.groups.prefill: recorded {before + 1}, decided {before}"
    assert result.ticks == line - 1


@pytest.mark.parametrize(("factor", "differs"), [(1 + 1e-12, False), (1 + 1e-6, True)])
def test_numbers_agree_to_a_billionth(journal: Path, factor: float, differs: bool) -> None:
    line = with_target(journal)

    def edit(data: Any) -> None:
        data["decision"]["forecast"]["prefill"]["tokens_per_s_high"] *= factor

    change(journal, line, edit)
    found = replay(journal).first_difference
    assert (found is not None) is differs
    if found:
        assert found.startswith(f"line {line}: forecast.prefill.tokens_per_s_high: recorded ")


def test_a_changed_step_or_reason_is_found(journal: Path) -> None:
    line = with_target(journal)

    def other_code(data: Any) -> None:
        data["decision"]["why"][0]["code"] = "CostUnknown"

    def other_step(data: Any) -> None:
        data["decision"]["step"] = {"kind": "replicas", "role": "decode", "before": 1, "after": 9}

    change(journal, line, other_code)
    assert f"line {line}: why[0].code: recorded 'CostUnknown'" in str(replay(journal).first_difference)
    change(journal, line, other_step)
    assert f"line {line}: step" in str(replay(journal).first_difference)


def test_what_was_seen_decides(journal: Path) -> None:
    """Another observation gives another decision: replay decides anew, it does not only compare the file to itself."""

    def no_samples(data: Any) -> None:
        data["observation"]["samples"] = {"routers": [], "workers": [], "failures": {"r": "gone"}}

    change(journal, 10, no_samples)
    assert str(replay(journal).first_difference).startswith("line 10: ")


def test_not_a_journal(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}\n")
    with pytest.raises(UserError, match="not a roleratio journal"):
        replay(tmp_path / "x")
