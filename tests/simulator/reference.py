"""The oracle of the engine's tests: the same vLLM rules, one step and one sequence at a time.

It keeps no shared step count, no phases and no runs of steps: every sequence has its own tokens and blocks, and every
step is taken. What it shares with the engine are the settings and the costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from perfmodel.steps import Chunk, DecodeLine, StepCosts
from simulator.config import EngineConfig


class Costs:
    """Made-up costs of which no two sums are equal by accident; piecewise linear in the context, as a table is."""

    max_tokens = 4096
    max_seqs = 64
    max_context = 100_000

    def decode_line(self, seqs: int) -> DecodeLine:
        base_s = 0.0101 + 0.000_137 * seqs
        contexts = (0.0, 40.0, 90.0, 1000.0, 100_000.0)
        growth_s = (0.0, 0.000_31, 0.000_53, 0.013_7, 2.1)
        return DecodeLine(contexts, tuple(base_s + seqs * one / 7 for one in growth_s))

    def mixed_s(self, chunks: Sequence[Chunk], seqs: int, context: float) -> float:
        prompts_s = sum(0.0011 + 0.000_071 * new + 0.000_000_3 * new * (new / 2 + cached) for new, cached in chunks)
        return prompts_s + (self.decode_line(seqs).at(context) if seqs else 0.0107)


@dataclass(eq=False)
class Account:
    """One request's own account."""

    prompt: int
    output: int
    cached: int = 0
    generated: int = 0
    planned: int = 0
    computed: int = 0
    target: int = 0
    held: int = 0
    decoding: bool = False
    freed_mark: float | None = None
    queued_s: float = 0.0
    scheduled_s: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    preemptions: int = 0


class Reference:
    """A vLLM-like engine in mode both."""

    def __init__(self, config: EngineConfig, costs: StepCosts) -> None:
        self.config, self.costs = config, costs
        self.free: float = inf if config.kv_blocks is None else config.kv_blocks
        self.handed_out = 0
        self.inbox: list[Account] = []
        self.waiting: list[Account] = []
        self.running: list[Account] = []
        self.current: list[tuple[Account, int]] = []
        self.planned: list[tuple[Account, int]] = []
        self.decoding: list[Account] = []
        self.ends_s = inf
        self.generated = 0
        self.gaps_s: list[float] = []

    def blocks(self, tokens: int) -> int:
        return ceil(tokens / self.config.block_tokens)

    def submit(self, sequence: Account, now_s: float) -> None:
        sequence.target = sequence.prompt
        self.inbox.append(sequence)
        if self.ends_s == inf:
            self.begin(now_s)

    def advance(self, to_s: float) -> None:
        while self.ends_s <= to_s:
            now_s = self.ends_s
            self.settle(now_s)
            self.begin(now_s)

    def settle(self, now_s: float) -> None:
        for one in self.decoding:
            self.token(one, now_s)
        for one, tokens in self.current:
            one.computed += tokens
            if one.computed == one.target:
                one.decoding = True
                self.token(one, now_s)
        for one in [one for one in self.running if one.generated == one.output]:
            self.running.remove(one)
            self.free += one.held
            one.held = 0
        self.decoding, self.current = [], []

    def token(self, one: Account, now_s: float) -> None:
        if one.last_s is None:
            one.first_s = now_s
        else:
            self.gaps_s.append(now_s - one.last_s)
        one.last_s = now_s
        one.generated += 1
        self.generated += 1

    def begin(self, now_s: float) -> None:
        for one in self.inbox:
            one.queued_s = now_s
            self.waiting.append(one)
        self.inbox = []
        admit = self.grow()
        self.current, self.planned = self.planned, []
        if not self.config.async_scheduling or not (self.current or self.in_batch()):
            self.current = self.plan(now_s, admit, len(self.in_batch()))
        if self.config.async_scheduling and (self.current or self.in_batch()):
            ending = sum(one.computed + tokens == one.target for one, tokens in self.current)
            self.planned = self.plan(now_s, admit, len(self.in_batch()) + ending)
            if not (self.current or self.in_batch()):
                self.current, self.planned = self.planned, []
        self.decoding = self.in_batch()
        self.ends_s = now_s + self.cost() if self.current or self.decoding else inf

    def in_batch(self) -> list[Account]:
        return [one for one in self.running if one.decoding]

    def cost(self) -> float:
        seqs = len(self.decoding)
        context = sum(one.prompt + one.generated for one in self.decoding) / seqs if seqs else 0.0
        if not self.current:
            return self.costs.decode_line(seqs).at(context)
        return self.costs.mixed_s([(tokens, one.computed) for one, tokens in self.current], seqs, context)

    def allocate(self, one: Account, tokens: int) -> bool:
        """vLLM's loop: the last running gives way until the blocks suffice."""
        while self.blocks(tokens) - one.held > self.free:
            if self.preempt() is one:
                return False
        self.take(one, tokens)
        return True

    def take(self, one: Account, tokens: int) -> None:
        needed = self.blocks(tokens) - one.held
        one.held += needed
        self.free -= needed
        self.handed_out += needed

    def preempt(self) -> Account:
        one = self.running.pop()
        one.freed_mark = self.handed_out + self.free
        self.free += one.held
        one.held = one.planned = one.computed = 0
        one.decoding = False
        one.target = one.prompt + one.generated
        one.preemptions += 1
        self.current = [part for part in self.current if part[0] is not one]
        self.planned = [part for part in self.planned if part[0] is not one]
        self.waiting.insert(0, one)
        return one

    def grow(self) -> bool:
        before = len(self.waiting)
        for one in list(self.running):
            if one.decoding:
                self.allocate(one, one.prompt + one.generated)
        return len(self.waiting) == before

    def plan(self, now_s: float, admit: bool, decoding: int) -> list[tuple[Account, int]]:
        self.planned = []
        room, before = self.config.max_num_batched_tokens - decoding, len(self.waiting)
        for one in list(self.running):
            if one in self.running and not one.decoding and one.planned < one.target and room > 0:
                tokens = min(room, one.target - one.planned)
                if self.allocate(one, one.planned + tokens):
                    room -= self.chunk(one, tokens)
        while admit and len(self.waiting) == before and self.waiting and room > 0:
            one = self.waiting[0]
            if len(self.running) >= self.config.max_num_seqs or self.blocks(one.target) > self.free:
                break
            self.waiting.pop(0)
            before -= 1
            self.running.append(one)
            one.scheduled_s = now_s if one.scheduled_s is None else one.scheduled_s
            one.planned = one.computed = self.found(one)
            tokens = min(room, one.target - one.planned)
            self.take(one, one.planned + tokens)
            room -= self.chunk(one, tokens)
        return self.planned

    def chunk(self, one: Account, tokens: int) -> int:
        self.planned.append((one, tokens))
        one.planned += tokens
        return tokens

    def found(self, one: Account) -> int:
        """Tokens whose KV is there: cached from the start, or not yet handed out again since the preemption."""
        if not self.config.prefix_caching:
            return 0
        blocks: float = one.cached // self.config.block_tokens
        if one.freed_mark is not None:
            gone = max(0, self.handed_out - one.freed_mark)
            blocks = max(blocks, (one.target - 1) // self.config.block_tokens - gone)
        return min(int(blocks) * self.config.block_tokens, one.target - 1)
