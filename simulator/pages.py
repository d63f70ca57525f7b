"""What the metrics pages of a simulated service say, as the samples that our readers make of such pages.

Rules:
1. Names, units and what is missing are those of real pages: a test writes the pages out and reads them by the real
   path, with the same result.
2. The router's ITL is the ITL of the tokens that decode gave, in vLLM's buckets.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from math import inf

from autoscaler.adapters.pages.read import CHUNKS_SHARE
from autoscaler.model import Histogram as Seen
from autoscaler.model import RouterSample, WorkerSample
from policies.model import Missing
from simulator.flight import Stage
from simulator.gauges import ITL_BOUNDS_S, Histogram, Snapshot
from simulator.groups import Group
from simulator.router import Counters

MODEL = "simulated"
ROUTER = "router-0"
WORKER_SERIES, ROUTER_SERIES = 82, 144
NO_ARRIVALS = Missing("the page's engine has no such signal")
NO_PREEMPTIONS = "vllm:num_preemptions_total"
CACHED = "vllm:prefix_cache_hits_total"


class Passed:
    """What has passed the router on its way from decode: tokens and their times, those of groups that are gone, too."""

    def __init__(self) -> None:
        self.tokens = 0.0
        self.itl = Histogram(ITL_BOUNDS_S)

    def add(self, last: Snapshot) -> None:
        """Add the last page of a decode group."""
        self.tokens += last.values["vllm:generation_tokens_total"]
        self.itl.add(last.histograms["vllm:inter_token_latency_seconds"])

    def plus(self, pages: Iterable[Snapshot]) -> Passed:
        """All of it, with those that are there."""
        total = Passed()
        total.tokens, total.itl = self.tokens, self.itl.copy()
        for page in pages:
            total.add(page)
        return total


def worker_sample(group: Group, page: Snapshot, at_s: float) -> WorkerSample:
    """One group by its leader's page."""
    values = page.values
    running, waiting = float(values["vllm:num_requests_running"]), float(values["vllm:num_requests_waiting"])
    kv_usage = float(values["vllm:kv_cache_usage_perc"])
    config = group.engine.engine.config
    ttft = page.histograms["vllm:time_to_first_token_seconds"]
    return WorkerSample(
        uid=group.uid,
        pod=group.leader,
        role=group.role,
        group=group.uid,
        at_s=at_s,
        running=running,
        waiting=waiting,
        waiting_by_reason={reason: float(count) for reason, count in page.waiting_by_reason.items()},
        kv_usage=kv_usage,
        prompt_tokens=float(values["vllm:prompt_tokens_total"]),
        generation_tokens=float(values["vllm:generation_tokens_total"]),
        finished=float(values["vllm:request_success_total"]),
        ttft=_seen(ttft),
        itl=_itl(page),
        engine="vllm",
        ranks=("engine=0",),
        in_flight=running + waiting,
        arrivals=NO_ARRIVALS,
        prompts=float(sum(ttft.counts)),
        cached_tokens=float(values[CACHED]),
        kv_usage_max=kv_usage,
        kv_capacity_tokens=float((config.kv_blocks or 0) * config.block_tokens),
        preemptions=float(values[NO_PREEMPTIONS]),
        queue_time=_seen(page.histograms["vllm:request_queue_time_seconds"]),
        series=WORKER_SERIES,
        start_s=group.created_s,
        ready_s=group.ready_s,
    )


def router_sample(counted: Counters, passed: Passed, at_s: float, start_s: float) -> RouterSample:
    """The router, which is there from the start."""
    return RouterSample(
        uid=ROUTER,
        pod=ROUTER,
        at_s=at_s,
        arrivals=float(counted.arrivals),
        prompt_tokens=float(counted.prompt_tokens),
        generation_tokens=passed.tokens,
        finished=float(counted.finished),
        failed=float(counted.failed),
        ttft=_seen(counted.ttft),
        itl=_seen(passed.itl),
        prompts=float(counted.finished + counted.failed),
        tokens_at="arrival",
        in_flight={
            stage.value: float(counted.in_stage[stage]) for stage in (Stage.DECODE, Stage.PREFILL, Stage.UNASSIGNED)
        },
        engine="roleratio-router",
        series=ROUTER_SERIES,
        start_s=start_s,
        ready_s=start_s,
    )


def _itl(page: Snapshot) -> Seen | Missing:
    """As the reader takes it: where there are far fewer gaps than tokens, they are not between tokens."""
    itl, tokens = page.histograms["vllm:inter_token_latency_seconds"], page.values["vllm:generation_tokens_total"]
    gaps = sum(itl.counts)
    if gaps < CHUNKS_SHARE * tokens:
        return Missing(f"vllm: counts chunks, not tokens: {gaps:g} gaps for {tokens:g} tokens")
    return _seen(itl)


def _seen(histogram: Histogram) -> Seen:
    return Seen(_with_infinity(histogram.bounds_s), tuple(accumulate(map(float, histogram.counts))), histogram.sum_s)


@lru_cache(maxsize=16)
def _with_infinity(bounds_s: tuple[float, ...]) -> tuple[float, ...]:
    return (*map(float, bounds_s), inf)
