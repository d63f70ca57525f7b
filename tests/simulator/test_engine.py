"""What one engine does, by the clock: small sequences worked out by hand, and what must hold for any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings

from perfmodel.profile import load_profile
from perfmodel.steps import Chunk, DecodeLine, ProfileSteps
from simulator.config import EngineConfig, EngineError, Mode
from simulator.engine import Engine
from simulator.job import Event, Happened, Job
from simulator.replay import replay
from tests.simulator.reference import Costs
from tests.simulator.test_against_reference import configs, requests

SMALL = EngineConfig(
    max_num_seqs=2, max_num_batched_tokens=10, max_model_len=100, block_tokens=4, async_scheduling=False
)


class Flat:
    """A decode step takes 1 s, a step with a chunk 2 s."""

    max_tokens, max_seqs, max_context = 1000, 100, 1000

    def decode_line(self, seqs: int) -> DecodeLine:
        return DecodeLine((0.0, 1000.0), (1.0, 1.0))

    def mixed_s(self, chunks: Sequence[Chunk], seqs: int, context: float) -> float:
        return 2.0


def run(config: EngineConfig, *asked: tuple[float, Job]) -> list[Event]:
    events: list[Event] = []
    replay(Engine(config, Flat()), asked, events.append)
    return events


def stamps(job: Job) -> tuple[float | None, ...]:
    return (job.queued_s, job.scheduled_s, job.first_token_s, job.last_token_s)


def test_two_seats_for_three_requests() -> None:
    first, second, third = Job(10, 3), Job(8, 3), Job(9, 2)
    run(SMALL, (0, first), (0, second), (0, third))
    assert [stamps(one) for one in (first, second, third)] == [(0, 0, 2, 5), (2, 2, 4, 7), (2, 5, 7, 8)]


def test_with_asynchronous_scheduling_newcomers_wait_one_more_step() -> None:
    first, second, third = Job(10, 3), Job(8, 3), Job(9, 2)
    run(replace(SMALL, async_scheduling=True), (0, first), (0, second), (0, third))
    assert [stamps(one) for one in (first, second, third)] == [(0, 0, 2, 5), (2, 2, 5, 8), (2, 5, 8, 9)]


def test_a_long_prompt_is_computed_in_chunks_beside_decoding() -> None:
    short, long = Job(4, 9), Job(25, 1)
    run(SMALL, (0, short), (0, long))
    # 9 tokens a step are left beside the one that decodes: 9 + 9 + 7.
    assert stamps(long) == (2, 2, 8, 8)
    assert stamps(short) == (0, 0, 2, 13)


def test_a_prefix_in_the_cache_is_not_computed_but_for_its_last_token() -> None:
    cached, whole = Job(25, 1, cached_tokens=20), Job(20, 1, cached_tokens=20)
    run(SMALL, (0, cached), (50, whole))
    assert cached.first_token_s == 2
    assert whole.first_token_s == 52


def test_the_last_admitted_gives_way_and_goes_first_again() -> None:
    first, second, third = Job(7, 6), Job(7, 6), Job(1, 1)
    events = run(replace(SMALL, kv_blocks=4), (0, first), (0.5, second), (0.6, third))
    # At 4 s the first needs a third block; the second gives both of its own and comes back when they are free.
    assert stamps(first) == (0, 0, 2, 8)
    assert stamps(second) == (2, 2, 4, 14)
    assert (first.preemptions, second.preemptions) == (0, 1)
    assert third.scheduled_s == 8
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)


def test_a_preempted_request_finds_again_what_nobody_took() -> None:
    computed = []

    class Watched(Flat):
        def mixed_s(self, chunks: Sequence[Chunk], seqs: int, context: float) -> float:
            computed.append(list(chunks))
            return 2.0

    jobs = [(0.0, Job(15, 3)), (0.5, Job(16, 6))]
    config = replace(SMALL, max_num_batched_tokens=40, kv_blocks=8)
    replay(Engine(config, Watched()), jobs)
    # The second had 4 blocks, one of which the first took: 3 are left of its first 16 tokens.
    assert jobs[1][1].preemptions == 1
    assert computed == [[(15, 0)], [(16, 0)], [(5, 12)]]
    computed.clear()
    again = [(0.0, Job(15, 3)), (0.5, Job(16, 6))]
    replay(Engine(replace(config, prefix_caching=False), Watched()), again)
    assert computed[-1] == [(17, 0)]


@pytest.mark.parametrize("job", [Job(60, 41), Job(30, 3)])
def test_what_can_never_fit_is_rejected(job: Job) -> None:
    assert run(replace(SMALL, kv_blocks=8), (3, job)) == [Event(3, Happened.REJECTED, job)]
    assert job.queued_s is None


def test_a_prefill_engine_keeps_the_kv_until_it_is_pulled() -> None:
    engine = Engine(replace(SMALL, mode=Mode.PREFILL, kv_blocks=3), Flat())
    first, second = Job(9, 50), Job(4, 50)
    engine.submit(first, 0)
    engine.submit(second, 1)
    assert [event.what for event in engine.advance(10)] == [Happened.FIRST_TOKEN, Happened.PREFILLED]
    assert engine.next_event_s() == inf
    assert engine.snapshot(10).values["vllm:kv_cache_usage_perc"] == 1
    engine.release(first, 20)
    assert [(event.at_s, event.what) for event in engine.advance(30)][-1] == (22, Happened.PREFILLED)
    engine.release(second, 30)
    assert engine.idle
    with pytest.raises(KeyError):
        engine.release(second, 31)


def test_a_decode_engine_reserves_room_and_waits_for_the_kv() -> None:
    engine = Engine(replace(SMALL, mode=Mode.DECODE, kv_blocks=5, async_scheduling=True), Flat())
    first, second, third = Job(10, 2), Job(7, 2), Job(3, 1)
    for job in (first, second, third):
        engine.submit(job, 0)
    assert engine.advance(0) == [Event(0, Happened.ROOM, first), Event(0, Happened.ROOM, second)]
    assert engine.snapshot(0).waiting_by_reason == {"capacity": 1, "deferred": 2}
    engine.kv_arrived(first, 5)
    engine.kv_arrived(second, 5.5)
    events = engine.advance(8)
    # The second is noticed at 6 s, when the step to 7 s is planned already.
    assert [(event.at_s, event.what, event.job) for event in events] == [
        (6, Happened.FIRST_TOKEN, first),
        (7, Happened.FINISHED, first),
        (7, Happened.ROOM, third),
        (8, Happened.FIRST_TOKEN, second),
    ]
    assert engine.advance(100) == [Event(9, Happened.FINISHED, second)]


def test_a_snapshot_within_a_run_of_steps_counts_the_steps_that_have_ended() -> None:
    engine = Engine(replace(SMALL, kv_blocks=20), Flat())
    engine.submit(Job(4, 40), 0)
    for now_s, tokens, blocks in ((1, 0, 1), (2, 1, 2), (2.5, 1, 2), (5, 4, 2), (6.5, 5, 3)):
        engine.advance(now_s)
        values = engine.snapshot(now_s).values
        assert values["vllm:generation_tokens_total"] == tokens
        assert values["vllm:kv_cache_usage_perc"] == pytest.approx(blocks / 20)
    histogram = engine.snapshot(6.5).histograms["vllm:inter_token_latency_seconds"]
    assert (sum(histogram.counts), histogram.sum_s) == (4, 4)


def test_time_does_not_need_to_be_advanced_before_a_call() -> None:
    engine = Engine(SMALL, Flat())
    early, late = Job(4, 2), Job(4, 1)
    engine.submit(early, 0)
    engine.submit(late, 100)
    assert engine.next_event_s() == 2
    assert [event.job for event in engine.advance(200)] == [early, early, late, late]


@pytest.mark.parametrize("asked", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_a_job_without_tokens_is_refused(asked: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 1 or more in prompt and output, 0 or more cached"):
        Job(*asked)


def test_time_does_not_go_back() -> None:
    engine = Engine(SMALL, Flat())
    engine.advance(5)
    with pytest.raises(ValueError, match=r"to_s = 4: expected 5 or later, time does not go back"):
        engine.submit(Job(1, 1), 4)


@settings(max_examples=100, deadline=None)
@given(configs, requests)
def test_what_holds_for_any_load(config: EngineConfig, asked: list[tuple[float, int, int, int]]) -> None:
    engine = Engine(config, Costs())
    at_s = [sum(gap_s for gap_s, *_ in asked[: i + 1]) for i in range(len(asked))]
    jobs = [Job(prompt, output, cached) for _, prompt, output, cached in asked]
    events: list[Event] = []

    def happened(event: Event) -> None:
        events.append(event)
        assert 0 <= engine.snapshot(event.at_s).values["vllm:kv_cache_usage_perc"] <= 1 + 1e-9

    replay(engine, zip(at_s, jobs, strict=True), happened)
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
    rejected = {event.job for event in events if event.what is Happened.REJECTED}
    served = [job for job in jobs if job not in rejected]
    values = engine.snapshot(1e9).values
    assert values["vllm:generation_tokens_total"] == sum(job.output_tokens for job in served)
    assert values["vllm:prompt_tokens_total"] == sum(job.prompt_tokens for job in served)
    assert values["vllm:request_success_total"] == len(served)
    assert values["vllm:kv_cache_usage_perc"] == pytest.approx(0, abs=1e-9)
    assert engine.idle
    scheduled_s = [job.scheduled_s or 0.0 for job in served]
    assert scheduled_s == sorted(scheduled_s), "first come, first served"
    histograms = engine.snapshot(1e9).histograms
    assert sum(histograms["vllm:time_to_first_token_seconds"].counts) == len(served)
    gaps = sum(job.output_tokens - 1 for job in served)
    assert sum(histograms["vllm:inter_token_latency_seconds"].counts) == gaps
    spent_s = sum((job.last_token_s or 0.0) - (job.first_token_s or 0.0) for job in served)
    assert histograms["vllm:inter_token_latency_seconds"].sum_s == pytest.approx(spent_s)


def test_settings_beyond_the_profile_are_named_all_at_once() -> None:
    wrong = replace(SMALL, max_num_seqs=101, max_model_len=2000, kv_blocks=0)
    with pytest.raises(EngineError) as caught:
        Engine(wrong, Flat())
    assert caught.value.problems == (
        "max_num_seqs = 101: expected 1 to 100, which the profile covers",
        "max_model_len = 2000: expected 1 to 1000, which the profile covers",
        "max_num_batched_tokens = 10: expected max_num_seqs or more",
        "kv_blocks = 0: expected 1 or more, or none for no limit",
    )


def test_a_trace_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match=r"arrival_s = 1: expected 2 or later; sort the trace by time"):
        run(SMALL, (2, Job(1, 1)), (1, Job(1, 1)))


@pytest.mark.parametrize("mode", list(Mode))
def test_an_engine_of_a_shipped_profile(mode: Mode) -> None:
    profile = load_profile()
    config = EngineConfig.from_profile(profile, mode)
    assert config.kv_blocks == profile.kv_capacity_tokens // 16
    engine, job = Engine(config, ProfileSteps(profile)), Job(1000, 10)
    engine.submit(job, 0)
    if mode is Mode.DECODE:
        engine.kv_arrived(job, 1)
    events = engine.advance(100)
    what = Happened.PREFILLED if mode is Mode.PREFILL else Happened.FINISHED
    assert (events[-1].what, events[-1].job) == (what, job)
    first_s = profile.decode_ms(1, 1000) / 1e3 + 1 if mode is Mode.DECODE else profile.prefill_ms(1000) / 1e3
    assert job.first_token_s == pytest.approx(first_s)


def test_a_job_whose_kv_will_not_come_gives_its_room_back() -> None:
    """Room for two; the third waits until the first, reserved and withdrawn, lets it in."""
    config = replace(SMALL, mode=Mode.DECODE, kv_blocks=2)
    engine = Engine(config, Flat())
    jobs = [Job(3, 2) for _ in range(3)]
    for job in jobs:
        engine.submit(job, 0.0)
    assert [event.job for event in engine.advance(0.0)] == jobs[:2]
    engine.withdraw(jobs[0], 1.0)
    assert [(event.what, event.job) for event in engine.advance(1.0)] == [(Happened.ROOM, jobs[2])]
    for job in jobs[1:]:
        engine.withdraw(job, 2.0)
    assert engine.idle
    assert engine.snapshot(2.0).values["vllm:kv_cache_usage_perc"] == 0.0
    with pytest.raises(ValueError, match="not in deque"):
        engine.withdraw(jobs[0], 3.0)
