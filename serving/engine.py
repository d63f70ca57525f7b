"""The profile engine: what a GPU would be doing at `now_s`, as state machines in virtual time; pure.

Rules:
1. Every method that needs the time is given it. A driver calls `step(now_s)` until it returns None, and
   again at `due_s`.
2. Steps follow each other on the engine's own clock, so that a late caller does not slow the engine down.
   A stall longer than STALL_S is lost time, as it would be on a GPU.
3. KV room is taken before work starts and given back exactly once.
4. First in, first out: a request that does not fit holds those behind it, so that nothing starves.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from perfmodel.profile import Profile

BLOCK_TOKENS = 16
STALL_S = 0.25


class KvPool:
    """KV blocks, by the request that holds them."""

    def __init__(self, capacity_tokens: int) -> None:
        self.total_blocks = capacity_tokens // BLOCK_TOKENS
        self.used_blocks = 0
        self._held: dict[str, int] = {}

    def take(self, owner: str, tokens: int) -> bool:
        """Reserve room; False, and nothing taken, when there is none."""
        blocks = -(-tokens // BLOCK_TOKENS)
        if self.used_blocks + blocks > self.total_blocks:
            return False
        self._held[owner] = blocks
        self.used_blocks += blocks
        return True

    def free(self, owner: str) -> None:
        """Give back what `owner` holds, if anything."""
        self.used_blocks -= self._held.pop(owner, 0)

    def fits(self, tokens: int) -> bool:
        """Whether an empty pool could hold this."""
        return tokens <= self.total_blocks * BLOCK_TOKENS

    @property
    def usage(self) -> float:
        """0 to 1."""
        return self.used_blocks / self.total_blocks


class Link:
    """The one link out of a prefill worker: transfers follow each other."""

    def __init__(self) -> None:
        self._free_at_s = 0.0

    def reserve(self, now_s: float, transfer_ms: float) -> float:
        """When a transfer that is asked for now will have ended."""
        self._free_at_s = max(self._free_at_s, now_s) + transfer_ms / 1e3
        return self._free_at_s


@dataclass(slots=True, eq=False)
class PrefillJob:
    """A prompt: waiting, then computed in chunks, then held until its KV is pulled."""

    id: str
    prompt_tokens: int
    digest: str
    arrived_s: float
    done_tokens: int = 0
    started_s: float | None = None
    expires_s: float = 0.0
    dropped: bool = False


class PrefillEngine:
    """Chunked prefill: each step packs up to `prefill_chunk_tokens` from the oldest prompts."""

    def __init__(self, profile: Profile, lease_s: float) -> None:
        self.pool = KvPool(profile.kv_capacity_tokens)
        self.waiting: deque[PrefillJob] = deque()
        self.running: list[PrefillJob] = []
        self.held: dict[str, PrefillJob] = {}
        self.due_s: float | None = None
        self._profile = profile
        self._lease_s = lease_s
        self._pieces: list[tuple[PrefillJob, int]] = []

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by stopping now."""
        return not (self.waiting or self.running or self.held)

    def submit(self, job: PrefillJob, now_s: float) -> None:
        """Queue a prompt; an idle engine starts on it."""
        self.waiting.append(job)
        self._start_if_idle(now_s)

    def step(self, now_s: float) -> list[PrefillJob] | None:
        """End one step that is due and begin the next; the prompts that it completed, or None if none is due."""
        if self.due_s is None or now_s < self.due_s:
            return None
        ended_s = self.due_s
        finished = []
        for job, tokens in self._pieces:
            job.done_tokens += tokens
            if job.done_tokens == job.prompt_tokens and not job.dropped:
                self.running.remove(job)
                job.expires_s = now_s + self._lease_s
                self.held[job.id] = job
                finished.append(job)
        self._begin(ended_s if now_s - ended_s < STALL_S else now_s)
        return finished

    def release(self, job_id: str, now_s: float) -> None:
        """Forget a prompt wherever it is: pulled, aborted or expired."""
        self.held.pop(job_id, None)
        for job in [job for job in (*self.waiting, *self.running) if job.id == job_id]:
            job.dropped = True
            (self.waiting if job.started_s is None else self.running).remove(job)
        self.pool.free(job_id)
        self._start_if_idle(now_s)

    def _start_if_idle(self, now_s: float) -> None:
        if self.due_s is None:
            self._begin(now_s)

    def _begin(self, at_s: float) -> None:
        self._pieces = self._pack(at_s)
        self.due_s = at_s + self._step_ms() / 1e3 if self._pieces else None

    def _pack(self, at_s: float) -> list[tuple[PrefillJob, int]]:
        room = self._profile.prefill_chunk_tokens
        pieces: list[tuple[PrefillJob, int]] = []
        for job in self.running:
            pieces.append((job, min(room, job.prompt_tokens - job.done_tokens)))
            room -= pieces[-1][1]
        while room and self.waiting and self.pool.take(self.waiting[0].id, self.waiting[0].prompt_tokens):
            job = self.waiting.popleft()
            job.started_s = at_s
            self.running.append(job)
            pieces.append((job, min(room, job.prompt_tokens)))
            room -= pieces[-1][1]
        return [piece for piece in pieces if piece[1]]

    def _step_ms(self) -> float:
        """One packed step, plus what attention to each piece's own earlier chunks adds."""
        time_of = self._profile.prefill_ms
        earlier = [(tokens, job.done_tokens) for job, tokens in self._pieces if job.done_tokens]
        extra_ms = sum(time_of(tokens, done) - time_of(tokens, 0) for tokens, done in earlier)
        return time_of(sum(tokens for _, tokens in self._pieces), 0) + extra_ms


