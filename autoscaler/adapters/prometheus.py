"""Read the same samples as a scrape from a Prometheus, with two instant queries for the whole fleet.

Rules:
1. What a pod says is its newest scrape: series found through two scrape jobs count once, those of the newer.
2. Age is asked for, not assumed: an instant query answers for five minutes after the last scrape.
3. Only pods of the fleet count. Siblings of theirs that Prometheus still remembers are named as ghosts.
4. A Prometheus that is down, refuses, or warns that its answer is partial gives no samples and one reason.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import requests
from prometheus_api_client.prometheus_connect import PrometheusConnect
from urllib3.util.retry import Retry

from autoscaler.adapters.exposition import HEARTBEATS, HISTOGRAMS, SCALARS, Labels, Page
from autoscaler.adapters.scrape import Reading, ScrapeTarget, gather, read_page
from autoscaler.model import Samples

FAILURE = "prometheus"

_NAMES = "|".join((*sorted(SCALARS), *(f"{name}_(bucket|sum)" for name in sorted(HISTOGRAMS))))
_OF_THE_SCRAPE = frozenset(
    ("__name__", "pod", "namespace", "job", "instance", "container", "endpoint", "node", "prometheus", "cluster")
)
"""Labels that tell where a series was scraped, not what it is."""

_Source = tuple[str, str, str]
"""Pod, job, instance: what one scrape reads."""


class PrometheusError(Exception):
    """No usable answer; one line that says why."""


class PrometheusReader:
    """Reads a fleet's samples from a Prometheus; the label `pod` tells whose they are."""

    def __init__(self, url: str, timeout_s: float, stale_after_s: float, namespace: str | None = None) -> None:
        self._timeout_s = timeout_s
        self._stale_after_s = stale_after_s
        # Where Prometheus adds no namespace, the empty alternative still matches.
        self._namespace = f',namespace=~"{_literal(namespace)}|"' if namespace else ""
        session = requests.Session()
        session.trust_env = False
        session.hooks["response"].append(_refuse)
        self._client = PrometheusConnect(
            url=url.rstrip("/"), session=session, retry=Retry(total=0), timeout=math.ceil(timeout_s)
        )
        self._running: asyncio.Future[Any] | None = None

    async def read(self, targets: Sequence[ScrapeTarget], now_s: float, service: str) -> Samples:
        """One sample or one reason for each target. Takes at most the time limit."""
        if not targets:
            return Samples()
        try:
            series, times = await self._ask(targets, now_s)
            pages, scrapes = _pages(series), _newest(times)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            return Samples(failures={FAILURE: f"the answer is not a Prometheus': {_short(error)}"})
        except PrometheusError as error:
            return Samples(failures={FAILURE: str(error)})
        readings: dict[str, Reading] = {}
        for target in targets:
            source, at_s = scrapes.pop(target.pod, (None, 0.0))
            if source is None:
                readings[target.pod] = f"no series of pod {target.pod}: is it scraped, and does the label pod name it?"
            elif now_s - at_s > self._stale_after_s:
                readings[target.pod] = f"stale: scraped {now_s - at_s:.0f} s ago, limit {self._stale_after_s:g} s"
            else:
                readings[target.pod] = read_page(pages.get(source, {}), target, at_s, service)
        return replace(gather(readings), ghosts=tuple(sorted(scrapes)))

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _ask(self, targets: Sequence[ScrapeTarget], now_s: float) -> tuple[list[Any], list[Any]]:
        """The answers to both queries, within the time limit."""
        if self._running is not None and not self._running.done():
            # A thread cannot be ended from outside. One that hangs is waited for, not joined by another each tick.
            raise PrometheusError("the query before has still not been answered")
        selector = f'pod=~"{_siblings(targets)}"{self._namespace}'
        values = f'{{__name__=~"{_NAMES}",{selector}}}'
        times = " or ".join(f"timestamp({name}{{{selector}}})" for name in HEARTBEATS)
        self._running = asyncio.ensure_future(asyncio.to_thread(self._queries, (values, times), now_s))
        try:
            first, second = await asyncio.wait_for(asyncio.shield(self._running), self._timeout_s)
            return first, second
        except TimeoutError:
            self._running.add_done_callback(_retrieve)
            raise PrometheusError(f"no answer within {self._timeout_s:g} s") from None

    def _queries(self, queries: Iterable[str], now_s: float) -> list[list[Any]]:
        try:
            return [self._client.custom_query(query, params={"time": f"{now_s:.3f}"}) for query in queries]
        except requests.Timeout as error:
            raise PrometheusError(f"no answer within {self._timeout_s:g} s") from error
        except requests.ConnectionError as error:
            raise PrometheusError(f"cannot connect to {self._client.url}") from error
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            raise PrometheusError(f"the answer is not a Prometheus': {_short(error)}") from error


def _newest(times: list[Any]) -> dict[str, tuple[_Source, float]]:
    """Each pod's newest scrape: where it came from, and when."""
    scrapes = sorted((float(entry["value"][1]), _source(entry["metric"])) for entry in times)
    return {source[0]: (source, at_s) for at_s, source in scrapes}


def _pages(series: list[Any]) -> Mapping[_Source, Page]:
    """The pages that the series were scraped from."""
    pages: dict[_Source, dict[str, dict[Labels, float]]] = defaultdict(lambda: defaultdict(dict))
    for entry in series:
        metric = entry["metric"]
        pages[_source(metric)][metric["__name__"]][_own_labels(metric)] = float(entry["value"][1])
    return pages


def _source(metric: Mapping[str, str]) -> _Source:
    return metric["pod"], metric.get("job", ""), metric.get("instance", "")


def _own_labels(metric: Mapping[str, str]) -> Labels:
    """The labels that stood on the page. Prometheus renames those that collide with its own to `exported_...`."""
    own = {key: value for key, value in metric.items() if key not in _OF_THE_SCRAPE}
    exported = [key for key in own if key.startswith("exported_")]
    return frozenset({**own, **{key.removeprefix("exported_"): own.pop(key) for key in exported}}.items())


def _siblings(targets: Sequence[ScrapeTarget]) -> str:
    """Matches the targets and pods of the same workloads: the name up to its last part is the workload's."""
    stems = sorted({target.pod.rpartition("-")[0] for target in targets if "-" in target.pod})
    single = sorted({target.pod for target in targets if "-" not in target.pod})
    return "|".join([f"{_literal(stem)}-[^-]+" for stem in stems] + [_literal(pod) for pod in single])


def _literal(name: str) -> str:
    """A DNS name as a regular expression inside a PromQL string."""
    return name.replace(".", "[.]")


def _refuse(response: requests.Response, *_: Any, **__: Any) -> None:
    """Raise for an error, and for warnings: they mean that a part of the data is missing in the answer."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    said = answer if isinstance(answer, dict) else {}
    if response.status_code != 200:
        raise PrometheusError(f"HTTP {response.status_code}: {_short(said.get('error') or response.text)}")
    if warnings := said.get("warnings"):
        raise PrometheusError(f"the answer is partial: {_short('; '.join(map(str, warnings)))}")


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Take a late error, which has been reported as a time-out, so that asyncio does not log it again."""
    if not future.cancelled():
        future.exception()


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]
