"""Field cases of a store of metrics, through the whole tick: what its answers lack is never taken for zero.

The store is `Store` of `test_prometheus`: a Prometheus that answers as the case says.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from autoscaler.adapters.prometheus import PrometheusReader
from autoscaler.model import Decision
from autoscaler.settings import Settings
from policies.model import ROLES, Code, Role
from tests.autoscaler.field import SYNC_S, Engine, Field, Traffic, codes, gateway, no_traffic, service, settings, vllm
from tests.autoscaler.pages import server
from tests.autoscaler.test_prometheus import Store, metrics

TICKS_OF_20_MIN = int(20 * 60 / SYNC_S)
QUICK = {"scaleDown": {"stabilizationS": 60}, "maxGroups": 16}


@dataclass
class Stored(Store):
    """A store that scrapes the service's pods before each tick. `relabel`: what its scrape makes of a pod's labels."""

    extra: dict[str, Any] = field(default_factory=dict)
    is_empty: bool = False
    lingering: str = ""
    relabel: Callable[[str], dict[str, str]] = lambda pod: {"pod": pod, "namespace": "ns"}

    def scrape(self, seen: Field) -> None:
        """Everything that pods say now."""
        self.series.clear()
        for role, group, worker in () if self.is_empty else seen.places():
            name = f"{role}-{group}" + (f"-{worker}" if worker else "")
            text = seen.router() if seen.router and role == "router" else seen.page(Role(role), group, worker)
            labels = self.relabel(name)
            self.add(labels["pod"], text, at_s=seen.now_s, namespace=labels["namespace"])
            up = {"__name__": "up", "pod": name, "namespace": "ns", "instance": f"{name}:8000", "job": "pods"}
            self.series.append((up, "1", seen.now_s))
        if self.lingering:
            known = {tuple(sorted(labels.items())) for labels, _, _ in self.series}
            fresh = list(self.series)
            self.add("router-0", self.lingering, at_s=seen.now_s - SYNC_S, namespace="ns")
            old = [entry for entry in self.series[len(fresh) :] if tuple(sorted(entry[0].items())) not in known]
            assert old
            self.series = fresh + old

    async def run(self, seen: Field, ticks: int) -> Decision:
        """So many ticks, with a scrape before each."""
        for _ in range(ticks):
            self.scrape(seen)
            await seen.run(1)
        return seen.last

    async def told(self, request: web.Request) -> web.Response:
        """The answer, with what the case adds to it."""
        answer = await self.answer(request)
        assert answer.text
        return web.json_response({**json.loads(answer.text), **self.extra})


@asynccontextmanager
async def stored(
    prefill: int, decode: int, page: Callable[[Role, int, int], str], chosen: Settings | None = None, **more: Any
) -> AsyncIterator[tuple[Stored, Field]]:
    """A service and the store that scrapes it."""
    store = Stored()
    async with server({"/api/v1/query": store.told}) as url:
        reader = PrometheusReader(metrics(url), "ns")
        async with service(prefill, decode, page, reader=reader, chosen=chosen, **more) as seen:
            yield store, seen


# idle-or-blind


async def test_series_that_vanish_after_an_hour_change_nothing_and_are_named() -> None:
    quick = {"prefill": QUICK, "decode": QUICK}
    traffic = Traffic(4.0, 3, 2)
    async with stored(3, 2, traffic.page, settings(**quick)) as (store, seen):
        traffic.field = seen
        await store.run(seen, 8)
        store.is_empty = True
        sizes = dict(seen.replicas)
        last = await store.run(seen, TICKS_OF_20_MIN)
        assert seen.replicas == sizes
        assert all(decision.step is None for decision in seen.decisions[-TICKS_OF_20_MIN:])
        status, message = seen.condition("ScalingActive")
        assert status == "False"
        assert "no series of pod" in message
        assert last.target is not None
        assert last.target.unsized == ROLES


async def test_idle_is_a_true_zero_in_a_store_as_well() -> None:
    async with stored(7, 1, no_traffic, settings(prefill=QUICK)) as (store, seen):
        last = await store.run(seen, 20)
        assert seen.replicas == {Role.PREFILL: 1, Role.DECODE: 1}
        assert Code.NO_TRAFFIC in codes(last)


# inert-but-green


@pytest.mark.parametrize(
    ("relabel", "near"),
    [
        (
            lambda pod: {"pod": f"{pod}-rank-0", "namespace": "ns"},
            "have the label pod=decode-0-rank-0: correct the relabeling",
        ),
        (lambda pod: {"pod": pod, "namespace": "other"}, "of namespace=other"),
    ],
    ids=["suffix", "namespace"],
)
async def test_a_label_that_is_a_little_off_is_said_within_two_ticks(
    relabel: Callable[[str], dict[str, str]], near: str
) -> None:
    async with stored(2, 2, lambda *_: vllm(Engine(waiting=30, running=8))) as (store, seen):
        store.relabel = relabel
        await store.run(seen, 2)
        status, message = seen.condition("ScalingActive")
        assert status == "False"
        assert near in message
        for role in ROLES:
            assert seen.gauge("desired_groups", role) is None
            assert seen.gauge("current_groups", role) == 2
        assert all("desired" not in told and told["groups"] == "2/?" for told in seen.told["roles"])
        assert "ratio" not in seen.told


# Partial answers


WARNED = {"warnings": ["remote storage fast-2 did not answer in time"]}


async def test_a_partial_answer_may_grow_a_role_and_shrinks_none() -> None:
    quick = {"prefill": QUICK, "decode": QUICK}
    traffic = Traffic(0.5, 3, 3)
    async with stored(3, 3, traffic.page, settings(**quick)) as (store, seen):
        traffic.field, store.extra = seen, WARNED
        await store.run(seen, 20)
        assert seen.replicas == {Role.PREFILL: 3, Role.DECODE: 3}
        why = str(seen.reason(Code.METRICS_PARTIAL, Role.PREFILL).detail["why"])
        assert why == f"Prometheus warns: {WARNED['warnings'][0]}"
        assert why in seen.condition("Blind")[1]
        traffic.rate_rps = 40.0
        await store.run(seen, 4)
        assert seen.replicas[Role.PREFILL] > 3
        assert Code.METRICS_PARTIAL in codes(seen.last)


async def test_an_answer_that_is_whole_again_shrinks() -> None:
    quick = {"prefill": QUICK, "decode": QUICK}
    traffic = Traffic(0.5, 3, 3)
    async with stored(3, 3, traffic.page, settings(**quick)) as (store, seen):
        traffic.field, store.extra = seen, WARNED
        await store.run(seen, 8)
        store.extra = {}
        await store.run(seen, 12)
        assert seen.replicas[Role.PREFILL] < 3


# bucket-one-point-zero


@pytest.mark.parametrize(
    ("before", "after", "lingers"),
    [("1.0", "1.0", False), ("1", "1", False), ("1", "1.0", False), ("1", "1.0", True)],
)
async def test_the_spelling_of_a_bound_in_a_store_changes_nothing(before: str, after: str, lingers: bool) -> None:
    """`lingers`: the series of before the upgrade are not stale yet."""
    pages = [
        gateway({before: 0, "2.5": 0, "+Inf": 0}),
        gateway({before: 38, "2.5": 40, "+Inf": 40}, 40.0),
        gateway({after: 95, "2.5": 100, "+Inf": 100}, 100.0),
    ]
    shown = 0
    chosen = settings(slo={"ttft": {"targetMs": 1000}})
    async with stored(1, 1, no_traffic, chosen, router=lambda: pages[shown]) as (store, seen):
        for shown in range(3):
            store.lingering = pages[1] if lingers and shown == 2 else ""
            last = await store.run(seen, 1)
        assert last.signals.ttft.attained == pytest.approx(0.95)
        assert Code.SIGNAL_DAMAGED not in codes(last)
        assert seen.gauge("demand_requests_per_second") == pytest.approx(60 / SYNC_S)
        assert Code.COUNTER_RESET not in codes(last)
