"""The bench around Dynamo's simulator, without Dynamo: scenarios, traces, policies' names, scores, tables, resuming."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from autoscaler.errors import UserError
from benchmarks.dynosim import __main__ as command
from benchmarks.dynosim import outcome, picture, roster, traces
from benchmarks.dynosim.arena import Command, Schedule, Watched
from benchmarks.dynosim.runs import Bench
from benchmarks.dynosim.scenarios import SCENARIOS, Load
from benchmarks.dynosim.score import scored
from benchmarks.processes import BenchmarkError
from policies.model import Pair, Role

FACTS = {"ttft_ms": 1000.0, "itl_ms": 30.0, "startup_s": 120.0}
SUMMARY = {
    "gpu_hours": 2.0,
    "prefill_worker_seconds": 3600.0,
    "decode_worker_seconds": 7200.0,
    "duration_ms": 6e5,
    "goodput_completed_requests": 2,
}


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
    assert (row["attained"], row["goodput"], row["gpu_hours"]) == (0.25, 0.25, 2.0)


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
    assert [one["policy"] for one in picture.frontier(rows)] == ["ours", "static:3,4"]
    text = outcome.table(rows)
    assert text.splitlines()[1].split()[:4] == ["sine", "static:3,4", "1", "100.00"]
    svg = picture.picture("sine", "a & b", rows)
    assert svg.count("<title>") == 3
    assert "a &amp; b" in svg


def test_names_in_the_picture_cover_no_point_and_no_other_name() -> None:
    rows = [row(f"planner:{n}", 0.1 + 0.001 * n, 5.0 + 0.02 * n) for n in range(9)] + [row("ours", 1.0, 5.05)]
    scale = picture.Scale(6.0)
    boxes = picture.placed(rows, scale)
    assert not any(one.covers(other) for one, other in combinations(boxes, 2))
    points = [picture.Box(x - 4, y - 4, x + 4, y + 4) for x, y in map(scale.at, rows)]
    assert not any(one.covers(other) for one in boxes for other in points)
    assert all(picture.FRAME.left <= box.left and box.right <= picture.FRAME.right for box in boxes)


def test_one_bad_policy_does_not_squeeze_the_others() -> None:
    rows = [row("ours", 0.99, 5.0), row("static:3,4", 1.0, 8.0), row("planner:tight", 0.8, 700.0)]
    scale = picture.Scale.of(rows)
    assert scale.at(rows[1])[0] > picture.WIDTH / 2
    assert scale.at(rows[2])[0] == picture.WIDTH - picture.RIGHT
    assert "tight (700 GPU-h)" in picture.picture("sine", "", rows)


def test_what_attained_and_the_causes_are_everything() -> None:
    """Also over several seeds: those are the causes of the run that is told."""
    seeds = [row("ours", share, 5.0, seed) for seed, share in enumerate((0.9, 0.99, 0.95))]
    seeds[0]["missed"] = {"burst": 0.04, "cold_start": 0.06}
    seeds[2]["missed"] = {"burst": 0.01, "prompt": 0.04}
    rows = outcome.summed([*seeds, row("static:3,4", 1.0, 8.0)])
    for one in rows:
        assert one["attained"] + sum(one["missed"].values()) == pytest.approx(1)
    header, first, second = outcome.causes(rows).splitlines()
    assert header.split() == ["scenario", "policy", "attained", "prompt", "burst"]
    assert (first.split(), second.split()) == (
        ["sine", "static:3,4", "100.00"],
        ["sine", "ours", "95.00", "4.00", "1.00"],
    )


def test_policies_of_all_scenarios_stand_beside_each_other() -> None:
    rows = [row("ours", 0.9, 5.0), {**row("ours", 1.0, 3.25), "scenario": "mooncake"}, row("planner:both", 0.5, 4.0)]
    header, ours, planner = outcome.matrix([*rows, row("static:3,4", 1.0, 8.0)]).splitlines()
    assert header.split() == ["attained", "%", "@", "GPU-h", "sine", "mooncake"]
    assert ours.split("  ")[0] == "ours"
    assert "90.00 @ 5.00" in ours
    assert "100.00 @ 3.25" in ours
    assert planner.split() == ["planner:both", "50.00", "@", "4.00"]


def test_ours_is_held_beside_the_best_planner_and_the_cheapest_fixed_size() -> None:
    others = [row("planner:load", 0.5, 4.0), row("planner:tight", 0.8, 9.0), row("static:2,2", 0.9, 4.0)]
    fixed = [row("static:3,4", 1.0, 8.0), row("static:4,4", 1.0, 9.0)]
    (said,) = outcome.verdicts(outcome.summed([row("ours", 0.95, 5.0), *others, *fixed]))
    assert said == (
        "sine, ours 95.00 % at 5.00 GPU-h; best of the planner's settings planner:tight 80.00 % at 9.00 GPU-h; "
        "cheapest fixed size with as much static:3,4 100.00 % at 8.00 GPU-h"
    )
    (alone,) = outcome.verdicts(outcome.summed([row("ours", 0.95, 5.0)]))
    assert alone.endswith("no planner has run; no fixed size attains as much")


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
