"""How a table describes one family of pages: the vocabulary of `tables`. Data only.

Rules:
1. Names are whole names as they stand on the page, in order of preference: the first one on the page counts. The same
   thing under two names is therefore never added up.
2. Labels: those in `units` tell engines apart; those in `repeats` say who exported a number of one and the same engine,
   so the largest counts; all others split one number, so their values are added up.
3. A family may be `over` others, whose names it shows besides its own; else two families on one page are a refusal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from autoscaler.adapters.pages.model import Kind, Serves

REPEATS = frozenset(
    (
        "tp_rank",
        "pp_rank",
        "ep_rank",
        "moe_ep_rank",
        "moe_tp_rank",
        "attn_tp_rank",
        "attn_cp_rank",
        "cp_rank",
        "moe_dp_rank",
        "rank",
        "local_rank",
        "pid",
    )
)
"""Labels under which several processes say the same of one engine."""

Where = Mapping[str, tuple[str, ...]]
"""Label -> values of which it must have one."""

SUFFIXES = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Gauge:
    """A state of now. Negative is a sentinel for no data; above `most` is a unit error. `fold` max does not add up."""

    names: tuple[str, ...]
    where: Where = field(default_factory=dict)
    scale: float = 1.0
    most: float = math.inf
    fold: Literal["sum", "max"] = "sum"


@dataclass(frozen=True, slots=True)
class Counter:
    """A count since the process started; the `_sum` of a histogram is one as well."""

    names: tuple[str, ...]
    where: Where = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Label:
    """A number in a label of an info series; anything else there, such as "None", is absent."""

    names: tuple[str, ...]
    label: str


@dataclass(frozen=True, slots=True)
class Product:
    """Two numbers of the same labels multiplied. `shared`: the sum over all engines, repeated on each."""

    left: Gauge | Label
    right: Gauge | Label
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Ratio:
    """One number divided by another of the same engine."""

    left: Gauge
    right: Gauge
    most: float = math.inf


@dataclass(frozen=True, slots=True)
class Difference:
    """One number less another of the same engine."""

    left: Gauge
    right: Gauge


@dataclass(frozen=True, slots=True)
class ByLabel:
    """A number split by a label."""

    names: tuple[str, ...]
    label: str


@dataclass(frozen=True, slots=True)
class ByName:
    """Numbers told apart by their names: all that are on the page, called by their names without prefix."""

    prefixes: tuple[str, ...]
    stems: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The whole names."""
        return spelled(self.prefixes, *self.stems)


@dataclass(frozen=True, slots=True)
class Times:
    """A histogram of times; `scale` turns its unit into seconds."""

    names: tuple[str, ...]
    where: Where = field(default_factory=dict)
    scale: float = 1.0


Source = Gauge | Counter | Label | Product | Ratio | Difference | ByLabel | ByName | Times


@dataclass(frozen=True, slots=True)
class UnitLabel:
    """A label that tells engines apart: the first of `labels` on a series. A `quiet` one is shown only if it does."""

    labels: tuple[str, ...]
    shown: str = ""
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A sign of a family: one of these names is there, with one of `labels` if any is named, and none of `lacking`.

    `values`: all of these stand in the label.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RoleLabel:
    """A label on one of `names` that says the role. What it says in `only_with` is believed with that mark alone."""

    names: tuple[str, ...]
    label: str
    roles: Mapping[str, Serves]
    only_with: Mapping[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of page. `signals`: field of `Signals` -> where it is found, in order of preference.

    `units` None: the page speaks of other processes and has no engines of its own. `totals`: labels whose empty value
    marks a gauge's total. `notes`: beginning of a name -> why it is not used, for people.
    """

    engine: str
    kind: Kind
    signals: Mapping[str, tuple[Source, ...]]
    marks: tuple[Mark, ...]
    over: frozenset[str] = frozenset()
    units: tuple[UnitLabel, ...] | None = ()
    repeats: frozenset[str] = REPEATS
    totals: frozenset[str] = frozenset()
    models: tuple[str, ...] = ("model_name",)
    roles: tuple[RoleLabel, ...] = ()
    behaves: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Every name that the family's table reads, with the suffixes of histograms."""
        marks = (*self.marks, *(mark for label in self.roles for mark in label.only_with.values()))
        found = {name for mark in marks for name in (*mark.names, *mark.lacking)}
        return frozenset(found.union(*(names_of(source) for sources in self.signals.values() for source in sources)))


def names_of(source: Source) -> Iterable[str]:
    """The names of the series that a source reads."""
    if isinstance(source, Product | Ratio | Difference):
        return (*names_of(source.left), *names_of(source.right))
    if isinstance(source, Times):
        return tuple(name + suffix for name in source.names for suffix in SUFFIXES)
    return source.names


def spelled(prefixes: Iterable[str], *stems: str) -> tuple[str, ...]:
    """Whole names: each stem under each prefix, the preferred stem first."""
    every = tuple(prefixes)
    return tuple(prefix + stem for stem in stems for prefix in every)


def dynamo_roles(names: tuple[str, ...]) -> RoleLabel:
    """What Dynamo's runtime adds to every series of a worker. "backend" decodes, or does both: it says nothing."""
    return RoleLabel(names, "dynamo_component", {"prefill": "prefill", "decode": "decode"})
