"""What several commands share: argument types, logging, and running a server until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import math
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoscaler.errors import UserError

if TYPE_CHECKING:
    from kubeapi.config import Config

CONTROLLER_PORT = 9470
"""Where a controller serves its status unless told otherwise, and where `explain` asks."""

_ASYNCIO_BIND = "error while attempting to bind"
_ADDRESS_ERRORS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)


def number(low: float, *, above: bool = False) -> Callable[[str], float]:
    """An argument type: a finite number, at least (or above) `low`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < low or (above and value == low):
            bound = f"above {low:g}" if above else f"of at least {low:g}"
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number {bound}")
        return value

    return parse


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argument type: a whole number within bounds."""

    def parse(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else low - 1
        if value < low or (high is not None and value > high):
            bound = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number {bound}")
        return value

    return parse


port = whole(0, 65535)


def configure_logging(level: int = logging.INFO) -> None:
    """One line per event on stderr."""
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )


def run_server(server: Coroutine[Any, Any, Any]) -> None:
    """Run to the end; an address that cannot be bound is the user's to change."""
    try:
        asyncio.run(server)
    except OSError as error:
        if error.errno in _ADDRESS_ERRORS:
            text = error.strerror or str(error)
            # asyncio's own words name no remedy; those of a room do.
            remedy = "; give another port or address" if text.startswith(_ASYNCIO_BIND) else ""
            raise UserError(text + remedy) from error
        raise


def kubeconfig_out(option: str, path: Path) -> Path:
    """Where a local cluster may write its kubeconfig: never over one that is not a local cluster's."""
    try:
        foreign = path.exists() and '"name": "localcluster"' not in path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read: {error.strerror}; give another path") from error
    if foreign:
        raise UserError(f"{option} {path}: exists and is not a local cluster's; give another path or remove it")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: no folder {path.parent}; make it or give another path")
    return path


@contextmanager
def cluster_errors() -> Iterator[None]:
    """An API server that cannot be reached or refuses is the user's to put right, in one line."""
    from kubeapi.errors import ApiError

    try:
        yield
    except ApiError as error:
        raise UserError(f"the cluster cannot be read: {error.message}; check --kubeconfig") from error


def kube_config(path: Path | None) -> Config:
    """The cluster to speak to. Raises UserError."""
    from kubeapi.config import load_config
    from kubeapi.errors import ApiError

    try:
        return load_config(path)
    except ApiError as error:
        raise UserError(f"{error.message}; give --kubeconfig FILE or set KUBECONFIG") from error
