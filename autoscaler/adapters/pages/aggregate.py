"""The one aggregator: the series of a page, and the table of its family, become units and totals. Pure.

Rules:
1. Within an engine: what several ranks or processes repeat counts once, the largest; what a label splits is added up.
2. Over the engines of a page: counts, tokens and histograms are added up; KV use is a mean weighted by capacity, with
   its maximum kept. A series without the labels that tell engines apart belongs to the whole page.
3. NaN, Inf, a negative number (-1: no data), a series twice with different values, a share above 1: Missing with the
   reason, and so is a sum of which a part is missing. A gauge that one engine has and another has not is missing too;
   a counter or histogram begins with its first observation, so an engine without it has none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from autoscaler.adapters.pages.family import (
    SUFFIXES,
    ByLabel,
    ByName,
    Counter,
    Difference,
    Family,
    Gauge,
    Label,
    Mark,
    Product,
    Ratio,
    Source,
    Times,
    Where,
    spelled,
)
from autoscaler.adapters.pages.fold import first_missing, larger, largest, multiplied, split, total, weighted
from autoscaler.adapters.pages.model import Distribution, Serves, Signals, Split, Spread, Unit
from autoscaler.adapters.pages.spread import LARGEST, RawHistogram, merged
from autoscaler.adapters.pages.text import Exposition, Labels, PageError
from autoscaler.model import NOT_ON_PAGE, SAYS_NOTHING, Number
from policies.model import Missing

Key = tuple[str, ...]
"""What the labels say that tell engines apart, "" where a series lacks one; all "" is the whole page."""

Value = Number | Split | Spread
Values = dict[Key, Value]

STATES = ("running", "waiting", "kv_usage", "waiting_by_reason", "in_flight", "draining", "held_kv")
"""Signals that say how an engine is now: one that does not say them is blind, not idle."""

MAX_UNITS = 512

NO_MODEL = frozenset(("", "undefined"))

_EMPTY: Mapping[Labels, float] = {}


class Aggregator:
    """Reads the signals of one page with the table of one family."""

    def __init__(self, exposition: Exposition, family: Family) -> None:
        self._page = exposition.series
        self._conflicts = exposition.conflicts
        self._family = family
        self._split: dict[Labels, tuple[Key, Labels]] = {}
        self._labels_shown: dict[tuple[int, str], str] = {}
        self._whole: Key = ("",) * len(family.units or ())
        self._engines = [self._whole]
        self._seen: set[Key] = set()
        self.used: set[str] = set()

    def units(self) -> tuple[tuple[Unit, ...], Signals]:
        """The engines of the page, and all of them together."""
        found = {name: self._signal(sources) for name, sources in self._family.signals.items()}
        keys = self._keys(found) or [self._whole]
        self._engines = keys
        self._share(found)
        found = {name: self._owned(values) if isinstance(values, dict) else values for name, values in found.items()}
        signals = [self._signals_of(key, found) for key in keys]
        ids = self._ids(keys)
        roles = self._roles()
        units = tuple(Unit(one, said, roles.get(key)) for key, one, said in zip(keys, ids, signals, strict=True))
        return (() if self._family.units is None else units), self._totals(found, signals)

    def _keys(self, found: Mapping[str, Values | Missing]) -> list[Key]:
        """The engines of the page. What counts and has no state, such as a step before the engine, is none of them."""
        said = {name: set(values) - {self._whole} for name, values in found.items() if isinstance(values, dict)}
        states = set().union(*(said.get(name, ()) for name in STATES)) if self._family.kind == "engine" else set()
        keys = states or set().union(*said.values())
        return sorted(key for key in keys if "" not in key or not any(_within(other, key) for other in keys - {key}))

    def models(self) -> tuple[str, ...]:
        """The models that the engines say they serve."""
        found: dict[Key, set[str]] = defaultdict(set)
        for name in self._family.names & self._page.keys():
            if not name.endswith("_bucket"):
                for labels in self._page[name]:
                    said = dict(labels)
                    model = next((said[label] for label in self._family.models if label in said), "")
                    found[self._split_of(labels)[0]].add(model)
        own = [models for key, models in found.items() if self._owners(key)]
        return tuple(sorted(set().union(*own) - NO_MODEL))

    def _roles(self) -> dict[Key, Serves]:
        """What a label says that means a role, where it is to be believed."""
        roles: dict[Key, Serves] = {}
        for one in self._family.roles:
            said: dict[Key, set[str]] = defaultdict(set)
            for labels in self._series(one.names)[1]:
                said[self._split_of(labels)[0]].add(dict(labels).get(one.label, ""))
            for key, values in said.items():
                value = min(values)
                mark = one.only_with.get(value)
                if len(values) == 1 and value in one.roles and (mark is None or marked(self._page, mark)):
                    roles.setdefault(key, one.roles[value])
        return roles

    def _owned(self, values: Values) -> Values:
        """The same; what lacks a label that tells engines apart goes to the only engine that it can be of."""
        owned = {key: value for key, value in values.items() if key in self._engines}
        for key in sorted(values.keys() - owned.keys()):
            owners = self._owners(key)
            if len(owners) == 1:
                owned.setdefault(owners[0], values[key])
            elif owners:
                owned[key] = values[key]
        return owned

    def _owners(self, key: Key) -> list[Key]:
        """The engines that a series with these labels may be of."""
        if "" not in key:
            return [key] if key in self._engines else []
        return [engine for engine in self._engines if _within(engine, key)]

    def _share(self, found: dict[str, Values | Missing]) -> None:
        """Divide what is the sum over all engines and stands on each."""
        shared, values = self._pick(self._family.signals.get("kv_capacity_tokens", ())), found.get("kv_capacity_tokens")
        if isinstance(shared, Product) and shared.shared and isinstance(values, dict):
            for key in values.keys() & self._engines:
                value = values[key]
                values[key] = value / len(self._engines) if isinstance(value, float) else value

    def _signal(self, sources: tuple[Source, ...]) -> Values | Missing:
        """A signal of each engine, from the first source that the page has."""
        source = self._pick(sources)
        return self._read(source) if source else Missing(f"{_called(sources)} {NOT_ON_PAGE}")

    def _pick(self, sources: tuple[Source, ...]) -> Source | None:
        return next((source for source in sources if self._has(source)), None)

    def _has(self, source: Source) -> bool:
        match source:
            case Product(left, right) | Ratio(left, right) | Difference(left, right):
                return self._has(left) and self._has(right)
            case Label(names, label):
                return any(_number(labels, label) is not None for labels in self._series(names)[1])
            case Times(names, where):
                series = self._page.get(self._histogram(names) + "_count", _EMPTY)
                return any(_matches(labels, where) for labels in series) or (not where and bool(self._histogram(names)))
            case Gauge(names, where) | Counter(names, where):
                return any(_matches(labels, where) for labels in self._series(names)[1])
            case ByLabel() | ByName():
                return any(name in self._page for name in source.names)

    def _read(self, source: Source) -> Values:
        match source:
            case Product():
                return self._folded(self._product(source), source.left)
            case Ratio() | Difference():
                return self._derived(source)
            case Times():
                return self._times(source)
            case ByLabel(names, label):
                return self._by_label(names, label)
            case ByName():
                return self._by_name(source)
            case _:
                return self._folded(self._parts(source), source)

    def _series(self, names: Iterable[str]) -> tuple[str, Mapping[Labels, float]]:
        """The first of these names that is on the page."""
        for name in names:
            if series := self._page.get(name):
                self.used.add(name)
                return name, series
        return "", _EMPTY

    def _parts(self, source: Gauge | Counter | Label) -> dict[Labels, Number]:
        """A number for each set of labels."""
        name, series = self._series(source.names)
        if isinstance(source, Label):
            read = {labels: _number(labels, source.label) for labels in series}
            return {labels: value for labels, value in read.items() if value is not None}
        scale, most = (source.scale, source.most) if isinstance(source, Gauge) else (1.0, math.inf)
        parts: dict[Labels, Number] = {}
        for labels, value in series.items():
            if not source.where or _matches(labels, source.where):
                parts[labels] = self._checked(name, value * scale, most)
        return parts

    def _checked(self, name: str, value: float, most: float = math.inf) -> Number:
        if 0 <= value <= min(most, LARGEST):
            return value
        if math.isnan(value) and name in self._conflicts:
            return Missing(f"{name} stands on the page twice with different values, {SAYS_NOTHING}")
        if most < value < math.inf:
            return Missing(f"{name} is {value:g}, a unit error: it is at most {most:g}")
        return Missing(f"{name} is {value:g}, {SAYS_NOTHING}")

    def _split_of(self, labels: Labels) -> tuple[Key, Labels]:
        """Whose series this is, and the labels that split what it says."""
        found = self._split.get(labels)
        if found is None:
            units, repeats = self._family.units or (), self._family.repeats
            said = dict(labels)
            names = [next((name for name in unit.labels if said.get(name)), "") for unit in units]
            key = tuple(said[name] if name else "" for name in names)
            self._seen.add(key)
            if len(self._seen) > MAX_UNITS:
                raise PageError(f"has more than {MAX_UNITS} engines: is it an engine's page?")
            self._labels_shown.update({(index, said[name]): name for index, name in enumerate(names) if name})
            telling = {name for unit in units for name in unit.labels}
            rest = tuple(pair for pair in labels if pair[0] not in repeats and pair[0] not in telling)
            found = self._split[labels] = key, rest
        return found

    def _folded(self, parts: Mapping[Labels, Number], source: Gauge | Counter | Label) -> Values:
        """One number for each engine."""
        by_key: dict[Key, dict[Labels, Number]] = defaultdict(dict)
        for labels, value in parts.items():
            key, rest = self._split_of(labels)
            before = by_key[key].get(rest)
            by_key[key][rest] = value if before is None else larger(before, value)
        biggest = isinstance(source, Label) or (isinstance(source, Gauge) and source.fold == "max")
        fold: Callable[[Iterable[Number]], Number] = largest if biggest else total
        gauge = isinstance(source, Gauge)
        return {key: fold((self._whole_of(each) if gauge else each).values()) for key, each in by_key.items()}

    def _whole_of(self, each: Mapping[Labels, Number]) -> Mapping[Labels, Number]:
        """A gauge's series without those that its own total contains."""
        for label in self._family.totals:
            if len(each) > 1:
                whole = {labels: value for labels, value in each.items() if not dict(labels).get(label)}
                each = whole or each
        return each

    def _product(self, source: Product) -> dict[Labels, Number]:
        """Products of the numbers that have the same labels; a number that is alone goes with all."""
        left, right = self._loose(source.left), self._loose(source.right)
        lone = next(iter(right.values())) if len(right) == 1 else None
        products: dict[Labels, Number] = {}
        for labels, value in left.items():
            other = right.get(labels, lone)
            if other is not None:
                products[labels] = multiplied(value, other)
        return products

    def _loose(self, source: Gauge | Label) -> dict[Labels, Number]:
        """Numbers by their labels, less those by which the source chose them."""
        parts = self._parts(source)
        chosen = source.where if isinstance(source, Gauge) else {}
        if not chosen:
            return parts
        return {tuple(pair for pair in labels if pair[0] not in chosen): value for labels, value in parts.items()}

    def _derived(self, source: Ratio | Difference) -> Values:
        """A ratio or difference of each engine."""
        left, right = self._read(source.left), self._read(source.right)
        lone = next(iter(right.values())) if len(right) == 1 else None
        found: Values = {}
        for key, value in left.items():
            other = right.get(key, lone)
            if not isinstance(value, float):
                found[key] = value
            elif not isinstance(other, float):
                found[key] = Missing("nothing to compare with") if other is None else other
            elif isinstance(source, Difference):
                found[key] = self._checked("the difference", value - other)
            else:
                found[key] = self._checked("the share", value / other if other else math.nan, source.most)
        return found

    def _by_label(self, names: tuple[str, ...], label: str) -> Values:
        name, series = self._series(names)
        found: dict[Key, dict[str, dict[Labels, Number]]] = defaultdict(lambda: defaultdict(dict))
        for labels, value in series.items():
            key, rest = self._split_of(labels)
            parts = found[key][dict(labels).get(label, "")]
            checked = self._checked(name, value)
            parts[rest] = checked if rest not in parts else larger(parts[rest], checked)
        whole = {key: {said: total(parts.values()) for said, parts in each.items()} for key, each in found.items()}
        return {key: split(each) for key, each in whole.items()}

    def _by_name(self, source: ByName) -> Values:
        found: dict[Key, dict[str, Number]] = defaultdict(dict)
        for stem in source.stems:
            for key, value in self._read(Gauge(spelled(source.prefixes, stem))).items():
                if isinstance(value, float | Missing):
                    found[key][stem] = value
        return {key: split(each) for key, each in found.items()}

    def _histogram(self, names: tuple[str, ...]) -> str:
        """The first of these histograms that is on the page."""
        return next((name for name in names if name + "_count" in self._page or name + "_bucket" in self._page), "")

    def _times(self, source: Times) -> Values:
        name = self._histogram(source.names)
        self.used.update(name + suffix for suffix in SUFFIXES)
        repeated: dict[tuple[Key, Labels], dict[Labels, RawHistogram]] = defaultdict(dict)
        for labels, value in self._page.get(name + "_bucket", _EMPTY).items():
            bound, plain = _without_bound(labels)
            if (found := repeated[self._split_of(plain)].get(plain)) is None:
                found = repeated[self._split_of(plain)][plain] = RawHistogram()
            found.add(bound, value)
        for labels, value in self._page.get(name + "_count", _EMPTY).items():
            repeated[self._split_of(labels)].setdefault(labels, RawHistogram()).count = self._checked(name, value)
        for labels, value in self._page.get(name + "_sum", _EMPTY).items():
            repeated[self._split_of(labels)].setdefault(labels, RawHistogram()).sum = self._checked(name, value)
        spreads: dict[Key, list[Spread]] = defaultdict(list)
        for (key, _), each in repeated.items():
            chosen = [one for labels, one in each.items() if _matches(labels, source.where)]
            if chosen:
                most = max(chosen, key=RawHistogram.rank) if len(chosen) > 1 else chosen[0]
                spreads[key].append(most.distribution(name, source.scale))
        return {key: merged(each) for key, each in spreads.items()}

    def _signals_of(self, key: Key, found: Mapping[str, Values | Missing]) -> Signals:
        """What one engine says."""
        said: dict[str, Value] = {}
        for name, values in found.items():
            nothing = Missing(f"{_called(self._family.signals[name])} is not said of this engine")
            said[name] = values if isinstance(values, Missing) else values.get(key, nothing)
        if "kv_usage" in said:
            said["kv_usage_max"] = said["kv_usage"]
        return Signals(**said)  # type: ignore[arg-type]

    def _totals(self, found: Mapping[str, Values | Missing], units: list[Signals]) -> Signals:
        """What all engines say together."""
        totals: dict[str, Value] = {}
        for name, values in found.items():
            if isinstance(values, Missing):
                totals[name] = values
                continue
            each: list[Value] = [getattr(unit, name) for unit in units]
            own = [values[key] for key in self._engines if key in values]
            if name == "kv_usage" and own:
                totals[name] = weighted([unit.kv_usage for unit in units], [unit.kv_capacity_tokens for unit in units])
                totals["kv_usage_max"] = largest(unit.kv_usage for unit in units)
            else:
                parts = (each if name in STATES and own else own) or [values[key] for key in sorted(values)]
                totals[name] = _added(parts) if parts else Missing("it is said of no engine of the page")
        if "kv_usage" in totals:
            totals.setdefault("kv_usage_max", totals["kv_usage"])
        return Signals(**totals)  # type: ignore[arg-type]

    def _ids(self, keys: list[Key]) -> list[dict[str, str]]:
        units = self._family.units or ()
        loud = [not unit.quiet for unit in units]
        firsts = [tuple(said for said, shown in zip(key, loud, strict=True) if shown) for key in keys]
        distinct = len(set(firsts)) == len(keys)
        return [
            {
                unit.shown or self._labels_shown[index, said]: said
                for index, (unit, said) in enumerate(zip(units, key, strict=True))
                if said and (loud[index] or not distinct)
            }
            for key in keys
        ]


