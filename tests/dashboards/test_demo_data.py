"""A short demo beside a real Prometheus: afterwards every query of the dashboard and every rule finds its data.

Rule: the demo runs once; a second Prometheus then reads what the first one stored.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from roleratio.demo.manifests import NAMESPACE, SERVICE
from tests.dashboards.queries import RULES, Asked, expressions, filled, rules, running

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

DURATION_S = 30


@dataclass(frozen=True)
class Demo:
    """What one demo left behind."""

    report: Path
    output: str
    start_s: float
    end_s: float


@pytest.fixture(scope="module")
def demo(prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    report = tmp_path_factory.mktemp("demo") / "out"
    words = ["--headless", "--report", str(report), "--duration-s", str(DURATION_S), "--cold-start-s", "1"]
    start_s = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "roleratio", "demo", *words, "--prometheus", prometheus],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Demo(report, done.stdout, start_s, time.time())


@pytest.fixture
async def stored(demo: Demo, prometheus: str, tmp_path: Path) -> AsyncIterator[Asked]:
    config = {"rule_files": [str(RULES)]}
    async with running(prometheus, tmp_path, config, demo.report / "prometheus" / "data") as asked:
        yield asked


def test_the_controller_read_through_it_and_nothing_was_lost(demo: Demo) -> None:
    found = json.loads((demo.report / "report.json").read_text())
    assert found["requests_failed"] == 0
    assert found["requests_ok"] == found["requests_sent"] > 20
    url = re.search(r"Prometheus: (http://127\.0\.0\.1:\d+)", demo.output)
    assert url
    settings = yaml.safe_load((demo.report / "settings.yaml").read_text())
    assert settings["spec"]["metrics"]["prometheusUrl"] == url[1]
    changes = [event for event in found["scale_events"] if event["by"] == "roleratio-controller"]
    assert {event["role"] for event in changes} == {"prefill", "decode"}


async def test_every_target_was_scraped_under_its_labels(demo: Demo, stored: Asked) -> None:
    up = await stored.seen("max_over_time(up[5s]) == 1", demo.start_s, demo.end_s)
    assert {series["job"] for series in up} == {"pods", "roleratio-scheduler", "roleratio-controller"}
    pods = [series for series in up if series["job"] == "pods"]
    assert {series["roleratio_role"] for series in pods} == {"router", "prefill", "decode"}
    assert {(series["namespace"], series["roleratio_service"]) for series in pods} == {(NAMESPACE, SERVICE)}


OF_LONGER = ("Coverage", "Loss against last value")
"""Panels of errors: a forecast of a minute is scored after two, and a demo lasts for one."""


async def test_every_query_of_the_dashboard_returns_data(demo: Demo, stored: Asked) -> None:
    empty = [
        where
        for where, query in expressions()
        if not where.startswith(OF_LONGER)
        and not await stored.seen(filled(query, NAMESPACE, SERVICE), demo.start_s, demo.end_s)
    ]
    assert empty == []


async def test_another_service_shows_nothing_of_this_one(demo: Demo, stored: Asked) -> None:
    for where, query in expressions():
        if "$target_service" in query:
            assert not await stored.seen(filled(query, NAMESPACE, "other"), demo.start_s, demo.end_s), where


async def test_every_recording_rule_has_values_and_every_alert_has_its_series(demo: Demo, stored: Asked) -> None:
    loaded = (await stored.get("rules"))["groups"]
    assert sum(len(group["rules"]) for group in loaded) == len(rules())
    for rule in rules():
        if "record" in rule:
            seen = await stored.seen(rule["expr"], demo.start_s, demo.end_s)
            assert seen, rule["record"]
            assert {series["target_service"] for series in seen} == {SERVICE}, rule["record"]
            continue
        for selector in re.findall(r"roleratio_\w+(?:\{[^}]*\})?", rule["expr"]):
            assert await stored.seen(selector, demo.start_s, demo.end_s), (rule["alert"], selector)
