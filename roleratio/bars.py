"""Progress bars: on stderr, so that stdout has nothing but results, and gone when they are done."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress


def bars() -> Progress:
    """A context in which tasks have bars; without a terminal there is nobody to see them."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
