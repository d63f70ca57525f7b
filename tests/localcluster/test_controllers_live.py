"""Controllers and agent together, against a real API server, with real processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from kubeapi import names
from kubeapi.client import WatchEvent
from kubeapi.kinds import DEPLOYMENT, LWS, POD
from localcluster.objects import is_terminating, labels_of
from tests.localcluster.living import (
    NAMESPACE,
    SLEEP,
    Object,
    Seen,
    agent_and_controllers,
    eventually,
    is_alive,
    lws_of,
    pid_of,
)

SLOW_TO_GO = (
    "import os, signal, sys, time\n"
    "def end(*_):\n"
    "    time.sleep(0.8 if os.environ['LWS_WORKER_INDEX'] == '0' else 0)\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\nprint(os.environ['LWS_LEADER_ADDRESS'], flush=True)\ntime.sleep(1000)"
)


@pytest.fixture
async def cluster(api: Any) -> AsyncIterator[Seen]:
    async with agent_and_controllers(api.url, api.kubeconfig, api.log_dir):
        yield Seen(api.client)


async def scale(seen: Seen, replicas: int) -> None:
    await seen.client.patch(LWS, "dec", NAMESPACE, {"spec": {"replicas": replicas}}, subresource="scale")


async def test_a_killed_rank_recreates_its_group_and_no_other(cluster: Seen) -> None:
    await cluster.client.create(LWS, lws_of("dec", 2, 2, SLEEP), NAMESPACE)
    wanted = ("dec-0", "dec-0-1", "dec-1", "dec-1-1")
    before = await cluster.ready(*wanted)
    os.kill(pid_of(before["dec-1-1"]), signal.SIGKILL)

    async def replaced() -> dict[str, Object] | None:
        pods = await cluster.ready(*wanted)
        changed = {name for name in wanted if pods[name]["metadata"]["uid"] != before[name]["metadata"]["uid"]}
        return pods if changed == {"dec-1", "dec-1-1"} else None

    await eventually(replaced)
    reason, message = (await cluster.events("dec"))[0]
    assert reason == "RecreateGroupOnPodRestart"
    assert message == "group 1 is recreated: pod dec-1-1 had a container restart (c, exit code 137)"


async def test_ranks_know_their_leader_and_outlive_its_drain(cluster: Seen, api: Any) -> None:
    await cluster.client.create(LWS, lws_of("dec", 1, 2, ["python", "-c", SLOW_TO_GO]), NAMESPACE)
    pods = await cluster.ready("dec-0", "dec-0-1")
    rank_log = api.log_dir / "default_dec-0-1_c.log"

    async def logged() -> bool:
        return all((api.log_dir / f"default_{name}_c.log").read_text() for name in ("dec-0", "dec-0-1"))

    await eventually(logged)
    assert rank_log.read_text().strip() == pods["dec-0"]["status"]["podIP"]
    story: list[WatchEvent] = []
    async with asyncio.timeout(20):
        listed = await cluster.client.list(POD, NAMESPACE)
        await scale(cluster, 0)
        async for event in cluster.client.watch(POD, NAMESPACE, resource_version=listed.resource_version):
            if event.type == "BOOKMARK":
                continue
            story.append(event)
            name, leader_there = event.object["metadata"]["name"], ("DELETED", "dec-0") not in _told(story)
            if name == "dec-0" and is_terminating(event.object) and leader_there:
                assert is_alive(pid_of(pods["dec-0-1"])), "the rank serves while its leader drains"
            if name == "dec-0-1" and is_terminating(event.object):
                assert not leader_there
            if (event.type, name) == ("DELETED", "dec-0-1"):
                break
    assert ("DELETED", "dec-0") in _told(story)


def _told(story: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.object["metadata"]["name"]) for event in story]


async def test_scaling_up_and_down_keeps_the_invariants(cluster: Seen) -> None:
    choices = random.Random(7)
    await cluster.client.create(LWS, lws_of("dec", 1, 2, SLEEP, grace_s=1), NAMESPACE)
    size, most = 2, 3
    done = asyncio.Event()

    async def watch_invariants() -> None:
        listed = await cluster.client.list(POD, NAMESPACE)
        pods = {pod["metadata"]["name"]: pod for pod in listed.items}
        async for event in cluster.client.watch(POD, NAMESPACE, resource_version=listed.resource_version):
            if event.type == "BOOKMARK":
                continue
            name = event.object["metadata"]["name"]
            if event.type == "DELETED":
                del pods[name]
            else:
                assert event.type != "ADDED" or name not in pods
                pods[name] = event.object
            alive = [pod for pod in pods.values() if not is_terminating(pod)]
            assert len(alive) <= most * size
            addresses = [ip for pod in pods.values() if (ip := pod["status"].get("podIP"))]
            assert len(addresses) == len(set(addresses))
            if done.is_set():
                return

    watching = asyncio.create_task(watch_invariants())
    for _ in range(12):
        await scale(cluster, choices.randint(0, most))
        await asyncio.sleep(choices.random() * 0.3)
        if choices.random() < 0.4 and (pods := await cluster.pods()):
            victim = choices.choice(sorted(pods.values(), key=lambda pod: str(pod["metadata"]["name"])))
            with suppress(KeyError, ProcessLookupError):
                os.kill(pid_of(victim), signal.SIGKILL)
    await scale(cluster, 2)
    await cluster.ready("dec-0", "dec-0-1", "dec-1", "dec-1-1")
    done.set()
    await scale(cluster, 1)
    await asyncio.wait_for(watching, 20)

    async def counted() -> bool:
        status = (await cluster.client.get(LWS, "dec", NAMESPACE))["status"]
        return bool(status["replicas"] == status["readyReplicas"] == status["updatedReplicas"] == 1)

    await eventually(counted)


async def test_deleting_the_lws_leaves_nothing(cluster: Seen) -> None:
    await cluster.client.create(LWS, lws_of("dec", 2, 2, SLEEP), NAMESPACE)
    pods = await cluster.ready("dec-0", "dec-0-1", "dec-1", "dec-1-1")
    await cluster.client.delete(LWS, "dec", NAMESPACE)
    await cluster.ready()
    assert not any(is_alive(pid_of(pod)) for pod in pods.values())


async def test_a_deployment_rolls_without_losing_a_ready_pod(cluster: Seen) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "v1", "command": SLEEP}]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    await cluster.client.create(
        DEPLOYMENT, {"metadata": {"name": "web", "namespace": NAMESPACE}, "spec": spec}, NAMESPACE
    )
    await _rolled_out(cluster, 2)
    first = set(await cluster.pods())
    containers = [{"name": "c", "image": "v2"}]
    body = {"spec": {"template": {"spec": {"containers": containers}}}}
    await cluster.client.patch(DEPLOYMENT, "web", NAMESPACE, body, patch_type="strategic")
    await _rolled_out(cluster, 2)

    async def only_new() -> bool:
        pods = await cluster.pods()
        return len(pods) == 2 and not first & set(pods)

    await eventually(only_new)
    hashes = {labels_of(pod)["pod-template-hash"] for pod in (await cluster.pods()).values()}
    assert len(hashes) == 1


async def _rolled_out(seen: Seen, replicas: int) -> None:
    async def complete() -> bool:
        deployment = await seen.client.get(DEPLOYMENT, "web", NAMESPACE)
        status = deployment.get("status", {})
        current = status.get("observedGeneration") == deployment["metadata"]["generation"]
        counts = {status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        return current and counts == {replicas}

    await eventually(complete)


async def test_pods_of_another_scheduler_are_left_alone(cluster: Seen) -> None:
    lws = lws_of("gang", 1, 2, SLEEP)
    lws["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["schedulerName"] = names.SCHEDULER_NAME
    await cluster.client.create(LWS, lws, NAMESPACE)
    await cluster.client.create(LWS, lws_of("dec", 1, 1, SLEEP), NAMESPACE)

    async def other_runs() -> dict[str, Object] | None:
        pods = await cluster.pods()
        return pods if len(pods) == 3 and pods["dec-0"]["status"]["phase"] == "Running" else None

    pods = await eventually(other_runs)
    assert not pods["gang-0"]["spec"].get("nodeName")
    body = {"target": {"kind": "Node", "name": "node-1"}, "metadata": {"name": "gang-0"}}
    await cluster.client.create_sub(POD, "gang-0", NAMESPACE, "binding", body)
    body["metadata"]["name"] = "gang-0-1"
    await cluster.client.create_sub(POD, "gang-0-1", NAMESPACE, "binding", body)
    await cluster.ready("dec-0", "gang-0", "gang-0-1")


async def test_an_object_that_cannot_be_read_stops_no_other(cluster: Seen) -> None:
    wrong = lws_of("wrong", 1, 1, SLEEP)
    wrong["spec"]["rolloutStrategy"] = {"rollingUpdateConfiguration": {"partition": "many"}}
    await cluster.client.create(LWS, wrong, NAMESPACE)
    await cluster.client.create(LWS, lws_of("dec", 1, 1, SLEEP), NAMESPACE)
    await cluster.ready("dec-0")
    reason, message = (await cluster.events("wrong"))[0]
    assert reason == "InvalidSpec"
    assert message.startswith("cannot be read: ValueError: invalid literal for int()")
