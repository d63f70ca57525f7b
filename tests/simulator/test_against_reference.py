"""The engine does what one does that takes every step and looks at every sequence."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.recorded import load_run
from simulator.config import EngineConfig
from simulator.engine import Engine
from simulator.job import Job
from simulator.replay import replay
from tests.shared_data import shared
from tests.simulator.reference import Account, Costs, Reference

configs = st.builds(
    EngineConfig,
    max_num_seqs=st.integers(1, 12),
    max_num_batched_tokens=st.integers(12, 300),
    max_model_len=st.just(1000),
    kv_blocks=st.none() | st.integers(13, 60),
    block_tokens=st.sampled_from([1, 4, 16]),
    async_scheduling=st.booleans(),
    prefix_caching=st.booleans(),
)
gaps_s = st.floats(0.0, 0.3) | st.floats(0.0, 5.0)
requests = st.lists(st.tuples(gaps_s, st.integers(1, 150), st.integers(1, 60), st.integers(0, 100)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(configs, requests)
def test_every_stamp_and_gauge_agrees(config: EngineConfig, asked: list[tuple[float, int, int, int]]) -> None:
    engine, reference = Engine(config, Costs()), Reference(config, Costs())
    pairs: list[tuple[Job, Account]] = []
    now_s = 0.0
    for gap_s, prompt, output, cached in asked:
        if config.kv_blocks and reference.blocks(prompt + output) > config.kv_blocks:
            continue
        now_s += gap_s
        engine.advance(now_s)
        reference.advance(now_s)
        same_gauges(engine, reference, now_s)
        job, sequence = Job(prompt, output, cached), Account(prompt, output, cached)
        engine.submit(job, now_s)
        reference.submit(sequence, now_s)
        pairs.append((job, sequence))
    while engine.next_event_s() < inf:
        now_s = engine.next_event_s()
        engine.advance(now_s)
    reference.advance(1e9)
    same_gauges(engine, reference, 1e9)
    assert engine.idle
    histogram = engine.snapshot(1e9).histograms["vllm:inter_token_latency_seconds"]
    counts = [0] * len(histogram.counts)
    for gap_s in reference.gaps_s:
        counts[bisect_left(histogram.bounds_s, gap_s)] += 1
    assert histogram.counts == counts
    for job, sequence in pairs:
        same_stamps(job, sequence)


@pytest.mark.parametrize("kv_blocks", [None, 2500])
@pytest.mark.parametrize("name", ["RTXPRO6000_Llama-3.1-8B", "RTXPRO6000_Qwen3-32B"])
def test_a_recorded_run_agrees_on_measured_costs(name: str, kv_blocks: int | None) -> None:
    run = load_run(str(shared("data/validation") / name))
    config = replace(run.config, kv_blocks=kv_blocks)
    reference, arrivals = Reference(config, run.costs), run.arrivals()[:120]
    accounts = []
    for arrival_s, job in arrivals:
        reference.advance(arrival_s)
        accounts.append(Account(job.prompt_tokens, job.output_tokens))
        reference.submit(accounts[-1], arrival_s)
    reference.advance(1e9)
    replay(Engine(config, run.costs), arrivals)
    for (_, job), account in zip(arrivals, accounts, strict=True):
        same_stamps(job, account)
    assert (sum(account.preemptions for account in accounts) > 0) == (kv_blocks is not None)


def same_gauges(engine: Engine, reference: Reference, now_s: float) -> None:
    values = engine.snapshot(now_s).values
    assert values["vllm:num_requests_running"] == len(reference.running)
    assert values["vllm:num_requests_waiting"] == len(reference.waiting) + len(reference.inbox)
    assert values["vllm:generation_tokens_total"] == reference.generated
    total = reference.config.kv_blocks
    used = 1 - reference.free / total if total else 0.0
    assert values["vllm:kv_cache_usage_perc"] == pytest.approx(used, abs=1e-9)


def same_stamps(job: Job, sequence: Account) -> None:
    assert job.generated == job.output_tokens == sequence.generated
    assert job.preemptions == sequence.preemptions
    found = (job.queued_s, job.scheduled_s, job.first_token_s, job.last_token_s)
    expected = (sequence.queued_s, sequence.scheduled_s, sequence.first_s, sequence.last_s)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
