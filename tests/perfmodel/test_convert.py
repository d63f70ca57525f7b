"""Converters: each public table, what is filled in and repaired and said, and what is refused."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.convert import Limits, Measured, as_text, convert
from perfmodel.monotone import monotone
from perfmodel.profile import ProfileError, parse_profile
from perfmodel.sources import SOURCES, read_aic, read_sageserve, read_splitwise
from tests.shared_data import ROOT, shared

AIC = "data/perf/aic_pd_surfaces_vllm.csv.gz"
# How far the repair moves a cell of these tables at most.
DEEPEST = 0.25
SHIPPED = [
    ("qwen3-32b-a100-tp2", "Qwen/Qwen3-32B", "a100_sxm", 2, Limits(max_num_seqs=128)),
    ("qwen3-32b-h200-tp2", "Qwen/Qwen3-32B", "h200_sxm", 2, Limits()),
    ("llama-3.1-70b-h100-tp4", "meta-llama/Meta-Llama-3.1-70B", "h100_sxm", 4, Limits()),
]


@pytest.mark.parametrize(("name", "model", "system", "tp", "limits"), SHIPPED)
def test_a_shipped_profile_is_what_the_converter_makes(
    name: str, model: str, system: str, tp: int, limits: Limits
) -> None:
    document = convert(read_aic(shared(AIC), model, system, tp), limits)
    assert as_text(document) == (ROOT / "perfmodel" / "profiles" / f"{name}.json").read_text()
    assert json.loads(as_text(document)) == document


@pytest.mark.parametrize(
    ("source", "table", "model", "system", "tp"),
    [
        ("aic", AIC, "nvidia/Llama-3.1-70B-Instruct-FP8", "b200_sxm", 8),
        ("splitwise", "data/perf/splitwise_perf_model.csv.gz", "llama2-70b", "h100-80gb", 8),
        ("splitwise", "data/perf/splitwise_perf_model.csv.gz", "bloom-176b", "a100-80gb", 8),
        ("sageserve", "data/perf/sageserve_Llama-3.1-8B-tp-2.csv.gz", "Llama-3.1-8B", "a100-80gb", 2),
        ("sageserve", "data/perf/sageserve_Llama-3.2-3B-tp-4.csv.gz", "Llama-3.2-3B", "a100-80gb", 4),
    ],
)
def test_a_profile_of_each_table(source: str, table: str, model: str, system: str, tp: int) -> None:
    measured = SOURCES[source](shared(table), model, system, tp)
    profile = parse_profile(convert(measured, Limits()), "made")
    assert (profile.provenance.model, profile.provenance.gpu, profile.tp) == (model, system, tp)
    # What was measured is given back, up to what the monotone repair moved.
    for (new, cached), ms in measured.prefill.items():
        assert profile.prefill_ms(new, cached) == pytest.approx(ms, rel=DEEPEST)
    for (batch, context), ms in measured.decode.items():
        if batch <= profile.max_num_seqs:
            assert profile.decode_ms(batch, context) == pytest.approx(ms, rel=DEEPEST)


def test_units_of_the_measured_tables() -> None:
    """SageServe's 1.0837 s for 127 tokens are 8.53 ms each; Splitwise's 54.8 ms are of one token already."""
    sage = read_sageserve(shared("data/perf/sageserve_Llama-3.1-8B-tp-2.csv.gz"), "Llama-3.1-8B", "a100-80gb", 2)
    assert sage.decode[1, 576] == pytest.approx(8.53, abs=0.01)
    assert sage.prefill[8192, 0] == pytest.approx(542.2, abs=0.1)
    split = read_splitwise(shared("data/perf/splitwise_perf_model.csv.gz"), "llama2-70b", "a100-80gb", 2)
    assert split.decode[1, 576] == pytest.approx(54.8, abs=0.1)
    assert split.prefill[512, 0] == pytest.approx(196.9, abs=1)


@pytest.mark.parametrize(
    ("model", "kv_bytes"),
    [
        ("Qwen/Qwen3-32B", 64 * 2 * 8 * 128 * 2),
        ("meta-llama/Meta-Llama-3.1-70B", 80 * 2 * 8 * 128 * 2),
        ("Qwen/Qwen3-30B-A3B", 48 * 2 * 4 * 128 * 2),
        ("nvidia/Llama-3.1-70B-Instruct-FP8", 80 * 2 * 8 * 128),
    ],
)
def test_bytes_of_a_token_come_from_the_memory_column(model: str, kv_bytes: int) -> None:
    assert read_aic(shared(AIC), model, "h100_sxm", 4).kv_bytes_per_token == kv_bytes


def measured(**changes: Any) -> Measured:
    values: dict[str, Any] = {
        "provenance": {
            "source": "by hand",
            "licence": "Apache-2.0",
            "model": "m",
            "gpu": "g",
            "backend": "b",
            "backend_version": "1",
        },
        "tp": 2,
        "prefill": {(100, 0): 10.0, (200, 0): 20.0, (100, 1000): 15.0},
        "decode": {(1, 100): 10.0, (1, 200): 13.0, (1, 300): 12.0, (2, 100): 11.0, (2, 200): 14.0},
        "kv_bytes_per_token": 262_144,
        "weights_gib": 40.0,
        "card_gib": 80.0,
        "link_gb_per_s": 25.0,
    }
    return Measured(**copy.deepcopy(values) | changes)


def test_gaps_are_filled_dips_repaired_and_both_are_said() -> None:
    document = convert(measured(), Limits())
    assert document["prefill_ms"]["ms"] == [[10, 15], [20, 30]]
    assert document["decode_ms"]["ms"] == [[10, 12.5, 12.5], [11, 14, 17]]
    assert document["kv_capacity_tokens"] == (72 - 40) * 2**30 * 2 // 262_144
    assert document["provenance"]["notes"] == [
        "prefill_ms: 1 of 4 cells have no measurement behind cached tokens; from 100 new tokens by their extra time "
        "per new token",
        "decode_ms: 1 of 6 cells are not in the table and go on linearly in context: batch 2 from 300",
        "decode_ms: isotonic repair moved 2 of 6 cells, by 4.0% on average and 4.2% at most",
        "transfer_gb_per_s: not in the table; one link of 25 GB/s is assumed",
    ]


def test_what_is_given_is_not_assumed() -> None:
    document = convert(measured(), Limits(transfer_gb_per_s=12.5, kv_capacity_tokens=5000, max_num_seqs=1))
    assert (document["transfer_gb_per_s"], document["kv_capacity_tokens"], document["max_num_seqs"]) == (12.5, 5000, 1)
    assert not any("transfer" in note for note in document["provenance"]["notes"])


@pytest.mark.parametrize(
    ("changes", "limits", "lines"),
    [
        (
            {"prefill": {(100, 0): 10.0}, "decode": {(1, 100): 10.0, (1, 200): 10.0}},
            Limits(),
            [
                "prefill: new_tokens = 100: expected at least 2 values in the table",
                "prefill: cached_tokens = 0: expected at least 2",
                "decode: batch = 1: expected at least 2",
            ],
        ),
        (
            {"weights_gib": 75.0},
            Limits(max_model_len=1000, max_num_seqs=9),
            [
                "max_model_len = 1000: expected at most 200, which the table covers",
                "max_num_seqs = 9: expected at most 2",
                "kv_capacity_tokens: weights of 75.0 GiB a card leave no room in 0.9 of 80 GiB; choose a larger tp",
            ],
        ),
        (
            {"decode": {(1, 100): 1.0, (1, 200): 2.0, (1, 300): 3.0, (2, 100): 1.0, (2, 300): 3.0}},
            Limits(),
            ["decode: batch 2 lacks context_tokens 200: a gap between measured cells"],
        ),
    ],
)
def test_a_table_that_is_too_small_is_refused(changes: dict[str, Any], limits: Limits, lines: list[str]) -> None:
    with pytest.raises(ProfileError) as caught:
        convert(measured(**changes), limits)
    assert len(caught.value.problems) == len(lines)
    for problem, line in zip(caught.value.problems, lines, strict=True):
        assert problem.startswith(line)


HEADER = "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEADER, "columns model, hardware"),
        (
            HEADER + "m,g,1,1,128,1,1,1\n",
            "no rows for model llama2-70b, hardware h100-80gb, tensor_parallel 8; ",
        ),
        ("model,hardware,tensor_parallel\nllama2-70b,h100-80gb,8\n", "columns prompt_size, batch_size"),
        (HEADER + "llama2-70b,h100-80gb,512,1,128,x,1,8\n", "prompt_time = 'x': expected a number, 0 or more"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ProfileError) as caught:
        read_splitwise(path, "llama2-70b", "h100-80gb", 8)
    assert str(caught.value).startswith(f"{path}: {line}")


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    with pytest.raises(ProfileError, match="cannot be read: No such file"):
        read_aic(path, "m", "s", 1)
    path.write_text("plain")
    with pytest.raises(ProfileError, match="expected a gzipped CSV file"):
        read_aic(path, "m", "s", 1)


@given(st.lists(st.lists(st.floats(1, 100), min_size=4, max_size=4), min_size=3, max_size=3))
def test_the_repair_is_monotone_and_moves_nothing_further_than_the_deepest_dip_asks(grid: list[list[float]]) -> None:
    flat = [cell for row in grid for cell in row]
    clean = monotone(flat, (3, 4))
    cells = [(i, j) for i in range(3) for j in range(4)]
    deepest = 0.0
    for i, j in cells:
        for k, m in cells:
            if i <= k and j <= m:
                assert clean[4 * i + j] <= clean[4 * k + m]
                deepest = max(deepest, flat[4 * i + j] - flat[4 * k + m])
    # Of two cells in the wrong order one has to move by half of their difference: none moves further.
    assert max(abs(a - b) for a, b in zip(clean, flat, strict=True)) == pytest.approx(deepest / 2)
