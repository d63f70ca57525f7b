"""Read a Prometheus text page of a vLLM engine or of our router into the controller's samples. Pure.

Rules:
1. Only the families named here are read; all other lines of a page may be anything. The parser gets them
   without their TYPE lines, because it renames counters that are declared without `_total`.
2. Engines of one page (label `engine`) add up: counters, queues and histograms as sums, KV use as a mean.
   The same labels twice on one page are one series.
3. Absent, NaN and infinite are `Missing`, never 0. A page without any known family is not a sample at all.
4. `le` is a number: "1" and "1.0" are the same bucket.
5. A router's `finished` are the requests whose tokens passed (ok, aborted); `failed` are the others. A rejected
   request has no output, and would make outputs look short just when the service is overloaded.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from autoscaler.model import Histogram, Number, RouterSample, WorkerSample
from policies.model import Missing, Role

Labels = frozenset[tuple[str, str]]
Page = Mapping[str, Mapping[Labels, float]]
"""Series by name, then by labels."""


class PageError(ValueError):
    """A page that gives no sample; one line that says why."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How one serving engine names its signals; where there are several names, the first one on the page counts."""

    name: str
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    waiting_by_reason: tuple[str, ...]
    kv_usage: tuple[str, ...]
    prompt_tokens: tuple[str, ...]
    generation_tokens: tuple[str, ...]
    finished: tuple[str, ...]
    ttft: tuple[str, ...]
    itl: tuple[str, ...]

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of gauges and counters, as they stand on the page."""
        waiting = self.waiting + self.waiting_by_reason
        return self.running + waiting + self.kv_usage + self.prompt_tokens + self.generation_tokens + self.finished

    @property
    def histograms(self) -> tuple[str, ...]:
        """Names of histograms, without their suffixes."""
        return self.ttft + self.itl


VLLM = Engine(
    name="vLLM",
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    waiting_by_reason=("vllm:num_requests_waiting_by_reason",),
    kv_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    prompt_tokens=("vllm:prompt_tokens_total",),
    generation_tokens=("vllm:generation_tokens_total",),
    finished=("vllm:request_success_total",),
    ttft=("vllm:time_to_first_token_seconds",),
    itl=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
)

_ARRIVALS = "roleratio_router_requests_total"
_PROMPT_TOKENS = "roleratio_router_prompt_tokens_total"
_GENERATION_TOKENS = "roleratio_router_generation_tokens_total"
_FINISHED = "roleratio_router_requests_finished_total"
_IN_FLIGHT = "roleratio_router_requests_in_flight"
_TTFT = "roleratio_router_time_to_first_token_seconds"
_ITL = "roleratio_router_inter_token_latency_seconds"
_NOT_SERVED = ("failed", "rejected")

SCALARS = frozenset((*VLLM.scalars, _ARRIVALS, _PROMPT_TOKENS, _GENERATION_TOKENS, _FINISHED, _IN_FLIGHT))
HISTOGRAMS = frozenset((*VLLM.histograms, _TTFT, _ITL))
HEARTBEATS = (*VLLM.running, _ARRIVALS)
"""One series that each kind of page always has: its timestamp is the page's."""

_SERIES = re.compile(
    rf"(?:(?:{'|'.join(sorted(SCALARS))})|(?:{'|'.join(sorted(HISTOGRAMS))})_(?:bucket|sum))(?=[{{\s])"
)


def parse_page(text: str) -> Page:
    """The known series of a page. Raises PageError when a line of a known series cannot be read, or none is there."""
    lines = [line for line in text.splitlines() if _SERIES.match(line)]
    if not lines:
        raise PageError(f"is not a {VLLM.name} page, nor a router's: it begins with {_beginning(text)}")
    page: dict[str, dict[Labels, float]] = defaultdict(dict)
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                page[sample.name][frozenset(sample.labels.items())] = sample.value
    except ValueError as error:
        raise PageError(f"has a line that is not in the exposition format: {_beginning(str(error))}") from error
    return page


def router_sample(page: Page, uid: str, at_s: float, service: str) -> RouterSample:
    """What a router says of `service`. Raises PageError when it does not say it."""
    ours = {name: _of_service(series, service) for name, series in page.items()}
    if not ours.get(_ARRIVALS):
        others = sorted({_service(labels) for labels in page.get(_ARRIVALS, {})})
        seen = f"it serves {', '.join(others)}" if others else "no such series"
        raise PageError(f"is not a router page of service {service}: {_ARRIVALS}: {seen}")
    ended = {labels: value for labels, value in ours.get(_FINISHED, {}).items() if math.isfinite(value)}
    failed = sum(value for labels, value in ended.items() if _label(labels, "outcome") in _NOT_SERVED)
    return RouterSample(
        uid=uid,
        at_s=at_s,
        arrivals=_required(ours, _ARRIVALS),
        prompt_tokens=_required(ours, _PROMPT_TOKENS),
        generation_tokens=_required(ours, _GENERATION_TOKENS),
        finished=_required(ours, _FINISHED) - failed,
        failed=failed,
        ttft=_histogram(ours, (_TTFT,)),
        itl=_histogram(ours, (_ITL,)),
        in_flight=_by_label(ours.get(_IN_FLIGHT, {}), "stage"),
    )


