"""Read the same samples as a scrape from a Prometheus: a few queries for the whole fleet, whatever its engines are.

Rules:
1. Asked are the names that the tables of pages know, in queries of bounded length; the answer becomes the pages that
   were scraped, which are understood and joined to pods as a scrape's are. A page and its scrape give equal samples.
2. Age is asked for, not assumed: an instant query answers for five minutes after the last scrape. It is asked by names
   that the answer has, since each engine has others.
3. Only pods of the fleet count. Siblings of theirs that Prometheus still remembers, and samples from before the start
   of the pod that now bears the name, are dropped and named as ghosts.
4. A Prometheus that is down or refuses gives no samples and one reason. Where it warns that its answer is partial, the
   samples are a lower bound, and say so.
5. Queries of the user's replace signals of the pages; what they do not answer is missing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.adapters.join import FRONTS, Joiner, Read, Reading, ScrapeTarget, page_for
from autoscaler.adapters.overrides import Told, overridden, told
from autoscaler.adapters.pages import NAMES
from autoscaler.adapters.pages.text import collect
from autoscaler.adapters.promclient import PromClient, PrometheusError, short
from autoscaler.adapters.silent import Near, near_query
from autoscaler.adapters.sources import (
    CLUSTER,
    Source,
    addresses_of,
    heartbeats,
    key_of,
    literal,
    siblings,
    sources,
)
from autoscaler.model import Samples
from autoscaler.settings import MetricsSettings

FAILURE = "prometheus"
QUERY_LENGTH = 8000
"""Characters of names in one query: four queries for all engines together."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The answers of one look: sources by pod, what the user's queries gave, and what failed or may be missing."""

    by_pod: Mapping[str, Sequence[Source]]
    near: Near
    told: Mapping[str, Told]
    failures: Mapping[str, str]
    warnings: tuple[str, ...]


