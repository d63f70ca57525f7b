"""One vLLM-like engine in virtual time: continuous batching, chunked prefill, KV blocks and preemption.

A passive object: whoever drives it says what comes when, asks when something happens next, and lets time pass.

    engine.submit(job, now_s); engine.next_event_s(); engine.advance(to_s) -> events

Rules:
1. Time runs in segments: one mixed step, or a run of pure decode steps up to the next change of membership: a
   completion, blocks running out, or an arrival that could be admitted, which cuts the run at the end of the step it
   falls into.
2. What a segment costs depends on what changes in it, not on its steps or sequences. All decode sequences share one
   step count, `tick`; a sequence is the tick at which it ends.
3. As in vLLM: running sequences first, in order of admission; then the waiting, first come first served, while tokens,
   seats and blocks for the whole prompt suffice; nobody is admitted in a step that preempted. The last admitted is
   preempted first, gives up its KV and waits at the front.
4. With asynchronous scheduling, chunks and newcomers are planned one step ahead; blocks and preemption are not.
5. Calls come in order of time. What was asked for happens at step boundaries only.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from perfmodel.steps import DecodeLine, StepCosts
from simulator.config import EngineConfig, Mode
from simulator.gauges import ITL_BOUNDS_S, QUEUE_BOUNDS_S, TTFT_BOUNDS_S, Histogram, Snapshot
from simulator.job import Event, Happened, Job
from simulator.kv import KvBlocks


class Part(NamedTuple):
    """A chunk of one prompt in one step."""

    job: Job
    tokens: int
    before: int


class Engine:
    """One engine; see the module. Raises EngineError for settings that its costs do not cover."""

    def __init__(self, config: EngineConfig, costs: StepCosts) -> None:
        config.check(costs)
        self.config = config
        self._costs = costs
        self._kv = KvBlocks(config.kv_blocks, config.block_tokens)
        self._events: list[Event] = []
        self._waiting: deque[Job] = deque()
        self._arriving: dict[Job, None] = {}
        self._ready: deque[Job] = deque()
        self._held: dict[Job, int] = {}
        self._running: dict[Job, None] = {}
        self._prefilling: dict[Job, None] = {}
        # The decode batch: its size, the sum of its contexts in the next step, and who ends when.
        self._tick = 0
        self._decoding = 0
        self._context_sum = 0
        self._endings: list[tuple[int, int, Job]] = []
        self._joined = 0
        # The segment that runs, and what is planned for the step after it.
        self._parts: list[Part] = []
        self._newcomers: list[Job] = []
        self._planned_parts: list[Part] = []
        self._planned_newcomers: list[Job] = []
        self._steps = 0
        self._now_s = -inf
        self._began_s = 0.0
        self._ends_s = inf
        self._line: DecodeLine | None = None
        self._context = 0.0
        self._paid = False
        self._prompt_tokens = self._generated_tokens = 0
        self._preemptions = self._finished = 0
        self._queried_tokens = self._hit_tokens = 0
        self._ttft = Histogram(TTFT_BOUNDS_S)
        self._itl = Histogram(ITL_BOUNDS_S)
        self._queue = Histogram(QUEUE_BOUNDS_S)

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests that wait for seats, blocks or their KV."""
        return len(self._waiting) + len(self._arriving) + len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do or to keep."""
        return not (self._running or self.waiting or self._held)

    def submit(self, job: Job, now_s: float) -> None:
        """A request comes. Logarithmic in the running ones."""
        self._catch_up(now_s)
        tokens = job.prompt_tokens if self.config.mode is Mode.PREFILL else job.tokens
        if tokens > self.config.max_model_len or self._kv.blocks(tokens) > (self.config.kv_blocks or inf):
            self._events.append(Event(now_s, Happened.REJECTED, job))
            return
        job.target = job.prompt_tokens
        self._waiting.append(job)
        could_enter = len(self._waiting) == 1 and len(self._running) < self.config.max_num_seqs
        job.queued_s = self._seen(now_s, could_enter)
        if self._ends_s == inf:
            self._begin(now_s)

    def kv_arrived(self, job: Job, now_s: float) -> None:
        """Decode: the KV of a job with reserved room is here. Raises KeyError for one without."""
        self._catch_up(now_s)
        del self._arriving[job]
        self._ready.append(job)
        self._seen(now_s, len(self._running) < self.config.max_num_seqs)
        if self._ends_s == inf:
            self._begin(now_s)

    def release(self, job: Job, now_s: float) -> None:
        """Prefill: the KV of a job has been pulled or given up. Raises KeyError for one whose KV is not held."""
        self._catch_up(now_s)
        self._kv.give(self._held.pop(job))
        self._seen(now_s, bool(self._waiting))
        if self._ends_s == inf:
            self._begin(now_s)

    def withdraw(self, job: Job, now_s: float) -> None:
        """Decode: a job whose KV will not come; room that was reserved is free again. Raises ValueError for one that
        neither waits nor has room without its KV. Linear in the waiting ones.
        """
        self._catch_up(now_s)
        if job in self._arriving:
            del self._arriving[job]
            self._kv.give(self._kv.blocks(job.target))
        else:
            self._waiting.remove(job)
        self._events = [event for event in self._events if event.job is not job]
        self._seen(now_s, bool(self._waiting))
        if self._ends_s == inf:
            self._begin(now_s)

    def next_event_s(self) -> float:
        """When `advance` next has something to do or to tell; infinity while nothing is asked of the engine."""
        return self._events[0].at_s if self._events else self._ends_s

    def advance(self, to_s: float) -> list[Event]:
        """Let time pass up to and including `to_s`; what has happened since the last call, in order."""
        self._catch_up(to_s)
        events, self._events = self._events, []
        return events

    def snapshot(self, now_s: float) -> Snapshot:
        """The gauges and counters at a moment that has been advanced to."""
        steps = self._steps_done(now_s)
        growth = self._kv.needed(self._tick + 1, min(steps, self._steps - 1)) if steps else 0
        total = self._kv.total
        values = {
            "vllm:num_requests_running": len(self._running),
            "vllm:num_requests_waiting": self.waiting,
            "vllm:kv_cache_usage_perc": self._kv.usage + (growth / total if total else 0.0),
            "vllm:prompt_tokens_total": self._prompt_tokens,
            "vllm:generation_tokens_total": self._generated_tokens + steps * self._decoding,
            "vllm:num_preemptions_total": self._preemptions,
            "vllm:prefix_cache_queries_total": self._queried_tokens,
            "vllm:prefix_cache_hits_total": self._hit_tokens,
            "vllm:request_success_total": self._finished,
        }
        itl = self._itl.copy()
        self._observe_itl(itl, steps)
        histograms = {
            "vllm:time_to_first_token_seconds": self._ttft.copy(),
            "vllm:inter_token_latency_seconds": itl,
            "vllm:request_queue_time_seconds": self._queue.copy(),
        }
        deferred = len(self._arriving) + len(self._ready)
        return Snapshot(now_s, values, {"capacity": len(self._waiting), "deferred": deferred}, histograms)

    def _steps_done(self, now_s: float) -> int:
        """The decode steps of the running segment that have ended by now (0 in a mixed step)."""
        if self._line is None or self._steps <= 1 or now_s <= self._began_s:
            return 0
        steps = self._line.steps_until(self._context, now_s - self._began_s, self._steps)
        return steps if self._began_s + self._line.sum_s(self._context, steps) <= now_s else steps - 1

    def _seen(self, now_s: float, cut: bool) -> float:
        """When the engine notices what comes now, which is between two steps; the run is cut there if asked for."""
        if self._ends_s == inf:
            return now_s
        if self._line is None or self._steps == 1:
            return self._ends_s
        steps = self._line.steps_until(self._context, now_s - self._began_s, self._steps)
        if steps == self._steps:
            return self._ends_s
        seen_s = self._began_s + self._line.sum_s(self._context, steps)
        if cut:
            self._steps, self._ends_s = steps, seen_s
        return seen_s

    def _catch_up(self, to_s: float) -> None:
        if to_s < self._now_s:
            raise ValueError(f"to_s = {to_s!r}: expected {self._now_s!r} or later, time does not go back")
        self._now_s = to_s
        while self._ends_s <= to_s:
            now_s = self._ends_s
            self._settle(now_s)
            self._begin(now_s)

    # Between two steps: what the last one brought.

    def _settle(self, now_s: float) -> None:
        """Book the segment that ends."""
        steps = self._steps
        if self._decoding:
            self._observe_itl(self._itl, steps)
            if steps > 1:
                self._kv.take(self._kv.needed(self._tick + 1, steps - 1))
            self._generated_tokens += steps * self._decoding
            self._context_sum += steps * self._decoding
        self._tick += steps
        self._paid = False
        for job in self._newcomers:
            self._first_token(job, now_s)
        self._newcomers = []
        endings = self._endings
        while endings and endings[0][0] <= self._tick:
            finish_tick, _, job = heappop(endings)
            if job.finish_tick == finish_tick:
                self._leave(job)
                self._finish(job, now_s, self._kv.blocks(job.tokens - 1))
        for part in self._parts:
            if part.before + part.tokens == part.job.target:
                self._prefilled(part.job, now_s)
        self._parts = []

    def _prefilled(self, job: Job, now_s: float) -> None:
        """The last chunk is computed and has given a token."""
        self._prefilling.pop(job)
        self._generated_tokens += 1
        job.generated += 1
        if job.first_token_s is None:
            self._first_token(job, now_s)
        elif job.last_token_s is not None:
            self._itl.observe(now_s - job.last_token_s)
        if self.config.mode is Mode.PREFILL:
            self._held[job] = self._kv.blocks(job.target)
            job.last_token_s = now_s
            self._finished += 1
            del self._running[job]
            self._events.append(Event(now_s, Happened.PREFILLED, job))
        elif job.generated == job.output_tokens:
            self._finish(job, now_s, self._kv.blocks(job.target))
        else:
            self._join(job)

    def _first_token(self, job: Job, now_s: float) -> None:
        job.first_token_s = now_s
        self._prompt_tokens += job.prompt_tokens
        queued_s = now_s if job.queued_s is None else job.queued_s
        self._ttft.observe(now_s - queued_s)
        self._events.append(Event(now_s, Happened.FIRST_TOKEN, job))

    def _finish(self, job: Job, now_s: float, blocks: int) -> None:
        self._kv.give(blocks)
        del self._running[job]
        job.generated = job.output_tokens
        job.last_token_s = now_s
        self._finished += 1
        self._events.append(Event(now_s, Happened.FINISHED, job))

    def _join(self, job: Job) -> None:
        """A sequence enters the decode batch with the next step."""
        context = job.prompt_tokens + job.generated
        job.finish_tick = self._tick + job.output_tokens - job.generated
        job.phase = self._kv.phase(self._tick, context)
        self._kv.join(job.phase)
        self._decoding += 1
        self._context_sum += context
        self._joined += 1
        heappush(self._endings, (job.finish_tick, self._joined, job))

    def _leave(self, job: Job) -> None:
        """A sequence leaves the decode batch; its own account then says how far it came."""
        job.generated = job.output_tokens - (job.finish_tick - self._tick)
        job.finish_tick = -1
        self._kv.leave(job.phase)
        self._decoding -= 1
        self._context_sum -= job.prompt_tokens + job.generated

    def _observe_itl(self, histogram: Histogram, steps: int) -> None:
        """The tokens of so many steps of the running segment; a newcomer's first token is none."""
        tokens = self._decoding - len(self._newcomers)
        if not tokens or not steps:
            return
        if self._line is None or steps == 1:
            histogram.observe(self._ends_s - self._began_s, tokens)
            return
        first_s, last_s = self._line.at(self._context), self._line.at(self._context + steps - 1)
        if histogram.bucket(first_s) != histogram.bucket(last_s):
            for i in range(steps):
                histogram.observe(self._line.at(self._context + i), tokens)
        else:
            histogram.observe(self._line.sum_s(self._context, steps) / steps, tokens * steps)

    # Between two steps: what the next one holds.

    def _begin(self, now_s: float) -> None:
        """Start the next segment, or stand still."""
        before = self._preemptions
        self._make_room(now_s)
        admit = self._preemptions == before
        self._take_plan()
        ahead = self.config.async_scheduling
        if not (ahead and self._has_work()):
            self._plan(now_s, admit, self._decoding)
            self._take_plan()
        if ahead and self._has_work():
            ending = 0
            for part in self._parts:
                ending += part.before + part.tokens == part.job.target
            self._plan(now_s, admit, self._decoding + ending)
            if not self._has_work():
                self._take_plan()
        if self._has_work():
            self._start(now_s)
        elif self._preemptions > before:
            # All that ran has been preempted, and an empty step admits again.
            self._begin(now_s)
        else:
            self._steps, self._ends_s = 0, inf

    def _has_work(self) -> bool:
        return bool(self._parts or self._decoding)

    def _take_plan(self) -> None:
        """What was planned is what happens next."""
        self._parts, self._planned_parts = self._planned_parts, []
        self._newcomers, self._planned_newcomers = self._planned_newcomers, []
        for job in self._newcomers:
            self._join(job)

    def _start(self, now_s: float) -> None:
        """Fix how many steps the segment has, and when it ends."""
        seqs, parts = self._decoding, self._parts
        self._began_s = now_s
        self._context = self._context_sum / seqs if seqs else 0.0
        self._steps = 1
        if parts:
            self._line = None
            chunks = [(part.tokens, part.before) for part in parts]
            self._ends_s = now_s + self._costs.mixed_s(chunks, seqs, self._context)
            return
        self._line = line = self._costs.decode_line(seqs)
        if not (self._planned_parts or self._planned_newcomers or self._newcomers):
            self._steps += self._kv.steps_that_fit(self._tick + 1, self._next_ending() - self._tick - 1)
        self._ends_s = now_s + line.sum_s(self._context, self._steps)

    def _next_ending(self) -> int:
        """The tick at which the first sequence ends, past entries of those that were preempted."""
        endings = self._endings
        while endings[0][0] != endings[0][2].finish_tick:
            heappop(endings)
        return endings[0][0]

    def _plan(self, now_s: float, admit: bool, decoding: int) -> None:
        """Plan chunks and newcomers beside `decoding` sequences."""
        room = self.config.max_num_batched_tokens - decoding
        preemptions = self._preemptions
        for job in list(self._prefilling):
            if job in self._prefilling and job.planned < job.target and room > 0:
                tokens = min(job.target - job.planned, room)
                if self._blocks_for(job, tokens, now_s):
                    room -= self._chunk(job, tokens)
        if admit and preemptions == self._preemptions:
            self._admit(now_s, room)

    def _admit(self, now_s: float, room: int) -> None:
        """Let in who waits: first those whose KV has come."""
        seats = self.config.max_num_seqs
        while self._ready and room > 0 and len(self._running) < seats:
            job = self._ready.popleft()
            self._seat(job, now_s)
            self._planned_newcomers.append(job)
            room -= 1
        while self._waiting and room > 0 and len(self._running) < seats:
            job = self._waiting[0]
            if self._kv.blocks(job.target) > self._kv.free:
                break
            self._waiting.popleft()
            if self.config.mode is Mode.DECODE and not job.preemptions:
                self._kv.take(self._kv.blocks(job.target))
                self._arriving[job] = None
                self._events.append(Event(now_s, Happened.ROOM, job))
                continue
            self._seat(job, now_s)
            self._prefilling[job] = None
            self._take_cached(job)
            tokens = min(job.target - job.planned, room)
            self._kv.take(self._kv.blocks(job.planned + tokens) - self._kv.blocks(job.planned))
            room -= self._chunk(job, tokens)

    def _chunk(self, job: Job, tokens: int) -> int:
        self._planned_parts.append(Part(job, tokens, job.planned))
        job.planned += tokens
        return tokens

    def _seat(self, job: Job, now_s: float) -> None:
        self._running[job] = None
        if job.scheduled_s is None:
            job.scheduled_s = now_s
            self._queue.observe(max(0.0, now_s - (job.queued_s or 0.0)))

    def _take_cached(self, job: Job) -> None:
        """Skip what has its KV already; the last token is always computed, to give the next one."""
        blocks = job.cached_tokens // self._kv.block_tokens
        if job.freed_mark is not None:
            handed_out_since = max(0.0, self._kv.handed_out - job.freed_mark)
            blocks = int(max(blocks, (job.target - 1) // self._kv.block_tokens - handed_out_since))
        job.planned = min(blocks * self._kv.block_tokens, job.target - 1) if self.config.prefix_caching else 0
        self._queried_tokens += job.target
        self._hit_tokens += job.planned
        self._kv.take(self._kv.blocks(job.planned))

    # Blocks.

    def _make_room(self, now_s: float) -> None:
        """Pay the blocks of the next decode step, preempting where they lack."""
        while (needed := self._kv.needed(self._tick, 1)) > self._kv.free:
            self._preempt(now_s)
        self._kv.take(needed)
        self._paid = True

    def _blocks_for(self, job: Job, tokens: int, now_s: float) -> bool:
        """Take the blocks of a running prompt's next chunk, preempting where they lack; False if it was itself."""
        needed = self._kv.blocks(job.planned + tokens) - self._kv.blocks(job.planned)
        while needed > self._kv.free:
            if self._preempt(now_s) is job:
                return False
        self._kv.take(needed)
        return True

    def _preempt(self, now_s: float) -> Job:
        """Turn the last admitted out; it waits at the front and will compute its KV again."""
        job, _ = self._running.popitem()
        if job.finish_tick >= 0:
            paid = self._paid and job.phase == self._tick % self._kv.block_tokens
            self._leave(job)
            self._newcomers = [one for one in self._newcomers if one is not job]
            blocks = self._kv.blocks(job.prompt_tokens + job.generated - 1) + paid
            job.last_token_s = now_s if job.generated else None
        elif job in self._prefilling:
            del self._prefilling[job]
            blocks = self._kv.blocks(job.planned)
            self._parts = [part for part in self._parts if part.job is not job]
            self._planned_parts = [part for part in self._planned_parts if part.job is not job]
        else:
            self._planned_newcomers.remove(job)
            blocks = self._kv.blocks(job.prompt_tokens)
        job.freed_mark = self._kv.handed_out + self._kv.free
        self._kv.give(blocks)
        job.target = job.prompt_tokens + job.generated
        job.planned = 0
        job.preemptions += 1
        self._preemptions += 1
        self._waiting.appendleft(job)
        return job
