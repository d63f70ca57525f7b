"""Several mistakes of the user's, told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autoscaler.errors import UserError


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Keeps a UserError's problems and goes on after the block."""
    try:
        yield
    except UserError as error:
        problems += error.problems
