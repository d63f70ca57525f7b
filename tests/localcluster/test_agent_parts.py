"""The parts of the node agent: environment, probes' verdicts, status, addresses, processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from localcluster.agent.addresses import Addresses, declared_ports
from localcluster.agent.child import Child
from localcluster.agent.environment import (
    ContainerConfigError,
    Surroundings,
    command_line,
    environment,
    expand,
    leader_name,
)
from localcluster.agent.probes import Threshold, probe_of
from localcluster.agent.status import ContainerState, pod_status, terminated, waiting
from tests.localcluster.living import eventually, is_alive

Object = dict[str, Any]
AROUND = Surroundings("127.0.0.77", "/kube", {"PATH": "/bin", "SECRET_TOKEN": "x"}, "127.0.0.70")


def pod_with(env: list[Object], **more: Any) -> Object:
    meta = {"name": "p-1", "namespace": "ns", "uid": "u", "labels": {"a/b": "c"}, "annotations": {"n": "m"}}
    container = {"name": "c", "command": ["python", "x"], "env": env} | more
    return {"metadata": meta, "spec": {"nodeName": "node-0", "containers": [container]}}


def env_of(env: list[Object]) -> dict[str, str]:
    pod = pod_with(env)
    return environment(pod, pod["spec"]["containers"][0], AROUND)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p-1"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("metadata.labels['a/b']", "c"),
        ("metadata.annotations['n']", "m"),
        ("metadata.labels['none']", ""),
        ("spec.nodeName", "node-0"),
        ("status.podIP", "127.0.0.77"),
    ],
)
def test_the_downward_api(path: str, value: str) -> None:
    assert env_of([{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}])["V"] == value


def test_only_what_an_image_would_bring_is_inherited() -> None:
    env = env_of([])
    assert env == {"PATH": "/bin", "KUBECONFIG": "/kube", "HOSTNAME": "p-1"}


def test_the_leader_address_becomes_an_ip_that_later_variables_can_use() -> None:
    env = env_of(
        [
            {"name": "LWS_LEADER_ADDRESS", "value": "dec-0.dec.ns"},
            {"name": "URL", "value": "http://$(LWS_LEADER_ADDRESS):8001/$(LATER)"},
            {"name": "LATER", "value": "x"},
        ]
    )
    assert env["URL"] == "http://127.0.0.70:8001/$(LATER)"
    assert leader_name(pod_with([{"name": "LWS_LEADER_ADDRESS", "value": "dec-0.dec.ns"}])) == "dec-0"


def test_expansion_knows_escapes() -> None:
    assert expand("$(A) $$(A) $(B) $", {"A": "1"}) == "1 $(A) $(B) $"


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"name": "V", "valueFrom": {"secretKeyRef": {}}}, "variable V: secretKeyRef is not served"),
        ({"name": "V", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}, "unknown fieldPath spec.x"),
    ],
)
def test_what_cannot_be_resolved_is_one_clear_line(env: Object, text: str) -> None:
    with pytest.raises(ContainerConfigError, match=text):
        env_of([env])


def test_the_command_line() -> None:
    container = {"name": "c", "command": ["python", "-m", "x"], "args": ["--ip", "$(IP)"]}
    assert command_line(container, {"IP": "1.2.3.4"}, "/py") == ["/py", "-m", "x", "--ip", "1.2.3.4"]
    with pytest.raises(ContainerConfigError, match="no command"):
        command_line({"name": "c", "image": "nginx"}, {}, "/py")


def test_threshold_needs_results_in_a_row() -> None:
    threshold = Threshold(successes=2, failures=3)
    results = [True, False, True, True, True, False, False, True, False, False, False]
    verdicts = [threshold.observe(result) for result in results]
    assert verdicts == [None, None, None, True, True, None, None, None, None, None, False]


def status_of(*containers: ContainerState, old: Object | None = None, now: str = "t1", **meta: Any) -> Object:
    pod = {"metadata": {"name": "p"} | meta, "spec": {}}
    return pod_status(pod, containers, "127.0.0.9", "t0", old or {}, now)


RUNNING = {"running": {"startedAt": "t"}}


@pytest.mark.parametrize(
    ("states", "phase"),
    [
        ([waiting("ContainerCreating"), RUNNING], "Running"),
        ([waiting("ContainerCreating")], "Pending"),
        ([terminated(0, "Completed", "t", "t")], "Succeeded"),
        ([terminated(0, "Completed", "t", "t"), terminated(3, "Error", "t", "t")], "Failed"),
        ([terminated(1, "Error", "t", "t"), RUNNING], "Running"),
    ],
)
def test_phase(states: list[Object], phase: str) -> None:
    assert status_of(*[ContainerState("c", "i", state=state) for state in states])["phase"] == phase


def test_a_container_in_back_off_keeps_the_pod_running() -> None:
    crashed = ContainerState("c", "i", waiting("CrashLoopBackOff"), terminated(1, "Error", "t", "t"))
    assert status_of(crashed)["phase"] == "Running"


def test_ready_moves_its_time_only_when_it_changes_and_ends_with_deletion() -> None:
    container = ContainerState("c", "i", state=RUNNING, started=True, ready=True)
    first = status_of(container, now="t1")
    again = status_of(container, old=first, now="t2")
    assert again == first
    ended = status_of(container, old=first, now="t3", deletionTimestamp="t3")
    ready = {entry["type"]: entry for entry in ended["conditions"]}
    assert (ready["Ready"]["status"], ready["Ready"]["lastTransitionTime"]) == ("False", "t3")
    assert ready["PodScheduled"]["lastTransitionTime"] == "t1"


def test_addresses_are_exclusive_between_agents_and_skip_taken_ports() -> None:
    one, other = Addresses(240, 243), Addresses(240, 243)
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.241", 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        assert [one.acquire([port]), other.acquire([port])] == ["127.0.0.240", "127.0.0.242"]
        assert [one.acquire([port]), other.acquire([port])] == ["127.0.0.243", None]
    one.release("127.0.0.240")
    assert other.acquire([]) in ("127.0.0.240", "127.0.0.241")


def test_an_address_just_given_back_is_the_last_to_be_used_again() -> None:
    addresses = Addresses(250, 252)
    first = addresses.acquire([])
    assert first is not None
    addresses.release(first)
    assert [addresses.acquire([]) for _ in range(3)][-1] == first


def test_declared_ports() -> None:
    pod = pod_with([], ports=[{"containerPort": 8000}, {"containerPort": 8001}])
    assert declared_ports(pod) == [8000, 8001]


async def test_a_child_logs_and_returns_its_exit_code(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    child = Child([sys.executable, "-c", code], {}, tmp_path / "log", cwd=None, append=False)
    assert await child.wait() == 7
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]


async def test_a_signal_reaches_the_whole_group_and_no_grandchild_stays(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $!; wait"
    child = Child(["/bin/sh", "-c", script], dict(os.environ), tmp_path / "log", cwd=None, append=False)

    async def grandchild() -> str:
        return (tmp_path / "log").read_text()

    pid = int(await eventually(grandchild))
    waiting_for = asyncio.create_task(child.wait())
    child.signal(signal.SIGTERM)
    assert await waiting_for == 128 + signal.SIGTERM

    async def dead() -> bool:
        return not is_alive(pid)

    await eventually(dead)


async def test_cancelling_the_wait_kills(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "import time; time.sleep(1000)"], {}, tmp_path / "l", cwd=None, append=False)
    task = asyncio.create_task(child.wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(child.pid)


async def test_a_program_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Child(["/no/such/program"], {}, tmp_path / "log", cwd=None, append=False)


async def test_no_child_outlives_a_killed_agent(tmp_path: Path) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from localcluster.agent.child import Child
        child = Child([sys.executable, "-c", "import time; time.sleep(1000)"], {{}}, Path({str(tmp_path / "log")!r}),
                      cwd=None, append=False)
        print(child.pid, flush=True)
        time.sleep(1000)
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]
    agent = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    assert agent.stdout is not None
    pid = int(await agent.stdout.readline())
    assert is_alive(pid)
    agent.kill()
    await agent.wait()

    async def dead() -> bool:
        return not is_alive(pid)

    await eventually(dead)


async def http_server(status: str) -> tuple[asyncio.Server, int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def complaint_of(spec: Object, container: Object | None = None) -> str | None:
    probe = probe_of((container or {}) | {"readinessProbe": spec}, "readinessProbe", "127.0.0.1", dict(os.environ))
    assert probe is not None
    results: asyncio.Queue[str | None] = asyncio.Queue()

    async def on_result(verdict: bool | None, complaint: str | None) -> None:
        results.put_nowait(complaint)

    following = asyncio.create_task(probe.follow(on_result))
    try:
        return await results.get()
    finally:
        following.cancel()


async def test_http_and_tcp_probes() -> None:
    good, port = await http_server("200 OK")
    bad, bad_port = await http_server("503 Service Unavailable")
    async with good, bad:
        named = {"ports": [{"name": "http", "containerPort": port}]}
        assert await complaint_of({"httpGet": {"path": "/ready", "port": "http"}}, named) is None
        assert await complaint_of({"tcpSocket": {"port": port}}) is None
        complaint = await complaint_of({"httpGet": {"port": bad_port}})
        assert complaint == "HTTP probe failed with statuscode: 503"
    assert "refused" in (await complaint_of({"tcpSocket": {"port": port}}) or "").lower()


async def test_exec_probes() -> None:
    assert await complaint_of({"exec": {"command": ["true"]}}) is None
    assert await complaint_of({"exec": {"command": ["/bin/sh", "-c", "exit 3"]}}) == "command exited with 3"
    slow = {"exec": {"command": ["sleep", "100"]}, "timeoutSeconds": 0.1}
    assert await complaint_of(slow) == "no answer within 0.1 s"
