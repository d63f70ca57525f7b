"""Virtual time, and engines of both roles on one clock."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.clock import Clock
from simulator.config import EngineConfig, Mode
from simulator.driver import EngineDriver
from simulator.engine import Engine
from simulator.job import Event, Happened, Job
from tests.simulator.reference import Costs


def test_actions_happen_in_order_of_time_and_then_of_entry() -> None:
    clock = Clock()
    seen: list[tuple[str, float]] = []
    clock.at(2, lambda now_s: seen.append(("c", now_s)))
    clock.at(1, lambda now_s: seen.append(("a", now_s)))
    clock.at(1, lambda now_s: clock.at(1, lambda later_s: seen.append(("b", later_s))))
    clock.at(3, lambda now_s: seen.append(("cancelled", now_s))).cancel()
    clock.run(until_s=1)
    assert seen == [("a", 1), ("b", 1)]
    assert clock.now_s == 1
    clock.run()
    assert (seen[-1], clock.now_s) == (("c", 2), 2)
    clock.run(until_s=9)
    assert clock.now_s == 9


@pytest.mark.parametrize("due_s", [4.9, inf, nan])
def test_a_time_that_cannot_come_is_refused(due_s: float) -> None:
    with pytest.raises(ValueError, match=r"due_s = .*: expected a time from 5.0 on"):
        Clock(5.0).at(due_s, lambda now_s: None)


TRANSFER_S = 0.05


class Pair:
    """A prefill and a decode engine with a link between them: the smallest fleet."""

    def __init__(self, config: EngineConfig) -> None:
        self.clock = Clock()
        self.prefill = EngineDriver(self.clock, Engine(replace(config, mode=Mode.PREFILL), Costs()), self.prefilled)
        self.decode = EngineDriver(self.clock, Engine(replace(config, mode=Mode.DECODE), Costs()), self.decoded)
        self.done: list[tuple[Job, Job]] = []
        self.usage: list[float] = []

    def come(self, prompt: int, output: int, now_s: float) -> None:
        self.prefill.submit(Job(prompt, output))

    def prefilled(self, driver: EngineDriver, event: Event) -> None:
        if event.what is Happened.PREFILLED:
            self.decode.submit(Job(event.job.prompt_tokens, event.job.output_tokens, tag=event.job))

    def decoded(self, driver: EngineDriver, event: Event) -> None:
        self.usage.append(driver.engine.snapshot(event.at_s).values["vllm:kv_cache_usage_perc"])
        if event.what is Happened.ROOM:
            self.clock.at(event.at_s + TRANSFER_S, lambda now_s: self.pulled(event.job))
        elif event.what is Happened.FINISHED:
            self.done.append((event.job.tag, event.job))

    def pulled(self, job: Job) -> None:
        self.prefill.release(job.tag)
        self.decode.kv_arrived(job)


def served(config: EngineConfig, seed: int, count: int = 150) -> Pair:
    pair, generator, at_s = Pair(config), random.Random(seed), 0.0
    for _ in range(count):
        at_s += generator.expovariate(30)
        prompt, output = generator.randint(1, 200), generator.randint(1, 80)
        pair.clock.at(at_s, partial(pair.come, prompt, output))
    pair.clock.run()
    return pair


TIGHT = EngineConfig(max_num_seqs=20, max_num_batched_tokens=256, max_model_len=400, kv_blocks=90)


@pytest.mark.parametrize("ahead", [False, True])
def test_prefill_and_decode_hand_over_under_one_clock(ahead: bool) -> None:
    pair = served(replace(TIGHT, async_scheduling=ahead), seed=4)
    assert len(pair.done) == 150
    assert pair.prefill.engine.idle
    assert pair.decode.engine.idle
    assert 0.95 < max(pair.usage) <= 1
    assert sum(job.preemptions for _, job in pair.done) > 0
    for before, job in pair.done:
        assert before.last_token_s is not None
        assert job.first_token_s is not None
        assert job.first_token_s > before.last_token_s + TRANSFER_S
    decoded = pair.decode.engine.snapshot(pair.clock.now_s).values["vllm:generation_tokens_total"]
    assert decoded == sum(job.output_tokens for _, job in pair.done)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        EngineConfig,
        max_num_seqs=st.integers(1, 20),
        max_num_batched_tokens=st.integers(20, 256),
        max_model_len=st.just(400),
        kv_blocks=st.integers(72, 300),
        block_tokens=st.just(4),
        async_scheduling=st.booleans(),
        prefix_caching=st.booleans(),
    ),
    st.integers(0, 1000),
)
def test_nobody_is_left_behind_however_tight_it_is(config: EngineConfig, seed: int) -> None:
    pair = served(config, seed, count=30)
    assert len(pair.done) == 30
    for driver in (pair.prefill, pair.decode):
        assert driver.engine.idle
        assert driver.engine.snapshot(pair.clock.now_s).values["vllm:kv_cache_usage_perc"] == 0


def test_equal_seeds_give_equal_runs() -> None:
    first, second, other = served(TIGHT, seed=1), served(TIGHT, seed=1), served(TIGHT, seed=2)
    assert [job.last_token_s for _, job in first.done] == [job.last_token_s for _, job in second.done]
    assert first.clock.now_s != other.clock.now_s


def test_an_engine_that_is_stopped_tells_nothing_more() -> None:
    pair = Pair(TIGHT)
    pair.come(50, 5, now_s=0)
    pair.prefill.stop()
    pair.clock.run()
    assert pair.done == []
    assert pair.clock.now_s == 0
