"""The profile file: what is read, what is refused, and what lies between its knots."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.profile import (
    SHOWN,
    Profile,
    ProfileError,
    load_profile,
    parse_profile,
    shipped_profiles,
)
from tests.shared_data import ROOT

FOLDER = ROOT / "perfmodel" / "profiles"

SMALL: dict[str, Any] = {
    "format": "roleratio.dev/profile/v1",
    "provenance": {
        "source": "by hand",
        "licence": "Apache-2.0",
        "model": "m",
        "gpu": "g",
        "backend": "b",
        "backend_version": "1",
    },
    "tp": 2,
    "gpus": 2,
    "kv_bytes_per_token": 1_000_000,
    "kv_capacity_tokens": 10_000,
    "max_model_len": 1000,
    "max_num_seqs": 8,
    "prefill_chunk_tokens": 100,
    "transfer_gb_per_s": 10,
    "prefill_ms": {"new_tokens": [10, 1000], "cached_tokens": [0, 100], "ms": [[10, 20], [100, 200]]},
    "decode_ms": {"batch": [1, 8], "context_tokens": [0, 1000], "ms": [[10, 20], [24, 48]]},
}


def small(**changes: Any) -> Profile:
    return parse_profile(copy.deepcopy(SMALL) | changes, "small")


@pytest.mark.parametrize(
    ("new", "cached", "ms"),
    [
        (10, 0, 10.0),
        (1000, 100, 200.0),
        (505, 0, 55.0),
        (505, 50, 82.5),
        (1, 0, 10.0),  # below the first knot a step costs what it costs there
        (0, 0, 0.0),  # no step at all
        (10, 300, 40.0),  # attention over the cache goes on linearly
    ],
)
def test_prefill_between_and_beyond_the_knots(new: float, cached: float, ms: float) -> None:
    assert small().prefill_ms(new, cached) == pytest.approx(ms)


@pytest.mark.parametrize(("batch", "context", "ms"), [(1, 0, 10), (8, 1000, 48), (4.5, 500, 25.5), (0, 500, 0)])
def test_decode_between_the_knots(batch: float, context: float, ms: float) -> None:
    assert small().decode_ms(batch, context) == pytest.approx(ms)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda p: p.prefill_ms(1001), "new_tokens = 1001: outside of the profile, which covers 0 to 1000"),
        (lambda p: p.decode_ms(9, 10), "batch = 9: outside of the profile, which covers 0 to 8"),
        (lambda p: p.decode_ms(2, 1200), "context_tokens = 1200: outside of the profile, which covers 0 to 1000"),
        (lambda p: p.decode_ms(-1, 10), "batch = -1: outside of the profile, which covers 0 to 8"),
        (lambda p: p.prefill_ms(math.nan), "new_tokens = nan: outside of the profile, which covers 0 to 1000"),
    ],
)
def test_outside_of_its_support_it_says_so(call: Any, line: str) -> None:
    with pytest.raises(ProfileError, match="outside") as caught:
        call(small())
    assert str(caught.value) == line


def test_transfer_is_bytes_over_bandwidth() -> None:
    assert small().transfer_ms(100) == pytest.approx(100 * 1e6 / 10e9 * 1e3)


@pytest.mark.parametrize(
    ("context", "itl_ms", "batch"),
    [(0, 9.9, 0), (0, 10, 1), (0, 16, 4), (0, 1000, 8), (1000, 20, 1), (2500, 1000, None), (1000, 1000, 8)],
)
def test_the_largest_batch_that_meets_the_itl(context: float, itl_ms: float, batch: int | None) -> None:
    if batch is None:
        with pytest.raises(ProfileError):
            small().max_decode_batch(context, itl_ms)
    else:
        assert small().max_decode_batch(context, itl_ms) == batch


def test_the_batch_is_bounded_by_the_kv_cache() -> None:
    assert small(kv_capacity_tokens=2500).max_decode_batch(1000, 1000) == 2
    assert small(kv_capacity_tokens=500).max_decode_batch(1000, 1000) == 0


@given(st.floats(0, 131072), st.floats(0, 131072), st.floats(0, 200_000))
def test_shipped_prefill_is_monotone(a: float, b: float, cached: float) -> None:
    profile = load_profile()
    low, high = sorted((a, b))
    assert profile.prefill_ms(low, cached) <= profile.prefill_ms(high, cached) + 1e-9
    assert profile.prefill_ms(low, min(cached, a)) <= profile.prefill_ms(low, max(cached, a)) + 1e-9


@given(st.integers(0, 256), st.integers(0, 256), st.floats(0, 131072), st.floats(0, 131072))
def test_shipped_decode_is_monotone(a: int, b: int, x: float, y: float) -> None:
    profile = load_profile()
    assert profile.decode_ms(min(a, b), min(x, y)) <= profile.decode_ms(max(a, b), max(x, y)) + 1e-9


@given(st.floats(1, 100_000), st.floats(1, 300))
def test_the_largest_batch_is_the_largest(context: float, itl_ms: float) -> None:
    profile = load_profile()
    batch = profile.max_decode_batch(context, itl_ms)
    assert batch == 0 or (profile.decode_ms(batch, context) <= itl_ms and batch * context <= profile.kv_capacity_tokens)
    more = batch + 1
    assert (
        more > profile.max_num_seqs
        or more * context > profile.kv_capacity_tokens
        or profile.decode_ms(more, context) > itl_ms
    )


@pytest.mark.parametrize("name", shipped_profiles())
def test_shipped_profiles_are_small_and_say_where_they_are_from(name: str) -> None:
    assert (FOLDER / f"{name}.json").stat().st_size < 20_000
    profile = load_profile(name)
    assert (profile.provenance.licence, profile.gpus) == ("Apache-2.0", profile.tp)
    assert "aiconfigurator" in profile.provenance.source
    assert any("isotonic repair moved" in note for note in profile.provenance.notes)


def test_the_default_profile() -> None:
    profile = load_profile()
    assert (profile.provenance.model, profile.provenance.licence) == ("Qwen/Qwen3-32B", "Apache-2.0")
    assert (profile.tp, profile.gpus, profile.kv_capacity_tokens) == (2, 2, 307_840)


def grid(**changes: Any) -> dict[str, Any]:
    return {"decode_ms": SMALL["decode_ms"] | changes}


MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"format": "v0"}, ["format = 'v0': expected 'roleratio.dev/profile/v1'"]),
    ({"tp": 0}, ["tp = 0: expected a whole number above 0"]),
    ({"gpus": True, "max_num_seqs": 2.5}, ["max_num_seqs = 2.5", "gpus = True"]),
    ({"transfer_gb_per_s": float("nan")}, ["transfer_gb_per_s = nan: expected a number above 0"]),
    ({"transfer_latency_ms": -1}, ["transfer_latency_ms = -1: expected a number above 0"]),
    ({"provenance": {"source": "x"}}, ["provenance = {'source': 'x'}: expected texts for source, licence"]),
    (
        {"provenance": SMALL["provenance"] | {"notes": "moved"}},
        ["provenance.notes = 'moved': expected a list of texts"],
    ),
    ({"prefill_ms": 3}, ["prefill_ms = 3: expected an object with new_tokens, cached_tokens and ms"]),
    ({"max_model_len": 2000}, ["prefill_ms.new_tokens = 1000.0: expected knots up to 2000", "max_model_len = 2000"]),
    (grid(batch=[8, 1]), ["decode_ms.batch = [8, 1]: expected at least two numbers, rising"]),
    (grid(ms=[[10, 20]]), ["decode_ms.ms = 'list': expected 2 rows of 2 numbers, one per knot"]),
    (
        grid(ms=[[10, 20], [9, 19]]),
        [
            "decode_ms.ms[1][0] (batch 8, context_tokens 0) = 9: expected no less than 10, its neighbour",
            "decode_ms.ms[1][1] (batch 8, context_tokens 1000) = 19: expected no less than 20, its neighbour",
        ],
    ),
    (
        grid(ms=[[10, None], [9, 48]]),
        [
            "decode_ms.ms[0][1] (batch 1, context_tokens 1000) = None: expected ms above 0; a gap in the table",
            "decode_ms.ms[1][0] (batch 8, context_tokens 0) = 9: expected no less than 10",
        ],
    ),
]


@pytest.mark.parametrize(("changes", "lines"), MISTAKES)
def test_each_mistake_is_one_line(changes: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(ProfileError) as caught:
        small(**changes)
    assert len(caught.value.problems) == len(lines)
    for problem, line in zip(caught.value.problems, lines, strict=True):
        assert problem.startswith(line)
        assert "\n" not in problem


def test_of_many_gaps_the_first_are_named() -> None:
    batches = list(range(1, 21))
    with pytest.raises(ProfileError) as caught:
        small(**grid(batch=batches, ms=[[10, None] for _ in batches]))
    assert len(caught.value.problems) == SHOWN + 1
    assert caught.value.problems[-1] == "decode_ms.ms: and 10 more cells like these"


def test_a_latency_is_added_to_each_transfer_where_it_is_known() -> None:
    assert small().transfer_latency_ms is None
    assert small(transfer_latency_ms=3).transfer_ms(100) == pytest.approx(small().transfer_ms(100) + 3)


@pytest.mark.parametrize(
    ("text", "line"),
    [(None, "cannot be read: No such file or directory"), ("{", "not JSON"), ("[]", "format = 'list': expected")],
)
def test_a_file_that_is_none(tmp_path: Path, text: str | None, line: str) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert str(caught.value).startswith(f"profile {path}: {line}")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ProfileError, match=f"'nosuch': no such profile; shipped are {', '.join(shipped_profiles())}"):
        load_profile("nosuch")


def test_a_hash_is_of_what_a_profile_holds_and_is_computed_anew_in_another_process() -> None:
    one, same = (parse_profile(copy.deepcopy(SMALL), "small") for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert hash(one) != hash(replace(one, tp=4))
    script = "import pickle, sys; a, b = (pickle.load(sys.stdin.buffer) for _ in range(2)); sys.exit(a not in {b})"
    fresh = pickle.dumps(parse_profile(copy.deepcopy(SMALL), "small"))
    subprocess.run([sys.executable, "-c", script], input=pickle.dumps(one) + fresh, cwd=ROOT, check=True)
