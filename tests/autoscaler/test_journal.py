"""The journal: what is written is read back equal, files replay alone, and damage is named by file and line."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from autoscaler.adapters.journal import Journal, JournalWriter, Recorded, read_journal
from autoscaler.codec import CodecError, decode, encode
from autoscaler.core import tick
from autoscaler.errors import UserError
from autoscaler.model import Decision, Fleet, Histogram, Observation, Samples, State
from perfmodel.profile import load_profile
from policies.model import Missing
from tests.autoscaler.pages import observations, router, settings

PROFILE = load_profile()
SETTINGS = settings()

# Without shrinking: nouns this deep take minutes to shrink, and the error names the field anyway.
QUICK = hypothesis_settings(
    max_examples=20, phases=(Phase.generate,), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
finite = st.floats(allow_nan=False, allow_infinity=False)
histograms = st.lists(finite, min_size=1, max_size=4).map(
    lambda counts: Histogram((*(float(n) for n in range(len(counts) - 1)), math.inf), tuple(counts), 1.5)
)
st.register_type_strategy(float, finite)
st.register_type_strategy(Histogram, histograms)
st.register_type_strategy(Mapping, lambda kind: st.dictionaries(*map(st.from_type, kind.__args__), max_size=2))


def write(path: Path, count: int = 4, **options: int) -> list[tuple[Observation, Decision]]:
    """A journal of a real run, and what went into it."""
    writer, state, run = JournalWriter(path, **options), State(), []
    for observation in observations(count):
        decision = tick(state, observation, SETTINGS, PROFILE)
        writer.append(state, observation, SETTINGS, PROFILE, decision)
        run.append((observation, decision))
        state = decision.state
    writer.close()
    return run


@pytest.mark.parametrize("kind", [Observation, State, Decision, Fleet, Samples])
@given(data=st.data())
@hypothesis_settings(
    max_examples=20, phases=(Phase.generate,), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
def test_every_noun_survives_json(kind: type, data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    assert decode(kind, json.loads(json.dumps(encode(kind, value), allow_nan=False))) == value


def test_an_integer_stays_an_integer_and_a_bool_a_bool() -> None:
    run = tick(State(), observations(1)[0], SETTINGS, PROFILE)
    reason = replace(run.why[0], detail={"int": 1, "float": 1.0, "bool": True, "text": "1"})
    back = decode(Recorded, encode(Recorded, replace(Recorded.of(run), why=(reason,))))
    assert {key: type(value) for key, value in back.why[0].detail.items()} == {
        "int": int, "float": float, "bool": bool, "text": str,
    }  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_an_error_that_names_it(value: float) -> None:
    seen = Observation(0.0, Samples((replace(router(0.0, 1.0), prompt_tokens=value),)), observations(1)[0].fleet)
    with pytest.raises(CodecError, match=r"Observation\.samples\.routers\.prompt_tokens is"):
        encode(Observation, seen)


def test_reads_what_was_written(tmp_path: Path) -> None:
    run = write(tmp_path / "j.jsonl")
    journal = read_journal(tmp_path / "j.jsonl")
    assert (journal.settings, journal.profile, journal.state) == (SETTINGS, PROFILE, State())
    assert [line.observation for line in journal.ticks] == [observation for observation, _ in run]
    assert [line.decision for line in journal.ticks] == [Recorded.of(decision) for _, decision in run]
    assert [line.line for line in journal.ticks] == [2, 3, 4, 5]


def test_recorded_is_a_decision_without_its_state() -> None:
    assert {part.name for part in fields(Decision)} - {part.name for part in fields(Recorded)} == {"state"}


def test_files_are_limited_in_size_and_number_and_each_begins_with_its_state(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    run = write(path, 12, max_bytes=20_000, keep=2)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["j.jsonl", "j.jsonl.1", "j.jsonl.2"]
    assert all(file.stat().st_size <= 20_000 for file in files)
    newest, older = read_journal(path), read_journal(tmp_path / "j.jsonl.1")
    assert newest.ticks[-1].observation == run[-1][0]
    before = next(decision for observation, decision in run if observation == older.ticks[-1].observation)
    assert newest.state == before.state


def test_a_new_process_and_new_settings_begin_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write(path, 2)
    writer, observation = JournalWriter(path), observations(1)[0]
    for budget in (8, 9):
        changed = settings(gpuBudget=budget)
        writer.append(State(), observation, changed, PROFILE, tick(State(), observation, changed, PROFILE))
    writer.close()
    budgets = [read_journal(tmp_path / name).settings.spec.gpu_budget for name in ("j.jsonl", "j.jsonl.1", "j.jsonl.2")]
    assert budgets == [9, 8, 16]


def test_every_line_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    path, observation = tmp_path / "j.jsonl", observations(1)[0]
    writer = JournalWriter(path)
    writer.append(State(), observation, SETTINGS, PROFILE, tick(State(), observation, SETTINGS, PROFILE))
    assert len(read_journal(path).ticks) == 1
    writer.close()


def test_a_torn_last_line_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j.jsonl"
    write(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with caplog.at_level(logging.WARNING):
        assert len(read_journal(path).ticks) == 2
    assert f"{path}:4: the last line is torn" in caplog.text


def damaged(path: Path, line: int, text: str) -> Journal:
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")
    return read_journal(path)


@pytest.mark.parametrize(
    ("line", "text", "why"),
    [
        (1, "hello", "1: not JSON"),
        (1, "[]", "1: not a roleratio journal"),
        (1, '{"type": "state", "version": 7}', "1: version 7, but this roleratio reads version 3"),
        (3, '{"type": "ti', "3: not JSON"),
        (3, "", "3: not JSON"),
        (3, "17", "3: corrupt"),
        (3, '{"type": "tick", "observation": {}, "decision": {}}', "3: corrupt: Observation.now_s"),
    ],
)
def test_damage_is_named_by_file_and_line(tmp_path: Path, line: int, text: str, why: str) -> None:
    path = tmp_path / "j.jsonl"
    write(path, 3)
    with pytest.raises(UserError, match=f"^journal {path}:{why}") as caught:
        damaged(path, line, text)
    assert len(caught.value.problems) == 1


def test_settings_of_another_version_are_named_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write(path, 1)
    head = json.loads(path.read_text().splitlines()[0])
    head["settings"]["spec"] |= {"gpuBudget": 0, "unheardOf": 1}
    with pytest.raises(UserError, match=r"spec\.gpuBudget") as caught:
        damaged(path, 1, json.dumps(head))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"no newline", b"\n"])
def test_other_files_are_no_journals(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^journal {path}:1: not"):
        read_journal(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(UserError, match=f"^journal {path}: cannot be read: "):
            read_journal(path)


def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "j.jsonl"):
        with pytest.raises(UserError, match="cannot be written"):
            JournalWriter(path)


def test_a_full_disk_costs_lines_but_not_the_controller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, seen = tmp_path / "j.jsonl", observations(3)
    path.symlink_to("/dev/full")
    writer = JournalWriter(path)
    for observation in seen[:2]:
        writer.append(State(), observation, SETTINGS, PROFILE, tick(State(), observation, SETTINGS, PROFILE))
    assert caplog.text.count("decisions go on unrecorded") == 1
    path.unlink()
    writer.append(State(), seen[2], SETTINGS, PROFILE, tick(State(), seen[2], SETTINGS, PROFILE))
    writer.close()
    assert [line.observation for line in read_journal(path).ticks] == [seen[2]]


def test_missing_survives_where_a_number_may_stand() -> None:
    seen = replace(observations(1)[0].samples.workers[0], running=Missing("gone"))
    assert decode(type(seen), encode(type(seen), seen)).running == Missing("gone")
