"""Going on where a journal ends: decisions as if nothing had happened, or an empty state and a line that says why."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from autoscaler.adapters.journal import JournalWriter
from autoscaler.core import tick
from autoscaler.drivers.replay import replay, resume
from autoscaler.model import Decision, Observation, RoleFleet, State, Target
from perfmodel.profile import load_profile
from policies.model import ROLES, Pair
from tests.autoscaler.pages import observations, settings
from tests.autoscaler.plant import Load, Plant, make_settings

PROFILE = load_profile()
SETTINGS = settings()
SEEN = observations(30)
KILLED_AFTER = 15


def run(path: Path, state: State, seen: list[Observation]) -> list[Decision]:
    """The decisions of one process and its journal."""
    writer, decisions = JournalWriter(path), []
    for observation in seen:
        decision = tick(state, observation, SETTINGS, PROFILE)
        writer.append(state, observation, SETTINGS, PROFILE, decision)
        decisions.append(decision)
        state = decision.state
    writer.close()
    return decisions


def test_the_next_process_decides_what_the_first_one_would_have(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed.jsonl", State(), SEEN)
    assert any(decision.step for decision in undisturbed[KILLED_AFTER:])
    path = tmp_path / "j.jsonl"
    before = run(path, State(), SEEN[:KILLED_AFTER])
    after = run(path, resume(path, SETTINGS, SEEN[KILLED_AFTER].now_s), SEEN[KILLED_AFTER:])
    assert [*before, *after] == undisturbed
    assert after[0].signals.demand.known
    assert [replay(tmp_path / name).first_difference for name in ("j.jsonl", "j.jsonl.1")] == [None, None]


def test_a_torn_last_line_costs_that_decision(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    decisions = run(path, State(), SEEN[:KILLED_AFTER])
    path.write_bytes(path.read_bytes()[:-40])
    assert resume(path, SETTINGS, SEEN[KILLED_AFTER].now_s) == decisions[-2].state


def test_a_second_restart_before_any_decision_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    decisions = run(path, State(), SEEN[:KILLED_AFTER])
    JournalWriter(path).close()
    assert resume(path, SETTINGS, SEEN[KILLED_AFTER].now_s) == decisions[-1].state


def test_other_settings_of_the_same_service_keep_what_was_learned(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    decisions = run(path, State(), SEEN[:KILLED_AFTER])
    assert resume(path, settings(gpuBudget=9), SEEN[KILLED_AFTER].now_s) == decisions[-1].state


@pytest.mark.parametrize(
    ("later_s", "why"),
    [(SETTINGS.spec.metrics.stale_after_s + 0.1, "expected at most 30 s"), (-1.0, "ended -1.0 s ago")],
)
def test_a_journal_that_ended_long_ago_or_ahead_of_now_is_not_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, later_s: float, why: str
) -> None:
    path = tmp_path / "j.jsonl"
    run(path, State(), SEEN)
    with caplog.at_level(logging.INFO):
        assert resume(path, SETTINGS, SEEN[-1].now_s + later_s) == State()
    assert why in caplog.text
    assert "sizes are held until enough has been seen" in caplog.text


def test_what_is_no_journal_of_this_service_is_named_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j.jsonl"
    run(path, State(), SEEN[:3])
    other = SETTINGS.model_copy(update={"spec": SETTINGS.spec.model_copy(update={"service": "other"})})
    with caplog.at_level(logging.INFO):
        assert resume(path, other, SEEN[2].now_s) == State()
        path.write_text("hello\n")
        assert resume(path, SETTINGS, SEEN[2].now_s) == State()
    spec = SETTINGS.spec
    assert f"journal {path}: is of {SETTINGS.metadata.namespace}/{spec.service}; sizes are held" in caplog.text
    assert f"journal {path}:1: not JSON" in caplog.text


def test_without_a_journal_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty").touch()
    with caplog.at_level(logging.INFO):
        for name in ("absent", "empty"):
            assert resume(tmp_path / name, SETTINGS, 0.0) == State()
    assert caplog.text == ""


def test_without_a_journal_the_second_tick_of_the_default_period_decides_again() -> None:
    period_s = 5
    chosen = make_settings(syncPeriodS=period_s)

    def calm_then_long(t_s: float) -> Load:
        return Load(3.0, 1000.0 if t_s < 60 else 4000.0, 100.0)

    seen = Plant(calm_then_long, settings=chosen).run(90).seen[::period_s]
    undisturbed = State()
    targets: list[Target] = []
    for observation in seen:
        decision = tick(undisturbed, observation, chosen, PROFILE)
        undisturbed = decision.state
        assert decision.target is not None
        targets.append(decision.target)
    lost_at = 70 // period_s
    first = tick(State(), seen[lost_at], chosen, PROFILE)
    second = tick(first.state, seen[lost_at + 1], chosen, PROFILE)
    assert first.target is not None
    assert (first.step, first.target.groups) == (None, held(seen[lost_at]))
    assert second.signals.demand.known
    assert second.target is not None
    # It is no echo: but for what only a longer past can teach, it is what it would have been.
    assert second.target.unsized == ()
    for role in ROLES:
        assert abs(second.target.groups[role] - targets[lost_at + 1].groups[role]) <= 2


def held(observation: Observation) -> Pair:
    """The groups that are there."""
    fleets = (observation.fleet.prefill, observation.fleet.decode)
    return Pair(*(fleet.replicas for fleet in fleets if isinstance(fleet, RoleFleet)))
