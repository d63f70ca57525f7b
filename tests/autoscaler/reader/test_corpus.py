"""All pages of the corpus give the values that it expects; the tool that checks other pages does so too."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from autoscaler.adapters.pages import as_corpus, page_of, read_page
from autoscaler.adapters.pages.text import parse
from benchmarks.metrics_conformance import main, understood
from tests.autoscaler.reader.compare import differences
from tests.shared_data import shared

FILES = (
    "aibrix_runtime_2026.08_duplicated",
    "dynamo_1.6.1_frontend_pd_kv_over_1",
    "dynamo_2025_frontend_aiperf_fixture",
    "gaie_0.5.1_epp",
    "kserve_0.21_vllm_0.32_with_queue_proxy",
    "llamacpp_b11434",
    "llmd_router_0.10_epp_dual_names",
    "llmd_sim_2026.08_kvcache",
    "production_stack_router_2026.08",
    "ray_2.60_vllm_two_replicas",
    "sglang_0.4.6_unified",
    "sglang_0.5.10_prefill_tp4_all_ranks",
    "sglang_0.5.23_unified_hybrid_swa",
    "tgi_3.x",
    "triton_trtllm_23.12_readme",
    "trtllm_json_body_at_metrics",
    "trtllm_main_050f80d_inflight",
    "vllm_0.11.2_v1_dp4",
    "vllm_0.18.1_v1_preempting",
    "vllm_0.32.0_v1_nixl_decode",
    "vllm_0.32.0_v1_single",
    "vllm_0.5.5_v0_single",
    "vllm_0.9.2_v1_both_kv_names",
)


def expectations() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shared("data/metrics/expected.json").read_text(encoding="utf-8"))
    return found


def text(name: str) -> str:
    return shared(f"data/metrics/{name}.prom").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_a_page_says_what_the_corpus_expects(name: str) -> None:
    expected = expectations()[f"{name}.prom"]
    got = understood(shared(f"data/metrics/{name}.prom"))
    if expected.get("must_report_error"):
        assert got == {"error": "is JSON, as TensorRT-LLM answers at /metrics: try /prometheus/metrics"}
    else:
        assert list(differences(expected, got)) == []
        assert not (expected.get("must_not_be_an_engine") and got["kind"] == "engine")


def test_every_page_of_the_corpus_is_tested() -> None:
    assert {f"{name}.prom" for name in FILES} == expectations().keys()


@pytest.mark.parametrize("path", ["totals.running", "totals.ttft", "units.0.kv_usage", "models", "role"])
def test_the_comparison_sees_a_wrong_value(path: str) -> None:
    expected = expectations()["vllm_0.32.0_v1_nixl_decode.prom"]
    wrong: Any = copy.deepcopy(expected)
    *steps, last = path.split(".")
    where = wrong
    for step in steps:
        where = where[int(step) if step.isdigit() else step]
    where[last] = "wrong"
    assert [found.partition(":")[0] for found in differences(expected, wrong)] == [path]


@pytest.mark.parametrize("name", [name for name in FILES if "json" not in name])
def test_parsed_series_say_the_same_as_their_page(name: str) -> None:
    series = parse(text(name)).series
    samples = [(one, dict(labels), value) for one, each in series.items() for labels, value in each.items()]
    assert as_corpus(page_of(samples)) == as_corpus(read_page(text(name)))


def test_the_tool_reads_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.prom").write_text('vllm:num_requests_running{engine="0"} 3\n', encoding="utf-8")
    (tmp_path / "b.prom").write_bytes(b"<html>\xff</html>")
    assert main([str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["a.prom"]["totals"]["running"] == 3.0
    assert written["a.prom"]["totals"]["waiting"] is None
    assert written["b.prom"].keys() == {"error"}


@pytest.mark.parametrize("missing", ["folder", "out"])
def test_the_tool_names_what_it_cannot_use(missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.prom").write_text("up 1\n", encoding="utf-8")
    folder, out = tmp_path, tmp_path / "out.json"
    assert (
        main(
            [
                str(folder / "no" if missing == "folder" else folder),
                "--json",
                str(out / "no" if missing == "out" else out),
            ]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert said.startswith("metrics_conformance: ")
    assert said.count("\n") == 1
