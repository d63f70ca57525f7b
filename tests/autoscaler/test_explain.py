"""Explain: the page for a line of a journal, and the same page from a controller's status."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autoscaler.adapters.journal import JournalWriter, read_journal
from autoscaler.adapters.status import Status, to_json
from autoscaler.core import tick
from autoscaler.drivers.explain import explain_journal, explain_status
from autoscaler.errors import UserError
from autoscaler.model import Decision, Fleet, Observation, Samples, State
from perfmodel.profile import load_profile
from policies.model import Missing
from tests.autoscaler.pages import observations, settings

PROFILE = load_profile()
START_S = 1_795_575_600.0
SETTINGS = settings(ratioBand={"min": 0.5, "max": 4})
BLIND = Observation(
    START_S + 200,
    Samples(failures={"decode-0": "no answer within 2 s"}),
    Fleet(Missing("no workload has the label"), Missing("two workloads claim it"), ("two workloads claim decode",)),
)

Run = list[tuple[Observation, Decision]]


@pytest.fixture
def run() -> Run:
    state, result = State(), []
    for observation in [*observations(30, START_S), BLIND]:
        decision = tick(state, observation, SETTINGS, PROFILE)
        result.append((observation, decision))
        state = decision.state
    return result


@pytest.fixture
def journal(tmp_path: Path, run: Run) -> Path:
    path, state = tmp_path / "journal.jsonl", State()
    writer = JournalWriter(path)
    for observation, decision in run:
        writer.append(state, observation, SETTINGS, PROFILE, decision)
        state = decision.state
    writer.close()
    return path


def line_of(page: str) -> int:
    found = re.search(r"line (\d+),", page)
    assert found
    return int(found[1])


def test_the_default_is_the_last_decision_that_changed_something(journal: Path, run: Run) -> None:
    page = explain_journal(journal, None)
    number, (_, decision) = max(
        (number, entry) for number, entry in enumerate(run, start=2) if entry[1].step is not None
    )
    assert line_of(page) == number
    assert decision.step
    assert decision.target
    assert f"STEP        {decision.step.role} {decision.step.before} -> {decision.step.after} TP groups" in page
    assert f"target {decision.target.groups.prefill} groups, floor {decision.target.floor.prefill}" in page
    assert "16 GPUs; 0.5 to 4 prefill groups per decode group" in page
    for reason in decision.why:
        assert str(reason) in page
    for condition in decision.conditions:
        assert re.search(rf"{condition.type} +{condition.status} +{condition.reason}", page)
    assert "TTFT p95" in page
    assert "SLO 2000 ms" in page
    assert "as the router saw it" in page


def test_at_accepts_seconds_unix_time_and_iso(journal: Path) -> None:
    iso = datetime.fromtimestamp(START_S + 52, UTC)
    for at in ("52", "52.0", str(START_S + 52), iso.isoformat(), iso.strftime("%Y-%m-%dT%H:%M:%SZ")):
        page = explain_journal(journal, at)
        assert line_of(page) == 12, at
        assert "50.0 s into it" in page
    assert line_of(explain_journal(journal, "0")) == 2


@pytest.mark.parametrize("at", ["-1", "999", "nan", "1990-01-01"])
def test_at_outside_of_the_journal(journal: Path, at: str) -> None:
    with pytest.raises(UserError, match=r"outside of the journal .* which covers .* that is 0 to 200 s"):
        explain_journal(journal, at)


@pytest.mark.parametrize("at", ["yesterday", "", "12:61"])
def test_at_that_is_no_time(journal: Path, at: str) -> None:
    with pytest.raises(UserError, match=f"^--at {at}: "):
        explain_journal(journal, at)


def test_a_blind_tick_says_what_is_unknown(journal: Path) -> None:
    page = explain_journal(journal, "200")
    assert "STEP        none" in page
    assert "demand    unknown: " in page
    assert "TTFT p95  unknown: " in page
    assert "prefill   cannot be managed: no workload has the label" in page
    assert "problem   two workloads claim decode" in page
    assert "no answer decode-0: no answer within 2 s" in page
    assert "prefill   none: " in page
    assert "decode    none: " in page
    assert "target unknown" in page


def test_engines_groups_and_what_could_not_be_read_are_told(run: Run) -> None:
    observation, decision = run[20]
    decode = replace(
        decision.signals.decode, engines_per_group=8.0, kv_usage=0.5, kv_usage_max=0.98, unread=("decode-3", "decode-5")
    )
    signals = replace(decision.signals, decode=decode, partial="Prometheus warns: store x is down")
    hung = dict.fromkeys(("decode-3", "decode-5"), "no answer within 2 s")
    status = Status.of(SETTINGS, observation, replace(decision, signals=signals))
    told = to_json(replace(status, failures=hung))
    page = explain_status({"services": {"team-a/chat": json.loads(json.dumps(told))}})
    assert "KV use 50% (fullest engine 98%); 8 engines a group" in page
    assert "cannot read decode-3, decode-5" in page
    assert "partial   Prometheus warns: store x is down" in page
    assert "no answer decode-3, decode-5: no answer within 2 s" in page
    assert "as counted by router" in page


def test_a_journal_without_a_tick(journal: Path) -> None:
    journal.write_text(journal.read_text().splitlines()[0] + "\n")
    assert "without a decision" in explain_journal(journal, None)


def test_status_gives_the_same_page(journal: Path, run: Run) -> None:
    observation, decision = run[20]
    data = {"services": {"team-a/chat": to_json(Status.of(SETTINGS, observation, decision))}}
    page = explain_status(json.loads(json.dumps(data)))
    recorded = read_journal(journal).ticks[20]
    same = explain_journal(journal, str(recorded.observation.now_s))
    assert page.splitlines()[1:] == same.splitlines()[1:]
    assert page.startswith("team-a/chat at ")


def test_a_status_that_is_none() -> None:
    assert "not decided anything yet" in explain_status({"services": {}})
    with pytest.raises(UserError, match="status: services: expected an object"):
        explain_status({"error": "x"})
    with pytest.raises(UserError, match=r"status of a/b: settings: expected"):
        explain_status({"services": {"a/b": {}}})
    settings_only = {"settings": SETTINGS.model_dump(mode="json", by_alias=True, exclude_none=True)}
    with pytest.raises(UserError, match=r"status of a/b: float: input should be a valid number"):
        explain_status({"services": {"a/b": settings_only}})
