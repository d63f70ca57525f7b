"""The router's hand-made exchange, against servers that send whatever the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from serving.api import unchunked
from serving.exchange import Exchange

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b"3\r\nab0\r\n10\r\n0123456789abcde0\r\n"  # begins of a last chunk in many places
LAST = b"0\r\n\r\n"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await script(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/completions"


def sending(*parts: bytes, pause_s: float = 0.0) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return script


async def ask(url: str, silence_s: float = 5.0) -> Exchange:
    return await Exchange.post(url, b"{}", {"X-A": "b"}, connect_limit_s=2.0, silence_s=silence_s)


@pytest.mark.parametrize("cut", [1, 40, *range(len(HEAD), len(HEAD + BODY + LAST))])
async def test_a_stream_is_whole_wherever_its_reads_end(cut: int) -> None:
    whole = HEAD + BODY + LAST
    got: list[bytes] = []
    async with serving(sending(whole[:cut], whole[cut:], pause_s=0.002)) as url, await ask(url) as exchange:
        assert exchange.status == 200
        await exchange.begun()
        await exchange.follow(got.append)
    assert b"".join(got) == BODY
    assert unchunked(BODY) == b"ab00123456789abcde0"


async def test_byte_by_byte() -> None:
    parts = [bytes([byte]) for byte in BODY + LAST]
    got: list[bytes] = []
    async with serving(sending(HEAD, *parts, pause_s=0.001)) as url, await ask(url) as exchange:
        await exchange.follow(got.append)
    assert b"".join(got) == BODY


async def test_an_answer_with_a_length() -> None:
    answer = b"HTTP/1.1 503 No\r\nX-Roleratio-Draining: 1\r\nContent-Length: 4\r\n\r\n"
    async with serving(sending(answer, b"bu", b"sy")) as url, await ask(url) as exchange:
        assert (exchange.status, exchange.headers["x-roleratio-draining"]) == (503, "1")
        assert await exchange.read() == b"busy"


async def test_the_request_that_is_sent() -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(2))
        writer.write(HEAD + LAST)

    async with serving(script) as url, await ask(url) as exchange:
        await exchange.begun()
    assert seen == [b"{}"]


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ((), "closed before the end"),
        ((HEAD[:20],), "closed before the end"),
        ((HEAD, BODY), "closed before the end"),
        ((HEAD, BODY, LAST[:3]), "closed before the end"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"short"), "closed before the end"),
        ((b"SSH-2.0-hello\r\n\r\n",), "not an HTTP answer"),
        ((b"x" * 70_000,), "an endless HTTP head"),
    ],
)
async def test_what_is_not_whole_is_a_failure(parts: tuple[bytes, ...], line: str) -> None:
    async with serving(sending(*parts)) as url:
        with pytest.raises(OSError, match=line):
            async with await ask(url) as exchange:
                await exchange.follow(lambda data: None)


@pytest.mark.parametrize("parts", [(), (HEAD,), (HEAD, BODY)])
async def test_silence_is_a_failure(parts: tuple[bytes, ...]) -> None:
    async with serving(sending(*parts, b"", pause_s=1.0 if not parts else 0.3)) as url:
        with pytest.raises(TimeoutError, match="silent"):
            async with await ask(url, silence_s=0.1) as exchange:
                await exchange.follow(lambda data: None)


async def test_giving_up_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(HEAD + BODY)
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            closed.set()

    async with serving(script) as url:
        async with await ask(url) as exchange:
            await exchange.begun()
        await asyncio.wait_for(closed.wait(), 2)


async def test_nobody_listens() -> None:
    async with serving(sending()) as url:
        pass
    with pytest.raises(OSError, match=r"refused|Connect"):
        await ask(url)
