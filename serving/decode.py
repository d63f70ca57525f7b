"""The decode worker: reserves room, pulls the KV of a prompt, streams one token a step.

Rules:
1. A request must bring the KV of its prompt: nothing is ever prefilled here.
2. The words follow from the digest that came with the KV, not from the request: a wrong hand-over shows.
3. Room that KV is being written into is not given back before the writer has answered or is given up,
   even if the client has gone.
4. Status 200 comes with the first token; until then every failure is an error that may be retried from
   prefill: 502 if the KV did not come, 503 if this worker is to blame. A stream that has begun and cannot
   go on is cut without its end, so that it cannot be taken for a whole one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import aiohttp
from aiohttp import web
from prometheus_client.metrics_core import Metric

from serving.api import BadRequest, Completion, EventFrames, check_length, completion_body, parse_completion, usage
from serving.engine import BLOCK_TOKENS, DecodeEngine, Sequence
from serving.http import EVENT_STREAM, REQUEST_ID_HEADER, bad_request, error_response, serve
from serving.metrics import gauge
from serving.options import WorkerOptions
from serving.tokens import answer, word
from serving.worker import Worker

CONNECT_LIMIT_S = 2.0


@dataclass(frozen=True, slots=True)
class KvSource:
    """Where the KV of a prompt is."""

    url: str
    prompt_tokens: int
    digest: str


class PullFailed(Exception):
    """The KV did not come."""


@dataclass(slots=True, eq=False)
class _Answer:
    """One request in this worker."""

    sequence: Sequence
    source: KvSource
    frames: EventFrames
    include_usage: bool
    seed: int = 0
    digest: str = ""
    early: list[bytes] = field(default_factory=list)
    out: asyncio.WriteTransport | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    failure: tuple[int, str] | None = None
    abandoned: bool = False

    def send(self) -> None:
        """Send the word of the step that has just ended."""
        sequence = self.sequence
        text = word(self.seed, sequence.emitted - 1)
        if sequence.emitted < sequence.max_tokens:
            self._write(self.frames.before + text + self.frames.after)
            return
        used = usage(sequence.prompt_tokens, sequence.emitted) if self.include_usage else None
        self._write(self.frames.last(text, used))
        self.ended.set()

    def fail(self, status: int, reason: str) -> None:
        """End it before its time."""
        self.failure = (status, reason)
        self.begun.set()
        self.ended.set()

    def attach(self, out: asyncio.WriteTransport) -> None:
        """The headers are out: send what was held back, and from now on directly.

        Straight to the transport, since a stream's `write` costs several times as much per token. A client
        that does not read is buffered for, which is bounded by its own max_tokens.
        """
        out.write(b"".join(self.early))
        self.early.clear()
        self.out = out

    def _write(self, data: bytes) -> None:
        if self.out is not None:
            self.out.write(data)
        else:
            self.early.append(data)
            self.begun.set()


class DecodeWorker(Worker):
    """Paths, pulls and streams around a DecodeEngine."""

    role = "decode"

    def __init__(self, options: WorkerOptions) -> None:
        super().__init__(options)
        self.engine = DecodeEngine(self.profile)
        self._answers: dict[str, _Answer] = {}
        self._ids = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._last_step_s = 0.0

    async def start(self) -> None:
        limit_s = self.options.lease_s + CONNECT_LIMIT_S
        timeout = aiohttp.ClientTimeout(total=limit_s, sock_connect=CONNECT_LIMIT_S)
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5.0)
        )
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        for task in [*self._tasks]:
            task.cancel()
        if self._session is not None:
            await self._session.close()

    @property
    def idle(self) -> bool:
        return self.engine.idle and not self._answers and not self._tasks

    @property
    def due_s(self) -> float | None:
        return self.engine.due_s

    def advance(self, now_s: float) -> None:
        while (batch := self.engine.step(now_s)) is not None:
            self._hand_out(batch, now_s)
        for sequence in self.engine.admit(now_s):
            self.metrics.queue.observe(now_s - sequence.arrived_s)
            self._spawn(self._load_kv(self._answers[sequence.id]))

    def fail_all(self, reason: str) -> None:
        for held in [*self._answers.values()]:
            held.fail(503, reason)
            self._forget(held)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/completions", self._completions)]

    def families(self) -> list[Metric]:
        engine = self.engine
        return [
            *self.metrics.families(
                running=len(engine.running),
                capacity=len(engine.waiting),
                deferred=len(engine.loading),
                kv_usage=engine.pool.usage,
                blocks=engine.pool.total_blocks,
                block_tokens=BLOCK_TOKENS,
            ),
            gauge("roleratio_worker_held_kv_requests", "Always 0 on decode", (self.metrics.labels, 0)),
        ]

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if (refusal := self.refusal()) is not None:
            return refusal
        try:
            completion = parse_completion(raw, self.options.model_name)
            held = self._answer(completion, request.headers.get(REQUEST_ID_HEADER, ""))
        except BadRequest as error:
            return bad_request(error)
        self._answers[held.sequence.id] = held
        self.engine.submit(held.sequence)
        self.pump()
        try:
            return await (self._stream(request, held) if completion.stream else self._whole(held))
        finally:
            self._forget(held)

    def _answer(self, completion: Completion, request_id: str) -> _Answer:
        source = _source_of(completion.body.get("kv_transfer_params"))
        tokens = source.prompt_tokens
        check_length(tokens, completion.max_tokens, self.profile.max_model_len)
        if not self.engine.pool.fits(tokens + completion.max_tokens):
            raise BadRequest(
                f"{tokens} prompt tokens and {completion.max_tokens} max_tokens: more than the KV cache holds",
                "max_tokens",
            )
        sequence = Sequence(str(next(self._ids)), tokens, completion.max_tokens, self.now_s())
        frames = EventFrames(request_id or sequence.id, int(time.time()), self.options.model_name)
        return _Answer(sequence, source, frames, completion.include_usage)

    async def _stream(self, request: web.Request, held: _Answer) -> web.StreamResponse:
        await held.begun.wait()
        if held.failure is not None:
            return _failed(held.failure)
        response = web.StreamResponse(headers=EVENT_STREAM)
        response.enable_chunked_encoding()
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        held.attach(transport)
        await held.ended.wait()
        if held.failure is not None:
            transport.abort()
        else:
            await response.write_eof()
        return response

    async def _whole(self, held: _Answer) -> web.Response:
        await held.ended.wait()
        if held.failure is not None:
            return _failed(held.failure)
        sequence = held.sequence
        body = completion_body(
            sequence.id,
            int(time.time()),
            self.options.model_name,
            answer(held.digest, sequence.emitted),
            usage(sequence.prompt_tokens, sequence.emitted),
        )
        return web.Response(body=body, content_type="application/json")

    def _hand_out(self, batch: list[Sequence], now_s: float) -> None:
        first = 0
        for sequence in batch:
            if sequence.emitted == 1:
                first += 1
                self.metrics.ttft.observe(now_s - sequence.arrived_s)
            if sequence.emitted == sequence.max_tokens:
                self.metrics.finished["length"] += 1
            self._answers[sequence.id].send()
        if len(batch) > first:
            self.metrics.itl.observe(now_s - self._last_step_s, len(batch) - first)
        self.metrics.generation_tokens += len(batch)
        self._last_step_s = now_s

    async def _load_kv(self, held: _Answer) -> None:
        sequence = held.sequence
        try:
            held.digest = await self._pull(held.source)
            held.seed = int(held.digest, 16)
        except PullFailed as error:
            held.fail(502, str(error))
        if held.failure is not None or held.abandoned:
            self.engine.release(sequence.id)
        else:
            self.metrics.prompt_tokens += sequence.prompt_tokens
            self.engine.loaded(sequence.id, self.now_s())
        self.pump()

    async def _pull(self, source: KvSource) -> str:
        """Wait for the transfer; the digest of what came. Raises PullFailed."""
        try:
            async with self._client().post(f"{source.url}/pull") as response:
                if response.status != 200:
                    raise PullFailed(f"KV at {source.url}: HTTP {response.status}")
                digest = (await response.json()).get("digest")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise PullFailed(f"KV at {source.url}: {str(error) or type(error).__name__}") from error
        if digest != source.digest:
            raise PullFailed(f"KV at {source.url} is of another prompt")
        return source.digest

    async def _discard(self, source: KvSource) -> None:
        """Tell prefill that nobody will pull; if it does not hear, the lease ends it."""
        try:
            async with self._client().delete(source.url):
                pass
        except (aiohttp.ClientError, TimeoutError, OSError):
            return

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the worker is used before start()")
        return self._session

    def _forget(self, held: _Answer) -> None:
        """The handler is done with it: free what may be freed now (rule 3)."""
        sequence = held.sequence
        if self._answers.pop(sequence.id, None) is None:
            return
        held.abandoned = True
        if not held.ended.is_set():
            self.metrics.finished["abort"] += 1
        if sequence.admitted_s is None:
            self._spawn(self._discard(held.source))
        if sequence.id not in self.engine.loading:
            self.engine.release(sequence.id)
        self.pump()

    def _spawn(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _source_of(params: object) -> KvSource:
    if not isinstance(params, Mapping) or params.get("do_remote_prefill") is not True:
        raise BadRequest(
            "this worker only decodes; expected kv_transfer_params.do_remote_prefill = true, as the router sets",
            "kv_transfer_params",
        )
    match params:
        case {
            "remote_url": str(url),
            "remote_kv_id": str(kv_id),
            "prompt_tokens": int(prompt_tokens),
            "digest": str(digest),
        }:
            if set(digest) <= set("0123456789abcdef") and digest:
                return KvSource(f"{url}/kv/{kv_id}", prompt_tokens, digest)
    raise BadRequest(
        "kv_transfer_params: expected remote_url, remote_kv_id, prompt_tokens and digest", "kv_transfer_params"
    )


def _failed(failure: tuple[int, str]) -> web.Response:
    status, reason = failure
    return error_response(status, reason, "kv_transfer_failed" if status == 502 else "service_unavailable")


async def run(options: WorkerOptions) -> None:
    """Serve until SIGTERM, drain, return. Raises ProfileError, or OSError when a port is taken."""
    await serve(DecodeWorker(options))
