"""`roleratio metrics`: what the controller understands of one metrics page, and what it does not use of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from autoscaler.errors import UserError
from roleratio.commands.common import number

EXAMPLE = "roleratio metrics http://10.0.0.7:8000/metrics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The page and the form of the answer."""
    add = parser.add_argument
    add("page", metavar="FILE|URL", help="a saved page, - for standard input, or where an engine serves it")
    add("-o", "--output", choices=("table", "json"), default="table", help="(default table)")
    add("--timeout-s", type=number(0, above=True), default=5.0, metavar="S", help="wait so long (default %(default)g)")


def run(arguments: argparse.Namespace) -> int:
    """Read one page and say what it says. A page that is nobody's is told as such; exit code 1."""
    from autoscaler.adapters.pages import PageError, as_corpus, read_page
    from roleratio.metrics_page import page_text

    text, content_type = _page(arguments.page, arguments.timeout_s)
    try:
        page = read_page(text, content_type)
    except PageError as error:
        raise UserError(f"{arguments.page}: page {error}") from error
    print(json.dumps(as_corpus(page), indent=2) if arguments.output == "json" else page_text(page))
    return 1 if page.kind == "none" else 0


def _page(source: str, timeout_s: float) -> tuple[str, str]:
    """The text of a page and its content type. Raises UserError."""
    if source.startswith(("http://", "https://")):
        from autoscaler.adapters.scrape import Unread, fetch_page

        try:
            return asyncio.run(fetch_page(source, timeout_s))
        except Unread as error:
            raise UserError(f"{source}: {error}; check the address, or save the page and give the file") from error
    try:
        body = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}; give a file, - or a URL") from error
    return body.decode("utf-8", errors="replace"), ""
