"""A warm start against a real Prometheus whose past was written beforehand, and against one that cannot answer."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from autoscaler.adapters.promclient import PrometheusError
from autoscaler.drivers.warm import Foresight, of_prometheus
from autoscaler.outlook import STEP_S, leads_s
from autoscaler.settings import Settings
from simulator.ours import STORED
from tests.autoscaler.arriving import Service
from tests.autoscaler.plant import make_settings
from tests.dashboards.conftest import prometheus, promtool
from tests.dashboards.queries import running
from tests.roleratio.test_backtest_prometheus import (
    GAP_S,
    LENGTH_S,
    OUTPUT,
    PROMPT,
    QUIET_S,
    RATE,
    SCRAPE_S,
    open_metrics,
    router,
    start_s,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ("prometheus", "promtool", "start_s")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(
    prometheus: str, promtool: str, start_s: int, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """A Prometheus with three hours of a router: a quiet stretch, a gap and a restart among them."""
    folder = tmp_path_factory.mktemp("prometheus")
    times = [at_s for at_s in range(0, LENGTH_S + 1, SCRAPE_S) if not GAP_S[0] < at_s < GAP_S[1]]
    (folder / "past.om").write_text(open_metrics(router("chat"), start_s, times), encoding="utf-8")
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "past.om"), str(folder / "data")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    async with running(prometheus, folder, {"scrape_configs": []}, folder / "data") as found:
        yield found.url


def asking(url: str, service: str = "chat") -> Settings:
    """The settings of a service that reads this Prometheus."""
    found = make_settings(service=service, metrics={"prometheusUrl": url, "scrapeTimeoutS": 0.5})
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"namespace": "team-a"})})


async def test_what_was_stored_is_what_arrived_and_a_hole_is_a_hole(url: str, start_s: int) -> None:
    found = await asyncio.to_thread(of_prometheus, asking(url), start_s + LENGTH_S + 60.0, threading.Event())
    assert found.keys() == set(STORED)
    for name, per_request in zip(STORED, (1.0, PROMPT, 0.9 * OUTPUT), strict=True):
        values = {at_s - start_s: value for at_s, value in found[name]}
        assert {at_s % STEP_S for at_s in values} == {STEP_S / 2}
        assert values[1830.0] == pytest.approx(RATE * per_request, rel=1e-3)
        assert values[(QUIET_S[0] + QUIET_S[1]) / 2 + 30.0] == 0.0
        assert not any(GAP_S[0] + 120 < at_s < GAP_S[1] - 60 for at_s in values)


async def test_forecasts_start_warm_beside_the_ticks(url: str, start_s: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "roleratio")
    settings, now_s = asking(url), start_s + LENGTH_S + 5.0
    foresight, decision = Foresight(settings, None, asyncio.Lock()), Service().decision(now_s)
    leads = leads_s(settings, decision)
    assert foresight.say(now_s, leads).series == {}
    foresight.see(decision)
    while not caplog.messages:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    said = foresight.say(now_s, leads)
    foresight.close()
    assert caplog.messages == ["team-a/chat: forecasts start warm: 2.6 h of history from Prometheus"]
    assert said.series["prompt_tokens_per_s"].at(0.5) == pytest.approx(RATE * PROMPT, rel=0.05)
    assert said.series["requests_per_s"].measured.targets > 100
    assert said.series["requests_per_s"].fallback == "none"


async def test_one_that_has_nothing_of_the_service_is_a_cold_start(
    url: str, start_s: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "roleratio")
    foresight = Foresight(asking(url, "other"), None, asyncio.Lock())
    foresight.see(Service().decision(start_s + LENGTH_S))
    while not caplog.messages:
        await asyncio.sleep(0.05)
    foresight.close()
    assert caplog.messages == [
        "team-a/other: forecasts start cold: Prometheus has counted no requests of "
        '{namespace="team-a",roleratio_service="other"}'
    ]


async def test_one_that_does_not_answer_is_a_cold_start(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "roleratio")
    foresight = Foresight(asking("http://127.0.0.9:9"), None, asyncio.Lock())
    foresight.see(Service().decision(1000.0))
    while not caplog.messages:
        await asyncio.sleep(0.05)
    foresight.close()
    assert caplog.messages == ["team-a/chat: forecasts start cold: Prometheus: cannot connect to http://127.0.0.9:9"]


async def test_a_controller_that_stops_waits_for_no_more_than_a_query(url: str, start_s: int) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(PrometheusError, match="the controller is stopping"):
        await asyncio.to_thread(of_prometheus, asking(url), start_s + LENGTH_S, stop)
