"""Counters and histograms that cost next to nothing per token; prometheus_client writes the page.

Rules:
1. Observing is one bisection; everything else happens when somebody reads the page.
2. Worker metrics have vLLM's names, labels and buckets, so that what reads them reads a real fleet as well.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# fmt: off
TTFT_BUCKETS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)
ITL_BUCKETS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)
QUEUE_BUCKETS_S = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)
# fmt: on
FINE_BUCKETS_S = tuple(round(0.001 * 1.2**step, 6) for step in range(64))
"""1 ms to 97 s, each 1.2 times the one before: a percentile read from them is at most 20 % off."""


class Histogram:
    """Counts per bucket, and the sum."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = tuple(bounds_s)
        self.sum_s = 0.0
        self._counts = [0] * (len(bounds_s) + 1)

    def observe(self, value_s: float, times: int = 1) -> None:
        """Add a value `times` times. Logarithmic in the buckets."""
        self._counts[bisect_left(self.bounds_s, value_s)] += times
        self.sum_s += value_s * times

    def family(self, name: str, text: str, labels: Mapping[str, str]) -> Metric:
        """What a page shows."""
        bounds = [*map(floatToGoString, self.bounds_s), "+Inf"]
        family = HistogramMetricFamily(name, text, labels=list(labels))
        cumulated = list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
        family.add_metric(list(labels.values()), cumulated, self.sum_s)
        return family


def counter(name: str, text: str, *rows: tuple[Mapping[str, str], float]) -> Metric:
    """A counter with one sample per row of (labels, value)."""
    family = CounterMetricFamily(name, text, labels=list(rows[0][0]))
    for labels, value in rows:
        family.add_metric(list(labels.values()), value)
    return family


def gauge(name: str, text: str, *rows: tuple[Mapping[str, str], float]) -> Metric:
    """A gauge with one sample per row of (labels, value)."""
    family = GaugeMetricFamily(name, text, labels=list(rows[0][0]))
    for labels, value in rows:
        family.add_metric(list(labels.values()), value)
    return family


class _Once(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def page(families: Iterable[Metric]) -> bytes:
    """The families in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families))
    return generate_latest(registry)


class WorkerMetrics:
    """What one worker counts, under vLLM's names."""

    def __init__(self, model_name: str) -> None:
        self.labels = {"model_name": model_name, "engine": "0"}
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished = {"stop": 0, "length": 0, "abort": 0}
        self.ttft = Histogram(TTFT_BUCKETS_S)
        self.itl = Histogram(ITL_BUCKETS_S)
        self.queue = Histogram(QUEUE_BUCKETS_S)

    def families(
        self, *, running: int, capacity: int, deferred: int, kv_usage: float, blocks: int, block_tokens: int
    ) -> list[Metric]:
        """The page, with the engine's state as the caller sees it now."""
        mine = self.labels
        info = {**mine, "block_size": str(block_tokens), "num_gpu_blocks": str(blocks)}
        return [
            gauge("vllm:num_requests_running", "Requests in the batch", (mine, running)),
            gauge("vllm:num_requests_waiting", "Requests waiting", (mine, capacity + deferred)),
            gauge(
                "vllm:num_requests_waiting_by_reason",
                "Requests waiting for room (capacity) or for remote KV (deferred)",
                ({**mine, "reason": "capacity"}, capacity),
                ({**mine, "reason": "deferred"}, deferred),
            ),
            gauge("vllm:kv_cache_usage_perc", "KV blocks in use, 0 to 1", (mine, kv_usage)),
            gauge("vllm:cache_config_info", "The KV cache", (info, 1)),
            counter("vllm:prompt_tokens", "Prompt tokens processed", (mine, self.prompt_tokens)),
            counter("vllm:generation_tokens", "Tokens generated", (mine, self.generation_tokens)),
            counter(
                "vllm:request_success",
                "Requests finished, by reason",
                *(({**mine, "finished_reason": reason}, n) for reason, n in self.finished.items()),
            ),
            self.ttft.family("vllm:time_to_first_token_seconds", "Arrival to first token", mine),
            self.itl.family("vllm:inter_token_latency_seconds", "Between two tokens", mine),
            self.queue.family("vllm:request_queue_time_seconds", "Arrival to start", mine),
        ]
