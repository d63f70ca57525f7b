"""The engine's state machines in virtual time."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.profile import Profile, parse_profile
from serving.engine import STALL_S, DecodeEngine, KvPool, Link, PrefillEngine, PrefillJob, Sequence

from .conftest import TINY


def profile(**changes: object) -> Profile:
    return parse_profile(copy.deepcopy(TINY) | changes, "tiny")


def job(name: str, tokens: int, at_s: float = 0.0) -> PrefillJob:
    return PrefillJob(name, tokens, "00", at_s)


def run_prefill(engine: PrefillEngine, until_s: float = 100.0) -> list[tuple[str, float]]:
    """(prompt, ms) in the order in which prompts are completed."""
    done = []
    while engine.due_s is not None and engine.due_s <= until_s:
        at_s = engine.due_s
        done += [(job.id, round(at_s * 1e3, 3)) for job in engine.step(at_s) or []]
    return done


def run_decode(engine: DecodeEngine, until_s: float = 100.0) -> list[tuple[str, int, float]]:
    """(sequence, token number, ms) in order."""
    tokens = []
    while engine.due_s is not None and engine.due_s <= until_s:
        at_s = engine.due_s
        tokens += [(s.id, s.emitted, round(at_s * 1e3, 3)) for s in engine.step(at_s) or []]
    return tokens


def start(engine: DecodeEngine, name: str, prompt: int, tokens: int, at_s: float) -> None:
    engine.submit(Sequence(name, prompt, tokens, at_s))
    for sequence in engine.admit(at_s):
        engine.loaded(sequence.id, at_s)


# 1 ms + 10 us a new token, and 1 us a cached token per step (see TINY).
@pytest.mark.parametrize(
    ("prompts", "done"),
    [
        ([("a", 100)], [("a", 2.0)]),
        ([("a", 512)], [("a", 6.12)]),
        # Two chunks: 512, then 88 behind 512 cached tokens.
        ([("a", 600)], [("a", 6.12 + 1.88 + 0.512)]),
        # b and c are packed behind the rest of a: 6.12, then 1 + 2.38 for 238 tokens, 0.512 for a's first chunk.
        ([("a", 600), ("b", 100), ("c", 50)], [("a", 10.012), ("b", 10.012), ("c", 10.012)]),
        # a alone, then as much of b as fits beside nothing else.
        ([("a", 512), ("b", 512)], [("a", 6.12), ("b", 12.24)]),
    ],
)
def test_prefill_packs_chunks_first_in_first_out(prompts: list[tuple[str, int]], done: list[tuple[str, float]]) -> None:
    engine = PrefillEngine(profile(), lease_s=60)
    for name, tokens in prompts:
        engine.submit(job(name, tokens), 0.0)
    assert run_prefill(engine) == [(name, pytest.approx(ms, abs=1e-3)) for name, ms in done]
    assert set(engine.held) == {name for name, _ in prompts}


def test_a_packed_step_serves_whole_prompts_and_a_part() -> None:
    engine = PrefillEngine(profile(), lease_s=60)
    for name, tokens in (("a", 100), ("b", 200), ("c", 400)):
        engine.submit(job(name, tokens), 0.0)
    # a starts alone; then b and 312 of c; then the last 88 of c.
    assert run_prefill(engine) == [("a", 2.0), ("b", 8.12), ("c", pytest.approx(8.12 + 1.88 + 0.312))]


def test_prefill_waits_for_kv_room_until_a_pull() -> None:
    engine = PrefillEngine(profile(kv_capacity_tokens=1600), lease_s=60)
    for name in "abcd":
        engine.submit(job(name, 512), 0.0)
    assert [name for name, _ in run_prefill(engine)] == ["a", "b", "c"]
    assert [waiting.id for waiting in engine.waiting] == ["d"]
    assert engine.due_s is None
    engine.release("b", 1.0)
    assert run_prefill(engine) == [("d", pytest.approx(1006.12))]
    assert set(engine.held) == {"a", "c", "d"}


def test_nothing_overtakes_a_prompt_that_waits_for_room() -> None:
    engine = PrefillEngine(profile(kv_capacity_tokens=1600), lease_s=60)
    for name, tokens in (("a", 1200), ("big", 800), ("small", 16)):
        engine.submit(job(name, tokens), 0.0)
    assert [name for name, _ in run_prefill(engine)] == ["a"]
    assert [waiting.id for waiting in engine.waiting] == ["big", "small"]


@pytest.mark.parametrize("when", ["waiting", "running", "held", "never"])
def test_a_released_prompt_leaves_nothing_behind(when: str) -> None:
    engine = PrefillEngine(profile(), lease_s=60)
    engine.submit(job("first", 512), 0.0)
    engine.submit(job("x", 512), 0.0)
    stop_s = {"waiting": 0.0, "running": 0.007, "held": 1.0, "never": 1.0}[when]
    run_prefill(engine, stop_s)
    engine.release("nobody" if when == "never" else "x", stop_s)
    run_prefill(engine)
    assert set(engine.held) == ({"first", "x"} if when == "never" else {"first"})
    engine.release("x", 2.0)
    engine.release("first", 2.0)
    assert engine.idle
    assert engine.pool.used_blocks == 0


def test_decode_tokens_come_at_the_steps_of_the_batch() -> None:
    engine = DecodeEngine(profile())
    start(engine, "a", 100, 3, 0.0)
    # ITL: 2 ms + 0.1 ms a sequence + 1 us per token of the mean context.
    assert run_decode(engine) == [("a", 1, 2.2), ("a", 2, 4.401), ("a", 3, 6.603)]
    assert engine.idle
    assert engine.pool.used_blocks == 0


def test_who_comes_during_a_step_joins_the_next() -> None:
    engine = DecodeEngine(profile())
    start(engine, "a", 100, 3, 0.0)
    start(engine, "b", 300, 1, 0.001)
    tokens = run_decode(engine)
    assert tokens[0] == ("a", 1, 2.2)
    # mean context (101 + 300) / 2 = 200.5 tokens
    assert tokens[1:3] == [("a", 2, 4.601), ("b", 1, 4.601)]
    assert [name for name, *_ in tokens[3:]] == ["a"]


@pytest.mark.parametrize(
    ("sequences", "running", "waiting"),
    [
        ([(100, 10)] * 10, 8, 2),  # max_num_seqs
        ([(3000, 1000)] * 5, 4, 1),  # KV for prompt and answer
        ([(3000, 1000)] * 3 + [(3500, 501), (10, 10)], 3, 2),  # nothing overtakes
    ],
)
def test_decode_admits_what_fits_to_the_end(sequences: list[tuple[int, int]], running: int, waiting: int) -> None:
    engine = DecodeEngine(profile(kv_capacity_tokens=16_000))
    for number, (prompt, tokens) in enumerate(sequences):
        engine.submit(Sequence(str(number), prompt, tokens, 0.0))
    assert len(engine.admit(0.0)) == running
    assert (len(engine.loading), len(engine.waiting)) == (running, waiting)


def test_late_callers_do_not_slow_the_engine_but_stalls_do() -> None:
    engine = DecodeEngine(profile())
    start(engine, "a", 100, 100, 0.0)
    assert engine.step(0.001) is None
    # 50 ms late: the steps of the meantime are all due, on the engine's own clock.
    caught_up = 0
    while engine.step(0.0522) is not None:
        caught_up += 1
    assert caught_up == 23
    before_s = engine.due_s
    assert before_s is not None
    assert engine.step(before_s + STALL_S + 1.0) is not None
    assert engine.due_s is not None
    assert engine.due_s > before_s + STALL_S + 1.0


def test_an_aborted_sequence_gets_no_token_and_frees_its_room() -> None:
    engine = DecodeEngine(profile())
    start(engine, "a", 100, 5, 0.0)
    start(engine, "b", 100, 5, 0.0)
    run_decode(engine, 0.003)
    engine.release("a")
    assert {name for name, *_ in run_decode(engine)} == {"b"}
    assert engine.idle
    assert engine.pool.used_blocks == 0


def test_transfers_follow_each_other_on_the_link() -> None:
    link = Link()
    assert link.reserve(1.0, 500) == 1.5
    assert link.reserve(1.1, 500) == 2.0
    assert link.reserve(5.0, 500) == 5.5


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 400)), max_size=40))
def test_a_pool_never_gives_out_more_than_it_has(moves: list[tuple[int, int]]) -> None:
    pool = KvPool(1000)
    held: dict[str, int] = {}
    for name, tokens in moves:
        owner = str(name)
        if owner in held:
            pool.free(owner)
            del held[owner]
        elif pool.take(owner, tokens):
            held[owner] = -(-tokens // 16)
        assert pool.used_blocks == sum(held.values()) <= pool.total_blocks == 62
        assert 0 <= pool.usage <= 1


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 0.05), st.booleans()), min_size=1, max_size=12),
)
def test_every_prompt_is_computed_once_or_dropped(prompts: list[tuple[int, float, bool]]) -> None:
    engine = PrefillEngine(profile(), lease_s=60)
    done = []
    for number, (tokens, at_s, dropped) in enumerate(sorted(prompts, key=lambda prompt: prompt[1])):
        done += run_prefill(engine, at_s)
        engine.submit(job(str(number), tokens, at_s), at_s)
        if dropped:
            engine.release(str(number), at_s)
        for name in [*engine.held]:
            engine.release(name, at_s)
    done += run_prefill(engine)
    for name in [*engine.held]:
        engine.release(name, 100.0)
    kept = [str(n) for n, prompt in enumerate(sorted(prompts, key=lambda prompt: prompt[1])) if not prompt[2]]
    assert [name for name, _ in done] == kept
    assert engine.idle
    assert engine.pool.used_blocks == 0