def _added(each: list[Value]) -> Value:
    """The same signal of several engines added up."""
    spreads = [one for one in each if isinstance(one, Distribution)]
    splits = [one for one in each if isinstance(one, Mapping)]
    if missing := first_missing(each):
        return missing
    if spreads:
        return merged(spreads)
    if splits:
        return {
            said: math.fsum(one.get(said, 0.0) for one in splits) for said in sorted({s for one in splits for s in one})
        }
    return math.fsum(one for one in each if isinstance(one, float))


def _within(engine: Key, key: Key) -> bool:
    """Whether a series that lacks some labels may be of this engine."""
    return all(not said or said == own for said, own in zip(key, engine, strict=True))


def marked(series: Mapping[str, Mapping[Labels, float]], mark: Mark) -> bool:
    """Whether a page has a mark."""
    if any(name in series for name in mark.lacking):
        return False
    if not mark.labels:
        return any(name in series for name in mark.names)
    said = {
        value
        for name in mark.names
        for labels in series.get(name, _EMPTY)
        for label, value in labels
        if label in mark.labels
    }
    return bool(said) and said >= mark.values


def _matches(labels: Labels, where: Where) -> bool:
    if not where:
        return True
    said = dict(labels)
    return all(said.get(label) in values for label, values in where.items())


def _number(labels: Labels, label: str) -> float | None:
    """A number that stands in a label; None for "None" and anything else that is none."""
    text = next((value for name, value in labels if name == label), "")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= LARGEST else None


def _without_bound(labels: Labels) -> tuple[float, Labels]:
    for index, (name, value) in enumerate(labels):
        if name == "le":
            try:
                bound = float(value)
            except ValueError:
                bound = math.nan
            return bound, labels[:index] + labels[index + 1 :]
    return math.nan, labels


def _called(sources: tuple[Source, ...]) -> str:
    """A name to call a signal by, for people."""
    source = sources[0]
    while isinstance(source, Product | Ratio | Difference):
        source = source.left
    return source.names[0]
