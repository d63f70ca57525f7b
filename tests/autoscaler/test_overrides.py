"""Queries of the user's in place of what pages say: how results are joined, and what is said where there are none."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.adapters.join import Joiner, Read, Reading, ScrapeTarget
from autoscaler.adapters.overrides import COUNTERS, GATEWAY, STATES, Told, overridden, told
from autoscaler.adapters.pages import Page, read_page
from autoscaler.model import Samples
from autoscaler.settings import Queries
from policies.model import Missing
from tests.autoscaler.pages import ROUTER, SERVICE, WORKER

ROUTER_POD = ScrapeTarget("router-0", "uid-r", "router")
PREFILL = ScrapeTarget("prefill-0", "uid-p", "prefill")
DECODE = ScrapeTarget("decode-0", "uid-d0", "decode", group="d0")
RANK = replace(DECODE, pod="decode-0-1", uid="uid-d01", leader=False)
OTHER = replace(DECODE, pod="decode-1", uid="uid-d1", group="d1")
NOW_S = 50.0


def read(page: str) -> Read:
    return Read(read_page(page), 7.0)


def row(value: float | str, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [NOW_S, f"{value}"]}


def joined(readings: dict[ScrapeTarget, Reading], *silent: str, **results: Told) -> Samples:
    changed = overridden(readings, results, NOW_S, silent, "example/tiny")
    return Joiner("example/tiny").samples(changed, SERVICE)


def test_every_key_of_the_settings_gives_a_signal() -> None:
    every = Queries.model_validate(dict.fromkeys((*STATES, *COUNTERS), "up"))
    assert set(every.named) == {*STATES, *COUNTERS}
    assert len(every.named) == len(Queries.model_fields)


def test_a_pod_gets_its_result_and_another_lacks_it() -> None:
    samples = joined({DECODE: read(WORKER), OTHER: read(WORKER)}, waiting=Told({"decode-0": 3.0}))
    assert samples.workers[0].waiting == 3.0
    assert samples.workers[1].waiting == Missing("the query metrics.queries.waiting gives nothing for it")
    assert [worker.running for worker in samples.workers] == [66.0, 66.0]


def test_a_role_is_shared_among_its_leaders() -> None:
    readings: dict[ScrapeTarget, Reading] = {target: read(WORKER) for target in (PREFILL, DECODE, RANK, OTHER)}
    results = {"running": Told(roles={"decode": 12.0}), "kvUsage": Told(roles={"decode": 0.5})}
    samples = {worker.pod: worker for worker in joined(readings, **results).workers}
    assert (samples["decode-0"].running, samples["decode-1"].running) == (6.0, 6.0)
    assert (samples["decode-0"].kv_usage, samples["decode-1"].kv_usage_max) == (0.5, 0.5)
    assert samples["decode-0-1"].running == 66.0
    assert isinstance(samples["prefill-0"].running, Missing)


def test_counters_are_of_routers_where_there_are_any() -> None:
    arrivals = Told({"router-0": 9.0, "decode-0": 5.0})
    samples = joined({ROUTER_POD: read(ROUTER), DECODE: read(WORKER)}, arrivals=arrivals)
    assert samples.routers[0].arrivals == 9.0
    assert isinstance(samples.workers[0].arrivals, Missing)
    assert joined({DECODE: read(WORKER)}, arrivals=arrivals).workers[0].arrivals == 5.0


def test_a_gateway_outside_is_a_source_of_its_own() -> None:
    results = {"arrivals": Told(roles={"router": 100.0}), "promptTokens": Told(roles={"router": 5000.0})}
    samples = joined({DECODE: read(WORKER)}, **results)
    (gateway,) = samples.routers
    assert (gateway.pod, gateway.arrivals, gateway.prompt_tokens) == (GATEWAY.pod, 100.0, 5000.0)
    assert isinstance(gateway.generation_tokens, Missing)
    assert (gateway.tokens_at, gateway.at_s) == ("end", NOW_S)
    assert samples.workers[0].prompt_tokens == 1010.0
    assert samples.failures == {}


def test_a_pod_without_a_page_says_what_queries_say() -> None:
    readings: dict[ScrapeTarget, Reading] = {
        DECODE: "no series",
        OTHER: "stale",
        PREFILL: Read(Page(None, "none", problem="?"), 7.0),
    }
    waiting = Told({"decode-0": 1.0, "decode-1": 2.0, "prefill-0": 3.0})
    samples = joined(readings, "decode-0", waiting=waiting)
    assert [(worker.pod, worker.waiting) for worker in samples.workers] == [("decode-0", 1.0), ("prefill-0", 3.0)]
    assert all(isinstance(worker.running, Missing) for worker in samples.workers)
    assert samples.failures == {"decode-1": "stale"}


def test_no_result_at_all_makes_no_engine() -> None:
    samples = joined({DECODE: "no series"}, "decode-0", waiting=Told())
    assert (samples.workers, samples.failures) == ((), {"decode-0": "no series"})


REFUSED = {
    "no label": ("waiting", [row(1, job="x")], "expected the label pod, or role=prefill or decode"),
    "a counter of a role of engines": ("arrivals", [row(1, role="decode")], "role=router"),
    "twice": ("waiting", [row(1, pod="a", x="1"), row(2, pod="a", x="2")], "several results for a"),
    "a matrix": ("waiting", [{"metric": {"pod": "a"}, "values": [[1, "2"]]}], "no vector"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_joined_is_refused_in_a_line(case: str) -> None:
    name, series, why = REFUSED[case]
    with pytest.raises(ValueError, match=why):
        told(name, series)


@given(
    st.permutations(
        [row(1, pod="a"), row("NaN", pod="b"), row("-1", pod="c"), row("+Inf", role="decode"), row(4, role="prefill")]
    )
)
def test_what_is_no_number_is_no_result_in_any_order(series: list[dict[str, Any]]) -> None:
    found = told("running", series)
    assert found == Told({"a": 1.0}, {"prefill": 4.0})
    assert all(math.isfinite(value) for value in found.pods.values())
