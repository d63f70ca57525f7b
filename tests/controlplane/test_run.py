"""A control plane for a command: the exit code, what is told when there is none, what is handed over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.controlplane import build, run, start
from tests.controlplane.process import Process

OTHERS = (run.HANDOVER, *build.INSTEAD)
LOOKS = f"""
import json, os, pathlib
from tests.controlplane.run import handed_over
plane = handed_over(pathlib.Path(os.environ["{run.HANDOVER}"]))
alive = {{name: process.pid for name, process in plane.processes.items() if process.running()}}
print(json.dumps([plane.kubectl("get", "--raw", "/readyz"), alive, str(plane.folder)]))
raise SystemExit(7)
"""


def beside(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in OTHERS}
    return subprocess.run(
        [sys.executable, "-m", "tests.controlplane.run", *command],
        cwd=build.HERE.parent.parent,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_a_control_plane_the_command_runs_all_the_same(tmp_path: Path) -> None:
    told = f"import os; raise SystemExit(5 if '{run.HANDOVER}' not in os.environ else 1)"
    assert beside(sys.executable, "-c", told, XDG_CACHE_HOME=str(tmp_path)).returncode == 5
    assert beside(sys.executable, "-c", told, ROLERATIO_TEST_KUBECONFIG="somewhere").returncode == 5


def test_a_command_is_needed() -> None:
    done = beside()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: python -m tests.controlplane.run COMMAND...\n"


def test_one_that_did_not_start_is_told_to_whoever_waits(tmp_path: Path) -> None:
    handover = tmp_path / "handover.json"
    handover.write_text(json.dumps({"error": "etcd ended"}), encoding="utf-8")
    with pytest.raises(start.StartError, match="etcd ended"):
        run.handed_over(handover)


def test_a_process_of_somebody_else_is_known_by_its_id(tmp_path: Path) -> None:
    mine = Process("sleep", ["sleep", "60"], tmp_path / "log")
    same = Process.known("sleep", mine.argv, mine.log, mine.pid)
    assert same.running()
    mine.terminate()
    mine.wait(10)
    assert not same.running()


@pytest.mark.apiserver
@pytest.mark.skipif(not build.binary().exists(), reason="the test control plane is not built; run `make controlplane`")
def test_what_is_handed_over_serves_and_ends_with_the_command() -> None:
    done = beside(sys.executable, "-c", LOOKS)
    assert done.returncode == 7, done.stderr
    assert done.stderr.startswith("control plane ready after ")
    ready, alive, folder = json.loads(done.stdout)
    assert (ready, set(alive)) == ("ok", {start.ETCD, start.API_SERVER, start.CONTROLLER_MANAGER})
    assert not Path(folder).exists()
    for pid in alive.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
