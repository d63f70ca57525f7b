"""Demand out of a Prometheus: rates of arrivals and mean lengths over a period of the past.

Rules:
1. Rates are what `autoscaler.adapters.past` makes of counters, as when the controller's forecasts begin.
2. Lengths are means over a wider window than rates: an answer is generated after its request has come.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from autoscaler.adapters.past import Came, Past, Period, Values
from autoscaler.adapters.promclient import PromClient, PrometheusError
from autoscaler.errors import UserError
from autoscaler.settings import MetricsSettings
from roleratio.measured import Measured, Stretch, moment

STEPS_S = (15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MOST_STEPS = 12_000
LENGTHS_S = 600
"""Lengths are means of at least so long."""
QUERIES = 8
"""About so many are asked over the whole period."""

Progress = Callable[[float], object]
"""Told the share that is done."""


def step_for(length_s: float) -> int:
    """The shortest usual step of which a period has not too many."""
    return next((step_s for step_s in STEPS_S if length_s / step_s <= MOST_STEPS), STEPS_S[-1])


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
        self._past = Past(client, selector, period, self._one_more)
        self._selector = selector
        self._period = period
        self._progress = progress
        self._asked = 0

    def _one_more(self) -> None:
        self._asked += 1
        self._progress(min(0.95, self._asked / QUERIES))

    def measured(self) -> Measured:
        """Raises PrometheusError where the period has no arrivals, or requests without lengths."""
        came = self._past.came()
        if came is None:
            raise self._nothing("nothing that counts requests, of any router, gateway or engine that is known")
        if not came.requests:
            raise self._nothing("no arrivals: no router, gateway or prefill engine has counted any")
        if not came.prompt_tokens or not came.output_tokens:
            what = "generated" if came.prompt_tokens else "prompt"
            raise self._nothing(f"requests, but no {what} tokens, so no lengths")
        lengths = _Lengths(came.output_tokens, self._ended(came) or came.requests)
        stretches, missing = self._stretches(came.requests, _Lengths(came.prompt_tokens, came.requests), lengths)
        self._progress(1.0)
        counter = "routers or gateways" if came.of_arrivals == "front" else "prefill engines"
        notes = [f"rates over {came.window_s} s, of scrapes every {came.scrape_s:.3g} s, counted by {counter}"]
        notes += [f"a lower bound: Prometheus warns: {warning}" for warning in list(self._past.warnings)[:3]]
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

    def _ended(self, came: Came) -> Values:
        """Requests per second that ended with an answer, as counted by those that count the generated tokens."""
        ended = self._past.rates("finished_total", came.of_outputs, "decode", came.window_s)
        failed = self._past.rates("failed_total", came.of_outputs, "decode", came.window_s)
        # Failures have no series before the first one.
        return {index: max(0.0, value - failed.get(index, 0.0)) for index, value in ended.items()}

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
