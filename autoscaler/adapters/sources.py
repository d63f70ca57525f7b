"""Series of a store to the pages that they were scraped from, and the pods that these are of. Pure.

Rules:
1. A source is one target of one Prometheus: what scraped it (job, instance, replica ...) tells sources apart. Its
   labels are taken off, and those of the page that Prometheus renamed (`exported_...`) get their names back.
2. A label is the target's if Prometheus renamed the page's own on any series. One that scrapes usually add is, too, if
   every series of the source has it; where a page's own won (with honor_labels), the rest of them show the target's.
3. A source is of the pod whose address was scraped, else of the one that its label names: a page that speaks of other
   pods is not theirs.
4. A bucket that is there in two spellings of its bound counts once, the larger: a Prometheus that was upgraded to 3 has
   the old series (`le="1"`) beside the new one (`le="1.0"`) until they are stale.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from autoscaler.adapters.join import ScrapeTarget
from autoscaler.adapters.pages import Sample

COPIES = ("job", "instance", "cluster", "prometheus", "prometheus_replica", "replica", "receive_replica")
"""Labels that tell scrapes of one page apart; the last ones those of highly available Prometheuses."""
PLACES = ("pod", "namespace", "container", "endpoint", "node", "service")
"""Labels that a ServiceMonitor or PodMonitor adds, and that pages have as well."""

RENAMED = "exported_"

_Series = tuple[Mapping[str, str], float]
SourceKey = tuple[str, ...]
"""The pod, and what the labels `COPIES` say."""
CLUSTER = 1 + COPIES.index("cluster")


@dataclass(slots=True)
class Source:
    """One page as one store has it: its series, when it was scraped, and the pod that it is of."""

    key: SourceKey
    series: list[_Series] = field(default_factory=list)
    at_s: float = 0.0

    def names(self) -> frozenset[str]:
        """The names that it has."""
        return frozenset(labels["__name__"] for labels, _ in self.series)

    @property
    def pod(self) -> str:
        """The pod that was scraped."""
        return self.key[0]

    def page(self) -> list[Sample]:
        """The series as they stood on the page."""
        added = self._added()
        return [(labels["__name__"], _own(labels, added), value) for labels, value in _spelled_once(self.series)]

    def _added(self) -> Mapping[str, str]:
        """The target's labels that pages may have as well, and what they say."""
        said: dict[str, Counter[str]] = defaultdict(Counter)
        for labels, _ in self.series:
            for label in PLACES:
                if label in labels:
                    said[label][labels[label]] += 1
        every = len(self.series)
        usual = {
            label: min(values, key=lambda value: (-values[value], value))
            for label, values in said.items()
            if values.total() == every
        }
        renamed = {
            label: labels[label]
            for labels, _ in self.series
            for label in (exported.removeprefix(RENAMED) for exported in labels if exported.startswith(RENAMED))
            if label in labels
        }
        return {**usual, **renamed, "pod": self.pod}


def sources(series: Iterable[Mapping[str, Any]], addresses: Mapping[str, str]) -> dict[SourceKey, Source]:
    """The pages that a vector was scraped from. Raises KeyError, TypeError, ValueError for what is no vector."""
    found: dict[SourceKey, Source] = {}
    for entry in series:
        if "histogram" in entry:
            continue  # A native histogram: the names that are read are those of the classic ones.
        labels, value = entry["metric"], float(entry["value"][1])
        key = key_of(labels, addresses)
        if key not in found:
            found[key] = Source(key)
        found[key].series.append((labels, value))
    return found


def key_of(labels: Mapping[str, str], addresses: Mapping[str, str]) -> SourceKey:
    """Which source a series is of. `addresses`: host and port -> pod."""
    pod = addresses.get(labels.get("instance", "")) or labels["pod"]
    return pod, *(labels.get(label, "") for label in COPIES)


def heartbeats(found: Iterable[Source]) -> tuple[str, ...]:
    """A few names of which every source has one: their times are those of the pages."""
    left = [source.names() for source in found]
    chosen: list[str] = []
    while left:
        seen = Counter(name for names in left for name in names)
        best = min(seen, key=lambda name: (-seen[name], name.endswith(("_bucket", "_created")), name))
        chosen.append(best)
        left = [names for names in left if best not in names]
    return tuple(chosen)


def siblings(targets: Sequence[ScrapeTarget]) -> str:
    """A regular expression for the targets and pods of the same workloads, also those that are gone."""
    return "|".join(sorted({_sibling(target.pod) for target in targets}))


def addresses_of(targets: Iterable[ScrapeTarget]) -> Mapping[str, str]:
    """Host and port -> the one pod that has them, as far as the targets' URLs tell."""
    pods: dict[str, set[str]] = defaultdict(set)
    for target in targets:
        if address := urlsplit(target.url).netloc:
            pods[address].add(target.pod)
    return {address: next(iter(found)) for address, found in pods.items() if len(found) == 1}


def _spelled_once(series: list[_Series]) -> list[_Series]:
    """The series without those that repeat another one in another spelling of its bound."""
    spellings = {labels["le"] for labels, _ in series if "le" in labels}
    if len({_bound(text) for text in spellings}) == len(spellings):
        return series
    largest: dict[object, _Series] = {}
    for labels, value in series:
        key = frozenset({**labels, "le": _bound(labels["le"])}.items()) if "le" in labels else len(largest)
        if key not in largest or value > largest[key][1]:
            largest[key] = labels, value
    return list(largest.values())


def _bound(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _own(labels: Mapping[str, str], added: Mapping[str, str]) -> Mapping[str, str]:
    """The labels that a series has on its page."""
    exported = {label.removeprefix(RENAMED): value for label, value in labels.items() if label.startswith(RENAMED)}
    own = {
        label: value
        for label, value in labels.items()
        if label != "__name__" and label not in COPIES and not label.startswith(RENAMED) and added.get(label) != value
    }
    return {**own, **exported}


def _sibling(pod: str) -> str:
    """The name up to its last part is the workload's; of a group's rank, up to the group's number."""
    stem, dash, last = pod.rpartition("-")
    if not dash:
        return literal(pod)
    above, dash, number = stem.rpartition("-")
    if dash and number.isdecimal() and last.isdecimal():
        return f"{literal(above)}-[0-9]+-[0-9]+"
    return f"{literal(stem)}-[0-9]+" if last.isdecimal() else f"{literal(stem)}-[^-]+"


def literal(name: str) -> str:
    """A DNS name as a regular expression inside a PromQL string."""
    return name.replace(".", "[.]")
