"""Layer profiles: what is measured is given back, what lies between is between, what is wrong is named."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.layers import LayerSteps, Link, load_layer_steps
from perfmodel.models import SHAPES, ModelShape, model_shape
from perfmodel.profile import ProfileError
from tests.shared_data import shared

SHAPE = ModelShape(layers=10, hidden=1000)
COARSE = ((16, 64, 256), (0, 64, 512), (1, 4, 16), (16, 128, 512))
FINE = ((32, 100), (0, 100, 512), (1, 4, 16), (128, 200, 512))
PER_TOKEN_US = {
    "embedding": 0.5,
    "final_layernorm": 0.25,
    "layernorm": 0.125,
    "qkv_proj": 2.0,
    "o_proj": 1.0,
    "gate_up_proj": 4.0,
    "down_proj": 2.0,
}
PER_SEQUENCE_US = {"lm_head": 3.0, "sampler": 1.0}

Key = tuple[int, int, int, int]


def linear_us(new: int, cached: int, seqs: int, context: int) -> float:
    """A table that is linear in each coordinate, so that interpolation is exact; more than its parts when mixed."""
    prompt = new * (1 + cached / 64) if new else 0.0
    decode = seqs * (1 + context / 128) if seqs else 0.0
    return prompt + decode + prompt * seqs / 100


def attention_rows(us: Callable[[int, int, int, int], float] = linear_us) -> dict[Key, float]:
    keys: set[Key] = set()
    for news, cacheds, seqs, contexts in (COARSE, FINE):
        keys |= set(product(news, cacheds, (0,), (0,)))
        keys |= set(product((0,), (0,), (*seqs, 32), contexts))
        keys |= set(product(news, cacheds, seqs, contexts))
    return {key: us(*key) for key in sorted(keys)}


def write(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([list(header), *map(list, rows)])


def tables(
    folder: Path,
    attention: Mapping[Key, float],
    dense: Mapping[str, float] = PER_TOKEN_US,
    heads: Mapping[str, float] = PER_SEQUENCE_US,
) -> Path:
    stem = folder / "profile_x_tp1"
    keys = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
    write(Path(f"{stem}_attention.csv.gz"), keys, ((*key, us) for key, us in attention.items()))
    counts = (1, 2, 8, 300)
    for kind, name, layers in (("dense", "tokens", dense), ("per_sequence", "sequences", heads)):
        rows = [(layer, count, us * count) for layer, us in layers.items() for count in counts]
        write(Path(f"{stem}_{kind}.csv.gz"), ("layer", name, "time_us"), rows)
    return stem


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> LayerSteps:
    return load_layer_steps(tables(tmp_path_factory.mktemp("tables"), attention_rows()), SHAPE, tp=1)


def expected_us(attention_us: float, tokens: int, seqs: int) -> float:
    per_token = 0.75 + SHAPE.layers * (0.25 + 9.0)
    return per_token * tokens + 4.0 * seqs + SHAPE.layers * attention_us


@given(st.integers(1, 200), st.integers(0, 512), st.integers(0, 16), st.floats(16, 512))
def test_a_step_is_layers_times_one_layer_and_once_the_rest(
    steps: LayerSteps, new: int, cached: int, seqs: int, context: float
) -> None:
    attention_us = linear_us(new, cached, seqs, context)  # type: ignore[arg-type]
    found_us = steps.mixed_s([(new, cached)], seqs, context) * 1e6
    assert found_us == pytest.approx(expected_us(attention_us, new + seqs, seqs + 1))


@given(st.integers(1, 32), st.floats(16, 512))
def test_pure_decode_is_a_line_over_the_context(steps: LayerSteps, seqs: int, context: float) -> None:
    attention_us = linear_us(0, 0, seqs, context)  # type: ignore[arg-type]
    assert steps.decode_line(seqs).at(context) * 1e6 == pytest.approx(expected_us(attention_us, seqs, seqs))


def test_of_several_chunks_each_adds_what_it_adds_to_decode_alone(steps: LayerSteps) -> None:
    alone_us = linear_us(0, 0, 4, 128)
    both_us = linear_us(64, 0, 4, 128) + linear_us(20, 512, 4, 128) - alone_us
    assert steps.mixed_s([(64, 0), (20, 512)], 4, 128) * 1e6 == pytest.approx(expected_us(both_us, 88, 6))


def test_beyond_the_most_sequences_measured_with_a_prompt_they_add_what_they_add_without(steps: LayerSteps) -> None:
    more_us = linear_us(0, 0, 32, 128) - linear_us(0, 0, 16, 128)
    attention_us = linear_us(64, 0, 16, 128) + more_us
    assert steps.mixed_s([(64, 0)], 32, 128) * 1e6 == pytest.approx(expected_us(attention_us, 96, 33))


def test_two_all_reduces_a_layer_with_tensor_parallelism(tmp_path: Path) -> None:
    stem = tables(tmp_path, attention_rows())
    alone, two = load_layer_steps(stem, SHAPE, tp=1), load_layer_steps(stem, SHAPE, tp=2, link=Link(5.0, 2.0))
    added_us = (two.mixed_s([(100, 0)], 0, 0) - alone.mixed_s([(100, 0)], 0, 0)) * 1e6
    assert added_us == pytest.approx(2 * SHAPE.layers * (5.0 + 100 * 1000 * 2 / 2e3))


def test_measured_dips_are_evened_out(tmp_path: Path) -> None:
    def noisy_us(new: int, cached: int, seqs: int, context: int) -> float:
        return linear_us(new, cached, seqs, context) * (1 + 0.3 * ((new + 3 * cached + 7 * seqs + context) % 5 - 2) / 2)

    steps = load_layer_steps(tables(tmp_path, attention_rows(noisy_us)), SHAPE, tp=1)
    cells = list(product((1, 16, 50, 100, 256), (0, 64, 300, 512), (0, 1, 3, 16, 30), (16, 100, 200, 512)))
    for cell in cells:
        new, cached, seqs, context = cell
        here_s = steps.mixed_s([(new, cached)], seqs, context)
        for axis, step in enumerate((5, 40, 2, 30)):
            more = [value + step * (i == axis) for i, value in enumerate(cell)]
            if more[0] <= 256 and more[1] <= 512 and more[2] <= 32 and more[3] <= 512:
                assert steps.mixed_s([(more[0], more[1])], more[2], more[3]) >= here_s - 1e-12


@pytest.mark.parametrize(
    ("chunks", "seqs", "context", "line"),
    [
        ([(257, 0)], 0, 0, "prefill_chunk = 257: outside of the profile, which covers 0 to 256"),
        ([(10, 513)], 0, 0, "kv_prefill = 513: outside of the profile, which covers 0 to 512"),
        ([(10, 0)], 4, 513, "kv_decode = 513: outside of the profile, which covers 0 to 512"),
        ([(10, 0)], 33, 100, "n_decode = 33: outside of the profile, which covers 0 to 32"),
        ([(150, 0), (150, 0)], 1, 100, "tokens of a step = 301: outside of the profile, which covers 0 to 300"),
    ],
)
def test_beyond_what_was_measured_is_an_error(
    steps: LayerSteps, chunks: list[tuple[int, int]], seqs: int, context: float, line: str
) -> None:
    with pytest.raises(ProfileError) as caught:
        steps.mixed_s(chunks, seqs, context)
    assert str(caught.value) == line


def test_a_header_among_the_rows_is_skipped(tmp_path: Path) -> None:
    stem = tables(tmp_path, attention_rows())
    path = Path(f"{stem}_dense.csv.gz")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    with gzip.open(path, "wt") as out:
        out.write("\n".join([*lines[:5], lines[0], *lines[5:]]))
    assert load_layer_steps(stem, SHAPE, tp=1).max_tokens == 300


def refused(stem: Path, shape: ModelShape = SHAPE) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        load_layer_steps(stem, shape, tp=1)
    assert str(caught.value).splitlines() == list(caught.value.problems)
    return [problem.replace(f"{stem}_", "") for problem in caught.value.problems]


def test_unreadable_tables_are_named_all_at_once(tmp_path: Path) -> None:
    stem = tables(tmp_path, attention_rows())
    write(Path(f"{stem}_attention.csv.gz"), ("prefill_chunk", "n_decode", "kv_decode", "time_us"), [(1, 2, 3, 4)])
    rows = [("lm_head", 1, "soon"), ("lm_head", "few", 2), ("sampler", 1, -3), ("sampler", 2, 1), ("sampler", 2, 1)]
    write(Path(f"{stem}_per_sequence.csv.gz"), ("layer", "sequences", "time_us"), rows)
    Path(f"{stem}_dense.csv.gz").unlink()
    assert refused(stem) == [
        "attention.csv.gz: column 'kv_prefill' is missing; found prefill_chunk, n_decode, kv_decode, time_us",
        "dense.csv.gz: cannot be read: No such file or directory; expected a gzipped CSV file",
        "per_sequence.csv.gz:2: time_us = 'soon': expected microseconds above 0",
        "per_sequence.csv.gz:3: sequences = 'few': expected a whole number, 0 or more",
        "per_sequence.csv.gz:4: time_us = '-3': expected microseconds above 0",
        "per_sequence.csv.gz:6: {'layer': 'sampler', 'sequences': 2} comes twice",
    ]


def test_gaps_dips_and_missing_layers_are_named_all_at_once(tmp_path: Path) -> None:
    attention = attention_rows()
    attention[256, 0, 4, 128] = 1.0
    del attention[0, 0, 32, 16]
    dense = {name: us for name, us in PER_TOKEN_US.items() if name != "o_proj"}
    missing_o, missing_sampler, gaps, dip = refused(tables(tmp_path, attention, dense, {"lm_head": 3.0}))
    assert missing_o == "dense: layer 'o_proj' is missing"
    assert missing_sampler == "per_sequence: layer 'sampler' is missing"
    first = "first prefill_chunk=0, kv_prefill=0, n_decode=32, kv_decode=16"
    assert gaps.endswith(f"cells are gaps between measured ones, {first}")
    assert dip.startswith(
        "attention: prefill_chunk=256, kv_prefill=0, n_decode=4, kv_decode=128: 1 us: expected no less"
    )


def test_large_batches_that_were_not_measured_are_outside_of_the_support(tmp_path: Path) -> None:
    attention = attention_rows()
    for key in list(attention):
        if key[2] * key[3] >= 16 * 512 or (key[0] == 256 and key[1] == 512):
            del attention[key]
    steps = load_layer_steps(tables(tmp_path, attention), SHAPE, tp=1)
    assert steps.decode_line(16).at(200) * 1e6 == pytest.approx(expected_us(linear_us(0, 0, 16, 200), 16, 16))
    with pytest.raises(ProfileError, match="mean context = 201: outside of the profile, which covers 0 to 200"):
        steps.decode_line(16).at(201)
    assert steps.mixed_s([(256, 64)], 4, 512) > steps.mixed_s([(256, 64)], 4, 500)
    for chunk, seqs, context in (((250, 400), 0, 0), ((64, 0), 16, 300)):
        with pytest.raises(ProfileError, match="outside of the profile, no larger was measured"):
            steps.mixed_s([chunk], seqs, context)


def test_many_rows_of_a_kind_are_counted(tmp_path: Path) -> None:
    attention = {key: us if key[3] == 16 else 1e-3 for key, us in attention_rows().items()}
    found = refused(tables(tmp_path, attention))
    assert len(found) == 11
    assert re.fullmatch(r"attention: and \d+ more rows like these", found[-1])


def test_experts_need_their_own_row(tmp_path: Path) -> None:
    stem = tables(tmp_path, attention_rows())
    assert refused(stem, ModelShape(10, 1000, experts=True)) == ["dense: layer 'moe' is missing"]


def test_shared_profiles_give_back_what_was_measured() -> None:
    stem = shared("data/validation") / "profile_RTXPRO6000_Llama-3.1-8B_tp1"
    steps = load_layer_steps(stem, model_shape("meta-llama/Llama-3.1-8B"), tp=1)
    # The README's example of a mixed batch: 735 us a layer, against 430 for its parts.
    mixed_s = steps.mixed_s([(512, 0)], 128, 1024)
    attention_us = 735.0
    with gzip.open(f"{stem}_dense.csv.gz", "rt") as lines:
        dense = {(row["layer"], int(row["tokens"])): float(row["time_us"]) for row in csv.DictReader(lines)}
    with gzip.open(f"{stem}_per_sequence.csv.gz", "rt") as lines:
        heads = {(row["layer"], int(row["sequences"])): float(row["time_us"]) for row in csv.DictReader(lines)}
    once = ("embedding", "final_layernorm")
    layer_us = sum(us for (name, tokens), us in dense.items() if tokens == 640 and name not in once)
    rest_us = sum(dense[name, 640] for name in once) + sum(us for (_, count), us in heads.items() if count == 128)
    expected_s = (32 * (attention_us + layer_us + dense["layernorm", 640]) + rest_us) / 1e6
    assert mixed_s == pytest.approx(expected_s, rel=0.03)
    assert steps.max_tokens == 2048
    assert (steps.max_seqs, steps.max_context) == (256, 16384)


@pytest.mark.parametrize(
    ("name", "layers", "hidden"),
    [
        ("meta-llama/Llama-3.1-8B", 32, 4096),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", 80, 8192),
        ("Qwen/Qwen3-32B", 64, 5120),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", 48, 2048),
        ("microsoft/Phi-4-mini-instruct", 32, 3072),
    ],
)
def test_models_are_known_by_name(name: str, layers: int, hidden: int) -> None:
    shape = model_shape(name)
    assert (shape.layers, shape.hidden) == (layers, hidden)


@pytest.mark.parametrize("name", ["", "acme/Rocket-9B", "Qwen3-3200B", "Llama"])
def test_an_unknown_model_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match=f"model = '{name}': expected one of {next(iter(SHAPES))}"):
        model_shape(name)
