"""The prefill worker: computes prompts, holds their KV until decode has pulled it.

Rules:
1. An answer is given when the whole prompt is computed; its KV is held from then on under a lease.
2. `POST /kv/{id}/pull` answers when the transfer has ended, and frees the KV; `DELETE /kv/{id}` frees it unpulled.
3. Both go on while the worker drains; the drain ends when no KV is held.
4. A KV id is never used twice, so a late pull cannot get another request's KV.
"""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

from aiohttp import web
from prometheus_client.metrics_core import Metric

from serving.api import BadRequest, check_length, completion_body, parse_completion, usage
from serving.engine import BLOCK_TOKENS, Link, PrefillEngine, PrefillJob
from serving.http import REQUEST_ID_HEADER, bad_request, error_response, serve, unavailable
from serving.metrics import gauge
from serving.options import WorkerOptions
from serving.tokens import digest_of, tokenize
from serving.worker import Worker


class PrefillWorker(Worker):
    """Paths, futures and leases around a PrefillEngine."""

    role = "prefill"

    def __init__(self, options: WorkerOptions) -> None:
        super().__init__(options)
        self.engine = PrefillEngine(self.profile, options.lease_s)
        self._link = Link()
        self._computed: dict[str, asyncio.Future[str | None]] = {}
        self._pulling: dict[str, asyncio.Event] = {}

    @property
    def idle(self) -> bool:
        return self.engine.idle and not self._computed and not self._pulling

    @property
    def due_s(self) -> float | None:
        return self.engine.due_s

    def advance(self, now_s: float) -> None:
        while (finished := self.engine.step(now_s)) is not None:
            for job in finished:
                self._finish(job, now_s)

    def fail_all(self, reason: str) -> None:
        for waiting in self._computed.values():
            if not waiting.done():
                waiting.set_result(reason)
        for fenced in self._pulling.values():
            fenced.set()
        for job in [*self.engine.waiting, *self.engine.running, *self.engine.held.values()]:
            self.engine.release(job.id, self.now_s())
        self.pump()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/completions", self._completions),
            web.post("/kv/{id}/pull", self._pull),
            web.delete("/kv/{id}", self._discard),
        ]

    def families(self) -> list[Metric]:
        engine = self.engine
        held = (self.metrics.labels, len(engine.held))
        return [
            *self.metrics.families(
                running=len(engine.running),
                capacity=len(engine.waiting),
                deferred=0,
                kv_usage=engine.pool.usage,
                blocks=engine.pool.total_blocks,
                block_tokens=BLOCK_TOKENS,
            ),
            gauge("roleratio_worker_held_kv_requests", "Computed prompts whose KV is not yet pulled", held),
        ]

    async def _completions(self, request: web.Request) -> web.Response:
        raw = await request.read()
        if (refusal := self.refusal()) is not None:
            return refusal
        try:
            job = self._job(raw)
        except BadRequest as error:
            return bad_request(error)
        failure = await self._compute(job)
        if failure is not None:
            return unavailable(f"the prompt was not computed: {failure}")
        request_id = request.headers.get(REQUEST_ID_HEADER, job.id)
        hand_over = {
            "remote_url": self.url,
            "remote_kv_id": job.id,
            "prompt_tokens": job.prompt_tokens,
            "digest": job.digest,
        }
        used = usage(job.prompt_tokens, 0)
        body = completion_body(
            request_id, int(time.time()), self.options.model_name, "", used, kv_transfer_params=hand_over
        )
        return web.Response(body=body, content_type="application/json")

    def _job(self, raw: bytes) -> PrefillJob:
        completion = parse_completion(raw, self.options.model_name)
        params = completion.body.get("kv_transfer_params")
        if not isinstance(params, dict) or params.get("do_remote_decode") is not True:
            raise BadRequest(
                "this worker only prefills; expected kv_transfer_params.do_remote_decode = true",
                "kv_transfer_params",
            )
        token_ids = tokenize(completion.prompt)
        check_length(len(token_ids), completion.max_tokens, self.profile.max_model_len)
        if not self.engine.pool.fits(len(token_ids)):
            raise BadRequest(f"prompt has {len(token_ids)} tokens; the KV cache of this worker holds fewer", "prompt")
        return PrefillJob(uuid4().hex, len(token_ids), digest_of(token_ids), self.now_s())

    async def _compute(self, job: PrefillJob) -> str | None:
        """Wait until the prompt is computed; why it was not, if it was not."""
        computed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._computed[job.id] = computed
        try:
            self.engine.submit(job, self.now_s())
            self.pump()
            return await computed
        except asyncio.CancelledError:
            self.metrics.finished["abort"] += 1
            self._free(job.id)
            raise
        finally:
            del self._computed[job.id]

    def _finish(self, job: PrefillJob, now_s: float) -> None:
        self.metrics.prompt_tokens += job.prompt_tokens
        self.metrics.generation_tokens += 1
        self.metrics.finished["length"] += 1
        self.metrics.ttft.observe(now_s - job.arrived_s)
        self.metrics.queue.observe((now_s if job.started_s is None else job.started_s) - job.arrived_s)
        asyncio.get_running_loop().call_at(job.expires_s, self._expire, job.id)
        self._computed[job.id].set_result(None)

    async def _pull(self, request: web.Request) -> web.Response:
        job = self.engine.held.get(request.match_info["id"])
        if job is None or job.id in self._pulling:
            return error_response(410, "no such KV: pulled, expired or lost", "kv_gone")
        fenced = self._pulling[job.id] = asyncio.Event()
        try:
            end_s = self._link.reserve(self.now_s(), self.profile.transfer_ms(job.prompt_tokens))
            await _wait(fenced, end_s - self.now_s())
        finally:
            del self._pulling[job.id]
            self._free(job.id)
        if fenced.is_set():
            return error_response(410, "the KV was lost while it was pulled", "kv_gone")
        return web.json_response({"prompt_tokens": job.prompt_tokens, "digest": job.digest})

    async def _discard(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        if job_id not in self._pulling:
            self._free(job_id)
        return web.Response(status=204)

    def _expire(self, job_id: str) -> None:
        """The lease is over. A transfer that runs frees its KV itself."""
        if job_id not in self._pulling:
            self._free(job_id)

    def _free(self, job_id: str) -> None:
        self.engine.release(job_id, self.now_s())
        self.pump()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event, at most this long."""
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiter}, timeout=max(timeout_s, 0.0))
    finally:
        waiter.cancel()


async def run(options: WorkerOptions) -> None:
    """Serve until SIGTERM, drain, return. Raises ProfileError, or OSError when a port is taken."""
    await serve(PrefillWorker(options))
