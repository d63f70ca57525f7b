"""Read metrics straight from the pods: one HTTP GET per router and per pod of a TP group, all at once.

Rules:
1. One bad pod never affects the others: each has its own time limit, size limit and reason.
2. The whole read takes no longer than one pod may, however many hang.
3. Pages are understood one per turn of the event loop, so that those still on their way do not run out of time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import aiohttp

from autoscaler.adapters.join import Joiner, Read, Reading, ScrapeTarget, page_for
from autoscaler.adapters.pages import NAMES, Page, PageError
from autoscaler.adapters.pages.text import parse
from autoscaler.model import Samples

MAX_PAGE_BYTES = 16 * 1024 * 1024
ACCEPT = "text/plain;version=0.0.4"
"""The plain format, in which names stand as the engines document them."""
NO_ANSWER = ("no answer within", "cannot connect")
"""How the reasons begin that say nothing of the page."""


class Unread(Exception):
    """A page that could not be had; one line that says why."""


class Scraper:
    """Reads metrics pages, of `model` only where one is named. Needs a running event loop; `close()` when done."""

    def __init__(self, scrape_timeout_s: float, model: str | None = None) -> None:
        self._timeout_s = scrape_timeout_s
        self._joiner = Joiner(model)
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Lock()

    async def read(self, targets: Sequence[ScrapeTarget], now_s: float, service: str) -> Samples:
        """One sample or one reason from each target. Takes as long as the slowest, at most the time limit."""
        if self._session is None:
            self._session = _session()
        session = self._session
        readings = await asyncio.gather(*(self._one(session, target, now_s) for target in targets))
        return self._joiner.samples(dict(zip(targets, readings, strict=True)), service)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _one(self, session: aiohttp.ClientSession, target: ScrapeTarget, now_s: float) -> Reading:
        try:
            text, content_type = await _answer(session, target.url, self._timeout_s)
            return Read(await self._understood(text, content_type), now_s)
        except Unread as error:
            return str(error)
        except PageError as error:
            return f"page {error}"

    async def _understood(self, text: str, content_type: str) -> Page:
        async with self._turn:
            page = page_for(parse(text, NAMES, content_type), self._joiner.model)
            await asyncio.sleep(0)
            return page


async def fetch_page(url: str, timeout_s: float) -> tuple[str, str]:
    """One page as the scraper asks for it, and its content type. Raises Unread."""
    async with _session() as session:
        return await _answer(session, url, timeout_s)


def _session() -> aiohttp.ClientSession:
    # The identity encoding keeps the size limit honest; without a connection limit no pod waits for another.
    headers = {"Accept-Encoding": "identity", "Accept": ACCEPT}
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)


async def _answer(session: aiohttp.ClientSession, url: str, timeout_s: float) -> tuple[str, str]:
    try:
        async with asyncio.timeout(timeout_s):
            return await _fetch(session, url)
    except TimeoutError as error:
        raise Unread(f"{NO_ANSWER[0]} {timeout_s:g} s") from error
    except aiohttp.ClientConnectorError as error:
        raise Unread(f"{NO_ANSWER[1]}: {os.strerror(error.os_error.errno or 0)}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unread(f"{type(error).__name__}: {_one_line(error)}") from error


async def _fetch(session: aiohttp.ClientSession, url: str) -> tuple[str, str]:
    """The body of a page, and its content type."""
    async with session.get(url) as response:
        if response.status != 200:
            raise Unread(f"page was not served: HTTP {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_PAGE_BYTES:
                raise Unread(f"page is larger than {MAX_PAGE_BYTES // 1024**2} MiB")
        return body.decode("utf-8", errors="replace"), response.content_type


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
