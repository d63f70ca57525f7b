"""What a Prometheus remembers of a service: rates of arrivals and tokens over a period of the past.

Rules:
1. Arrivals are counted where requests come in: by routers and gateways; where these count nothing, prompts that prefill
   engines have computed stand in. Tokens likewise: prompts of prefill engines, answers of decode engines.
2. Rates are taken of single series before anything is added up, over a window of at least four scrapes: a counter that
   was reset costs nothing, and a step without two scrapes in its window is missing.
3. A range is asked for in parts, since a store answers at most 11,000 points of a series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autoscaler.adapters import promql
from autoscaler.adapters.pages import FAMILIES
from autoscaler.adapters.pages.family import Counter
from autoscaler.adapters.promclient import PromClient, PrometheusError
from autoscaler.adapters.promql import Count, Of

MOST_POINTS = 10_000
SCRAPES = 4
"""A rate is taken over so many scrapes."""

Values = dict[int, float]
"""Number of a step -> its value; a step that is not there is missing."""


@dataclass(frozen=True, slots=True)
class Period:
    """A range in whole Unix seconds, in steps."""

    start_s: int
    end_s: int
    step_s: int

    @property
    def steps(self) -> int:
        """How many whole steps it has."""
        return (self.end_s - self.start_s) // self.step_s


def selector_of(namespace: str, service: str) -> str:
    """The labels that a scrape adds for us, as matchers."""
    return f'namespace="{namespace}",roleratio_service="{service}"'


@dataclass(frozen=True, slots=True)
class Came:
    """What arrived per second, step by step; `of_arrivals` and `of_outputs` tell who counted it. `window_s`: over how
    long each rate is taken, of scrapes every `scrape_s`.
    """

    requests: Values
    prompt_tokens: Values
    output_tokens: Values
    of_arrivals: Of
    of_outputs: Of
    window_s: int
    scrape_s: float


class Past:
    """All questions about one period of the series that a selector chooses. `done` is told after each of them."""

    def __init__(self, client: PromClient, selector: str, period: Period, done: Callable[[], object]) -> None:
        self.warnings: dict[str, None] = {}
        self._client = client
        self._selector = selector
        self._period = period
        self._done = done

    def came(self) -> Came | None:
        """None where nothing that counts requests was stored. Raises PrometheusError."""
        scrape_s = self._scrape_s()
        if scrape_s is None:
            return None
        window_s = max(self._period.step_s, math.ceil(SCRAPES * scrape_s))
        requests, of_arrivals = self._either("arrivals_total", "finished_total", "prefill", window_s)
        prompts, _ = self._either("prompt_tokens_total", "prompt_tokens_total", "prefill", window_s)
        outputs, of_outputs = self._either("generation_tokens_total", "generation_tokens_total", "decode", window_s)
        return Came(requests, prompts, outputs, of_arrivals, of_outputs, window_s, scrape_s)

    def _either(self, count: Count, of_engines: Count, role: str, window_s: int) -> tuple[Values, Of]:
        """A count of routers and gateways; where they have none, one of a role's engines."""
        if found := self.rates(count, "front", "", window_s):
            return found, "front"
        return self.rates(of_engines, "engine", role, window_s), "engine"

    def rates(self, count: Count, of: Of, role: str, window_s: int) -> Values:
        """A count per second in each step: of all fronts, or of one role's engines."""
        selector = self._selector + (f',roleratio_role="{role}"' if of == "engine" else "")
        rates = promql.rate(count, of, f"{window_s}s", selector)
        found: Values = {}
        for at_s, value in self._range(f"sum({rates})"):
            found[round((at_s - self._period.start_s) / self._period.step_s) - 1] = value
        return found

    def _range(self, query: str) -> Iterator[tuple[float, float]]:
        """The points of a query that gives one series, over all parts of the period."""
        period = self._period
        for begin in range(1, period.steps + 1, MOST_POINTS):
            end = min(period.steps, begin + MOST_POINTS - 1)
            at_s = (period.start_s + begin * period.step_s, period.start_s + end * period.step_s)
            yield from self._points(query, *at_s, period.step_s)
        self._done()

    def _points(self, query: str, start_s: int, end_s: int, step_s: int) -> Iterator[tuple[float, float]]:
        answer = self._client.ask_range(query, start_s, end_s, step_s)
        self.warnings |= dict.fromkeys(answer.warnings)
        try:
            points = [(float(at_s), float(value)) for one in answer.series for at_s, value in one["values"]]
        except (KeyError, TypeError, ValueError) as error:
            raise PrometheusError(f"the answer is not a Prometheus': {error}") from error
        yield from ((at_s, value) for at_s, value in points if math.isfinite(value))

    def _scrape_s(self) -> float | None:
        """How often pages were scraped: in the busiest ten minutes, of at most 200 that are looked at."""
        period = self._period
        step_s = max(60, (period.end_s - period.start_s) // 200)
        names = "|".join(sorted(_names("arrivals_total") | _names("finished_total")))
        query = f'max(count_over_time({{__name__=~"{names}",{self._selector}}}[10m]))'
        counts = [count for _, count in self._points(query, period.start_s + 1, period.end_s, step_s)]
        return 600 / max(counts) if counts else None


def _names(signal: str) -> set[str]:
    """What the tables call a counter."""
    found = (source for family in FAMILIES for source in family.signals.get(signal, ()))
    return {name for source in found if isinstance(source, Counter) for name in source.names}
