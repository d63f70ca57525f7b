"""The controller, then the scheduler, killed while the demo's load is at its worst: both come back as containers would.

What "converged within two ticks" means here: the restarted controller knows what the killed one knew, and by its
second tick at the latest it has decided with a known demand; what it decides is what the killed one would have decided.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from autoscaler.adapters.journal import read_journal
from autoscaler.drivers.replay import resume
from kubeapi import kinds
from kubeapi.client import KubeClient
from kubeapi.config import load_config
from kubeapi.errors import ApiError
from roleratio.demo.manifests import NAMESPACE
from roleratio.demo.status import free_ports

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

OURS = (sys.executable, "-m", "roleratio")
CONTROLLER, SCHEDULER = "roleratio-controller-demo", "roleratio-scheduler"


def child_of(demo: Process, command: str) -> int:
    """The process id of the demo's `roleratio COMMAND`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if parent == demo.pid and words[1:4] == ["-m", "roleratio", command]:
            return int(entry.name)
    raise AssertionError(f"the demo has no {command}")


class Output:
    """The demo's lines so far, and those to come."""

    def __init__(self, demo: Process) -> None:
        assert demo.stdout is not None
        self._stream = demo.stdout
        self.lines: list[str] = []

    async def until(self, *words: str) -> str:
        """Read on until a line that holds one of the words."""
        while raw := await self._stream.readline():
            self.lines.append(raw.decode())
            if any(word in self.lines[-1] for word in words):
                return self.lines[-1]
        raise AssertionError(f"none of {words} in:\n{''.join(self.lines)}")

    async def rest(self) -> str:
        """Everything, to the end."""
        self.lines.append((await self._stream.read()).decode())
        return "".join(self.lines)


async def follow_leases(kubeconfig: Path, seen: dict[str, set[tuple[str, int]]]) -> None:
    """Every holder and count of transitions that the demo's Leases show, until cancelled."""
    async with KubeClient(load_config(kubeconfig), field_manager="test") as client:
        while True:
            try:
                leases = (await client.list(kinds.LEASE, NAMESPACE)).items
            except ApiError:
                return
            for lease in leases:
                held = (lease["spec"].get("holderIdentity") or "", lease["spec"]["leaseTransitions"])
                seen.setdefault(lease["metadata"]["name"], set()).add(held)
            await asyncio.sleep(0.2)


@asynccontextmanager
async def rival(report: Path, log: Path) -> AsyncIterator[str]:
    """A second controller for the same service, started by a person beside the demo's. Its URL."""
    port = free_ports(1)[0]
    words = ["controller", "--settings", str(report / "settings.yaml"), "--kubeconfig", str(report / "kubeconfig")]
    words += ["--leader-elect", "--port", str(port), "--journal", str(log.with_suffix(".jsonl"))]
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*OURS, *words, stdin=DEVNULL, stdout=file, stderr=STDOUT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def ready_text(url: str) -> str:
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url + "/readyz") as response:
                    if response.status == 200:
                        return await response.text()
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


def assert_one_leader(seen: dict[str, set[tuple[str, int]]]) -> None:
    """One identity ever, never handed over; what is released at the very end is nobody's."""
    assert seen.keys() == {CONTROLLER, SCHEDULER}
    for name, part in ((CONTROLLER, "controller_"), (SCHEDULER, "scheduler_")):
        holders = {holder for holder, _ in seen[name]} - {""}
        assert len(holders) == 1
        assert holders.pop().startswith(part)
        assert {transitions for _, transitions in seen[name]} == {0}


def assert_converged(report: Path) -> None:
    """The journal goes on in a new file from where the killed process stopped, with a known demand."""
    before, after = report / "decisions.jsonl.1", report / "decisions.jsonl"
    killed, restarted = read_journal(before), read_journal(after)
    assert restarted.state == resume(before, restarted.settings, killed.ticks[-1].observation.now_s)
    first = [tick.decision for tick in restarted.ticks[:2]]
    assert any(decision.signals.demand.known and decision.target for decision in first)
    words = [*OURS, "replay", str(before), str(after)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.count("no difference")) == (0, 2), done.stdout + done.stderr


async def test_killed_in_the_second_phase_both_go_on(tmp_path: Path) -> None:
    report, log = tmp_path / "out", tmp_path / "rival.log"
    leases: dict[str, set[tuple[str, int]]] = {}
    words = ["demo", "--headless", "--report", str(report), "--duration-s", "44", "--cold-start-s", "2"]
    demo = await asyncio.create_subprocess_exec(*OURS, *words, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    output = Output(demo)
    try:
        await output.until("first request served")
        following = asyncio.create_task(follow_leases(report / "kubeconfig", leases))
        async with rival(report, log) as url:
            assert "standing by: controller_" in await ready_text(url)
            await output.until("inputs x4")
            os.kill(child_of(demo, "controller"), signal.SIGKILL)
            await output.until("* controller ended by signal 9, restarted")
            # The fleet grows anew, and half of that may be bound already.
            await output.until(" by roleratio-controller")
            os.kill(child_of(demo, "scheduler"), signal.SIGKILL)
            await output.until("* scheduler ended by signal 9, restarted")
            await output.until("calm again")
        text = await output.rest()
        assert await demo.wait() == 0, text
        await following
    finally:
        if demo.returncode is None:
            demo.send_signal(signal.SIGINT)
            await demo.wait()
    found = json.loads((report / "report.json").read_text())
    assert (found["requests_failed"], found["requests_ok"]) == (0, found["requests_sent"])
    assert [one["what"].split()[0] for one in found["restarts"]] == ["controller", "scheduler"]
    assert any(event["t_s"] > found["restarts"][0]["t_s"] for event in found["scale_events"])
    assert any(event["t_s"] > found["restarts"][1]["t_s"] for event in found["scale_events"])
    assert {event["by"] for event in found["scale_events"]} == {"roleratio-controller"}
    assert_one_leader(leases)
    assert_converged(report)
    assert "leads" not in log.read_text()
    assert log.with_suffix(".jsonl").stat().st_size == 0
