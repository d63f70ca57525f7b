"""The demo's parts: its manifests, how it counts groups, how it stops children, what it shows."""

from __future__ import annotations

import asyncio
import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoscaler.settings import parse_settings
from kubeapi import kinds, names
from policies.model import Role
from roleratio.demo import manifests, screen, view
from roleratio.demo.children import Children, DemoError, beside
from roleratio.demo.fleet import count_groups, writer_of_replicas
from roleratio.demo.manifests import Shape
from roleratio.demo.screen import Latency, Look, Requests
from roleratio.records import FleetSample, Span


async def test_a_helper_that_fails_ends_the_work() -> None:
    async def fails() -> None:
        raise DemoError("view broken")

    with pytest.raises(DemoError, match="view broken"):
        await beside(asyncio.sleep(60), fails(), asyncio.sleep(60))


def workload(replicas: int) -> dict[str, Any]:
    bodies = manifests.objects(Shape(prefill_groups=replicas))
    return next(b for k, b in bodies if k is kinds.LWS and b["metadata"]["name"] == "prefill")


def pod(group: int, worker: int, *, ready: bool = True, terminating: bool = False) -> dict[str, Any]:
    labels = {
        names.LWS_NAME: "prefill",
        names.LWS_GROUP_INDEX: str(group),
        names.LWS_WORKER_INDEX: str(worker),
        names.LABEL_ROLE: "prefill",
    }
    metadata: dict[str, Any] = {"name": f"prefill-{group}-{worker}", "labels": labels}
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


@pytest.mark.parametrize(
    ("replicas", "pods", "numbers"),
    [
        (2, [], (0, 2, 0)),
        (1, [pod(0, 0), pod(0, 1)], (1, 0, 0)),
        (1, [pod(0, 0)], (0, 1, 0)),
        (1, [pod(0, 0), pod(0, 1, ready=False)], (0, 1, 0)),
        (2, [pod(0, 0), pod(0, 1), pod(1, 0, ready=False)], (1, 1, 0)),
        (1, [pod(0, 0), pod(0, 1), pod(1, 0, terminating=True), pod(1, 1)], (1, 0, 1)),
        (1, [pod(0, 0), pod(0, 1), pod(1, 1)], (1, 0, 1)),
        (1, [pod(0, 0, terminating=True), pod(0, 1)], (0, 0, 1)),
    ],
)
def test_groups_are_counted_by_their_pods(
    replicas: int, pods: list[dict[str, Any]], numbers: tuple[int, int, int]
) -> None:
    sample = count_groups(3.0, workload(replicas), pods)
    assert (sample.wanted, sample.ready, sample.starting, sample.draining) == (replicas, *numbers)
    assert sample.held == sum(numbers)


def test_pods_of_other_workloads_do_not_count() -> None:
    other = pod(0, 0)
    other["metadata"]["labels"][names.LWS_NAME] = "decode"
    assert count_groups(0.0, workload(1), [other]).ready == 0


def test_who_wrote_replicas_is_read_from_managed_fields() -> None:
    item = workload(1)
    assert writer_of_replicas(item) == ""
    item["metadata"]["managedFields"] = [
        {"manager": "lws-controller", "fieldsV1": {"f:status": {"f:replicas": {}}}},
        {"manager": "kubectl", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]
    assert writer_of_replicas(item) == "kubectl"


@pytest.mark.parametrize("cold_start_s", [0.0, 1.0, 8.0, 30.0])
def test_the_cold_start_is_spent_once(cold_start_s: float) -> None:
    shape = Shape(cold_start_s=cold_start_s)
    assert shape.pull_s + shape.load_s == pytest.approx(cold_start_s)


def test_every_pod_of_a_role_belongs_to_its_pod_group() -> None:
    bodies = manifests.objects(Shape())
    groups = {body["metadata"]["name"] for kind, body in bodies if kind is kinds.PODGROUP}
    assert groups == {"prefill", "decode"}
    for kind, body in bodies:
        if kind is not kinds.LWS:
            continue
        template = body["spec"]["leaderWorkerTemplate"]
        assert template["size"] == manifests.PODS_PER_GROUP
        for part in ("leaderTemplate", "workerTemplate"):
            spec = template[part]["spec"]
            assert spec["schedulingGroup"] == {"podGroupName": body["metadata"]["name"]}
            assert spec["schedulerName"] == names.SCHEDULER_NAME
            assert spec["containers"][0]["resources"]["limits"] == {names.GPU: "1"}


def test_the_demos_settings_are_valid() -> None:
    settings = parse_settings(manifests.settings(Shape(), 32), "demo")
    assert settings.spec.gpu_budget == 32
    assert settings.spec.decode.max_num_seqs == manifests.DECODE_MAX_NUM_SEQS


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_child_that_ends_ends_the_work_with_its_last_words(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        await children.start("checker", "check", "absent-file")
        with pytest.raises(DemoError, match=r"checker ended with code 2: .*absent-file.*checker\.log"):
            await beside(asyncio.sleep(60), children.watch())


async def test_work_that_ends_first_gives_its_result_and_leaving_stops_the_children(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        await children.start("rank", "serve", "decode", "--host", "127.0.0.1", "--port", "0", "--load-s", "60")
        pid = children._children[0].process.pid

        async def work() -> int:
            await asyncio.sleep(0.1)
            return 41

        assert await beside(work(), children.watch()) == 41
        assert alive(pid)
    assert not alive(pid)


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    started = time.monotonic()
    async with Children(tmp_path) as children:
        # `serve` installs its drain handler late: before that, and with a wait that is over at once, SIGKILL ends it.
        await children.start("worker", "serve", "decode", "--host", "127.0.0.1", "--port", "0", stop_s=0.0)
        pid = children._children[0].process.pid
    assert not alive(pid)
    assert time.monotonic() - started < 60


LOOK = Look(
    t_s=75.4,
    phase="inputs x4",
    fleet={Role.PREFILL: FleetSample(0, "prefill", 3, 1, 2, 1), Role.DECODE: None},
    decided=None,
    waiting=("prefill: 2 of 3 groups fit",),
    requests=Requests(sent=200, running=12, failed=1, attained=0.975),
    ttft=Latency(p50=500.0, p95=2400.0, target=2000.0),
    itl=Latency(p50=None, p95=None, target=60.0),
    changes=("   66 s prefill groups 1 -> 3: prefill Grow",),
)


def test_a_headless_line_says_what_is_known_and_dashes_what_is_not() -> None:
    text = screen.line(LOOK)
    for words in ("75 s", "inputs x4", "prefill 1/3-1", "decode -", "sent 200", "failed 1", "TTFT p95 2400 ms"):
        assert words in text
    assert "ITL p95 -" in text
    assert "attained 97.5 %" in text


def test_the_live_view_draws_the_same_moment() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(view.draw(LOOK))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for words in ("75 s", "inputs x4", "█ ░ ░ ▒", "2400 ms", "97.5 %", "2 of 3 groups fit", "prefill groups 1 -> 3"):
        assert words in text


@pytest.mark.parametrize(("t_s", "name"), [(0.0, "a"), (9.9, "a"), (10.0, "b"), (25.0, "finishing")])
def test_phase_at(t_s: float, name: str) -> None:
    assert screen.phase_at((Span("a", 0, 10), Span("b", 10, 20)), t_s) == name
