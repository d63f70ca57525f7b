"""A signal for "something changed", for any number of waiters, none of which misses a change."""

from __future__ import annotations

import asyncio


class Changes:
    """Counts changes. A waiter names the count that it knows and wakes on anything newer."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Something changed."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def since(self, count: int) -> None:
        """Wait for anything newer than `count`."""
        while self.count == count:
            await self._event.wait()
