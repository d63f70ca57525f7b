"""Read metrics straight from the pods: one HTTP GET per router and worker, all at once.

Rules:
1. One bad pod never affects the others: each has its own time limit, size limit and reason.
2. The whole read takes no longer than one pod may, however many hang.
3. Every target ends up in exactly one place: a sample or a failure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import aiohttp

from autoscaler.adapters.exposition import Page, PageError, parse_page, router_sample, worker_sample
from autoscaler.model import RouterSample, Samples, WorkerSample
from policies.model import Role

MAX_PAGE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """A pod that has metrics: a router or the leader of a TP group."""

    pod: str
    uid: str
    role: Literal["router", "prefill", "decode"]
    url: str = ""


Reading = RouterSample | WorkerSample | str
"""A sample, or why there is none."""


def read_page(page: Page, target: ScrapeTarget, at_s: float, service: str) -> Reading:
    """The sample that a target's page holds."""
    try:
        if target.role == "router":
            return router_sample(page, target.uid, at_s, service)
        return worker_sample(page, target.uid, target.pod, Role(target.role), at_s)
    except PageError as error:
        return f"page {error}"


def gather(readings: Mapping[str, Reading]) -> Samples:
    """Readings by pod, sorted into samples and failures, in the order of the pods' names."""
    ordered = [readings[pod] for pod in sorted(readings)]
    return Samples(
        routers=tuple(reading for reading in ordered if isinstance(reading, RouterSample)),
        workers=tuple(reading for reading in ordered if isinstance(reading, WorkerSample)),
        failures={pod: reading for pod, reading in sorted(readings.items()) if isinstance(reading, str)},
    )


class Scraper:
    """Reads metrics pages. Needs a running event loop; `close()` when done."""

    def __init__(self, scrape_timeout_s: float) -> None:
        self._timeout_s = scrape_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def read(self, targets: Sequence[ScrapeTarget], now_s: float, service: str) -> Samples:
        """One sample or one reason from each target. Takes as long as the slowest, at most the time limit."""
        if self._session is None:
            # The identity encoding keeps the size limit honest; without a connection limit no pod waits for another.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), headers={"Accept-Encoding": "identity"}
            )
        session = self._session
        readings = await asyncio.gather(*(self._one(session, target, now_s, service) for target in targets))
        return gather({target.pod: reading for target, reading in zip(targets, readings, strict=True)})

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _one(self, session: aiohttp.ClientSession, target: ScrapeTarget, now_s: float, service: str) -> Reading:
        try:
            async with asyncio.timeout(self._timeout_s):
                text = await _fetch(session, target.url)
            return read_page(parse_page(text), target, now_s, service)
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except PageError as error:
            return f"page {error}"
        except aiohttp.ClientConnectorError as error:
            return f"cannot connect: {os.strerror(error.os_error.errno or 0)}"
        except (aiohttp.ClientError, OSError) as error:
            return f"{type(error).__name__}: {_one_line(error)}"


async def _fetch(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        if response.status != 200:
            raise PageError(f"was not served: HTTP {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_PAGE_BYTES:
                raise PageError(f"is larger than {MAX_PAGE_BYTES // 1024**2} MiB")
        return body.decode("utf-8", errors="replace")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
