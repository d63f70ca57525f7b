"""A metrics page as a person reads it: what was understood, what it does not say, what was not used, and why.

Rules:
1. Nothing is derived here but means and percentiles; what the page does not say is a dash, with its reason below.
2. Plain text of at most 100 columns where names allow: it is read in terminals, in pipes and in tickets.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from autoscaler.adapters.pages import Distribution, Page, Signals
from autoscaler.adapters.pages.corpus import PLAIN
from autoscaler.core.histogram import percentile_s
from autoscaler.model import Number
from policies.model import Missing

WIDTH = 100
_KINDS = {
    "engine": "the page of an engine",
    "frontend": "the page of a frontend, not of an engine",
    "gateway": "the page of a gateway, not of an engine",
    "router": "the page of a router, not of an engine",
    "none": "nobody's page",
}
_BASES = {"label": "as a label says", "behaviour": "as what it has done shows"}
_COLUMNS = {
    "running": "RUNNING",
    "waiting": "WAITING",
    "kv_usage": "KV USE",
    "kv_capacity_tokens": "KV TOKENS",
    "prompt_tokens_total": "PROMPT TOKENS",
    "generation_tokens_total": "OUTPUT TOKENS",
}
_SPREADS = {"ttft": "TTFT", "itl": "ITL", "queue_time": "queue time"}
_ALSO = {
    "kv_usage_max": "fullest engine's KV use",
    "in_flight": "requests in flight",
    "swapped": "requests swapped out",
    "gateway_queue": "requests that wait in the gateway",
    "pool_ready": "ready pods of the pool",
    "pool_average_queue": "mean queue of the pool's pods",
    "pool_average_running": "mean of what the pool's pods run",
    "arrivals_total": "requests that arrived",
    "finished_total": "requests that ended",
    "failed_total": "of them without any output",
    "preemptions_total": "preemptions",
    "held_kv": "prompts whose KV waits to be pulled",
    "kv_transfers_total": "KV transfers",
    "prompt_tokens_cached_total": "prompt tokens from a cache",
    "prompt_tokens_received_total": "prompt tokens whose KV came from elsewhere",
    "kv_demand_ratio": "KV that requests ask for, over all there is",
}
_SHARES = ("kv_usage", "kv_usage_max")


def page_text(page: Page) -> str:
    """The page for people, line by line."""
    blocks = [_wrapped(_head(page))]
    if page.units or page.kind != "none":
        blocks += [list(_load(page)), list(_splits(page.totals)), list(_latencies(page)), list(_also(page.totals))]
    blocks += [
        list(_section("not what it is called", page.cautions.items())),
        list(_section("not said", _missing(page.totals))) if page.kind != "none" else [],
        list(_section("not used", ((one.names, one.why) for one in page.ignored))),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _head(page: Page) -> str:
    if page.kind == "none":
        return f"{_KINDS['none']}: {page.problem}"
    role = f"; role {page.role}, {_BASES[page.role_basis]}" if page.role and page.role_basis else "; role not said"
    models = f"; model {', '.join(page.models)}" if page.models else "; no model named"
    return f"{page.engine}: {_KINDS[page.kind]}{role if page.kind == 'engine' else ''}{models}"


def _load(page: Page) -> Iterator[str]:
    """A row for each unit, and one for all."""
    rows = [["", *_COLUMNS.values()]]
    for unit in page.units:
        name = ", ".join(f"{key}={value}" for key, value in unit.id.items()) or "the only one"
        rows.append([name, *_cells(unit.signals)])
    if len(page.units) != 1:
        rows.append(["all", *_cells(page.totals)])
    yield from _columns(rows)


def _cells(signals: Signals) -> list[str]:
    return [_number(getattr(signals, name), share=name in _SHARES) for name in _COLUMNS]


def _splits(totals: Signals) -> Iterator[str]:
    splits = {
        "waiting by reason": totals.waiting_by_reason,
        "in flight by stage": totals.in_flight_by_stage,
        "disaggregation queues": totals.disagg_queues,
    }
    for name, split in splits.items():
        if isinstance(split, Mapping) and split:
            yield from _wrapped(f"{name}: {', '.join(f'{key} {_number(value)}' for key, value in split.items())}")


def _latencies(page: Page) -> Iterator[str]:
    rows = [["", "COUNT", "MEAN", "P50", "P95", "P99"]]
    for name, title in _SPREADS.items():
        spread = getattr(page.totals, name)
        if isinstance(spread, Distribution):
            mean_s: Number = spread.sum_s / spread.count if spread.count else Missing("nothing observed")
            centiles = [percentile_s(spread.buckets, percent) for percent in (50, 95, 99)]
            rows.append([title, _number(spread.count), *map(_seconds, (mean_s, *centiles))])
    if len(rows) > 1:
        yield from _columns(rows)


def _also(totals: Signals) -> Iterator[str]:
    for name, words in _ALSO.items():
        value = getattr(totals, name)
        if not isinstance(value, Missing):
            yield f"{words}: {_number(value, share=name in _SHARES)}"


def _missing(totals: Signals) -> Iterator[tuple[str, str]]:
    """Signals that the corpus' form has and the page does not, together where the reason is the same."""
    why: dict[str, list[str]] = {}
    for name in PLAIN:
        if isinstance(value := getattr(totals, name), Missing):
            why.setdefault(value.missing, []).append(name)
    for text, names in why.items():
        yield ", ".join(names), text


def _section(title: str, entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A heading, then what with why; nothing where there is nothing."""
    by_why: dict[str, list[str]] = {}
    for what, why in entries:
        by_why.setdefault(why, []).append(what)
    if by_why:
        yield f"{title}:"
    for why, whats in by_why.items():
        yield from _wrapped(f"{', '.join(whats)}: {why}", "  ")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join((row[0].ljust(widths[0]), *numbers)).rstrip()


def _number(value: Number, *, share: bool = False) -> str:
    if isinstance(value, Missing):
        return "-"
    if share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"


def _seconds(value: Number) -> str:
    if isinstance(value, Missing):
        return "-"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
