"""The bench around Dynamo's simulator, without Dynamo: scenarios, traces, policies' names, scores, tables, resuming."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from autoscaler.errors import UserError
from benchmarks.dynosim import __main__ as command
from benchmarks.dynosim import outcome, roster, traces
from benchmarks.dynosim.arena import Command, Schedule, Watched
from benchmarks.dynosim.runs import Bench
from benchmarks.dynosim.scenarios import SCENARIOS, Load
from benchmarks.dynosim.score import scored
from benchmarks.processes import BenchmarkError
from policies.model import Pair, Role

FACTS = {"ttft_ms": 1000.0, "itl_ms": 30.0, "startup_s": 120.0}
SUMMARY = {"gpu_hours": 2.0, "prefill_worker_seconds": 3600.0, "decode_worker_seconds": 7200.0, "duration_ms": 6e5}


def record(
    came_ms: float, queued_ms: float, prefill_ms: float, room_ms: float = 0.0, itl_ms: float | None = 10.0
) -> Any:
    admitted, held = came_ms + queued_ms, came_ms + queued_ms + prefill_ms
    return {
        "terminal_status": "completed",
        "arrival_time_ms": came_ms,
        "prefill_admit_ms": admitted,
        "source_held_ms": held,
        "decode_admit_ms": held + room_ms,
        "ttft_ms": queued_ms + prefill_ms + room_ms,
        "itl_ms": itl_ms,
    }


def test_blocks_are_what_the_cards_leave_beside_the_weights() -> None:
    mooncake = SCENARIOS["mooncake"]
    assert mooncake.blocks(Role.DECODE) == int((0.9 * 282 - 34.3) * 1e9 / 262_144 / 64)
    assert mooncake.blocks(Role.PREFILL) > 2 * mooncake.blocks(Role.DECODE)
    assert mooncake.engine(Role.PREFILL)["aic_tp_size"] == 4
    assert mooncake.facts()["kv_tokens_decode"] == mooncake.engine(Role.DECODE)["num_gpu_blocks"] * 64


def test_the_sine_begins_at_its_lowest_and_repeats_by_seed(tmp_path: Path) -> None:
    load = Load("sine", duration_s=900.0)
    sent = list(traces.requests(load, 1))
    assert sent == list(traces.requests(load, 1)) != list(traces.requests(load, 2))
    counts = [sum(start <= at_s < start + 90 for at_s, _, _ in sent) for start in (0, 405, 810)]
    assert counts[1] > 5 * max(counts[0], counts[2])
    assert sum(counts) > 0
    count = traces.write(load, 1, tmp_path / "trace.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == count == len(sent)
    blocks = [block for line in lines for block in line["hash_ids"]]
    assert len(blocks) == len(set(blocks)) == 16 * count


def test_every_miss_has_one_cause() -> None:
    job = {"facts": FACTS, "requests": 8}
    records = [
        record(300_000, 0, 500),
        record(300_000, 0, 500, itl_ms=None),
        record(300_000, 0, 500, itl_ms=31.0),
        record(60_000, 900, 500),
        record(300_000, 900, 500),
        record(400_000, 900, 500),
        record(400_000, 0, 500, room_ms=900),
    ]
    operations = [
        {"pool": "prefill", "at_ms": 250_000.0, "state_after_batch": {"starting": [1]}},
        {"pool": "prefill", "at_ms": 370_000.0, "state_after_batch": {"starting": []}},
    ]
    row = scored(job, SUMMARY, records, operations)
    causes = ("burst", "cold_start", "decode_batch", "decode_room", "first_start", "unfinished")
    assert row["missed"] == dict.fromkeys(causes, 0.125)
    assert (row["attained"], row["gpu_hours"]) == (0.25, 2.0)


def test_names_of_policies() -> None:
    sine = SCENARIOS["sine"]
    assert roster.started_for("static:3,4", sine).initial == Pair(3, 4)
    assert roster.made("static:3,4", sine, Path("c"), 1) == {"kind": "static"}
    assert roster.made("mine=python policy.py", sine, Path("c"), 1)["argv"] == ["python", "policy.py"]
    planner = roster.made("planner:load", sine, Path("c"), 1)["config"]
    assert planner["optimization_target"] == "sla"
    assert planner["ttft_ms"] == 3000.0
    for wrong in ("static:0,1", "static:3", "planner:best", "oracle:no", "theirs", "ours:absent.yaml"):
        with pytest.raises(UserError, match=wrong):
            roster.check(wrong, sine)


def test_sizes_by_the_time_and_what_is_counted_of_them() -> None:
    watched = Watched(Schedule([[0.0, 1, 1], [10.0, 3, 2]]), None)
    counts = {f"{kind}_{role}_count": 1 for kind in ("non_draining", "total") for role in ("prefill", "decode")}
    answers = [watched.on_tick({"now_ms": at_ms, **counts}) for at_ms in (5e3, 1e4)]
    assert [(one["target_prefill"], one["target_decode"]) for one in answers] == [(1, 1), (3, 2)]
    assert (watched.changes, watched.peak, answers[1]["next_tick_ms"]) == (2, [3, 2], 15e3)


def test_a_policy_is_a_process_that_answers_lines() -> None:
    echo = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True)"
    command = Command([sys.executable, "-c", echo], {})
    assert command.on_tick({"target_prefill": 1}) == {"target_prefill": 1}
    command.close()
    broken = Command([sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(3)"], {})
    with pytest.raises(RuntimeError, match="code 3"):
        broken.on_tick({})


def row(policy: str, attained: float, gpu_hours: float, seed: int = 1) -> dict[str, Any]:
    measured = {"attained": attained, "gpu_hours": gpu_hours, "ttft_ms_p95": 900.0, "itl_ms_p95": None}
    return {
        "scenario": "sine",
        "policy": policy,
        "seed": seed,
        **measured,
        "changes": 2,
        "missed": {"burst": 1 - attained},
    }


def test_seeds_become_medians_and_the_picture_shows_each_policy() -> None:
    seeds = [row("ours", share, 5.0, seed) for seed, share in enumerate((0.9, 0.99, 0.95))]
    rows = outcome.summed([*seeds, row("static:3,4", 1.0, 8.0), row("static:9,9", 0.9, 9.0)])
    ours = next(one for one in rows if one["policy"] == "ours")
    assert (ours["n"], ours["attained"]) == (3, 0.95)
    assert [one["policy"] for one in outcome.frontier(rows)] == ["ours", "static:3,4"]
    text = outcome.table(rows)
    assert text.splitlines()[1].split()[:4] == ["sine", "static:3,4", "1", "100.00"]
    svg = outcome.picture("sine", "a & b", rows)
    assert svg.count("<circle") == 3
    assert "a &amp; b" in svg


def test_what_is_finished_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every run is finished: nothing is started, and the table, JSON and picture are written from the file."""
    (tmp_path / "runs.jsonl").write_text(json.dumps(row("ours", 0.5, 5.0)) + "\n" + json.dumps(row("ours", 0.9, 5.0)))
    arguments = ["sine", "--policy", "ours", "--out", str(tmp_path), "--python", sys.executable]
    assert command.main(arguments) == 0
    assert "90.00" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"runs.jsonl", "table.txt", "results.json", "sine.svg"}


def test_wrong_arguments_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["sine", "--out", str(tmp_path), "--python", sys.executable]
    assert command.main([*base, "--policy", "theirs"]) == 2
    assert command.main(["sine", "--python", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "theirs" in said[0]
    assert "make dynosim-env" in said[1]
    (tmp_path / "runs.jsonl").write_text("half a li")
    with pytest.raises(BenchmarkError, match=r"runs\.jsonl:1"):
        Bench(tmp_path, Path(sys.executable)).rows()
