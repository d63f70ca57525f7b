"""What the tables of pages know, as PromQL: one query per signal over all engines, for people and for rules. Pure.

Rules:
1. A pod's number is that of one scrape: summed over its engines within each scrape, then the largest of the scrapes,
   so that two monitors or two replicas of a Prometheus count once. Ranks and processes of one engine count once.
2. Of several names for one thing the first that a pod has counts, in the order of the tables (`or on (pod)`).
3. Rates are taken of single series, before anything is added up, so that no reset is hidden in a sum.
4. `le` is a number: a bound is matched as `1` and as `1.0`, and a range that holds both spellings is added up.
5. What only a look at the whole page tells is not here: the weights of a mean over unequal engines, an ITL of chunks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Literal

from autoscaler.adapters.pages import FAMILIES
from autoscaler.adapters.pages.family import (
    ByLabel,
    Counter,
    Difference,
    Family,
    Gauge,
    Ratio,
    Source,
    Times,
    Where,
)
from autoscaler.adapters.sources import PLACES, RENAMED

Of = Literal["engine", "front"]
"""Engines, or what stands before them: routers, gateways and frontends."""
State = Literal["running", "waiting", "kv_usage", "kv_usage_max"]
Count = Literal["arrivals_total", "finished_total", "failed_total", "prompt_tokens_total", "generation_tokens_total"]
Latency = Literal["ttft", "itl", "queue_time"]

POD = ("cluster", "namespace", "pod")
SERVICE = ("cluster", "namespace", "roleratio_service", "roleratio_role")
BY = (*SERVICE, "pod")
"""What a pod's number is labelled with: the last two of `SERVICE` are what a scrape adds for us."""
SCRAPE = ("job", "instance", "service", "container", "prometheus", "prometheus_replica", "replica", "receive_replica")
"""Labels that tell scrapes of one pod apart."""


def state(signal: State) -> str:
    """A gauge of each engine's pod. `waiting` is without what waits for remote KV, `kv_usage` a mean over engines."""
    if signal.startswith("kv_"):
        return _used(f"({_chain('kv_usage', 'engine')} >= 0 <= 1)", whole=signal == "kv_usage")
    total = _summed(f"({_chain(signal, 'engine')} >= 0)")
    if signal != "waiting":
        return total
    deferred = _summed(_chain("waiting_by_reason", "engine", {"reason": ("deferred",)}))
    return f"clamp_min({total} - {deferred} or {total}, 0)"


def _used(chain: str, whole: bool) -> str:
    """KV use of each pod: the mean over its engines where all of it is meant, else the largest."""
    if not whole:
        return f"max by ({_list(BY)}) {chain}"
    engines = sorted({label for one in _families("engine") for unit in one.units or () for label in unit.labels})
    each = f"max by ({_list((*BY, *SCRAPE, *engines))}) {chain}"
    return f"max by ({_list(BY)}) (avg by ({_list((*BY, *SCRAPE))}) ({each}))"


def rate(signal: Count, of: Of = "engine", window: str = "5m", only: str = "") -> str:
    """A counter per second, of each pod. `only`: matchers of the series that are meant."""
    return _summed(_chain(signal, of, window=window, only=only))


def buckets(signal: Latency, of: Of = "engine", window: str = "5m", le: str = "") -> str:
    """The buckets of a latency per second, of each pod. `le`: a matcher that chooses some of them."""
    return _summed(_chain(signal, of, window=window, suffix="_bucket", only=le), "le")


def quantile(share: float, bucket_rates: str, by: Iterable[str] = SERVICE) -> str:
    """A percentile in seconds. `bucket_rates`: what `buckets` gives, or a recorded name of it."""
    return f"histogram_quantile({share:g}, sum by ({_list((*by, 'le'))}) ({bucket_rates}))"


def share_within(target_s: float, bucket_rates: Callable[[str], str], by: Iterable[str] = SERVICE) -> str:
    """The share of a latency's observations in the last bucket that is within the target: exact where the target is a
    bound of the histogram, else from below. `bucket_rates`: matcher of `le` -> what `buckets` gives, or its record.
    """
    groups = _list(by)
    # One bound in two spellings becomes one label, without ever being one series.
    below = bucket_rates("le=~" + _quoted(at_most(target_s)))
    bounded = f'label_replace({below}, "bound", "$1", "le", "(.+?)([.]0+)?")'
    within = f"sum by ({groups}) (max by ({_list(BY)}) (sum by ({_list((*BY, 'bound'))}) ({bounded})))"
    return f"{within} / (sum by ({groups}) ({bucket_rates('le=~' + _quoted('[+]?Inf'))}) > 0)"


def at_most(target_s: float) -> str:
    """A regular expression for the decimal numbers up to a target, as bounds of buckets are written."""
    if not 1e-4 <= target_s < 1e9:
        raise ValueError(f"target {target_s:g} s: expected 0.0001 to 1e9")
    whole, _, fraction = f"{Decimal(repr(float(target_s))):f}".partition(".")
    fraction = fraction.rstrip("0")
    found = [f"{smaller}([.][0-9]+)?" for smaller in _integers_below(whole)]
    found += [f"{whole}([.]0*)?"]
    for at, digit in enumerate(fraction):
        if digit != "0":
            found.append(f"{whole}[.]{fraction[:at]}[0-{int(digit) - 1}][0-9]*")
        found.append(f"{whole}[.]{fraction[: at + 1]}0*")
    # Both Go and Python write numbers below 0.0001 with an exponent.
    return "|".join((*found, "[0-9.]+e-[0-9]+"))


