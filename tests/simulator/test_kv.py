"""Blocks counted by phase are those that each sequence would take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulator.kv import KvBlocks

contexts = st.lists(st.integers(1, 100), min_size=1, max_size=12)


def one_by_one(kv: KvBlocks, contexts: list[int], steps: int) -> int:
    """A sequence holds the blocks of its context - 1 tokens before, and of `steps` more after."""
    return sum(kv.blocks(context - 1 + steps) - kv.blocks(context - 1) for context in contexts)


@given(contexts, st.sampled_from([1, 4, 16]), st.integers(0, 1000), st.integers(0, 70))
def test_blocks_needed(contexts: list[int], block_tokens: int, tick: int, steps: int) -> None:
    kv = KvBlocks(None, block_tokens)
    for context in contexts:
        kv.join(kv.phase(tick, context))
    assert kv.needed(tick, steps) == one_by_one(kv, contexts, steps)


@given(contexts, st.sampled_from([1, 4, 16]), st.integers(0, 40), st.integers(0, 70))
def test_steps_that_fit(contexts: list[int], block_tokens: int, free: int, most: int) -> None:
    kv = KvBlocks(free, block_tokens)
    for context in contexts:
        kv.join(kv.phase(7, context))
    steps = kv.steps_that_fit(7, most)
    assert one_by_one(kv, contexts, steps) <= free
    assert steps == most or one_by_one(kv, contexts, steps + 1) > free


def test_who_leaves_needs_nothing_more() -> None:
    kv = KvBlocks(10, 4)
    phase = kv.phase(3, 9)
    kv.join(phase)
    assert kv.needed(3, 1) == 1
    kv.leave(phase)
    assert kv.needed(3, 100) == 0
    kv.take(4)
    assert (kv.usage, kv.handed_out) == (0.4, 4)
    assert KvBlocks(None, 16).usage == 0
