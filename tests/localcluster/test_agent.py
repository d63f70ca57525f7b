"""The node agent against a real API server, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kubeapi import names
from kubeapi.kinds import NODE, POD
from localcluster.objects import is_ready
from tests.localcluster.living import (
    NAMESPACE,
    SLEEP,
    Object,
    Seen,
    agent_and_controllers,
    container_of,
    eventually,
    is_alive,
    pid_of,
    pod_of,
)

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
)
SECRET = {"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}


@pytest.fixture
async def cluster(api: Any) -> AsyncIterator[Seen]:
    async with agent_and_controllers(api.url, api.kubeconfig, api.log_dir):
        yield Seen(api.client)


async def test_nodes_are_registered_ready_with_place_and_room(cluster: Seen) -> None:
    node, other = (await cluster.client.list(NODE)).items
    assert [node["metadata"]["name"], other["metadata"]["name"]] == ["node-0", "node-1"]
    assert node["metadata"]["labels"][names.TOPOLOGY_RACK] == "zone-0.block-0.rack-0"
    assert node["status"]["allocatable"][names.GPU] == "4"
    assert is_ready(node)


async def test_a_bound_pod_becomes_a_process_with_its_environment(cluster: Seen, api: Any) -> None:
    code = "import os; print(os.environ['WHO'], os.environ['KUBECONFIG'], flush=True); import time; time.sleep(1000)"
    env = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "WHO", "value": "me@$(POD_IP)"},
    ]
    await cluster.client.create(POD, pod_of("one", ["python", "-c", code], env=env), NAMESPACE)
    pod = (await cluster.ready("one"))["one"]
    status = pod["status"]
    assert status["phase"] == "Running"
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert {c["type"] for c in status["conditions"]} >= {"PodScheduled", "Initialized", "ContainersReady", "Ready"}
    assert container_of(pod)["state"]["running"]["startedAt"]
    assert is_alive(pid_of(pod))
    log = api.log_dir / "default_one_c.log"

    async def logged() -> str:
        return log.read_text()

    assert await eventually(logged) == f"me@{status['podIP']} {api.kubeconfig}\n"
    reasons = [reason for reason, _ in await cluster.events("one")]
    assert reasons == ["Scheduled", "Pulled", "Created", "Started"]


async def test_readiness_follows_the_probe(cluster: Seen, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    probe = {"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 0.05, "failureThreshold": 2}
    await cluster.client.create(POD, pod_of("probed", SLEEP, readinessProbe=probe), NAMESPACE)

    async def started() -> bool:
        pod = await cluster.pod("probed")
        return bool(pod and container_of(pod).get("started")) if pod and pod["status"].get("podIP") else False

    await eventually(started)
    pod = await cluster.pod("probed")
    assert pod is not None
    assert not is_ready(pod)
    flag.touch()
    await cluster.ready("probed")
    flag.unlink()

    async def unready() -> bool:
        pod = await cluster.pod("probed")
        return pod is not None and not is_ready(pod)

    await eventually(unready)
    assert ("Unhealthy", "Readiness probe failed: command exited with 1") in await cluster.events("probed")


async def test_the_image_pull_takes_the_time_that_the_annotation_says(cluster: Seen) -> None:
    pod = pod_of("pulled", SLEEP)
    pod["metadata"]["annotations"] = {names.ANNOTATION_IMAGE_PULL_S: "0.5"}
    await cluster.client.create(POD, pod, NAMESPACE)

    async def pulling() -> Object | None:
        reasons = [reason for reason, _ in await cluster.events("pulled")]
        return await cluster.pod("pulled") if reasons[-1:] == ["Pulling"] else None

    waiting = await eventually(pulling)
    assert waiting["status"]["phase"] == "Pending"
    await cluster.ready("pulled")
    assert ("Pulled", 'Successfully pulled image "i" in 0.5s') in await cluster.events("pulled")


async def test_grace_is_honoured_and_the_object_goes_last(cluster: Seen) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.7), sys.exit(0)))\n"
        "print('up', flush=True)\ntime.sleep(1000)"
    )
    await cluster.client.create(POD, pod_of("polite", ["python", "-c", code]), NAMESPACE)
    pod = (await cluster.ready("polite"))["polite"]
    await asyncio.sleep(0.3)
    await cluster.client.delete(POD, "polite", NAMESPACE)

    async def draining() -> Object | None:
        now = await cluster.pod("polite")
        return now if now and not is_ready(now) and "running" in container_of(now)["state"] else None

    assert (await eventually(draining))["metadata"]["deletionTimestamp"]
    assert is_alive(pid_of(pod))
    await cluster.ready()
    assert not is_alive(pid_of(pod))


async def test_after_the_grace_period_the_process_is_killed(cluster: Seen, api: Any) -> None:
    await cluster.client.create(POD, pod_of("stubborn", ["python", "-c", STUBBORN]), NAMESPACE)
    pod = (await cluster.ready("stubborn"))["stubborn"]

    async def up() -> str:
        return (api.log_dir / "default_stubborn_c.log").read_text()

    await eventually(up)
    await cluster.client.delete(POD, "stubborn", NAMESPACE, grace_period_s=1)
    await cluster.ready()
    assert not is_alive(pid_of(pod))


async def test_a_forced_deletion_kills_at_once_and_the_name_is_free(cluster: Seen) -> None:
    await cluster.client.create(POD, pod_of("again", ["python", "-c", STUBBORN]), NAMESPACE)
    first = (await cluster.ready("again"))["again"]
    await cluster.client.delete(POD, "again", NAMESPACE, grace_period_s=0)
    await cluster.client.create(POD, pod_of("again", SLEEP), NAMESPACE)
    second = (await cluster.ready("again"))["again"]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]

    async def dead() -> bool:
        return not is_alive(pid_of(first))

    await eventually(dead)
    assert is_alive(pid_of(second))


async def test_a_crash_is_restarted_with_back_off(cluster: Seen) -> None:
    await cluster.client.create(POD, pod_of("crash", ["/bin/sh", "-c", "exit 3"]), NAMESPACE)

    async def restarted() -> Object | None:
        pod = await cluster.pod("crash")
        status = (pod or {}).get("status", {}).get("containerStatuses")
        return status[0] if status and status[0]["restartCount"] and "waiting" in status[0]["state"] else None

    status = await eventually(restarted)
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["lastState"]["terminated"]["exitCode"] == 3
    backed_off = [message for reason, message in await cluster.events("crash") if reason == "BackOff"]
    assert backed_off[0] == "back-off 1 s restarting failed container c"


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (4, "Failed")])
async def test_restart_policy_never_ends_the_pod(cluster: Seen, code: int, phase: str) -> None:
    pod = pod_of("once", ["/bin/sh", "-c", f"exit {code}"])
    pod["spec"]["restartPolicy"] = "Never"
    await cluster.client.create(POD, pod, NAMESPACE)

    async def finished() -> Object | None:
        now = await cluster.pod("once")
        return now if now and now["status"]["phase"] == phase else None

    assert container_of(await eventually(finished))["state"]["terminated"]["exitCode"] == code
    await cluster.client.delete(POD, "once", NAMESPACE)
    await cluster.ready()


async def test_a_failing_liveness_probe_restarts_the_container(cluster: Seen, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    probe = {"exec": {"command": ["test", "!", "-e", str(broken)]}, "periodSeconds": 0.05, "failureThreshold": 1}
    await cluster.client.create(POD, pod_of("live", SLEEP, livenessProbe=probe), NAMESPACE)
    first = pid_of((await cluster.ready("live"))["live"])
    broken.touch()

    async def restarting() -> bool:
        pod = await cluster.pod("live")
        return pod is not None and "terminated" in container_of(pod)["lastState"]

    await eventually(restarting)
    broken.unlink()
    assert pid_of((await cluster.ready("live"))["live"]) != first
    assert ("Unhealthy", "Liveness probe failed: command exited with 1") in await cluster.events("live")


@pytest.mark.parametrize(
    ("command", "env", "text"),
    [
        ([], [], "container c: no command; images are not run here"),
        (["/no/such/program"], [], "No such file or directory: '/no/such/program'"),
        (SLEEP, [SECRET], "variable V: secretKeyRef is not served"),
        (SLEEP, [{"name": "V", "valueFrom": "x"}], "container c: cannot be read: AttributeError: 'str' object has no"),
    ],
)
async def test_a_pod_that_cannot_start_says_why(
    cluster: Seen, command: list[str], env: list[Object], text: str
) -> None:
    await cluster.client.create(POD, pod_of("wrong", command, env=env), NAMESPACE)

    async def failed() -> str | None:
        return next((m for reason, m in await cluster.events("wrong") if reason == "Failed"), None)

    assert text in await eventually(failed)
    await cluster.client.delete(POD, "wrong", NAMESPACE)
    await cluster.ready()


async def test_live_pods_never_share_an_address(cluster: Seen) -> None:
    wanted = [f"p{n}" for n in range(6)]
    for name in wanted:
        await cluster.client.create(POD, pod_of(name, SLEEP, ports=[{"containerPort": 8000}]), NAMESPACE)
    pods = await cluster.ready(*wanted)
    assert len({pod["status"]["podIP"] for pod in pods.values()}) == 6


async def test_closing_the_agent_ends_every_process(api: Any) -> None:
    async with agent_and_controllers(api.url, api.kubeconfig, api.log_dir):
        seen = Seen(api.client)
        for name, command in (("a", SLEEP), ("b", SLEEP)):
            await api.client.create(POD, pod_of(name, command), NAMESPACE)
        pids = [pid_of(pod) for pod in (await seen.ready("a", "b")).values()]
        assert all(map(is_alive, pids))
    assert not any(map(is_alive, pids))
    assert set(await seen.pods()) == {"a", "b"}, "objects stay: only the agent is gone"


async def test_a_killed_process_is_started_again(cluster: Seen) -> None:
    await cluster.client.create(POD, pod_of("victim", SLEEP), NAMESPACE)
    first = pid_of((await cluster.ready("victim"))["victim"])
    os.kill(first, signal.SIGKILL)

    async def again() -> bool:
        pod = await cluster.pod("victim")
        return pod is not None and is_ready(pod) and container_of(pod)["restartCount"] == 1

    await eventually(again)
    pod = await cluster.pod("victim")
    assert pod is not None
    assert container_of(pod)["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
