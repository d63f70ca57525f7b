"""What to say when a port cannot be listened on; standard library only, for the ranks' sake."""

from __future__ import annotations

import socket


def cannot_listen(host: str, port: int, error: OSError) -> OSError:
    """The same error in one line that names the address."""
    where = f"cannot listen on {host}:{port}"
    if isinstance(error, socket.gaierror):
        return OSError(f"{where}: {host!r} is not an address of this machine")
    reason = (error.strerror or str(error)).rpartition(": ")[2]
    return OSError(error.errno, f"{where}: {reason}")