class PrometheusReader:
    """Reads a fleet's samples from a Prometheus; the label `pod` tells whose they are."""

    def __init__(self, metrics: MetricsSettings, namespace: str | None = None) -> None:
        self._metrics = metrics
        # Where Prometheus adds no namespace, the empty alternative still matches.
        self._namespace, self._namespaced = namespace, f',namespace=~"{literal(namespace)}|"' if namespace else ""
        self._client = PromClient(metrics)
        self._joiner = Joiner(metrics.model)
        self._running: asyncio.Future[_Asked] | None = None

    async def read(self, targets: Sequence[ScrapeTarget], now_s: float, service: str) -> Samples:
        """One sample or one reason for each target. Takes at most the time limit."""
        if not targets:
            return Samples()
        try:
            asked = await self._ask(targets, now_s)
        except PrometheusError as error:
            return Samples(failures={FAILURE: str(error)})
        readings: dict[ScrapeTarget, Reading] = {}
        ghosts = set(asked.by_pod.keys() - {target.pod for target in targets})
        for target in targets:
            current = _current(target, asked.by_pod)
            if len(current) < len(asked.by_pod.get(target.pod, ())):
                ghosts.add(target.pod)
            readings[target] = self._reading(target, current, now_s) if current else asked.near.why(target.pod)
            await asyncio.sleep(0)
        silent = {target.pod for target in targets} - asked.by_pod.keys()
        samples = self._joiner.samples(overridden(readings, asked.told, now_s, silent, self._metrics.model), service)
        return replace(
            samples,
            failures={**samples.failures, **asked.failures},
            ghosts=tuple(sorted(ghosts)),
            partial=f"Prometheus warns: {'; '.join(asked.warnings[:3])}" if asked.warnings else "",
        )

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _reading(self, target: ScrapeTarget, found: Sequence[Source], now_s: float) -> Reading:
        """What a pod's sources say of it: the one of its role counts, and of those the newest."""
        clusters = sorted({source.key[CLUSTER] for source in found})
        if len(clusters) > 1:
            return f"pods of this name are in clusters {', '.join(clusters)}: give a prometheusUrl of one cluster"
        newest_s = max(source.at_s for source in found)
        if now_s - newest_s > self._metrics.stale_after_s:
            return f"stale: scraped {now_s - newest_s:.0f} s ago, limit {self._metrics.stale_after_s:g} s"
        best: tuple[bool, float, Read] | None = None
        for source in sorted(found, key=lambda source: source.key):
            read = Read(page_for(collect(source.page(), NAMES), self._metrics.model), source.at_s)
            fits = read.page.kind != "none" and (read.page.kind in FRONTS) == (target.role == "router")
            if best is None or (fits, source.at_s) > best[:2]:
                best = fits, source.at_s, read
        assert best is not None
        return best[2]

    async def _ask(self, targets: Sequence[ScrapeTarget], now_s: float) -> _Asked:
        """All answers, within the time limit."""
        if self._running is not None and not self._running.done():
            # A thread cannot be ended from outside. One that hangs is waited for, not joined by another each tick.
            raise PrometheusError("the query before has still not been answered")
        self._running = asyncio.ensure_future(asyncio.to_thread(self._queries, tuple(targets), now_s))
        try:
            return await asyncio.wait_for(asyncio.shield(self._running), self._metrics.scrape_timeout_s)
        except TimeoutError:
            self._running.add_done_callback(_retrieve)
            raise PrometheusError(f"no answer within {self._metrics.scrape_timeout_s:g} s") from None

    def _queries(self, targets: Sequence[ScrapeTarget], now_s: float) -> _Asked:
        pattern, addresses = siblings(targets), addresses_of(targets)
        selector = f'pod=~"{pattern}"{self._namespaced}'
        answers = [self._client.ask(query, now_s) for query in value_queries(selector)]
        try:
            found = sources((entry for answer in answers for entry in answer.series), addresses)
            if names := heartbeats(found.values()):
                times = self._client.ask(time_query(names, selector), now_s)
                answers.append(times)
                for entry in times.series:
                    if source := found.get(key_of(entry["metric"], addresses)):
                        source.at_s = max(source.at_s, float(entry["value"][1]))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise PrometheusError(f"the answer is not a Prometheus': {short(error)}") from error
        by_pod = defaultdict[str, list[Source]](list)
        for source in found.values():
            by_pod[source.pod].append(source)
        results, failures, more = self._own_queries(now_s)
        warnings = {warning for answer in answers for warning in answer.warnings} | more
        near = self._near([target.pod for target in targets if not _current(target, by_pod)], now_s)
        return _Asked(by_pod, near, results, failures, tuple(sorted(warnings)))

    def _near(self, silent: Sequence[str], now_s: float) -> Near:
        """What there is instead of the series of these pods. It only explains: where it fails, it says nothing."""
        try:
            found = self._client.ask(near_query(silent), now_s).series if silent else ()
            return Near(found, self._namespace)
        except (PrometheusError, KeyError, TypeError, ValueError, IndexError, AttributeError):
            return Near(None)

    def _own_queries(self, now_s: float) -> tuple[dict[str, Told], dict[str, str], set[str]]:
        """Results, failures and warnings of the user's queries; one that fails takes no other with it."""
        results: dict[str, Told] = {}
        failures: dict[str, str] = {}
        warnings: set[str] = set()
        for name, query in self._metrics.queries.named.items():
            results[name] = Told()
            try:
                answer = self._client.ask(query, now_s)
                results[name] = told(name, answer.series)
            except (PrometheusError, ValueError) as error:
                failures[f"metrics.queries.{name}"] = str(error)
            else:
                warnings.update(answer.warnings)
                if not answer.series:
                    failures[f"metrics.queries.{name}"] = "gives no result: correct it, or remove the key"
        return results, failures, warnings


def _current(target: ScrapeTarget, by_pod: Mapping[str, Sequence[Source]]) -> list[Source]:
    """The sources that are not of another pod which bore the name before."""
    return [source for source in by_pod.get(target.pod, ()) if source.at_s >= target.start_s]


def value_queries(selector: str) -> tuple[str, ...]:
    """Queries for every name that the tables know, of the series that the selector chooses."""
    chunks: list[str] = []
    for name in sorted(NAMES):
        if chunks and len(chunks[-1]) + len(name) < QUERY_LENGTH:
            chunks[-1] += f"|{name}"
        else:
            chunks.append(name)
    return tuple(f'{{__name__=~"{chunk}",{selector}}}' for chunk in chunks)


def time_query(names: Iterable[str], selector: str) -> str:
    """A query for when these names were scraped."""
    return " or ".join(f"timestamp({name}{{{selector}}})" for name in names)


def _retrieve(future: asyncio.Future[_Asked]) -> None:
    """Take a late error, which has been reported as a time-out, so that asyncio does not log it again."""
    if not future.cancelled():
        future.exception()
