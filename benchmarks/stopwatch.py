"""Timing in one place: wall-clock milliseconds of a block or of repeated work."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def timed(spent_ms: list[float]) -> Iterator[None]:
    """Append how long the block took."""
    began_s = time.perf_counter()
    yield
    spent_ms.append((time.perf_counter() - began_s) * 1e3)


def repeat(work: Callable[[], T], times: int) -> tuple[T, list[float]]:
    """The last result, and how long each run took."""
    spent_ms: list[float] = []
    for _ in range(times):
        with timed(spent_ms):
            result = work()
    return result, spent_ms


async def repeat_async(work: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """How long each run took, one after the other."""
    spent_ms: list[float] = []
    for _ in range(times):
        with timed(spent_ms):
            await work()
    return spent_ms
