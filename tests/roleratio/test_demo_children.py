"""The demo's kept children: started again when they die, given up when that is of no use, stopped for good."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from roleratio.demo import children
from roleratio.demo.children import MOST_RESTARTS, Children, DemoError, beside

SAYS_WHO = """
import os, sys, time
print(os.environ["POD_NAME"], os.environ["POD_UID"], *sys.argv[1:], os.getpid(), flush=True)
time.sleep(60)
"""
PROGRAM = (sys.executable, "-c", SAYS_WHO)


def said(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


async def until_said(log: Path, count: int) -> list[list[str]]:
    async with asyncio.timeout(30):
        while len(said(log)) < count:
            await asyncio.sleep(0.05)
    return said(log)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_one_that_is_killed_starts_again_as_the_same_pod_in_the_same_log(tmp_path: Path) -> None:
    told: list[str] = []
    async with Children(tmp_path, told.append) as kept:
        await kept.start("part", "a word", program=PROGRAM, kept=True)
        [[*first, pid]] = await until_said(tmp_path / "part.log", 1)

        async def killed() -> str:
            os.kill(int(pid), signal.SIGKILL)
            [_, [*second, new_pid]] = await until_said(tmp_path / "part.log", 2)
            assert second == first
            assert new_pid != pid
            return new_pid

        new_pid = await beside(killed(), kept.watch())
        assert told == ["part ended by signal 9, restarted"]
    assert first[0] == "part"
    assert first[2:] == ["a", "word"]
    assert not alive(int(new_pid))
    assert len(said(tmp_path / "part.log")) == 2
    assert len(told) == 1


async def test_two_children_are_two_pods(tmp_path: Path) -> None:
    async with Children(tmp_path) as kept:
        for name in ("one", "two"):
            await kept.start(name, program=PROGRAM, kept=True)
        [[_, one, _]] = await until_said(tmp_path / "one.log", 1)
        [[_, two, _]] = await until_said(tmp_path / "two.log", 1)
    assert one != two


async def test_bad_input_is_final(tmp_path: Path) -> None:
    told: list[str] = []
    async with Children(tmp_path, told.append) as kept:
        await kept.start("checker", "check", "absent-file", kept=True)
        with pytest.raises(DemoError, match=r"^checker ended with code 2: .*absent-file.*checker\.log"):
            await beside(asyncio.sleep(60), kept.watch())
    assert told == []


async def test_one_that_keeps_dying_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE_S", 0.01)
    told: list[str] = []
    async with Children(tmp_path, told.append) as kept:
        await kept.start("part", program=(sys.executable, "-c", "print('no luck'); exit(1)"), kept=True)
        with pytest.raises(DemoError, match=r"^part ended with code 1, the 5th time within 60 s: no luck \(log: "):
            await beside(asyncio.sleep(60), kept.watch())
    assert told == ["part ended with code 1, restarted"] * MOST_RESTARTS
    assert said(tmp_path / "part.log") == [["no", "luck"]] * (MOST_RESTARTS + 1)


async def test_one_that_waits_for_its_restart_is_not_started_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE_S", 3600.0)
    async with asyncio.timeout(30), Children(tmp_path) as kept:
        await kept.start("part", program=PROGRAM, kept=True)
        [[*_, pid]] = await until_said(tmp_path / "part.log", 1)
        os.kill(int(pid), signal.SIGKILL)
        while alive(int(pid)):
            await asyncio.sleep(0.05)
    assert len(said(tmp_path / "part.log")) == 1
