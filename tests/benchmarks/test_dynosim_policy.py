"""The bridge to Dynamo's simulator over reports that it gave: what is seen, what is answered, what is refused."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoscaler.errors import UserError
from autoscaler.model import Observation, RoleFleet
from benchmarks.dynosim.bridge import Bridge
from benchmarks.dynosim.context import Context, load_context, profile_of, settings_of
from benchmarks.dynosim.policy import answer
from benchmarks.dynosim.report import Report, parse_report
from policies.model import ROLES, Missing, Role

DATA = Path(__file__).parent / "data"
CONTEXT = DATA / "dynosim_context.json"
LINES = (DATA / "dynosim_reports.jsonl").read_text(encoding="utf-8").splitlines()
ROOT = Path(__file__).resolve().parents[2]


def bridge(context: Context | None = None) -> Bridge:
    facts = context or load_context(str(CONTEXT))
    return Bridge(facts, settings_of(facts, None), profile_of(facts))


def changed(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = {**json.loads(CONTEXT.read_text(encoding="utf-8")), **fields}
    return found


def written(folder: Path, document: Any) -> str:
    path = folder / "context.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def process(lines: str, context: str | None, *more: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "REFEREE_CONTEXT"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.dynosim.policy", "--stdio", *more],
        input=lines,
        env=env | ({"REFEREE_CONTEXT": context} if context else {}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_each_report_is_answered_within_the_limits() -> None:
    context, out = load_context(str(CONTEXT)), io.StringIO()
    answer(bridge(), LINES, out)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(answers) == len(LINES) > 20
    for line, given in zip(LINES, answers, strict=True):
        assert set(given) == {"target_prefill", "target_decode", "next_tick_ms"}
        assert given["next_tick_ms"] == json.loads(line)["now_ms"] + 5000
        groups = given["target_prefill"], given["target_decode"]
        assert min(groups) >= 1
        assert groups[0] * context.gpus_prefill + groups[1] * context.gpus_decode <= context.max_gpus
    assert max(given["target_prefill"] for given in answers) > context.init_prefill


@pytest.mark.parametrize("max_gpus", [6, 8, 14])
def test_a_budget_below_what_is_there_still_holds(max_gpus: int, tmp_path: Path) -> None:
    """The recorded fleet has up to 6 x 4 + 4 x 2 GPUs."""
    context, out = load_context(written(tmp_path, changed(max_gpus=max_gpus))), io.StringIO()
    answer(bridge(context), LINES, out)
    for line in out.getvalue().splitlines():
        given = json.loads(line)
        assert given["target_prefill"] * 4 + given["target_decode"] * 2 <= max_gpus
        assert min(given["target_prefill"], given["target_decode"]) >= 1


def test_equal_reports_give_equal_answers() -> None:
    one, two = io.StringIO(), io.StringIO()
    answer(bridge(), LINES, one)
    answer(bridge(), LINES, two)
    assert one.getvalue() == two.getvalue()


class Seeing(Bridge):
    """A bridge that keeps what it hands on."""

    seen: Observation

    def _observation(self, report: Report, now_s: float) -> Observation:
        self.seen = super()._observation(report, now_s)
        return self.seen


def looked(upto: int) -> tuple[Observation, Report, list[Report]]:
    context = load_context(str(CONTEXT))
    eyes = Seeing(context, settings_of(context, None), profile_of(context))
    reports = [parse_report(line, number) for number, line in enumerate(LINES[:upto], 1)]
    for report in reports:
        eyes.answer(report)
    return eyes.seen, reports[-1], reports


def test_counters_are_sums_of_what_the_reports_say() -> None:
    seen, _, reports = looked(20)
    passing, ended = seen.samples.routers
    assert passing.arrivals == sum(one.traffic.num_req for one in reports) > 0
    assert passing.finished == ended.prompts == sum(one.traffic.shape_count for one in reports) > 0
    assert passing.generation_tokens == sum(one.traffic.accept_length_forward_count for one in reports)
    tokens = sum(one.traffic.avg_isl * one.traffic.shape_count for one in reports)
    assert ended.prompt_tokens == pytest.approx(tokens)
    cached = sum(one.traffic.avg_isl * one.traffic.shape_count * (one.traffic.avg_kv_hit_rate or 0) for one in reports)
    assert ended.cached_tokens == pytest.approx(cached)
    assert 0 < cached < tokens


def test_without_a_router_that_looks_for_prefixes_what_is_cached_is_not_known() -> None:
    line = json.loads(LINES[4])
    line["traffic"] |= {"hit_rate_count": 0, "avg_kv_hit_rate": 0.0}
    context = load_context(str(CONTEXT))
    eyes = Seeing(context, settings_of(context, None), profile_of(context))
    eyes.answer(parse_report(json.dumps(line), 1))
    assert isinstance(eyes.seen.samples.routers[1].cached_tokens, Missing)


def test_what_a_report_does_not_count_is_missing() -> None:
    seen, _, _ = looked(20)
    passing, _ = seen.samples.routers
    assert isinstance(passing.ttft, Missing)
    assert isinstance(passing.prompt_tokens, Missing)
    assert all(isinstance(worker.generation_tokens, Missing) for worker in seen.samples.workers)


def test_without_completions_lengths_are_not_known_and_nothing_is_sized() -> None:
    """Averages of 0 describe no completion: they are not prompts of no tokens."""
    first = json.loads(LINES[0])
    assert first["traffic"]["num_req"] > 0
    first["traffic"] |= {"shape_count": 0, "ttft_count": 0, "itl_count": 0, "avg_isl": 0.0, "avg_osl": 0.0}
    one = bridge()
    given = one.answer(parse_report(json.dumps(first), 1))
    assert (given.groups.prefill, given.groups.decode) == (1, 1)
    assert one.last is not None
    demand = one.last.signals.demand
    assert demand.requests_per_s == first["traffic"]["num_req"] / 5
    assert isinstance(demand.prompt_tokens_mean, Missing)


def test_groups_are_counted_as_the_cluster_would() -> None:
    starting = next(n for n, line in enumerate(LINES, 1) if json.loads(line)["starting_prefill_count"])
    seen, report, _ = looked(starting)
    for role in ROLES:
        fleet = seen.fleet[role]
        assert isinstance(fleet, RoleFleet)
        assert fleet.replicas == report.of(role, "non_draining_{}_count")
        assert fleet.ready == report.of(role, "active_{}_count")
        assert fleet.present == report.of(role, "total_{}_count")
        assert fleet.gpus_per_group == (4 if role is Role.PREFILL else 2)
    assert [worker.role for worker in seen.samples.workers].count(Role.PREFILL) == report.active_prefill_count


def test_a_group_without_a_pass_has_an_unknown_load() -> None:
    fresh = next(
        n
        for n, line in enumerate(LINES, 1)
        if len(json.loads(line)["prefill_fpm_snapshots"]) < json.loads(line)["active_prefill_count"]
    )
    seen, report, _ = looked(fresh)
    loads = [worker.running for worker in seen.samples.workers if worker.role is Role.PREFILL]
    assert sum(isinstance(load, Missing) for load in loads) == report.active_prefill_count - len(
        report.prefill_fpm_snapshots
    )


def test_a_profile_reaches_every_sequence_that_fits() -> None:
    context = load_context(str(CONTEXT))
    profile = profile_of(context)
    table = {(new, cached): ms for new, cached, ms in context.prefill_ms}
    assert profile.prefill_ms(8192) == pytest.approx(table[8192, 0])
    assert profile.prefill_ms(context.kv_tokens_prefill) > 10 * profile.prefill_ms(131_072)
    assert profile.decode_ms(context.max_seqs, context.kv_tokens_decode) > profile.decode_ms(1, 128)
    assert profile.max_num_seqs == context.max_seqs


def test_a_small_table_is_enough(tmp_path: Path) -> None:
    small = changed(
        prefill_ms=[[100, 0, 30.0], [8000, 0, 340.0]],
        decode_ms=[[1, 500, 18.0], [1, 8000, 19.0], [225, 500, 40.0], [225, 8000, 70.0]],
    )
    profile = profile_of(load_context(written(tmp_path, small)))
    assert profile.prefill_ms(12_000) == pytest.approx(profile.prefill_ms(8000) + profile.prefill_ms(4000), abs=0.01)
    assert profile.decode_ms(256, 8000) > profile.decode_ms(225, 8000)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "not JSON"),
        ("", "not JSON"),
        ("[]", "report 2"),
        ("[" * 100_000, "not JSON"),
        ("{}", "now_ms: required"),
        (json.dumps({**json.loads(LINES[1]), "surprise": 1}), "surprise: unknown key"),
        (json.dumps({**json.loads(LINES[1]), "now_ms": "soon"}), "now_ms: 'soon'"),
        (re.sub(r'"num_req":\s*\d+', '"num_req":1' + 13 * "0", LINES[1]), "num_req: 10000000000000"),
        (
            json.dumps({key: value for key, value in json.loads(LINES[1]).items() if key != "traffic"}),
            "traffic: required",
        ),
        (LINES[0], "now_ms: 5000: expected later than 5000"),
    ],
)
def test_a_bad_line_ends_the_process_with_one_line(line: str, said: str) -> None:
    ended = process(f"{LINES[0]}\n{line}\n", str(CONTEXT))
    assert ended.returncode == 2
    assert len(ended.stdout.splitlines()) == 1
    assert len(ended.stderr.splitlines()) == 1
    assert said in ended.stderr


@pytest.mark.parametrize("part", ["avg_isl", "num_req", "shape_count"])
def test_a_field_missing_deep_inside_is_told(part: str) -> None:
    report = json.loads(LINES[0])
    del report["traffic"][part]
    with pytest.raises(UserError, match=f"report 1: traffic.{part}: required"):
        parse_report(json.dumps(report), 1)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (changed(prefill_ms=[]), "prefill_ms"),
        (
            {key: value for key, value in changed().items() if key not in ("prefill_ms", "decode_ms")},
            "decode_ms: required",
        ),
        (changed(max_gpus=5), "max_gpus: 5: expected at least 6"),
        (changed(prefill_ms=[[100, 0, 3.0]]), "prefill: new_tokens"),
        ([], "context.json"),
    ],
)
def test_a_bad_context_is_told_in_one_line(document: Any, said: str, tmp_path: Path) -> None:
    ended = process(LINES[0] + "\n", written(tmp_path, document))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1
    assert said in ended.stderr


def test_a_context_that_is_no_json_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "context.json"
    for content in (b"half a li", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"context\.json: not JSON"):
            load_context(str(path))


def test_whoever_asks_may_go() -> None:
    """A reader that has gone ends the process without a word."""
    command = [sys.executable, "-m", "benchmarks.dynosim.policy", "--stdio"]
    env = {**os.environ, "REFEREE_CONTEXT": str(CONTEXT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as policy:
        assert policy.stdin is not None
        assert policy.stdout is not None
        assert policy.stderr is not None
        policy.stdout.close()
        policy.stdin.write(LINES[0] + "\n")
        policy.stdin.close()
        assert (policy.stderr.read(), policy.wait(timeout=60)) == ("", 141)


def test_no_context_and_no_settings_file_are_told(tmp_path: Path) -> None:
    assert "REFEREE_CONTEXT is not set" in process("", None).stderr
    ended = process("", str(CONTEXT), "--settings", str(tmp_path / "absent.yaml"))
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "absent.yaml: cannot be read" in ended.stderr


def test_settings_may_change_the_policy_but_not_the_facts(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "syncPeriodS: 10\nforecastQuantile: 0.95\ngpuBudget: 1000\ndecode: {minGroups: 9}\n", encoding="utf-8"
    )
    context = load_context(str(CONTEXT))
    spec = settings_of(context, path).spec
    assert (spec.sync_period_s, spec.forecast_quantile) == (10, 0.95)
    assert (spec.gpu_budget, spec.decode.min_groups) == (context.max_gpus, 1)
    assert spec.slo.ttft.target_ms == context.ttft_ms
    path.write_text("surprise: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="surprise: unknown key"):
        settings_of(context, path)
