"""Metrics pages of every serving engine: text in, `Page` out. Pure: no clock, no socket, no file.

`read_page(text, content_type)` reads a page, `page_of(series)` the same from series that a Prometheus gave; both look
names up in `tables`, which is data. `as_corpus(page)` is the page as JSON. A page that cannot be read is a `PageError`
of one line; one that can be read and is nobody's has the kind `none` and says why.
"""

from __future__ import annotations

from autoscaler.adapters.pages.corpus import as_corpus
from autoscaler.adapters.pages.model import Distribution, Ignored, Kind, Page, Serves, Signals, Unit
from autoscaler.adapters.pages.read import page_of, read_page
from autoscaler.adapters.pages.tables import FAMILIES, NAMES
from autoscaler.adapters.pages.text import PageError, Sample

__all__ = [
    "FAMILIES",
    "NAMES",
    "Distribution",
    "Ignored",
    "Kind",
    "Page",
    "PageError",
    "Sample",
    "Serves",
    "Signals",
    "Unit",
    "as_corpus",
    "page_of",
    "read_page",
]
