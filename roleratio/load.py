"""The load client: sends the requests at their times and measures what a user would see.

Rules:
1. Open loop: a request is sent at its time whether or not the others have come back.
2. TTFT counts from the time at which the request was due, retries included; a token is one event.
3. A 503 before the first byte is tried again at most `MAX_RETRIES` times, after its Retry-After of at most
   `MAX_RETRY_AFTER_S`; anything else that goes wrong is a failed request.
4. What is open when the time to finish is over is cancelled and recorded as unfinished.
5. No JSON is parsed while tokens stream: the client must not be what is measured.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from roleratio.records import Outcome, RequestRecord
from roleratio.traces import Arrival

MAX_RETRIES = 2
MAX_RETRY_AFTER_S = 5.0
REQUEST_TIMEOUT_S = 300.0

_END_OF_EVENT = b"\n\n"
_DONE = b"data: [DONE]\n\n"
_ERROR = b'data: {"error"'
_ID_WIDTH = 6
_FIRST_ID, _LAST_ID = 10_000, 99_999


@dataclass(slots=True)
class LoadRun:
    """A load while it runs and afterwards. It began at `origin` (monotonic) = `unix_origin_s`."""

    origin: float = 0.0
    unix_origin_s: float = 0.0
    records: list[RequestRecord] = field(default_factory=list)

    def now_s(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self.origin


class Prompts:
    """Prompts as JSON lists of token ids, cut from one pool: no formatting while the load runs.

    Ids have five digits, so that id i of the pool is at byte 6 i.
    """

    def __init__(self, seed: int, longest: int) -> None:
        self._rng = random.Random(seed)
        self._slack = 4096
        ids = self._rng.choices(range(_FIRST_ID, _LAST_ID + 1), k=longest + self._slack)
        self._pool = b"".join(b"%d," % token for token in ids)

    def body(self, model: str, arrival: Arrival) -> bytes:
        """The request body of one arrival."""
        start = _ID_WIDTH * self._rng.randrange(self._slack)
        ids = self._pool[start : start + _ID_WIDTH * arrival.input_tokens - 1]
        head = b'{"model":"%s","stream":true,"ignore_eos":true,"temperature":0' % model.encode()
        return head + b',"max_tokens":%d,"prompt":[%s]}' % (arrival.output_tokens, ids)


class TokenCounter:
    """Counts the events of a server-sent stream over chunks cut anywhere. An error event is not a token."""

    def __init__(self) -> None:
        self.tokens = 0
        self.done = False
        self.error = ""
        self._tail = b""

    def feed(self, chunk: bytes) -> int:
        """Tokens that this chunk completed."""
        data = self._tail + chunk
        end = data.rfind(_END_OF_EVENT) + len(_END_OF_EVENT)
        if end < len(_END_OF_EVENT):
            self._tail = data
            return 0
        tokens = data.count(_END_OF_EVENT, 0, end)
        self._tail = data[end:]
        if data.endswith(_DONE, 0, end):
            self.done = True
            tokens -= 1
        if (start := data.find(_ERROR, 0, end)) >= 0:
            self.error = data[start:end].partition(_END_OF_EVENT)[0].decode(errors="replace")
            tokens -= 1
        self.tokens += tokens
        return tokens


async def run(
    arrivals: Sequence[Arrival],
    url: str,
    model: str,
    *,
    seed: int,
    finish_s: float,
    load: LoadRun,
) -> None:
    """Send every arrival to `url` and wait at most `finish_s` for those still open after the last one."""
    prompts = Prompts(seed, max(arrival.input_tokens for arrival in arrivals))
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    load.origin, load.unix_origin_s = time.monotonic(), time.time()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        tasks: list[asyncio.Task[None]] = []
        try:
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, arrival.at_s - load.now_s()))
                record = RequestRecord(arrival.at_s, arrival.input_tokens, arrival.output_tokens)
                load.records.append(record)
                body = prompts.body(model, arrival)
                tasks.append(asyncio.create_task(_request(session, url, body, record, load)))
            await asyncio.wait(tasks, timeout=finish_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _request(session: aiohttp.ClientSession, url: str, body: bytes, record: RequestRecord, load: LoadRun) -> None:
    """One request to its end; whatever happens ends in the record."""
    try:
        while (wait_s := await _attempt(session, url, body, record, load)) is not None:
            record.retries += 1
            await asyncio.sleep(wait_s)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        record.outcome = Outcome.FAILED
        record.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
    except asyncio.CancelledError:
        record.outcome = Outcome.UNFINISHED
        raise
    finally:
        record.end_s = load.now_s()


async def _attempt(
    session: aiohttp.ClientSession, url: str, body: bytes, record: RequestRecord, load: LoadRun
) -> float | None:
    """One try. Seconds to wait before the next one, or None when the request has ended."""
    headers = {"Content-Type": "application/json"}
    async with session.post(url + "/v1/completions", data=body, headers=headers) as response:
        if response.status == 200:
            await _stream(response, record, load)
            return None
        text = " ".join((await response.text()).split())[:200]
        wait_s = _retry_after_s(response.status, response.headers.get("Retry-After"))
    if wait_s is not None and record.retries < MAX_RETRIES:
        return wait_s
    record.outcome = Outcome.FAILED
    record.error = f"HTTP {response.status}: {text}"
    return None


async def _stream(response: aiohttp.ClientResponse, record: RequestRecord, load: LoadRun) -> None:
    counter = TokenCounter()
    last_s = 0.0
    while chunk := await response.content.readany():
        tokens = counter.feed(chunk)
        if not tokens:
            continue
        now_s = load.now_s()
        if record.ttft_s is None:
            record.ttft_s = now_s - record.at_s
        else:
            record.gaps_s.append(now_s - last_s)
        # Tokens that arrive together are seen together: the user waits once for all of them.
        record.gaps_s.extend([0.0] * (tokens - 1))
        record.tokens += tokens
        last_s = now_s
    if counter.done and not counter.error and record.tokens == record.output_tokens:
        record.outcome = Outcome.OK
    else:
        record.outcome = Outcome.FAILED
        ending = counter.error or ("ended early" if counter.done else "cut")
        record.error = f"stream with {record.tokens} of {record.output_tokens} tokens: {ending}"


def _retry_after_s(status: int, header: str | None) -> float | None:
    """How long to wait before another try; None when there must be none."""
    if status != 503 or header is None:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        return None
    return wait_s if 0 <= wait_s <= MAX_RETRY_AFTER_S else None
