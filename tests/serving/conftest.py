"""A small fast profile, and a fleet of real workers and a router on free ports of 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest

from serving.decode import DecodeWorker
from serving.options import RouterOptions, StaticEndpoint, WorkerOptions
from serving.prefill import PrefillWorker
from serving.router import Router
from serving.tokens import answer, digest_of, tokenize
from serving.worker import Worker

MODEL = "tiny"
AnyWorker = TypeVar("AnyWorker", bound=Worker)

# Prefill: 1 ms + 10 us a token + 1 us a cached token; decode: 2 ms + 0.1 ms a sequence + 1 us a context token.
TINY: dict[str, Any] = {
    "format": "roleratio.dev/profile/v1",
    "provenance": {
        "source": "made up for tests",
        "licence": "Apache-2.0",
        "model": MODEL,
        "gpu": "none",
        "backend": "none",
        "backend_version": "0",
    },
    "tp": 2,
    "gpus": 2,
    "kv_bytes_per_token": 1000,
    "kv_capacity_tokens": 16_000,
    "max_model_len": 4096,
    "max_num_seqs": 8,
    "prefill_chunk_tokens": 512,
    "transfer_gb_per_s": 1.0,
    "prefill_ms": {
        "new_tokens": [0, 4096],
        "cached_tokens": [0, 4096],
        "ms": [[1.0, 5.096], [41.96, 46.056]],
    },
    "decode_ms": {
        "batch": [1, 8],
        "context_tokens": [0, 4096],
        "ms": [[2.1, 6.196], [2.8, 6.896]],
    },
}


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """The path of the profile."""
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return str(path)


def words_of(prompt: str | list[int], count: int) -> str:
    """What a correct answer to a prompt is."""
    return answer(digest_of(tokenize(prompt)), count)


@dataclass
class Fleet:
    """Servers that a test has started; all are stopped after it."""

    profile: str
    client: aiohttp.ClientSession
    workers: list[Worker] = field(default_factory=list)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def prefill(self, **options: Any) -> PrefillWorker:
        return await self._worker(PrefillWorker, options)

    async def decode(self, **options: Any) -> DecodeWorker:
        return await self._worker(DecodeWorker, options)

    async def pair(self, **options: Any) -> tuple[PrefillWorker, DecodeWorker]:
        return await self.prefill(**options), await self.decode(**options)

    async def router(self, *workers: Worker, **options: Any) -> Router:
        endpoints = options.pop("endpoints", None) or tuple(
            StaticEndpoint(role=worker.role, url=worker.url) for worker in workers or self.workers
        )
        router = Router(
            RouterOptions(
                host="127.0.0.1",
                port=0,
                endpoints=endpoints,
                model_name=MODEL,
                profile=self.profile,
                **({"max_wait_s": 5.0} | options),
            )
        )
        await router.start()
        self.stack.push_async_callback(router.stop)
        return router

    async def _worker(self, make: Callable[[WorkerOptions], AnyWorker], options: dict[str, Any]) -> AnyWorker:
        defaults = {"host": "127.0.0.1", "port": 0, "rank_port": 0, "group_size": 1}
        worker = make(WorkerOptions(profile=self.profile, model_name=MODEL, **(defaults | options)))
        await worker.start()
        self.stack.push_async_callback(worker.stop)
        self.workers.append(worker)
        return worker

    async def complete(self, url: str, prompt: str | list[int], max_tokens: int, **more: Any) -> dict[str, Any]:
        """One answer, not streamed, with its status."""
        body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, **more}
        async with self.client.post(f"{url}/v1/completions", json=body) as response:
            return {"status": response.status, "headers": response.headers, **await response.json()}

    async def stream(self, url: str, prompt: str | list[int], max_tokens: int, **more: Any) -> list[Any]:
        """The events of a streamed answer; [DONE] is the last."""
        body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "stream": True, **more}
        async with self.client.post(f"{url}/v1/completions", json=body) as response:
            assert response.status == 200, await response.text()
            return events_of(await response.read())


def events_of(raw: bytes) -> list[Any]:
    """The data of server-sent events, decoded, [DONE] as it is."""
    texts = [line.removeprefix("data: ") for line in raw.decode().split("\n\n") if line]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


@pytest.fixture
async def fleet(tiny: str) -> AsyncIterator[Fleet]:
    async with aiohttp.ClientSession() as client, AsyncExitStack() as stack:
        yield Fleet(tiny, client, stack=stack)


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Wait for something that must come true."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)