def worker_sample(page: Page, uid: str, pod: str, role: Role, at_s: float, engine: Engine = VLLM) -> WorkerSample:
    """What an engine says of itself. Raises PageError when the page is not one of `engine`."""
    if not any(name in page for name in engine.scalars):
        raise PageError(f"is not a {engine.name} page: none of its series is there, such as {engine.running[0]}")
    if any(_label(labels, "server") for name in engine.running for labels in page.get(name, {})):
        raise PageError(f"is not a {engine.name} page: its label `server` says that it speaks for other pods")
    return WorkerSample(
        uid=uid,
        pod=pod,
        role=role,
        at_s=at_s,
        running=_total(page, engine.running),
        waiting=_total(page, engine.waiting),
        waiting_deferred=_total(page, engine.waiting_by_reason, ("reason", "deferred")),
        kv_usage=_mean(page, engine.kv_usage),
        prompt_tokens=_total(page, engine.prompt_tokens),
        generation_tokens=_total(page, engine.generation_tokens),
        finished=_total(page, engine.finished),
        ttft=_histogram(page, engine.ttft),
        itl=_histogram(page, engine.itl),
    )


def _values(page: Page, names: tuple[str, ...], only: tuple[str, str] | None = None) -> list[float] | Missing:
    """The values of the first name that is on the page, if all of them are numbers."""
    name = next((name for name in names if page.get(name)), None)
    if name is None:
        return Missing(f"{names[0]} is not on the page")
    values = [value for labels, value in page[name].items() if only is None or only in labels]
    if not values:
        return Missing(f"{name} has no series with {only}")
    bad = next((value for value in values if not math.isfinite(value)), None)
    return values if bad is None else Missing(f"{name} is {bad}")


def _total(page: Page, names: tuple[str, ...], only: tuple[str, str] | None = None) -> Number:
    values = _values(page, names, only)
    return values if isinstance(values, Missing) else math.fsum(values)


def _mean(page: Page, names: tuple[str, ...]) -> Number:
    values = _values(page, names)
    return values if isinstance(values, Missing) else math.fsum(values) / len(values)


def _required(page: Page, name: str) -> float:
    value = _total(page, (name,))
    if isinstance(value, Missing):
        raise PageError(f"is a router page, but {value.missing}")
    return value


def _histogram(page: Page, names: tuple[str, ...]) -> Histogram | Missing:
    """The sum of one histogram over its engines."""
    name = next((name for name in names if page.get(f"{name}_bucket")), None)
    if name is None:
        return Missing(f"{names[0]} is not on the page")
    sources: dict[Labels, dict[float, float]] = defaultdict(dict)
    for labels, count in page[f"{name}_bucket"].items():
        bound = _bound(_label(labels, "le"))
        sources[frozenset(pair for pair in labels if pair[0] != "le")][bound] = count
    bounds = sorted(next(iter(sources.values())))
    if any(sorted(source) != bounds for source in sources.values()):
        return Missing(f"{name} has different buckets on each engine")
    counts = tuple(math.fsum(source[bound] for source in sources.values()) for bound in bounds)
    sum_s = _total(page, (f"{name}_sum",))
    if isinstance(sum_s, Missing):
        return sum_s
    if fault := _fault(bounds, counts):
        return Missing(f"{name} {fault}")
    return Histogram(tuple(bounds), counts, sum_s)


def _fault(bounds: list[float], counts: tuple[float, ...]) -> str:
    if bounds[-1] != math.inf or any(math.isnan(bound) for bound in bounds):
        return "has no bucket +Inf"
    if not all(map(math.isfinite, counts)) or any(low > high for low, high in pairwise((0.0, *counts))):
        return "has buckets that are not cumulative"
    return ""


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _of_service(series: Mapping[Labels, float], service: str) -> Mapping[Labels, float]:
    return {labels: value for labels, value in series.items() if _service(labels) == service}


def _service(labels: Labels) -> str:
    """`namespace/service`, or the service alone where a router knows no namespace."""
    return "/".join(filter(None, (_label(labels, "target_namespace"), _label(labels, "target_service"))))


def _by_label(series: Mapping[Labels, float], key: str) -> dict[str, float]:
    return {_label(labels, key): value for labels, value in sorted(series.items(), key=str) if math.isfinite(value)}


def _label(labels: Labels, key: str) -> str:
    return next((value for name, value in labels if name == key), "")


def _beginning(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return repr(first.strip()[:60]) if first else "nothing"
