"""Pod addresses from 127.0.0.0/24, so that every pod can use the same ports.

Rules:
1. An address is held through a socket that no other cluster on the host can open at the same time; the kernel
   gives it back when this process dies.
2. Addresses are used in turn, so that a name of an old pod does not lead to a new one at once.
3. An address whose declared ports are taken by someone else is skipped.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from kubeapi.client import Object

FIRST, LAST = 10, 254


class Addresses:
    """The addresses that this agent may give to pods."""

    def __init__(self, first: int = FIRST, last: int = LAST) -> None:
        self._order = [f"127.0.0.{host}" for host in range(first, last + 1)]
        self._held: dict[str, socket.socket] = {}

    def acquire(self, ports: Iterable[int]) -> str | None:
        """A free address whose ports can be bound now, or None."""
        wanted = tuple(ports)
        for address in list(self._order):
            if address in self._held:
                continue
            lock = _hold(address)
            if lock is None:
                continue
            if all(_can_bind(address, port) for port in wanted):
                self._held[address] = lock
                self._order.remove(address)
                self._order.append(address)
                return address
            lock.close()
        return None

    def release(self, address: str) -> None:
        """Give an address back."""
        self._held.pop(address).close()


def declared_ports(pod: Object) -> list[int]:
    """The container ports that the pod says it will listen on."""
    containers = pod["spec"]["containers"]
    return [int(port["containerPort"]) for container in containers for port in container.get("ports") or []]


def _hold(address: str) -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(f"\0localcluster-pod-ip-{address}")
    except OSError:
        lock.close()
        return None
    return lock


def _can_bind(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
