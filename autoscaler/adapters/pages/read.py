"""A page understood: which family it is of, its engines, its role, and what of it was not used. Pure.

Rules:
1. A page is of the family whose marks it has. One that shows another family's names besides its own is `over` it.
   Two families where neither is over the other are a refusal: kind `none`, with the reason.
2. A role comes from a label that means it, else from what the engine has done, else it is not known.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from autoscaler.adapters.pages.aggregate import Aggregator, marked
from autoscaler.adapters.pages.family import SUFFIXES, Family
from autoscaler.adapters.pages.model import Distribution, Ignored, Page, Serves, Signals
from autoscaler.adapters.pages.tables import FAMILIES, NAMES
from autoscaler.adapters.pages.text import Exposition, Sample, collect, parse
from policies.model import Missing

REMOTE_SHARE = 0.9
"""From this share of prompt tokens on that came as KV from elsewhere, an engine decodes what others prefilled."""

CHUNKS_SHARE = 0.5
"""Fewer gaps than this per generated token are gaps between chunks, not between tokens."""

MAX_IGNORED = 200
"""So many lines say what was not used; more of them would help nobody."""


def read_page(text: str, content_type: str = "") -> Page:
    """What a page says. Raises PageError, one line, when it cannot be read."""
    return understand(parse(text, NAMES, content_type))


def page_of(samples: Iterable[Sample]) -> Page:
    """What the same series say when a store of series gives them."""
    return understand(collect(samples, NAMES))


def understand(exposition: Exposition) -> Page:
    """A page from its series."""
    found = [family for family in FAMILIES if any(marked(exposition.series, mark) for mark in family.marks)]
    left = [one for one in found if not any(one.engine in other.over for other in found if other is not one)]
    if len(left) != 1:
        ignored = _ignored(exposition, None, set())
        return Page(None, "none", problem=_problem(left, ignored), ignored=ignored)
    family = left[0]
    aggregator = Aggregator(exposition, family)
    units, totals = aggregator.units()
    roles = {unit.role for unit in units if unit.role}
    role = min(roles) if len(roles) == 1 and all(unit.role for unit in units) else None
    behaved = _behaviour(totals) if not roles and family.behaves else None
    if len(roles) > 1:
        totals = _untold("its engines have different roles")
    return Page(
        engine=family.engine,
        kind=family.kind,
        models=aggregator.models(),
        units=units,
        totals=totals,
        role=role or behaved,
        role_basis="label" if role else "behaviour" if behaved else None,
        ignored=_ignored(exposition, family, aggregator.used),
        cautions=_cautions(totals),
        series=sum(map(len, exposition.series.values())),
    )


def _problem(left: list[Family], ignored: tuple[Ignored, ...]) -> str:
    """Why nothing is taken from a page that can be read."""
    if left:
        names = " and ".join(sorted({family.engine for family in left}))
        return f"two kinds of engines on one page, {names}: which of them it speaks for cannot be known"
    seen = ", ".join(group.names for group in ignored[:4])
    return f"no engine's names are on the page ({seen or 'nothing'}): is it the port of the engine's metrics?"


def _untold(why: str) -> Signals:
    return Signals(**{field.name: Missing(why) for field in dataclasses.fields(Signals)})


def _behaviour(totals: Signals) -> Serves | None:
    """The role that an engine's own work shows.

    Decode: its prompts' KV came from elsewhere, or is waited for in a decode worker's queues. Prefill: it hands KV over
    and every request got its first token and no second, or requests wait in a prefill worker's queues.
    """
    queues = totals.disagg_queues
    if not isinstance(queues, Missing):
        busy = {name.split("_")[1] for name, waiting in queues.items() if waiting > 0}
        if len(busy) == 1:
            return "prefill" if "prefill" in busy else "decode"
    received, computed = totals.prompt_tokens_received_total, totals.prompt_tokens_computed_total
    if isinstance(received, float) and isinstance(computed, float) and received > 0:
        return "decode" if received >= REMOTE_SHARE * (received + computed) else None
    ttft, itl, tokens = totals.ttft, totals.itl, totals.generation_tokens_total
    if isinstance(ttft, Missing) or isinstance(tokens, Missing) or isinstance(totals.kv_transfers_total, Missing):
        return None
    no_second = not isinstance(itl, Distribution) or itl.count == 0
    return "prefill" if no_second and ttft.count > 0 and tokens == ttft.count else None


def _cautions(totals: Signals) -> Mapping[str, str]:
    """Signals that are not what they are called."""
    itl, tokens = totals.itl, totals.generation_tokens_total
    if isinstance(itl, Distribution) and isinstance(tokens, float) and itl.count < CHUNKS_SHARE * tokens:
        return {"itl": f"counts chunks, not tokens: {itl.count:g} gaps for {tokens:g} tokens"}
    return {}


def _ignored(exposition: Exposition, family: Family | None, used: set[str]) -> tuple[Ignored, ...]:
    """What was seen and not used: by what the table says of it, else by the beginning of its name."""
    unused = {_stem(name) for name in exposition.series if name not in used}
    others = {_stem(name) for name in exposition.others} - {_stem(name) for name in used}
    groups: Counter[tuple[str, str]] = Counter()
    notes = family.notes if family else {}
    for name in sorted(unused | others):
        if name.endswith("_created"):
            groups["*_created", "Unix times of the counters' start"] += 1
        elif note := max((begin for begin in notes if name.startswith(begin)), key=len, default=""):
            groups[name, notes[note]] += 1
        elif name in unused:
            groups[name, "the same thing is read under another name, or belongs to another kind of page"] += 1
        else:
            groups[_beginning(name) + "*", "not needed"] += 1
    told = sorted(groups.items())
    more = (Ignored(f"{len(told) - MAX_IGNORED} more", "not needed"),) if len(told) > MAX_IGNORED else ()
    lines = (Ignored(f"{names} ({count})" if count > 1 else names, why) for (names, why), count in told[:MAX_IGNORED])
    return (*lines, *more)


def _stem(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def _beginning(name: str) -> str:
    for mark in (":", "_"):
        if mark in name:
            return name[: name.index(mark) + 1]
    return name
