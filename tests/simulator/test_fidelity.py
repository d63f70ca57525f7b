"""The simulated engine against recorded runs of real vLLM, and the runs that are refused."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fidelity, simulator_speed
from benchmarks.recorded import load_run
from tests.shared_data import shared

RUNS = ("RTXPRO6000_Llama-3.1-8B", "RTXPRO6000_Qwen3-32B")
LLAMA = RUNS[0]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A run with its profile that a test may change; its prefix."""
    folder = shared("data/validation")
    for path in (*folder.glob(f"{LLAMA}_*"), *folder.glob(f"profile_{LLAMA}_tp1_*")):
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path / LLAMA


def change(prefix: Path, **entries: Any) -> None:
    """Entries of the meta file, in `engine_kwargs` where they are of these."""
    path = Path(f"{prefix}_meta.json")
    meta = json.loads(path.read_text())
    for name, value in entries.items():
        (meta["engine_kwargs"] if name in meta["engine_kwargs"] and name != "model" else meta)[name] = value
    path.write_text(json.dumps(meta))


def refused(prefix: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert fidelity.main(["--run", str(prefix)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.replace(f"{prefix.parent}/", "").splitlines()


@pytest.mark.parametrize("name", RUNS)
def test_errors_are_within_the_limits(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "errors.json"
    assert fidelity.main(["--run", str(shared("data/validation") / name), "--json", str(out)]) == 0
    errors = json.loads(out.read_text())
    assert list(errors) == ["ttft_mean", "ttft_p99", "itl_mean", "itl_p99", "e2e_mean", "e2e_p99"]
    assert all(abs(100 * error) < fidelity.LIMITS_PERCENT[key] for key, error in errors.items()), errors
    assert "MISSED" not in capsys.readouterr().out


def test_without_a_run_all_shared_ones_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    shared("data/validation")
    assert fidelity.main([]) == 0
    table = capsys.readouterr().out
    assert len(fidelity.shared_runs()) >= len(RUNS)
    assert all(
        f"{Path(prefix).name}: {key}" in table for prefix in fidelity.shared_runs() for key in fidelity.LIMITS_PERCENT
    )


def test_errors_have_the_sign_of_simulated_less_measured(copied: Path) -> None:
    path = Path(f"{copied}_requests.jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for row in rows:
        row["first_token_ts"] = row["queued_ts"] + (row["first_token_ts"] - row["queued_ts"]) / 2
    with gzip.open(path, "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    errors = fidelity.judge(load_run(str(copied)))
    assert errors["ttft_mean"] == pytest.approx(2 * (1 - 0.0612) - 1, abs=0.02)
    assert errors["itl_mean"] < -0.1


def test_the_kv_limit_of_a_run_is_decisive(copied: Path) -> None:
    free = fidelity.judge(load_run(str(copied)))
    change(copied, kv_cache={"num_gpu_blocks": 2000, "block_size": 16})
    tight = load_run(str(copied))
    assert (tight.config.kv_blocks, tight.config.block_tokens) == (1999, 16)
    assert fidelity.judge(tight)["ttft_mean"] > free["ttft_mean"] + 1


def test_settings_that_a_run_resolved_are_used(copied: Path) -> None:
    change(
        copied,
        max_num_seqs=None,
        resolved_config={
            "scheduler_config": {"max_num_seqs": 64, "async_scheduling": False},
            "cache_config": {"enable_prefix_caching": False, "block_size": 32},
        },
    )
    config = load_run(str(copied)).config
    assert (config.max_num_seqs, config.max_num_batched_tokens, config.max_model_len) == (64, 2048, 16384)
    assert load_run(str(copied)).seats == 64
    assert (config.async_scheduling, config.prefix_caching, config.block_tokens) == (False, False, 32)


def test_more_seats_than_the_profile_covers_are_no_matter_while_they_stay_empty(copied: Path) -> None:
    path = Path(f"{copied}_requests.jsonl.gz")
    path.write_bytes(gzip.compress(b"\n".join(gzip.decompress(path.read_bytes()).splitlines()[:100])))
    few = fidelity.judge(load_run(str(copied)))
    change(copied, max_num_seqs=512)
    assert fidelity.judge(load_run(str(copied))) == few


def test_what_a_run_does_not_say_is_vllms_default(copied: Path) -> None:
    change(copied, max_num_seqs=None)
    config = load_run(str(copied)).config
    assert (config.max_num_seqs, config.block_tokens, config.kv_blocks) == (256, 16, None)
    assert (config.async_scheduling, config.prefix_caching) == (True, True)


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ({"data_parallel_size": 2}, f"fidelity: {LLAMA}_meta.json: data_parallel_size = 2: expected one engine, 1"),
        (
            {"enable_expert_parallel": True},
            f"fidelity: {LLAMA}_meta.json: enable_expert_parallel = true: "
            "expected one engine without expert parallelism",
        ),
        (
            {"tensor_parallel_size": 4},
            f"fidelity: profile_{LLAMA}_tp4_attention.csv.gz: no such file; expected the run's profile beside it",
        ),
        (
            {"max_num_seqs": 512},
            f"fidelity: {LLAMA}: max_num_seqs = 512: the profile covers 256, all of which are used",
        ),
        (
            {"max_num_batched_tokens": 8192},
            "fidelity: max_num_batched_tokens = 8192: expected 1 to 2048, which the profile covers",
        ),
        (
            {"kv_cache": {"num_gpu_blocks": 101}},
            f"fidelity: {LLAMA}: a request of 2889 tokens does not fit the KV blocks of the engine",
        ),
    ],
)
def test_a_run_that_cannot_be_judged_is_refused(
    entries: dict[str, Any], line: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copied, **entries)
    assert refused(copied, capsys) == [line]


def test_an_unknown_model_is_refused(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(copied, model="acme/Rocket-9B")
    (line,) = refused(copied, capsys)
    assert line.startswith("fidelity: model = 'acme/Rocket-9B': expected one of Llama-2-7b")


def test_what_is_no_run_is_refused(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(copied.parent / "nothing", capsys) == [
        "fidelity: nothing_meta.json: cannot be read: No such file or directory; expected a run's prefix"
    ]
    Path(f"{copied}_meta.json").write_text("{}")
    assert refused(copied, capsys) == [
        f"fidelity: {LLAMA}_meta.json: not the description of a run: KeyError: 'engine_kwargs'"
    ]


def test_requests_with_mistakes_are_named_all_at_once(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {
        "input_toks": 5,
        "output_toks": 2,
        "arrival_time": 1,
        "queued_ts": 1,
        "first_token_ts": 2,
        "last_token_ts": 3,
    }
    rows = [good, good | {"output_toks": 0}, good | {"queued_ts": None}, good | {"last_token_ts": 1.5}]
    rows.append(good | {"input_toks": 16_384})
    with gzip.open(f"{copied}_requests.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    assert refused(copied, capsys) == [
        f"fidelity: {LLAMA}_requests.jsonl.gz:2: output_toks = 0: expected 1 or more",
        f"fidelity: {LLAMA}_requests.jsonl.gz:3: queued_ts = None: expected seconds",
        f"fidelity: {LLAMA}_requests.jsonl.gz:4: expected queued_ts <= first_token_ts <= last_token_ts",
        f"fidelity: {LLAMA}_requests.jsonl.gz:5: 16386 tokens: expected at most 16384, which engine and profile cover",
    ]


def test_a_broken_profile_is_refused_with_every_problem(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stem = copied.parent / f"profile_{LLAMA}_tp1"
    Path(f"{stem}_dense.csv.gz").write_bytes(b"not gzipped")
    Path(f"{stem}_per_sequence.csv.gz").write_bytes(gzip.compress(b"layer,time_us\nlm_head,3\n"))
    assert refused(copied, capsys) == [
        f"fidelity: profile_{LLAMA}_tp1_dense.csv.gz: cannot be read: Not a gzipped file (b'no'); "
        "expected a gzipped CSV file",
        f"fidelity: profile_{LLAMA}_tp1_per_sequence.csv.gz: column 'sequences' is missing; found layer, time_us",
    ]


def test_an_output_that_cannot_be_written_is_one_line(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fidelity.main(["--run", str(copied), "--json", "no/such/folder/out.json"]) == 2
    assert capsys.readouterr().err == (
        "fidelity: no/such/folder/out.json: No such file or directory; give another path\n"
    )


def test_the_speed_benchmark_replays_the_runs_and_a_trace() -> None:
    shared("data/traces/azure_llm_2023_conv.csv.gz")
    figures = simulator_speed.measure(simulator_speed.Sizes(repeats=1, few=50, many=100))
    assert len({one.name for one in figures}) == len(figures) == 5
    assert all(one.claims and one.at("min") > 0 for one in figures)


def test_a_repeated_trace_goes_on_in_time() -> None:
    trace = [(0.0, 5, 6), (1.0, 7, 8), (4.0, 9, 10)]
    longer = simulator_speed.repeated(trace, 8)
    assert len(longer) == 8
    times_s = [at_s for at_s, _, _ in longer]
    assert times_s == sorted(set(times_s))
    assert longer[4][1:] == (7, 8)
