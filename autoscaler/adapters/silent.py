"""Why a store has no series of a pod: no monitor, a target that is down, or labels that are a little off. Pure.

Rules:
1. What is found under another name or namespace is told, never used.
2. A pod whose name only goes on with a number is another one: a rank of the same group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from autoscaler.adapters.pages import FAMILIES
from autoscaler.adapters.sources import literal

UP = "up"
"""What Prometheus itself says of every target: 1 when it was scraped, 0 when not."""
TELLING = "|".join((UP, *sorted({name for family in FAMILIES for mark in family.marks for name in mark.names})))
"""Names of which every page that is understood has one."""

Series = Mapping[str, Any]


def near_query(pods: Iterable[str]) -> str:
    """A query for targets and pages whose label `pod` begins with one of these names, in any namespace."""
    return f'{{__name__=~"{TELLING}",pod=~"({"|".join(map(literal, sorted(pods)))})(-.+)?"}}'


class Near:
    """What a store has of names that are a little off; None: that is not known. `namespace`: the right one, if any.

    Raises KeyError, TypeError, ValueError, AttributeError for what is no answer to `near_query`.
    """

    def __init__(self, found: Iterable[Series] | None, namespace: str | None = None) -> None:
        self._namespace = namespace
        self._is_known = found is not None
        self._up: dict[str, bool] = {}
        self._series: dict[str, Counter[str]] = {}
        self._longer: dict[str, list[str]] = {}
        for entry in found or ():
            labels = entry["metric"]
            self._add(labels["__name__"], labels["pod"], labels.get("namespace", ""), float(entry["value"][1]))

    def why(self, pod: str) -> str:
        """Why there is no series of a pod, in one line."""
        no_series = f"no series of pod {pod}"
        if not self._is_known:
            return f"{no_series}: is it scraped, and does the label pod name it?"
        for name in self._longer.get(pod, ()):
            count = self._series[name].total()
            return f"{no_series}, while {count} have the label pod={name}: correct the relabeling that writes it"
        for other, count in self._series.get(pod, Counter[str]()).most_common(1):
            return f"{no_series} in namespace {self._namespace}, while {count} are of namespace={other}: correct one"
        if pod not in self._up:
            return f"{no_series}, and no target: is there a monitor for it, and does the label pod name it?"
        if self._up[pod]:
            return f"{no_series} that is understood, although Prometheus scrapes it (up is 1): look at its page"
        return f"{no_series}: Prometheus cannot scrape it (up is 0): look at its page of targets"

    def _add(self, name: str, pod: str, namespace: str, value: float) -> None:
        is_here = not self._namespace or namespace in ("", self._namespace)
        if name == UP:
            if is_here:
                self._up[pod] = self._up.get(pod, False) or value == 1
            return
        if pod not in self._series and is_here:
            for beginning, rest in _cuts(pod):
                if not rest.isdecimal():
                    self._longer.setdefault(beginning, []).append(pod)
        self._series.setdefault(pod, Counter())[namespace] += 1


def _cuts(name: str) -> Iterable[tuple[str, str]]:
    """A name at each of its dashes."""
    parts = name.split("-")
    return (("-".join(parts[:at]), "-".join(parts[at:])) for at in range(1, len(parts)))
