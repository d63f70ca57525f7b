"""The KV blocks of one engine: who needs a new block when, without looking at each sequence.

Rules:
1. A decoding sequence takes one token a step and so one block every `block_tokens` steps, always at the same phase of
   the step count. Counting sequences per phase tells the blocks that the next k steps take.
2. A sequence whose next step has context c (the token being computed included) holds ceil((c - 1) / block_tokens).
3. Freed blocks are reused oldest first (vLLM's free queue), so that a preempted sequence finds again what has not been
   handed out since.
"""

from __future__ import annotations

from math import inf


class KvBlocks:
    """Free blocks and the growth to come. `total` None: no limit is known, and nothing is ever short."""

    def __init__(self, total: int | None, block_tokens: int) -> None:
        self.total = total
        self.block_tokens = block_tokens
        self.free: float = inf if total is None else total
        self.handed_out = 0
        self._due = [0] * block_tokens
        self._sequences = 0

    def blocks(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_tokens)

    def take(self, blocks: int) -> None:
        """Hand out blocks that are free."""
        self.free -= blocks
        self.handed_out += blocks

    def give(self, blocks: int) -> None:
        """Take back blocks."""
        self.free += blocks

    def phase(self, tick: int, context: int) -> int:
        """At which step counts, modulo the block, a sequence with this context at step `tick` takes a block."""
        return (tick + 1 - context) % self.block_tokens

    def join(self, phase: int) -> None:
        """A sequence starts to grow."""
        self._due[phase] += 1
        self._sequences += 1

    def leave(self, phase: int) -> None:
        """A sequence grows no more."""
        self._due[phase] -= 1
        self._sequences -= 1

    def needed(self, tick: int, steps: int) -> int:
        """The blocks that `steps` steps from step count `tick` on take. Linear in the block's tokens."""
        cycles, rest = divmod(steps, self.block_tokens)
        first = tick % self.block_tokens
        due = self._due
        extra = sum(due[first : first + rest])
        if first + rest > self.block_tokens:
            extra += sum(due[: first + rest - self.block_tokens])
        return cycles * self._sequences + extra

    def steps_that_fit(self, tick: int, most: int) -> int:
        """The most steps from `tick` on, up to `most`, for which the free blocks suffice."""
        if self.free >= self._sequences * (most // self.block_tokens + 1):
            return most
        cycles = int(self.free // self._sequences)
        steps, left = cycles * self.block_tokens, self.free - cycles * self._sequences
        while steps < most:
            left -= self._due[(tick + steps) % self.block_tokens]
            if left < 0:
                break
            steps += 1
        return min(steps, most)

    @property
    def usage(self) -> float:
        """The share of blocks in use, 0 to 1; 0 where no limit is known."""
        return 0.0 if self.total is None else 1 - self.free / self.total
