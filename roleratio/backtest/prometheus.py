"""Demand out of a Prometheus: rates of arrivals, prompt tokens and generated tokens over a period of the past.

Rules:
1. Arrivals are counted where requests come in: by routers and gateways; where these count nothing, prompts that prefill
   engines have computed stand in. Tokens likewise: prompts of prefill engines, answers of decode engines.
2. Rates are taken of single series before anything is added up, over a window of at least four scrapes: a counter that
   was reset costs nothing, and a step without two scrapes in its window is missing.
3. Lengths are means over a wider window than rates: an answer is generated after its request has come.
4. A range is asked for in parts, since a store answers at most 11,000 points of a series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from autoscaler.adapters import promql
from autoscaler.adapters.pages import FAMILIES
from autoscaler.adapters.pages.family import Counter
from autoscaler.adapters.promclient import PromClient, PrometheusError
from autoscaler.adapters.promql import Count, Of
from autoscaler.errors import UserError
from autoscaler.settings import MetricsSettings
from roleratio.measured import Measured, Stretch, moment

STEPS_S = (15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MOST_STEPS = 12_000
MOST_POINTS = 10_000
LENGTHS_S = 600
"""Lengths are means of at least so long."""
SCRAPES = 4
"""A rate is taken over so many scrapes."""
QUERIES = 8
"""About so many are asked over the whole period."""

Values = dict[int, float]
"""Number of a step -> its value; a step that is not there is missing."""
Progress = Callable[[float], object]
"""Told the share that is done."""


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


def step_for(length_s: float) -> int:
    """The shortest usual step of which a period has not too many."""
    return next((step_s for step_s in STEPS_S if length_s / step_s <= MOST_STEPS), STEPS_S[-1])


def selector_of(namespace: str, service: str) -> str:
    """The labels that a scrape adds for us, as matchers."""
    return f'namespace="{namespace}",roleratio_service="{service}"'


def measured(metrics: MetricsSettings, selector: str, period: Period, progress: Progress) -> Measured:
    """What came in a period. Raises UserError."""
    client = PromClient(metrics)
    try:
        return _Asking(client, selector, period, progress).measured()
    except PrometheusError as error:
        raise UserError(f"--prometheus {metrics.prometheus_url}: {error}") from error
    finally:
        client.close()


class _Asking:
    """All questions about one period."""

    def __init__(self, client: PromClient, selector: str, period: Period, progress: Progress) -> None:
        self._client = client
        self._selector = selector
        self._period = period
        self._progress = progress
        self._warnings: dict[str, None] = {}
        self._asked = 0

    def measured(self) -> Measured:
        """Raises PrometheusError where the period has no arrivals, or requests without lengths."""
        scrape_s = self._scrape_s()
        window_s = max(self._period.step_s, math.ceil(SCRAPES * scrape_s))
        arrivals, counted_by = self._either("arrivals_total", "finished_total", "prefill", window_s)
        if not arrivals:
            raise self._nothing("no arrivals: no router, gateway or prefill engine has counted any")
        prompts, _ = self._either("prompt_tokens_total", "prompt_tokens_total", "prefill", window_s)
        outputs, of = self._either("generation_tokens_total", "generation_tokens_total", "decode", window_s)
        if not prompts or not outputs:
            raise self._nothing(f"requests, but no {'generated' if prompts else 'prompt'} tokens, so no lengths")
        ended = self._ended(of, window_s) or arrivals
        stretches, missing = self._stretches(arrivals, _Lengths(prompts, arrivals), _Lengths(outputs, ended))
        self._progress(1.0)
        counter = "routers or gateways" if counted_by == "front" else "prefill engines"
        notes = [f"rates over {window_s} s, of scrapes every {scrape_s:.3g} s, counted by {counter}"]
        notes += [f"a lower bound: Prometheus warns: {warning}" for warning in list(self._warnings)[:3]]
        end_s = self._period.start_s + self._period.steps * self._period.step_s
        source = f"Prometheus, {self._selector}, in steps of {self._period.step_s} s"
        return Measured(source, self._period.start_s, end_s, stretches, missing, tuple(notes))

    def _stretches(
        self, arrivals: Values, prompts: _Lengths, outputs: _Lengths
    ) -> tuple[tuple[Stretch, ...], dict[str, float]]:
        period, found = self._period, []
        missing: dict[str, float] = {}
        reach = max(1, round(LENGTHS_S / period.step_s / 2))
        for index in range(period.steps):
            start_s = period.start_s + index * period.step_s
            rate = arrivals.get(index)
            prompt, output = prompts.around(index, reach), outputs.around(index, reach)
            if rate is None:
                why = "no arrivals were stored"
            elif rate > 0 and (prompt is None or output is None):
                why = "how long the requests were was not stored"
            else:
                means = max(1.0, prompt or 1.0), max(1.0, output or 1.0)
                found.append(Stretch(start_s, start_s + period.step_s, rate, *means))
                continue
            missing[why] = missing.get(why, 0.0) + period.step_s
        return tuple(found), missing

    def _either(self, count: Count, of_engines: Count, role: str, window_s: int) -> tuple[Values, Of]:
        """A count of routers and gateways; where they have none, one of a role's engines."""
        if found := self._rates(count, "front", "", window_s):
            return found, "front"
        return self._rates(of_engines, "engine", role, window_s), "engine"

    def _ended(self, of: Of, window_s: int) -> Values:
        """Requests per second that ended with an answer, as counted by those that count the generated tokens."""
        ended = self._rates("finished_total", of, "decode", window_s)
        failed = self._rates("failed_total", of, "decode", window_s)
        # Failures have no series before the first one.
        return {index: max(0.0, value - failed.get(index, 0.0)) for index, value in ended.items()}

    def _rates(self, count: Count, of: Of, role: str, window_s: int) -> Values:
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
        self._asked += 1
        self._progress(min(0.95, self._asked / QUERIES))

    def _points(self, query: str, start_s: int, end_s: int, step_s: int) -> Iterator[tuple[float, float]]:
        answer = self._client.ask_range(query, start_s, end_s, step_s)
        self._warnings |= dict.fromkeys(answer.warnings)
        try:
            points = [(float(at_s), float(value)) for one in answer.series for at_s, value in one["values"]]
        except (KeyError, TypeError, ValueError) as error:
            raise PrometheusError(f"the answer is not a Prometheus': {error}") from error
        yield from ((at_s, value) for at_s, value in points if math.isfinite(value))

    def _scrape_s(self) -> float:
        """How often pages were scraped: in the busiest ten minutes, of at most 200 that are looked at."""
        period = self._period
        step_s = max(60, (period.end_s - period.start_s) // 200)
        names = "|".join(sorted(_names("arrivals_total") | _names("finished_total")))
        query = f'max(count_over_time({{__name__=~"{names}",{self._selector}}}[10m]))'
        counts = [count for _, count in self._points(query, period.start_s + 1, period.end_s, step_s)]
        if not counts:
            raise self._nothing("nothing that counts requests, of any router, gateway or engine that is known")
        return 600 / max(counts)

    def _nothing(self, what: str) -> PrometheusError:
        begin, end = moment(self._period.start_s), moment(self._period.end_s)
        return PrometheusError(
            f"{{{self._selector}}} has {what}, from {begin} to {end} UTC; check --service or --selector, the period, "
            "and that the scrape adds these labels and roleratio_role (dashboards/README.md)"
        )


class _Lengths:
    """Mean tokens of a request over several steps: tokens over requests, of the steps that have both."""

    def __init__(self, tokens: Values, counts: Values) -> None:
        last = max((*tokens, *counts), default=-1)
        both = [(tokens[i], counts[i]) if i in tokens and i in counts else (0.0, 0.0) for i in range(last + 1)]
        self._tokens = list(accumulate((one for one, _ in both), initial=0.0))
        self._counts = list(accumulate((one for _, one in both), initial=0.0))

    def around(self, index: int, reach: int) -> float | None:
        """The mean up to `reach` steps before and after one; None where no request was there."""
        last = len(self._counts) - 1
        begin, end = min(last, max(0, index - reach)), min(last, index + reach + 1)
        counts = self._counts[end] - self._counts[begin]
        return (self._tokens[end] - self._tokens[begin]) / counts if counts > 1e-9 else None


def _names(signal: str) -> set[str]:
    """What the tables call a counter."""
    found = (source for family in FAMILIES for source in family.signals.get(signal, ()))
    return {name for source in found if isinstance(source, Counter) for name in source.names}
