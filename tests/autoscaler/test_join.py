"""Pages become samples of their pods, or one named reason why not; what a page does not say stays missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoscaler.adapters.join import Joiner, Read, ScrapeTarget, page_for
from autoscaler.adapters.pages import NAMES, read_page
from autoscaler.adapters.pages.text import parse
from autoscaler.core.flows import of_router, of_worker
from autoscaler.model import Histogram, RouterSample, Samples, WorkerSample
from policies.model import Missing, Role
from tests.autoscaler.field import Engine, vllm
from tests.autoscaler.pages import ROUTER, SERVICE, WORKER
from tests.shared_data import shared

ROUTER_POD = ScrapeTarget("router-1", "uid-r", "router", start_s=50.0, ready_s=60.0)
PREFILL_POD = ScrapeTarget("prefill-0", "uid-p", "prefill", group="prefill-0")
DECODE_POD = ScrapeTarget("decode-0", "uid-d", "decode", group="key-0", start_s=50.0, ready_s=60.0)


def corpus(name: str) -> str:
    folder: Path = shared("data/metrics")
    return (folder / f"{name}.prom").read_text()


def join(text: str, target: ScrapeTarget, model: str | None = None, joiner: Joiner | None = None) -> Samples:
    page = page_for(parse(text, NAMES), model)
    return (joiner or Joiner(model)).samples({target: Read(page, 100.0)}, f"team-a/{SERVICE}")


def worker(text: str, target: ScrapeTarget = DECODE_POD) -> WorkerSample:
    samples = join(text, target)
    assert samples.failures == {}
    return samples.workers[0]


def router(text: str) -> RouterSample:
    samples = join(text, ROUTER_POD)
    assert samples.failures == {}
    return samples.routers[0]


def test_a_worker() -> None:
    seen = worker(WORKER)
    assert (seen.uid, seen.pod, seen.role, seen.group, seen.at_s) == ("uid-d", "decode-0", Role.DECODE, "key-0", 100.0)
    assert (seen.start_s, seen.ready_s, seen.leader, seen.engine) == (50.0, 60.0, True, "vllm")
    assert (seen.engines, seen.ranks) == (2, ("engine=0", "engine=1"))
    assert (seen.running, seen.waiting, seen.in_flight) == (66.0, 7.0, 73.0)
    assert (seen.prompt_tokens, seen.generation_tokens, seen.finished, seen.prompts) == (1010.0, 505.0, 23.0, 110.0)
    assert isinstance(seen.ttft, Histogram)
    assert isinstance(seen.itl, Missing)


def test_our_router() -> None:
    seen = router(ROUTER)
    assert (seen.arrivals, seen.prompt_tokens, seen.generation_tokens) == (120.0, 120000.0, 24000.0)
    assert (seen.finished, seen.failed, seen.tokens_at) == (103.0, 7.0, "arrival")
    assert seen.in_flight == {"prefill": 4.0, "decode": 6.0}
    assert of_router(seen).source.counts == {
        "arrivals": 120.0,
        "offered_tokens": 120000.0,
        "generation_tokens": 24000.0,
        "finished": 103.0,
        "served": 106.0,
    }


def test_a_router_of_another_service_is_named() -> None:
    failures = join(ROUTER.replace('"chat"', '"other"'), ROUTER_POD).failures
    assert failures == {"router-1": f"page is one of a router of other, not of team-a/{SERVICE}"}


def test_a_frontend_that_counts_chunks_gives_no_itl_but_arrivals_and_lengths() -> None:
    seen = router(corpus("dynamo_1.6.1_frontend_pd_kv_over_1"))
    assert seen.itl == Missing("dynamo: counts chunks, not tokens: 100 gaps for 4765 tokens")
    assert isinstance(seen.ttft, Histogram)
    assert (seen.tokens_at, seen.prompt_tokens, seen.prompts, seen.generation_tokens) == ("end", 18754.0, 35.0, 4765.0)
    counts = of_router(seen).source.counts
    assert "offered_tokens" not in counts
    assert counts["arrivals"] > 0


def test_a_gateway_gives_what_it_has() -> None:
    seen = router(corpus("llmd_router_0.10_epp_dual_names"))
    assert isinstance(seen.arrivals, float)
    assert (seen.prompt_tokens, seen.generation_tokens) == (687091.0, 136651.0)
    assert isinstance(seen.ttft, Histogram)
    assert isinstance(seen.itl, Missing)
    assert isinstance(seen.in_flight, Missing)


def test_an_itl_of_requests_is_no_itl() -> None:
    assert isinstance(worker(corpus("trtllm_main_050f80d_inflight")).itl, Missing)


def test_waiting_for_remote_kv_is_told_apart() -> None:
    seen = worker(corpus("vllm_0.32.0_v1_nixl_decode"))
    assert seen.waiting_by_reason == {"capacity": 2.0, "deferred": 4.0}
    assert "offered_tokens" not in of_worker(seen, True).source.counts


@pytest.mark.parametrize(
    ("page", "target", "why"),
    [
        (ROUTER, DECODE_POD, "page is one of a router (roleratio-router), but the pod's label roleratio.dev/role says"),
        ("production_stack_router_2026.08", DECODE_POD, "page is one of a router (vllm-router)"),
        ("llmd_router_0.10_epp_dual_names", PREFILL_POD, "page is one of a gateway (llm-d-epp)"),
        (WORKER, ROUTER_POD, "page is one of an engine (vllm), but the pod's label roleratio.dev/role says router"),
        ("sglang_0.5.10_prefill_tp4_all_ranks", DECODE_POD, "says that the engine (sglang) does prefill, but"),
        ("go_goroutines 7\n", DECODE_POD, "page is not understood: no engine's names are on the page"),
        (WORKER + "sglang:num_running_reqs 3\n", DECODE_POD, "two kinds of engines on one page"),
    ],
)
def test_a_page_that_does_not_fit_its_pod_is_a_named_problem(page: str, target: ScrapeTarget, why: str) -> None:
    samples = join(page if "\n" in page else corpus(page), target)
    assert (samples.routers, samples.workers) == ((), ())
    assert why in samples.failures[target.pod]
    assert "\n" not in samples.failures[target.pod]


def test_a_page_fits_the_label_that_agrees_and_engines_of_both_roles_fit_any() -> None:
    assert worker(corpus("sglang_0.5.10_prefill_tp4_all_ranks"), PREFILL_POD).engine == "sglang"
    assert worker(corpus("sglang_0.5.23_unified_hybrid_swa")).engine == "sglang"


def test_a_model_selects_its_series_and_all_names_are_counted() -> None:
    two = vllm(Engine(running=8), model="Qwen/Qwen3-32B") + vllm(Engine(running=100), model="other", first=1)
    samples = join(two, DECODE_POD, "Qwen/Qwen3-32B")
    assert [(seen.running, seen.engines) for seen in samples.workers] == [(8.0, 1)]
    assert samples.models == {"Qwen/Qwen3-32B": 1, "other": 1}
    missed = join(two, DECODE_POD, "Qwen3-32B")
    assert missed.failures == {"decode-0": "page is of model Qwen/Qwen3-32B and other, not Qwen3-32B"}
    assert join(ROUTER, ROUTER_POD, "Qwen3-32B").failures == {}


def test_a_rank_need_not_answer_until_it_has() -> None:
    joiner = Joiner()
    rank = ScrapeTarget("decode-0-1", "uid-1", "decode", group="key-0", leader=False)
    assert joiner.samples({rank: "cannot connect"}, SERVICE) == Samples()
    assert len(join(WORKER, rank, joiner=joiner).workers) == 1
    assert joiner.samples({rank: "cannot connect"}, SERVICE).failures == {"decode-0-1": "cannot connect"}
    assert joiner.samples({}, SERVICE) == Samples()
    assert joiner.samples({rank: "cannot connect"}, SERVICE) == Samples()


def test_every_engine_of_the_corpus_is_a_sample_of_its_pod() -> None:
    pages = {
        path.stem: path.read_text() for path in shared("data/metrics").glob("*.prom") if "json_body" not in path.name
    }
    assert len(pages) >= 20
    for name, text in pages.items():
        page = read_page(text)
        target = ROUTER_POD if page.kind != "engine" else PREFILL_POD if page.role == "prefill" else DECODE_POD
        samples = join(text, target)
        assert (len(samples.routers) + len(samples.workers), samples.failures) == (1, {}), name
