"""The gang scheduler on a real API server: whole gangs, gates, eviction, election, and kube-scheduler beside it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from gangscheduler.loop import run
from gangscheduler.report import INITIALLY_SCHEDULED, PLACEABLE
from kubeapi import kinds, names
from kubeapi.client import KubeClient, Object
from kubeapi.config import load_config
from tests.apiserver.gangs import Stage, stage, until
from tests.controlplane.plane import ControlPlane

pytestmark = pytest.mark.usefixtures("controller_manager")

OURS, KUBE = names.SCHEDULER_NAME, "default-scheduler"


@pytest.fixture
async def own(admin: KubeClient, namespace: str) -> AsyncIterator[Stage]:
    async with stage(admin, namespace) as made:
        yield made


@asynccontextmanager
async def scheduling(plane: ControlPlane, **options: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(run(load_config(plane.kubeconfig), **options))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def bound(own: Stage, count: int) -> dict[str, str]:
    async def enough() -> dict[str, str] | None:
        found = {pod: node for pod, node in (await own.places()).items() if node}
        return found if len(found) >= count else None

    found: dict[str, str] = await until(enough)
    return found


async def test_a_native_gang_is_bound_whole_with_condition_and_events(own: Stage, control_plane: ControlPlane) -> None:
    await own.node("n0", 8)
    async with scheduling(control_plane):
        await own.gang("decode", [8, 8], min_count=2, scheduler=OURS, tp=2)

        async def refused() -> Object | None:
            said = await own.conditions(kinds.PODGROUP, "decode")
            return said.get(PLACEABLE) if said.get(PLACEABLE, {}).get("status") == "False" else None

        said = await until(refused)
        assert said["reason"] == "InsufficientResource"
        assert said["message"].startswith("0 of 1 TP groups admitted, 0 placeable now, floor 1")
        assert set((await own.places()).values()) == {""}

        async def told() -> bool:
            pod = (await own.conditions(kinds.POD, "decode-0")).get("PodScheduled", {})
            return pod.get("reason") == "Unschedulable" and len(await own.events("FailedScheduling")) == 2

        await until(told)
        assert (await own.conditions(kinds.PODGROUP, "decode"))[INITIALLY_SCHEDULED]["status"] == "False"

        await own.node("n1", 8)
        assert sorted((await bound(own, 2)).values()) == ["n0", "n1"]

        async def reported() -> bool:
            said = await own.conditions(kinds.PODGROUP, "decode")
            fits = said[PLACEABLE]["status"] == said[INITIALLY_SCHEDULED]["status"] == "True"
            return fits and len(await own.events("Scheduled")) == 2

        await until(reported)
        assert (await own.conditions(kinds.POD, "decode-0"))["PodScheduled"]["status"] == "True"


async def test_a_gated_pod_keeps_its_tp_group_waiting(own: Stage, control_plane: ControlPlane) -> None:
    await own.node("n0", 8)
    await own.podgroup("decode", 2)
    await own.pod("decode-0", 1, group="decode", place=(2, 0))
    await own.pod("decode-1", 1, group="decode", place=(2, 1), schedulingGates=[{"name": "roleratio.dev/test"}])
    await own.pod("alone", 1)
    async with scheduling(control_plane):
        assert await bound(own, 1) == {"alone": "n0"}

        async def told() -> bool:
            pod = (await own.conditions(kinds.POD, "decode-0")).get("PodScheduled", {})
            return "waits for the rest of its pods" in pod.get("message", "")

        await until(told)
        gated = (await own.conditions(kinds.POD, "decode-1"))["PodScheduled"]
        assert gated["reason"] == "SchedulingGated", "what the API server says of it stays"
        assert (await own.places())["decode-0"] == ""
        await own.client.patch(kinds.POD, "decode-1", own.namespace, {"spec": {"schedulingGates": None}})
        assert set((await bound(own, 3)).values()) == {"n0"}


async def test_a_half_bound_tp_group_is_undone_and_then_placed_whole(own: Stage, control_plane: ControlPlane) -> None:
    """Someone else binds one of its pods, and the other has no room: eviction, a new pod, and both placed later."""
    first = await _half_bound(own)
    async with scheduling(control_plane, undo_after_s=1.0):

        async def leaving() -> bool:
            pod = await own.client.get(kinds.POD, first, own.namespace)
            return "deletionTimestamp" in pod["metadata"]

        await until(leaving)

        async def told() -> list[Object]:
            return await own.events("GangUndone")

        event = (await until(told))[0]
        assert event["involvedObject"]["name"] == first
        assert f"the rest of its gang {own.namespace}/decode found no place" in event["message"]
        # In a cluster the kubelet does this.
        await own.client.delete(kinds.POD, first, own.namespace, grace_period_s=0)
        await own.node("n1", 8)
        assert sorted((await bound(own, 2)).values()) == ["n0", "n1"]
        assert first not in await own.places()


async def test_what_has_started_is_not_undone(own: Stage, control_plane: ControlPlane) -> None:
    first = await _half_bound(own)
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    container = {"name": "main", "image": "worker", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    status = {"status": {"containerStatuses": [container]}}
    await own.client.patch(kinds.POD, first, own.namespace, status, subresource="status")
    async with scheduling(control_plane, undo_after_s=0.5):

        async def told() -> list[Object]:
            return await own.events("FailedScheduling")

        await until(told)
        await asyncio.sleep(2)
        assert await own.events("GangUndone") == []
        assert (await own.places())[first] == "n0"


async def _half_bound(own: Stage) -> str:
    """A TP group of two pods of a ReplicaSet, with one node that is full with the first; its name."""
    await own.node("n0", 8)
    await own.podgroup("decode", 2)
    await own.replicaset("decode", 8, tp=2)

    async def both() -> list[str] | None:
        pods = sorted(await own.places())
        return pods if len(pods) == 2 else None

    first: str = (await until(both))[0]
    target = {"target": {"kind": "Node", "name": f"{own.namespace}-n0"}, "metadata": {"name": first}}
    await own.client.create_sub(kinds.POD, first, own.namespace, "binding", target)
    return first


async def test_two_processes_elect_one_and_the_other_takes_over(own: Stage, control_plane: ControlPlane) -> None:
    """SIGTERM gives the Lease back at once, so the other one binds within seconds; both end with exit code 0."""
    await own.node("n0", 8)
    ports = _free_ports(2)
    words = ["--kubeconfig", str(control_plane.kubeconfig), "--leader-elect", "--lease-namespace", own.namespace]
    both = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "roleratio", "scheduler", *words, "--port", str(port), stderr=asyncio.subprocess.PIPE
        )
        for port in ports
    ]
    try:
        async with aiohttp.ClientSession() as http:

            async def standing(port: int) -> str:
                with suppress(aiohttp.ClientConnectorError):
                    async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                        return await answer.text() if answer.status == 200 else ""
                return ""

            async def elected() -> bool:
                return sorted([(await standing(port))[:7] for port in ports]) == ["ok", "ok, sta"]

            await until(elected)
            first = 0 if await standing(ports[0]) == "ok" else 1
            both[first].send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(both[first].wait(), 10) == 0
            await own.pod("alone", 1)
            assert await bound(own, 1) == {"alone": "n0"}
            lease = await own.client.get(kinds.LEASE, OURS, own.namespace)
            assert lease["spec"]["leaseTransitions"] == 1
            assert await standing(ports[1 - first]) == "ok"
    finally:
        for process in both:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(process.wait(), 10) == 0


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass(frozen=True)
class Case:
    """One fleet, one gang, and how many of its pods either scheduler binds. `why`: the reason of a difference."""

    name: str
    nodes: tuple[int, ...]
    pods: tuple[int, ...]
    min_count: int
    kube: int
    ours: int
    why: str = ""
    tp: int = 1
    node: tuple[tuple[str, Any], ...] = ()
    spec: tuple[tuple[str, Any], ...] = ()


CASES = [
    Case("fits", (8, 8, 8, 8), (8, 8, 8, 8), 4, 4, 4),
    Case("one-node-short", (8, 8, 8), (8, 8, 8, 8), 4, 0, 0),
    Case("more-than-the-minimum", (8, 8), (8, 8, 8), 2, 2, 2),
    Case("enough-in-sum-only", (6, 6), (8,), 1, 0, 0),
    Case("tainted", (8,), (8,), 1, 0, 0, node=(("taint", "example.com/reserved"),)),
    Case("cordoned", (8,), (8,), 1, 0, 0, node=(("unschedulable", True),)),
    Case("selector", (8,), (8,), 1, 0, 0, spec=(("nodeSelector", {"no": "such"}),)),
    Case(
        "half-a-tp-group",
        (8, 8, 8),
        (8, 8, 8, 8),
        2,
        3,
        2,
        "above the minimum kube-scheduler takes pods one by one and leaves half a TP group holding a node",
        tp=2,
    ),
    Case(
        "siblings-in-each-others-way",
        (6, 6),
        (2, 2, 2, 3, 3),
        5,
        0,
        5,
        "kube-scheduler places a gang's pods in turn and never moves one again; ours packs the largest first",
    ),
    Case(
        "not-known-to-be-ready",
        (8,),
        (8,),
        1,
        1,
        0,
        "kube-scheduler asks the taints alone; ours wants the node's own word that it is ready",
        node=(("ready", None),),
    ),
    Case(
        "pod-anti-affinity",
        (8,),
        (8,),
        1,
        1,
        0,
        "ours places nothing whose constraints it does not know, and says so",
        spec=(
            (
                "affinity",
                {
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {"labelSelector": {"matchLabels": {"x": "y"}}, "topologyKey": "kubernetes.io/hostname"}
                        ]
                    }
                },
            ),
        ),
    ),
]


@pytest.mark.usefixtures("kube_scheduler")
async def test_kube_scheduler_and_ours_on_the_same_fleets(
    admin: KubeClient, namespace: str, control_plane: ControlPlane
) -> None:
    """All cases at once, each twice: on nodes for kube-scheduler's gang and on the same ones for ours."""
    async with scheduling(control_plane), AsyncExitStack() as stack:
        jobs = {}
        for case in CASES:
            for scheduler, letter in ((KUBE, "k"), (OURS, "o")):
                own = await stack.enter_async_context(stage(admin, namespace, f"{namespace}-{case.name}-{letter}"))
                jobs[case.name, scheduler] = asyncio.create_task(_pods_bound(own, case, scheduler))
        found = {key: await job for key, job in jobs.items()}
    expected = {(case.name, KUBE): case.kube for case in CASES} | {(case.name, OURS): case.ours for case in CASES}
    assert found == expected


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_difference_has_a_reason_and_only_a_difference(case: Case) -> None:
    assert bool(case.why) == (case.kube != case.ours)


async def _pods_bound(own: Stage, case: Case, scheduler: str) -> int:
    """How many pods of the gang are bound once all are bound or have been told that they are not."""
    for index, gpus in enumerate(case.nodes):
        await own.node(f"n{index}", gpus, **dict(case.node))
    name, spec = own.name.removeprefix(f"{own.namespace}-"), dict(case.spec)
    await own.gang(name, case.pods, min_count=case.min_count, scheduler=scheduler, tp=case.tp, **spec)

    async def answered() -> list[Object] | None:
        pods = await own.pods()
        return pods if all(_is_bound(pod) or _is_refused(pod) for pod in pods) else None

    await until(answered)
    # A refusal may be that of a moment: look again when the dust has settled.
    await asyncio.sleep(2)
    return sum(_is_bound(pod) for pod in await until(answered))


def _is_bound(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName"))


def _is_refused(pod: Object) -> bool:
    said = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "PodScheduled" and one["status"] == "False" for one in said)
