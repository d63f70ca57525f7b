"""The load client against a real server on 127.0.0.1: what it counts, measures, retries and gives up on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from roleratio import load
from roleratio.load import LoadRun, Prompts, TokenCounter
from roleratio.records import Outcome, RequestRecord
from roleratio.traces import Arrival

EVENT = b'data: {"choices":[{"text":" a"}]}\n\n'
DONE = b"data: [DONE]\n\n"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/completions", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def send(handler: Handler, *arrivals: Arrival, finish_s: float = 5.0) -> list[RequestRecord]:
    run = LoadRun()
    async with serving(handler) as url:
        await load.run(arrivals, url, "m", seed=1, finish_s=finish_s, load=run)
    return run.records


async def stream(request: web.Request, *chunks: bytes, pause_s: float = 0.0) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
        await asyncio.sleep(pause_s)
    await response.write_eof()
    return response


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40, 10_000])
def test_tokens_are_counted_however_the_stream_is_cut(size: int) -> None:
    data = EVENT * 5 + DONE
    counter = TokenCounter()
    total = sum(counter.feed(data[i : i + size]) for i in range(0, len(data), size))
    assert (total, counter.tokens, counter.done, counter.error) == (5, 5, True, "")


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_an_error_event_is_not_a_token(size: int) -> None:
    data = EVENT * 2 + b'data: {"error":{"message":"gone"}}\n\n'
    counter = TokenCounter()
    for i in range(0, len(data), size):
        counter.feed(data[i : i + size])
    assert counter.tokens == 2
    assert not counter.done
    assert "gone" in counter.error


def test_prompts_are_lists_of_exactly_the_asked_number_of_ids() -> None:
    prompts = Prompts(seed=3, longest=500)
    for tokens in (1, 2, 500):
        body = json.loads(prompts.body("m", Arrival(0, tokens, 9)))
        assert len(body["prompt"]) == tokens
        assert all(isinstance(token, int) for token in body["prompt"])
        assert (body["max_tokens"], body["model"], body["stream"]) == (9, "m", True)


async def test_ttft_and_gaps_are_measured() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await stream(request, EVENT, EVENT, EVENT, DONE, pause_s=0.05)

    (record,) = await send(handler, Arrival(0.0, 10, 3))
    assert record.outcome is Outcome.OK
    assert record.ttft_s is not None
    assert len(record.gaps_s) == 2
    assert all(gap >= 0.04 for gap in record.gaps_s)
    assert record.end_s is not None
    assert record.end_s >= record.ttft_s + sum(record.gaps_s)


async def test_requests_are_sent_at_their_times_without_waiting_for_each_other() -> None:
    seen: list[int] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(len((await request.json())["prompt"]))
        if len(seen) == 1:
            await asyncio.sleep(0.3)
        return await stream(request, EVENT, DONE)

    first, second = await send(handler, Arrival(0.0, 1, 1), Arrival(0.05, 2, 1))
    assert seen == [1, 2]
    assert first.end_s is not None
    assert second.end_s is not None
    assert second.end_s < first.end_s


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ((EVENT, DONE), "1 of 3 tokens"),
        ((EVENT, EVENT, EVENT), "cut"),
        ((EVENT, EVENT, b'data: {"error":{"message":"gone"}}\n\n', DONE), "gone"),
    ],
)
async def test_an_incomplete_stream_is_a_failed_request(chunks: tuple[bytes, ...], words: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await stream(request, *chunks)

    (record,) = await send(handler, Arrival(0.0, 5, 3))
    assert record.outcome is Outcome.FAILED
    assert words in record.error


@pytest.mark.parametrize(
    ("status", "headers", "tries"),
    [
        (503, {"Retry-After": "0"}, 1 + load.MAX_RETRIES),
        (503, {"Retry-After": "3600"}, 1),
        (503, {}, 1),
        (500, {"Retry-After": "0"}, 1),
        (400, {}, 1),
    ],
)
async def test_only_a_503_with_a_short_retry_after_is_tried_again(
    status: int, headers: dict[str, str], tries: int
) -> None:
    count = 0

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return web.Response(status=status, headers=headers, text="no room")

    (record,) = await send(handler, Arrival(0.0, 5, 3))
    assert count == tries
    assert record.retries == tries - 1
    assert record.outcome is Outcome.FAILED
    assert record.error == f"HTTP {status}: no room"
    assert record.ttft_s is None


async def test_a_retried_request_can_succeed_and_its_ttft_includes_the_wait() -> None:
    answers = iter([web.Response(status=503, headers={"Retry-After": "0.2"})])

    async def handler(request: web.Request) -> web.StreamResponse:
        return next(answers, None) or await stream(request, EVENT, DONE)

    (record,) = await send(handler, Arrival(0.0, 5, 1))
    assert (record.outcome, record.retries) == (Outcome.OK, 1)
    assert record.ttft_s is not None
    assert record.ttft_s >= 0.2


async def test_what_is_open_when_the_time_is_over_is_unfinished() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await stream(request, EVENT, EVENT, pause_s=60)

    (record,) = await send(handler, Arrival(0.0, 5, 2), finish_s=0.3)
    assert record.outcome is Outcome.UNFINISHED
    assert record.tokens == 1


async def test_a_server_that_is_not_there_is_a_failed_request() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await stream(request, DONE)

    async with serving(handler) as url:
        pass
    run = LoadRun()
    await load.run([Arrival(0.0, 1, 1)], url, "m", seed=1, finish_s=5, load=run)
    assert run.records[0].outcome is Outcome.FAILED
    assert "ClientConnectorError" in run.records[0].error
