"""Why a Prometheus has no series of a pod: what it has instead is told, and never used."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.adapters.silent import Near, near_query
from tests.autoscaler.pages import WORKER
from tests.autoscaler.test_prometheus import Store, ask

RUNNING = "vllm:num_requests_running"


def row(name: str, pod: str, value: str = "1", **labels: str) -> dict[str, Any]:
    return {"metric": {"__name__": name, "pod": pod, **labels}, "value": [0, value]}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([], ", and no target: is there a monitor for it, and does the label pod name it?"),
        ([row("up", "decode-0", "0")], ": Prometheus cannot scrape it (up is 0): look at its page of targets"),
        ([row("up", "decode-0", "0"), row("up", "decode-0")], " that is understood, although Prometheus scrapes it"),
        (
            [row("up", "decode-0"), row(RUNNING, "decode-0-rank-0"), row(RUNNING, "decode-0-rank-0", engine="1")],
            ", while 2 have the label pod=decode-0-rank-0: correct the relabeling that writes it",
        ),
        ([row(RUNNING, "decode-0-1")], ", and no target: "),
        ([row(RUNNING, "decode-0-rank-0", namespace="other")], ", and no target: "),
        ([row(RUNNING, "decode-00")], ", and no target: "),
        (
            [row("up", "decode-0", namespace="other"), row(RUNNING, "decode-0", namespace="other")],
            " in namespace team-a, while 1 are of namespace=other: correct one",
        ),
        (None, ": is it scraped, and does the label pod name it?"),
    ],
)
def test_what_there_is_instead(found: list[dict[str, Any]] | None, why: str) -> None:
    assert Near(found, "team-a").why("decode-0").startswith(f"no series of pod decode-0{why}")


async def test_a_label_with_a_suffix_is_named_and_not_used() -> None:
    store = Store()
    store.add("decode-0-rank-0", WORKER)
    samples = await ask(store, namespace="team-a")
    assert samples.workers == ()
    assert "have the label pod=decode-0-rank-0" in samples.failures["decode-0"]
    assert "no target" in samples.failures["prefill-0"]
    assert store.queries[-1] == near_query(["decode-0", "prefill-0", "router-5d9c-x2x4z"])


async def test_a_namespace_that_is_another_one_is_named_and_not_used() -> None:
    store = Store()
    store.add("decode-0", WORKER, namespace="team-b")
    samples = await ask(store, namespace="team-a")
    assert samples.workers == ()
    assert "in namespace team-a, while" in samples.failures["decode-0"]
    assert "are of namespace=team-b" in samples.failures["decode-0"]