@dataclass(slots=True, eq=False)
class Sequence:
    """An answer: waiting for room, loading its KV, then one token a step."""

    id: str
    prompt_tokens: int
    max_tokens: int
    arrived_s: float
    emitted: int = 0
    admitted_s: float | None = None


class DecodeEngine:
    """Continuous batching: whoever has its KV joins the next step; room for the whole answer is reserved."""

    def __init__(self, profile: Profile) -> None:
        self.pool = KvPool(profile.kv_capacity_tokens)
        self.waiting: deque[Sequence] = deque()
        self.loading: dict[str, Sequence] = {}
        self.running: dict[str, Sequence] = {}
        self.due_s: float | None = None
        self._profile = profile
        self._batch: list[Sequence] = []

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by stopping now."""
        return not (self.waiting or self.loading or self.running)

    def submit(self, sequence: Sequence) -> None:
        """Queue a request; `admit` says when its KV may be pulled."""
        self.waiting.append(sequence)

    def admit(self, now_s: float) -> list[Sequence]:
        """The requests that have just been given room; the caller pulls their KV."""
        admitted = []
        while self.waiting and len(self.loading) + len(self.running) < self._profile.max_num_seqs:
            first = self.waiting[0]
            if not self.pool.take(first.id, first.prompt_tokens + first.max_tokens):
                break
            self.waiting.popleft()
            first.admitted_s = now_s
            self.loading[first.id] = first
            admitted.append(first)
        return admitted

    def loaded(self, sequence_id: str, now_s: float) -> None:
        """Its KV is here: it joins the next step."""
        self.running[sequence_id] = self.loading.pop(sequence_id)
        if self.due_s is None:
            self._begin(now_s)

    def step(self, now_s: float) -> list[Sequence] | None:
        """End one step that is due: the sequences that got a token, or None if none is due."""
        if self.due_s is None or now_s < self.due_s:
            return None
        ended_s = self.due_s
        batch = [sequence for sequence in self._batch if sequence.id in self.running]
        for sequence in batch:
            sequence.emitted += 1
            if sequence.emitted == sequence.max_tokens:
                self.release(sequence.id)
        self._begin(ended_s if now_s - ended_s < STALL_S else now_s)
        return batch

    def release(self, sequence_id: str) -> None:
        """Forget a request wherever it is. Never while its KV is being written: see decode.py."""
        for sequence in [sequence for sequence in self.waiting if sequence.id == sequence_id]:
            self.waiting.remove(sequence)
        self.loading.pop(sequence_id, None)
        self.running.pop(sequence_id, None)
        self.pool.free(sequence_id)

    def _begin(self, at_s: float) -> None:
        self._batch = list(self.running.values())
        self.due_s = at_s + self._step_ms() / 1e3 if self._batch else None

    def _step_ms(self) -> float:
        context_tokens = sum(sequence.prompt_tokens + sequence.emitted for sequence in self._batch)
        return self._profile.decode_ms(len(self._batch), context_tokens / len(self._batch))
