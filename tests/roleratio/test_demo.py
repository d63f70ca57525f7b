"""The whole demo as a user starts it: short, headless, on real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]


def command(report: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "roleratio", "demo", "--headless", "--report", str(report), *words]


def children_of(report: Path) -> list[str]:
    """Command lines of running processes that belong to a demo: they all name its report folder or kubeconfig."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(report).encode() in words:
            found.append(entry.name)
    return found


def test_a_short_run_serves_everything_and_leaves_a_report(tmp_path: Path) -> None:
    report = tmp_path / "out"
    words = command(report, "--duration-s", "30", "--cold-start-s", "2")
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "first request served after" in done.stdout
    found = json.loads((report / "report.json").read_text())
    assert found["requests_sent"] > 30
    assert found["requests_failed"] == 0
    assert found["requests_ok"] == found["requests_sent"]
    assert found["first_request_s"] < 20
    assert 0 < found["slo_attainment"] <= 1
    assert all(found[name][share] > 0 for name in ("ttft_ms", "itl_ms") for share in ("p50", "p95", "p99"))
    assert all(found["gpu_hours"][role] > 0 and found["max_groups"][role] >= 1 for role in ("prefill", "decode"))
    assert (report / found["decision_journal"]).stat().st_size > 0
    assert "<svg" in (report / "report.html").read_text()
    assert children_of(report) == []
    replay = subprocess.run(
        [sys.executable, "-m", "roleratio", "replay", str(report / found["decision_journal"])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert replay.returncode == 0, replay.stdout + replay.stderr


def test_interrupted_it_stops_every_process(tmp_path: Path) -> None:
    report = tmp_path / "out"
    words = command(report, "--static", "1,1", "--cold-start-s", "0", "--duration-s", "60")
    # A shell that runs the suite in the background has SIGINT ignored, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed) as demo:
        assert demo.stdout is not None
        assert any("first request served" in line for line in demo.stdout)
        assert len(children_of(report)) > 4
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    deadline = time.monotonic() + 10
    while children_of(report) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert children_of(report) == []
