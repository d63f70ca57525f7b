"""The demo's Prometheus: what it is told to scrape, and what happens without the program."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoscaler.errors import UserError
from autoscaler.settings import parse_settings
from kubeapi import names
from policies.model import ROLES
from roleratio.demo import manifests, prometheus, view
from roleratio.demo.children import DemoError
from roleratio.demo.prometheus import Prometheus
from roleratio.demo.screen import Latency, Look, Requests
from roleratio.demo.status import free_ports

PORT = 8000
LABELS = {"namespace": "ns", "roleratio_service": "demo"}


def pod(name: str, role: str, ip: str = "127.0.0.30", phase: str = "Running", worker: str = "") -> dict[str, Any]:
    labels = {names.LABEL_SERVICE: "demo", names.LABEL_ROLE: role}
    labels |= {names.LWS_WORKER_INDEX: worker} if worker else {}
    status = {"phase": phase} | ({"podIP": ip} if ip else {})
    return {"metadata": {"name": name, "namespace": "ns", "labels": labels}, "status": status}


def test_routers_and_leaders_that_run_are_targets() -> None:
    pods = [
        pod("router-0", "router", "127.0.0.31"),
        pod("decode-0", "decode", "127.0.0.32", worker="0"),
        pod("decode-0-1", "decode", "127.0.0.33", worker="1"),
        pod("decode-1", "decode", "", phase="Pending", worker="0"),
        pod("decode-2", "decode", "127.0.0.34", phase="Pending", worker="0"),
    ]
    assert prometheus.targets(pods, PORT) == [
        {"targets": ["127.0.0.32:8000"], "labels": LABELS | {"pod": "decode-0", "roleratio_role": "decode"}},
        {"targets": ["127.0.0.31:8000"], "labels": LABELS | {"pod": "router-0", "roleratio_role": "router"}},
    ]


def test_controller_and_scheduler_are_static_and_all_is_scraped_each_second() -> None:
    found = prometheus.config({"roleratio-scheduler": "127.0.0.1:1", "roleratio-controller": "127.0.0.1:2"})
    assert found["global"]["scrape_interval"] == "1s"
    assert [job["job_name"] for job in found["scrape_configs"]] == [
        "pods",
        "roleratio-scheduler",
        "roleratio-controller",
    ]
    assert found["scrape_configs"][2]["static_configs"] == [{"targets": ["127.0.0.1:2"]}]


async def test_the_targets_file_follows_the_pods_and_nothing_old_is_kept(tmp_path: Path) -> None:
    server = Prometheus("unused", tmp_path / "prometheus", 1)
    (server.folder / "data").mkdir(parents=True)
    (server.folder / "data" / "old").touch()
    server.prepare({})
    assert not (server.folder / "data").exists()
    file = server.folder / "pods.json"
    assert json.loads(file.read_text()) == []
    pods = {"a": pod("router-0", "router")}
    task = asyncio.create_task(server.follow(pods, PORT))

    async def until_told(count: int) -> None:
        async with asyncio.timeout(10):
            while len(json.loads(file.read_text())) != count:
                await asyncio.sleep(0.05)

    await until_told(1)
    pods["b"] = pod("decode-0", "decode", worker="0")
    await until_told(2)
    pods.clear()
    await until_told(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_that_does_not_answer_is_named(tmp_path: Path) -> None:
    server = Prometheus("unused", tmp_path, free_ports(1)[0])
    with pytest.raises(DemoError, match=r"^Prometheus was not ready within 0\.3 s"):
        await server.ready(0.3)


def test_without_the_program_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="apt-get install prometheus"):
        prometheus.find("no-such-prometheus")
    words = ["demo", "--headless", "--report", str(tmp_path), "--prometheus", str(tmp_path / "absent")]
    done = subprocess.run(
        [sys.executable, "-m", "roleratio", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"--prometheus {tmp_path / 'absent'}: no such program" in done.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:9090", None])
def test_the_controller_reads_through_it_only_when_asked(url: str | None) -> None:
    settings = parse_settings(manifests.settings(manifests.Shape(), 32, url), "demo")
    assert settings.spec.metrics.prometheus_url == url
    assert settings.spec.writes


def test_the_view_shows_where_it_is() -> None:
    nothing = Latency(None, None, 1.0)
    look = Look(0.0, "calm", dict.fromkeys(ROLES), None, (), Requests(0, 0, 0, None), nothing, nothing, ())

    def drawn(one: Look) -> str:
        console = Console(file=io.StringIO(), width=120, record=True)
        console.print(view.draw(one))
        return console.export_text()

    assert "Prometheus" not in drawn(look)
    assert "Prometheus http://127.0.0.1:9090" in drawn(replace(look, prometheus="http://127.0.0.1:9090"))
