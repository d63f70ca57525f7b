"""`roleratio backtest` from a trace and from decision journals: what is run, what is told, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.adapters.journal import JournalWriter, read_journal
from autoscaler.model import Observation
from perfmodel.profile import Profile, load_profile, parse_profile
from roleratio.backtest.fleet import profile_document
from roleratio.backtest.journal import NO_DECISION, recorded
from roleratio.cli import main
from roleratio.measured import HEADER, parse
from simulator.ours import Ours
from simulator.port import Wanted
from simulator.scenario import Scenario
from tests.simulator.small import PROFILE, SMALL, run, scenario

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
RRA = {
    "apiVersion": "roleratio.dev/v1alpha1",
    "kind": "RoleRatioAutoscaler",
    "metadata": {"name": "chat", "namespace": "team-a"},
    "spec": {"service": "chat", "profile": "qwen3-32b-a100-tp2", "gpuBudget": 12, "syncPeriodS": 5},
}


def requests(count: int, gap_s: float = 0.5) -> str:
    """Requests at even times, as an Azure CSV."""
    times = (divmod(i * gap_s, 60) for i in range(count))
    rows = (f"2026-11-25 06:{int(m):02}:{s:09.6f},{500 + i},{20 + i % 7}\n" for i, (m, s) in enumerate(times))
    return AZURE + "".join(rows)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(requests(120), encoding="utf-8")
    return path


@pytest.fixture
def rra(tmp_path: Path) -> Path:
    path = tmp_path / "rra.yaml"
    path.write_text(yaml.safe_dump(RRA), encoding="utf-8")
    return path


class Recording:
    """Our controller, that writes a journal, but not of the ticks that are left out."""

    def __init__(self, one: Scenario, path: Path, keeps: Callable[[float], bool] = lambda _: True) -> None:
        self.name = "recording"
        self.observed: list[Observation] = []
        self._ours = Ours(one.settings, PROFILE)
        self._one, self._writer, self._keeps = one, JournalWriter(path), keeps

    def decide(self, seen: Observation) -> Wanted:
        """As ours does."""
        before = self._ours.state
        wanted = self._ours.decide(seen)
        assert self._ours.last is not None
        if self._keeps(seen.now_s):
            self.observed.append(seen)
            self._writer.append(before, seen, self._one.settings, PROFILE, self._ours.last)
        return wanted


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four minutes of a service, of which the decisions from 100 s to 160 s were lost."""
    path = tmp_path_factory.mktemp("journal") / "decisions.jsonl"
    one = scenario(durationS=240)
    run(one, Recording(one, path, lambda now_s: not 100 < now_s < 160))
    return path


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that succeeds."""
    assert main(["backtest", *arguments]) == 0
    return capsys.readouterr().out


def test_a_trace_is_run_as_it_came(trace: Path, rra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, numbers = tmp_path / "report", tmp_path / "out.json"
    words = ["--trace", str(trace), "--settings", str(rra), "--policy", "ours", "--policy", "static:1,1"]
    out = told([*words, "--report", str(report), "--json", str(numbers)], capsys)
    assert "59.501 s, 120 requests" in out
    assert f"settings: {rra}: TTFT p95 2000 ms" in out
    said = json.loads(numbers.read_text())
    assert [one["policy"] for one in said["runs"]] == ["ours", "static:1,1"]
    assert all(one["requests"] == 120 and one["problems"] == [] for one in said["runs"])
    assert all(one["gpu_budget"] == 12 for one in said["runs"])
    assert sum(said["runs"][1]["series"]["prompt_tokens"]) == sum(500 + i for i in range(120))
    html = (report / "report.html").read_text()
    assert all(note in html for note in ("Attainment over cost", "What was assumed", "static:1,1", "12 GPUs"))
    assert "http" not in html.replace("http-equiv", "")


def test_the_scenario_beside_the_report_runs_again(
    trace: Path, rra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--policy", "static", "--report", str(tmp_path / "report")]
    told(["--trace", str(trace), "--settings", str(rra), *words], capsys)
    again = [
        "simulate",
        str(tmp_path / "report/scenario.yaml"),
        "--policy",
        "static",
        "--json",
        str(tmp_path / "2.json"),
    ]
    assert main(again) == 0
    first = json.loads((tmp_path / "report/report.json").read_text())
    assert json.loads((tmp_path / "2.json").read_text())["runs"] == first["runs"]


def test_without_settings_bounds_are_twice_what_is_needed_and_five_policies_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "busy.csv"
    trace.write_text(requests(900, 0.025), encoding="utf-8")
    out = told(["--trace", str(trace), "--cold-start", "7", "--json", str(tmp_path / "o.json")], capsys)
    said = json.loads((tmp_path / "o.json").read_text())
    policies = [one["policy"] for one in said["runs"]]
    peak = said["runs"][0]["oracle"]["max_groups"]
    assert policies == ["ours", f"static:{peak['prefill']},{peak['decode']}", "hpa-queue", "wva-v2", "dynamo"]
    assert peak["prefill"] > 4
    assert f"prefill 1 to {2 * peak['prefill']}, decode 1 to 8 groups, {2 * (2 * peak['prefill'] + 8)} GPUs" in out
    assert "no --settings: the defaults" in out
    assert "cold start: 7 s" in out


def test_a_journal_gives_demand_settings_profile_and_fleet(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = recorded([journal])
    assert found.settings == scenario(durationS=240).settings
    assert found.profile == PROFILE
    # The first tick knows nothing; after the hole a tick knows its window of 10 s, not the 50 s before that.
    assert found.measured.missing[NO_DECISION] == pytest.approx(50, abs=2)
    assert found.measured.means[0] == pytest.approx(1000, rel=0.2)
    assert found.measured.requests / found.measured.known_s == pytest.approx(3, rel=0.15)
    assert found.gpu_hours is not None
    # The small fleet's groups take 6 s, those of the start as well as those that came later.
    assert set(found.cold_starts_s) == {6.0}
    assert len(found.cold_starts_s) > 2
    words = ["--journal", str(journal), "--policy", "ours", "--report", str(tmp_path)]
    out = told(words, capsys)
    assert "settings: as recorded" in out
    assert f"cold start: {len(found.cold_starts_s)} as recorded, median 6 s" in out
    assert "begins with 1 prefill and 1 decode groups (as recorded)" in out
    assert f"recorded: the fleet itself took {found.gpu_hours:.3f} GPU-hours" in out
    assert "cut out: time goes on after it" in out
    assert NO_DECISION in out
    built = yaml.safe_load((tmp_path / "scenario.yaml").read_text())
    assert built["fleet"]["prefill"]["podsPerGroup"] == SMALL["fleet"]["prefill"]["podsPerGroup"]
    assert built["durationS"] == pytest.approx(found.measured.known_s, abs=0.01)
    assert parse_profile(json.loads((tmp_path / f"{PROFILE.name}.json").read_text()), PROFILE.name) == PROFILE


def test_missing_time_is_cut_out_or_filled_in_but_never_empty(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known_s = recorded([journal]).measured.known_s
    for gaps, missing_s in (("cut", 0.0), ("line", recorded([journal]).measured.missing[NO_DECISION])):
        folder = tmp_path / gaps
        told(["--journal", str(journal), "--policy", "static", "--gaps", gaps, "--report", str(folder)], capsys)
        lines = (folder / "demand.csv").read_text().splitlines()
        stretches = parse(lines, gaps)
        assert lines[0] == HEADER
        assert stretches[-1].end_s == pytest.approx(known_s + missing_s, abs=0.1)
        assert min(one.requests_per_s for one in stretches[10:]) > 0.5


def test_the_files_of_one_controller_are_put_in_order(tmp_path: Path) -> None:
    one, path = scenario(durationS=60), tmp_path / "decisions.jsonl"
    recording = Recording(one, path)
    run(one, recording)
    lines = path.read_text().splitlines(keepends=True)
    (tmp_path / "decisions.jsonl.1").write_text("".join(lines[:31]))
    path.write_text("".join((lines[0], *lines[31:])))
    both = recorded([path, tmp_path / "decisions.jsonl.1"])
    assert NO_DECISION not in both.measured.missing
    assert both.measured.end_s == recording.observed[-1].now_s


@pytest.mark.parametrize("name", ["qwen3-32b-a100-tp2", "qwen3-32b-h200-tp2"])
def test_a_profile_survives_its_document(name: str) -> None:
    def slower(profile: Profile) -> Profile:
        return replace(profile, prefill=replace(profile.prefill, factor=1.25))

    profile = load_profile(name)
    assert parse_profile(json.loads(json.dumps(profile_document(profile))), name) == profile
    again = parse_profile(profile_document(slower(profile)), name)
    assert again.prefill_ms(1000) == pytest.approx(1.25 * profile.prefill_ms(1000))


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines in which a command is refused."""
    assert main(["backtest", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


Case = tuple[dict[str, Any], list[str]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty; expected an Azure CSV"),
        (AZURE, "a header and no request after it"),
        (AZURE + "2026-11-25 06:00:01,5,5\n2026-11-25 06:00:00,5,5\n", "line 3: 2026-11-25 06:00:00,5,5: 1 s before"),
    ],
)
def test_a_trace_that_cannot_be_used(text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text(text)
    (line,) = refused(["--trace", str(tmp_path / "t.csv")], capsys)
    assert says in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no demand: give one of --prometheus URL, --trace FILE and --journal FILE"),
        (["--trace", "a", "--journal", "b"], "--trace and --journal: give one source of demand, not 2"),
        (["--trace", "nope.csv"], "nope.csv: no such file"),
        (["--journal", "nope.jsonl"], "nope.jsonl: cannot be read"),
        (["--prometheus", "http://127.0.0.1:9"], "whose demand? give --service NS/NAME"),
        (["--prometheus", "http://127.0.0.1:9", "--service", "chat"], "--service chat: expected NAMESPACE/NAME"),
        (["--prometheus", "there", "--service", "a/b"], "there"),
        (["--prometheus", "http://127.0.0.1:9", "--service", "a/b"], "cannot connect to http://127.0.0.1:9"),
        (["--prometheus", "http://127.0.0.1:9", "--service", "a/b", "--since", "20s"], "at least two steps of 15 s"),
    ],
)
def test_a_source_that_cannot_be_used(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(arguments, capsys)
    assert says in line


@pytest.mark.parametrize("option", [["--since", "soon"], ["--until", "noon"], ["--nodes", "8"], ["--spread", "-1"]])
def test_an_option_that_is_none(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["backtest", "--trace", "t", *option])
    assert f"{option[1]!r}: expected" in capsys.readouterr().err


def test_a_journal_that_is_none_or_of_another_version(
    journal: Path, trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = refused(["--journal", str(trace)], capsys)
    assert "trace.csv:1: not JSON" in line
    head, *rest = journal.read_text().splitlines(keepends=True)
    older = tmp_path / "older.jsonl"
    older.write_text(json.dumps({**json.loads(head), "version": 1}) + "\n" + "".join(rest))
    empty = tmp_path / "empty.jsonl"
    empty.write_text(head)
    lines = refused(["--journal", str(older), str(empty), str(tmp_path / "gone")], capsys)
    assert [any(word in line for line in lines) for word in ("version 1", "no decision in it", "gone")] == [True] * 3
    assert len(lines) == 3
    (line,) = refused(["--journal", str(journal), str(journal)], capsys)
    assert "give each file once" in line


def test_all_problems_at_once(rra: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rra.write_text(yaml.safe_dump({**RRA, "spec": {"service": "chat", "gpuBudget": 0, "profile": "p", "extra": 1}}))
    words = ["--settings", str(rra), "--policy", "nope", "--json", "/proc/nope/x.json", "--trace", "gone.csv"]
    lines = refused([*words, "--service", "a/b", "--gaps", "cut"], capsys)
    for says in (
        "gpuBudget: 0",
        "extra: unknown key",
        "policy 'nope'",
        "x.json: cannot be written",
        "--service: is not",
    ):
        assert sum(says in line for line in lines) == 1
    assert sum("--gaps: is not for --trace" in line for line in lines) == 1
    assert len(lines) == 6


def test_tokens_that_no_engine_of_the_profile_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, path = scenario(durationS=40), tmp_path / "decisions.jsonl"
    run(one, Recording(one, path))
    assert len(read_journal(path).ticks) > 30
    long = tmp_path / "long.jsonl"
    long.write_text(re.sub(r'"prompt_tokens_mean":(\d)', r'"prompt_tokens_mean":99\1', path.read_text()))
    (line,) = refused(["--journal", str(long), "--policy", "static"], capsys)
    assert "give --profile of the model that was served" in line
