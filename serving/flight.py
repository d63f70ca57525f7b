"""One request on its way through the router, and what the router counts about all of them.

Rules:
1. A request counts when it arrives; its outcome counts when it ends, whatever ends it.
2. Times are the router's own: this is the TTFT and ITL that a user sees, queues and retries included.
3. No label has a name that a scrape adds (namespace, service, ...): Prometheus would rename it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.metrics_core import Metric

from serving.api import TOKEN_MARK, Completion
from serving.metrics import FINE_BUCKETS_S, Histogram, counter, gauge

UNASSIGNED, PREFILL, DECODE = "unassigned", "prefill", "decode"
OK, REJECTED, FAILED, ABORTED = "ok", "rejected", "failed", "aborted"


@dataclass(slots=True, eq=False)
class Flight:
    """A valid request."""

    id: str
    completion: Completion
    prompt_tokens: int
    arrived_s: float
    stage: str = UNASSIGNED
    outcome: str = FAILED
    failures: int = 0
    tokens: int = 0
    last_token_s: float = 0.0
    _tail: bytes = b""

    def prefill_body(self) -> bytes:
        """What the prefill worker is asked."""
        body = {name: value for name, value in self.completion.body.items() if name != "stream_options"}
        asked = {"max_tokens": 1, "stream": False, "kv_transfer_params": {"do_remote_decode": True}}
        return json.dumps(body | asked).encode()

    def decode_body(self, hand_over: Mapping[str, Any]) -> bytes:
        """What the decode worker is asked: always a stream, so that tokens can be timed."""
        asked: dict[str, Any] = {"stream": True, "kv_transfer_params": {**hand_over, "do_remote_prefill": True}}
        if not self.completion.stream:
            asked["stream_options"] = {"include_usage": True}
        return json.dumps(self.completion.body | asked).encode()

    def count(self, data: bytes) -> int:
        """How many tokens end in `data`; a mark that is split between two reads counts once."""
        seen = self._tail + data
        self._tail = seen[-len(TOKEN_MARK) + 1 :]
        return seen.count(TOKEN_MARK)


class RouterMetrics:
    """The router's page."""

    def __init__(self, service: str) -> None:
        namespace, _, name = service.rpartition("/")
        self.service = service
        self.labels = {"target_namespace": namespace, "target_service": name}
        self.in_flight: set[Flight] = set()
        self.requests = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished = dict.fromkeys((OK, REJECTED, FAILED, ABORTED), 0)
        self.no_worker = {PREFILL: 0, DECODE: 0}
        self.ttft = Histogram(FINE_BUCKETS_S)
        self.itl = Histogram(FINE_BUCKETS_S)

    @contextmanager
    def flying(self, flight: Flight) -> Iterator[None]:
        """From arrival to the end."""
        self.requests += 1
        self.prompt_tokens += flight.prompt_tokens
        self.in_flight.add(flight)
        try:
            yield
        except asyncio.CancelledError:
            flight.outcome = ABORTED
            raise
        finally:
            self.in_flight.remove(flight)
            self.finished[flight.outcome] += 1

    def tokens(self, flight: Flight, count: int, now_s: float) -> None:
        """`count` tokens of a request pass at once: one gap, and none between them."""
        if flight.tokens == 0:
            self.ttft.observe(now_s - flight.arrived_s)
        else:
            self.itl.observe(now_s - flight.last_token_s)
        if count > 1:
            self.itl.observe(0.0, count - 1)
        flight.tokens += count
        flight.last_token_s = now_s
        self.generation_tokens += count

    def families(self) -> list[Metric]:
        """Everything, for one reading."""
        mine = self.labels
        stages = [flight.stage for flight in self.in_flight]
        return [
            counter("roleratio_router_requests", "Requests, at arrival", (mine, self.requests)),
            counter("roleratio_router_prompt_tokens", "Prompt tokens, at arrival", (mine, self.prompt_tokens)),
            counter("roleratio_router_generation_tokens", "Tokens, as they pass", (mine, self.generation_tokens)),
            counter(
                "roleratio_router_requests_finished",
                "Requests that have ended",
                *(({**mine, "outcome": outcome}, n) for outcome, n in self.finished.items()),
            ),
            counter(
                "roleratio_router_no_worker",
                "Requests refused because no worker of a role was ready in time",
                *(({**mine, "role": role}, n) for role, n in self.no_worker.items()),
            ),
            gauge(
                "roleratio_router_requests_in_flight",
                "Open requests",
                *(({**mine, "stage": stage}, stages.count(stage)) for stage in (PREFILL, DECODE, UNASSIGNED)),
            ),
            self.ttft.family("roleratio_router_time_to_first_token_seconds", "Arrival to first token", mine),
            self.itl.family("roleratio_router_inter_token_latency_seconds", "Between two tokens", mine),
        ]