def _integers_below(whole: str) -> Iterator[str]:
    """Regular expressions for the non-negative integers below one."""
    if len(whole) > 1:
        yield "[0-9]"
        yield from (f"[1-9][0-9]{{{length - 1}}}" for length in range(2, len(whole)))
    for at, digit in enumerate(whole):
        least = 1 if at == 0 and len(whole) > 1 else 0
        if int(digit) > least:
            rest = len(whole) - at - 1
            yield f"{whole[:at]}[{least}-{int(digit) - 1}]" + (f"[0-9]{{{rest}}}" if rest else "")


def _families(of: Of) -> list[Family]:
    return [family for family in FAMILIES if (family.kind == "engine") == (of == "engine")]


def _summed(chain: str, *more: str) -> str:
    """Summed over what a scrape tells apart, the largest of the scrapes."""
    repeats = sorted({label for family in FAMILIES for label in family.repeats})
    each = f"sum by ({_list((*BY, *SCRAPE, *more))}) (max without ({_list(repeats)}) ({chain}))"
    return f"max by ({_list((*BY, *more))}) ({each})"


def _chain(signal: str, of: Of, where: Where | None = None, window: str = "", suffix: str = "", only: str = "") -> str:
    """Every series that may give a signal; of a pod those of the first source that it has. `only`: more matchers."""
    found: dict[str, str] = {}
    for family in _families(of):
        for source in family.signals.get(signal, ()):
            for key, query in _selections(family, source, where or {}, suffix, only):
                found.setdefault(key, f"rate({query}[{window}])" if window else query)
    chain = f" or on ({_list(POD)}) ".join(found.values())
    return f"(({chain}) unless on ({_list(POD)}) {_fronts()})" if of == "engine" else f"({chain})"


def _selections(family: Family, source: Source, where: Where, suffix: str, only: str) -> Iterator[tuple[str, str]]:
    """The series of one source, the preferred ones first; each with what tells it from those of other families."""
    match source:
        case Ratio(left, right) | Difference(left, right):
            sign = "/" if isinstance(source, Ratio) else "-"
            apart = _list(sorted({*left.where, *right.where}))
            for (key, one), (_, other) in zip(_gauge(family, left), _gauge(family, right), strict=False):
                yield f"{key} {sign}", f"({one} {sign} ignoring ({apart}) {other})"
        case Gauge():
            yield from _gauge(family, source)
        case Counter(names, chosen):
            yield from _named(family, names, chosen, only)
        case ByLabel(names):
            yield from _named(family, names, where)
        case Times(names, chosen):
            yield from _named(family, [name + suffix for name in names], chosen, only)


def _gauge(family: Family, gauge: Gauge) -> Iterator[tuple[str, str]]:
    for name in gauge.names:
        for total in (*sorted(f'{label}=""' for label in family.totals), ""):
            for key, query in _named(family, (name,), gauge.where, total):
                yield key, f"({query} * {gauge.scale:g})" if gauge.scale != 1 else query


def _named(family: Family, names: Iterable[str], where: Where, more: str = "") -> Iterator[tuple[str, str]]:
    """Selectors. A label that a scrape may have taken is looked for under its other name first."""
    for name in names:
        for prefix in (RENAMED, "") if set(where) & set(PLACES) else ("",):
            matchers = [f"{prefix * (label in PLACES)}{label}=~{_quoted(_any(said))}" for label, said in where.items()]
            for telling in _of_family(family) or ("",):
                own = [matcher for matcher in (*matchers, more) if matcher]
                every = ",".join(filter(None, (*_not_of_fronts(family, name), telling, *own)))
                # Of an engine's name one selector is enough, whichever families show it.
                key = ",".join((name, *own)) + ("" if family.kind == "engine" else telling)
                yield key, f"{name}{{{every}}}" if every else name


def _not_of_fronts(family: Family, name: str) -> list[str]:
    """Matchers that leave out what a front shows under an engine's name."""
    if family.kind != "engine":
        return []
    marks = [mark for front in _families("front") for mark in front.marks if name in mark.names and not mark.values]
    return [f'{label}=""' for label in sorted({label for mark in marks for label in mark.labels} - set(BY))]


def _of_family(family: Family) -> list[str]:
    """Matchers of which one tells a family's series, where names alone do not."""
    if any(not mark.labels for mark in family.marks):
        return []
    return [f'{label}!=""' for mark in family.marks if not mark.values for label in mark.labels]


def _fronts() -> str:
    """Series of pods that show engines' names without being engines."""
    names = {
        name
        for family in _families("front")
        if family.over
        for mark in family.marks
        if not mark.labels
        for name in mark.names
    }
    return f"{{__name__=~{_quoted('|'.join(sorted(names)))}}}"


def _any(values: Iterable[str]) -> str:
    return "|".join(re.sub(r"[^A-Za-z0-9_/-]", lambda found: f"[{found[0]}]", value) for value in values)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _list(labels: Iterable[str]) -> str:
    return ", ".join(labels)
