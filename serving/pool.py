"""The workers that a router may use, and which one is next; pure.

Rules:
1. The load of a worker is what this router has given it and not yet got back: never a scraped number, so a
   new worker is neither a magnet nor a stranger.
2. A worker that failed or refused is left alone for a while, after which it is tried again.
3. A worker is its uid: a pod that comes back under an old address starts afresh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Address:
    """A ready worker as discovery sees it."""

    uid: str
    role: str
    url: str


@dataclass(slots=True, eq=False)
class Endpoint:
    """A worker as the router sees it: `load` is in prompt tokens for prefill, in sequences for decode."""

    address: Address
    load: int = 0
    avoid_until_s: float = 0.0
    last_turn: int = 0


class Pool:
    """All ready workers of one service."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._turns = 0

    def replace(self, seen: Iterable[Address]) -> None:
        """Take over what discovery sees now; a worker that stays keeps its load."""
        old = self._endpoints
        self._endpoints = {
            address.uid: old[address.uid]
            if address.uid in old and old[address.uid].address == address
            else Endpoint(address)
            for address in seen
        }

    def of_role(self, role: str) -> list[Endpoint]:
        """The workers of a role, also those that are avoided for now."""
        return [endpoint for endpoint in self._endpoints.values() if endpoint.address.role == role]

    def pick(self, role: str, now_s: float, ahead: float = inf) -> Endpoint | None:
        """The least loaded worker, among equals the one whose turn was longest ago. Linear.

        None if there is no worker, or if each has at least `ahead` of load and is not idle.
        """
        usable = [endpoint for endpoint in self.usable(role, now_s) if not endpoint.load or endpoint.load < ahead]
        if not usable:
            return None
        chosen = min(usable, key=lambda endpoint: (endpoint.load, endpoint.last_turn))
        self._turns += 1
        chosen.last_turn = self._turns
        return chosen

    def usable(self, role: str, now_s: float) -> list[Endpoint]:
        """The workers of a role that are not avoided now."""
        return [endpoint for endpoint in self.of_role(role) if endpoint.avoid_until_s <= now_s]

    def next_try_s(self, role: str) -> float | None:
        """When the first avoided worker may be tried again; None if there is no worker."""
        return min((endpoint.avoid_until_s for endpoint in self.of_role(role)), default=None)
