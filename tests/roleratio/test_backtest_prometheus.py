"""`roleratio backtest --prometheus` against a real Prometheus whose past was written beforehand."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from autoscaler.adapters import past
from autoscaler.adapters.past import Period, selector_of
from autoscaler.errors import UserError
from autoscaler.settings import MetricsSettings
from roleratio.backtest.prometheus import measured, step_for
from roleratio.cli import main
from roleratio.measured import Measured
from tests.dashboards.conftest import prometheus, promtool
from tests.dashboards.queries import running

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ("prometheus", "promtool")

SCRAPE_S = 30
LENGTH_S = 3 * 3600
RATE, QUIET_S, GAP_S, RESET_S = 2.0, (3600, 5400), (6000, 7500), 9000
"""Requests per second; a stretch without any, one that was not scraped, and when the process restarted."""
PROMPT, OUTPUT = 800, 120

Count = Callable[[int], float]


def came(at_s: int) -> float:
    """Requests since the process started, at a time since the beginning."""
    quiet_s = min(max(0, at_s - QUIET_S[0]), QUIET_S[1] - QUIET_S[0])
    before_s = RESET_S - (QUIET_S[1] - QUIET_S[0]) if at_s >= RESET_S else 0
    return RATE * (at_s - quiet_s - before_s)


def of(pod: str, role: str, service: str = "chat", **labels: str) -> str:
    """Labels of a series, with what a scrape adds."""
    place = {"namespace": "team-a", "pod": pod, "roleratio_service": service, "roleratio_role": role, "job": "pods"}
    return ",".join(f'{name}="{value}"' for name, value in {**labels, **place}.items())


def router(service: str, share: float = 1.0) -> dict[tuple[str, str], Count]:
    """Our router's counters."""
    own = {"target_namespace": "team-a", "target_service": service}

    def series(name: str, factor: float, **labels: str) -> tuple[tuple[str, str], Count]:
        key = f"roleratio_router_{name}", of(f"{service}-router", "router", service, **own, **labels)
        return key, lambda at_s: share * factor * came(at_s)

    return dict(
        (
            series("requests", 1),
            series("prompt_tokens", PROMPT),
            # A tenth of the requests fails, without an answer.
            series("generation_tokens", 0.9 * OUTPUT),
            series("requests_finished", 0.9, outcome="ok"),
            series("requests_finished", 0.1, outcome="failed"),
        )
    )


def engines(service: str) -> dict[tuple[str, str], Count]:
    """Two prefill engines and a decode one, whose prompt tokens were computed elsewhere; no router."""
    found: dict[tuple[str, str], Count] = {}
    for pod, role, share in (("p-0", "prefill", 0.5), ("p-1", "prefill", 0.5), ("d-0", "decode", 1.0)):
        counts = {"request_success": 1, "prompt_tokens": PROMPT, "generation_tokens": OUTPUT if role == "decode" else 1}
        for name, factor in counts.items():
            labels = of(f"{service}-{pod}", role, service, model_name="m", engine="0")
            found[f"vllm:{name}", labels] = lambda at_s, most=share * factor: most * came(at_s)  # type: ignore[misc]
    return found


def open_metrics(series: Mapping[tuple[str, str], Count], start_s: int, times: Iterable[int]) -> str:
    """All samples as a text that promtool makes blocks of."""
    lines: list[str] = []
    for name in dict.fromkeys(name for name, _ in series):
        lines.append(f"# TYPE {name} counter")
        for (own, labels), count in series.items():
            if own == name:
                lines += [f"{name}_total{{{labels}}} {count(at_s):.1f} {start_s + at_s}" for at_s in times]
    return "\n".join((*lines, "# EOF")) + "\n"


@pytest.fixture(scope="module")
def start_s() -> int:
    """When the stored time begins: whole minutes, and an hour before now it ends."""
    return (int(time.time()) - LENGTH_S - 3600) // 60 * 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(
    prometheus: str, promtool: str, start_s: int, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """A Prometheus with three hours of three services."""
    folder = tmp_path_factory.mktemp("prometheus")
    series = {**router("chat"), **router("other", 3.0), **engines("plain")}
    times = [at_s for at_s in range(0, LENGTH_S + 1, SCRAPE_S) if not GAP_S[0] < at_s < GAP_S[1]]
    (folder / "past.om").write_text(open_metrics(series, start_s, times), encoding="utf-8")
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "past.om"), str(folder / "data")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    async with running(prometheus, folder, {"scrape_configs": []}, folder / "data") as found:
        yield found.url


async def look(url: str, start_s: int, step_s: int = 60, service: str = "chat") -> Measured:
    """What was measured in all of the stored time."""
    metrics = MetricsSettings.model_validate({"prometheusUrl": url, "scrapeTimeoutS": 30})
    period = Period(start_s, start_s + LENGTH_S, step_s)
    return await asyncio.to_thread(measured, metrics, selector_of("team-a", service), period, lambda _: None)


async def test_rates_zeros_holes_and_resets(url: str, start_s: int) -> None:
    found = await look(url, start_s)
    rates = {round(one.start_s - start_s): one.requests_per_s for one in found.stretches}
    # Zero is known, a hole is not there; both begin and end where windows of 120 s do.
    assert all(rates[at_s] == 0 for at_s in range(QUIET_S[0] + 120, QUIET_S[1], 60))
    assert not any(at_s in rates for at_s in range(GAP_S[0] + 120, GAP_S[1] - 60, 60))
    assert found.missing["no arrivals were stored"] == pytest.approx(GAP_S[1] - GAP_S[0], abs=120)
    edges = ((0, 0), QUIET_S, GAP_S)
    usual = [rate for at_s, rate in rates.items() if not any(s - 180 <= at_s <= e + 180 for s, e in edges)]
    # A restart costs what came after the last scrape before it: one scrape of the four of a window.
    assert all(rate == pytest.approx(RATE) or rate == pytest.approx(RATE * 3 / 4) for rate in usual)
    assert sum(rate != pytest.approx(RATE) for rate in usual) == 2
    assert found.requests == pytest.approx(
        RATE * (LENGTH_S - (QUIET_S[1] - QUIET_S[0]) - (GAP_S[1] - GAP_S[0])), rel=0.03
    )
    assert found.means == pytest.approx((PROMPT, OUTPUT), rel=1e-3)
    assert "scrapes every 30 s, counted by routers or gateways" in found.notes[0]


async def test_many_parts_of_a_range_are_what_one_is(url: str, start_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await look(url, start_s)
    monkeypatch.setattr(past, "MOST_POINTS", 7)
    assert await look(url, start_s) == whole


async def test_more_points_than_a_prometheus_answers_at_once(url: str, start_s: int) -> None:
    metrics = MetricsSettings.model_validate({"prometheusUrl": url, "scrapeTimeoutS": 30})
    period = Period(start_s - 1800, start_s + LENGTH_S, 1)
    assert period.steps > 11_000
    longer = await asyncio.to_thread(measured, metrics, selector_of("team-a", "chat"), period, lambda _: None)
    assert longer.requests == pytest.approx(RATE * (LENGTH_S - 1800 - 1500), rel=0.03)


async def test_without_a_router_prefill_counts_and_decode_generates(url: str, start_s: int) -> None:
    found = await look(url, start_s, service="plain")
    busy = [one for one in found.stretches if one.start_s - start_s < QUIET_S[0] - 180]
    assert busy[5].requests_per_s == pytest.approx(RATE, rel=1e-3)
    assert found.means == pytest.approx((PROMPT, OUTPUT), rel=1e-3)
    assert "prefill engines" in found.notes[0]


async def test_a_step_fits_the_period() -> None:
    assert [step_for(days * 86_400) for days in (0.1, 1, 7, 30, 365)] == [15, 15, 60, 300, 3600]


async def test_the_command_from_the_query_to_the_report(
    url: str, start_s: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    until = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(start_s + 8000))
    words = ["--prometheus", url, "--service", "team-a/chat", "--since", "40m", "--until", until]
    words += ["--policy", "static:1,1", "--spread", "0", "--report", str(tmp_path)]
    assert await asyncio.to_thread(main, ["backtest", *words]) == 0
    out = capsys.readouterr().out
    assert 'namespace="team-a",roleratio_service="chat", in steps of 15 s' in out
    # 25 of 40 minutes are not stored. A rate needs two scrapes in 120 s: 90 s more at the begin, 30 s less at the end.
    assert "missing: 60.0% of the time, cut out" in out
    assert "requests: Poisson within each step, lengths log-normal around its means, sigma 0" in out
    assert yaml.safe_load((tmp_path / "scenario.yaml").read_text())["load"]["measured"]["file"] == "demand.csv"
    assert "missing: 60.0%" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("service", "back_s"), [("nobody", 0), ("chat", 100_000)])
async def test_no_data_is_one_line_that_says_for_what(url: str, start_s: int, service: str, back_s: int) -> None:
    with pytest.raises(UserError) as error:
        await look(url, start_s - back_s, service=service)
    (line,) = error.value.problems
    assert line.startswith(f'--prometheus {url}: {{namespace="team-a",roleratio_service="{service}"}} has nothing that')
    assert "check --service or --selector" in line


async def test_a_quiet_period_has_nothing_to_decide(url: str, start_s: int, capsys: pytest.CaptureFixture[str]) -> None:
    until = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(start_s + QUIET_S[1]))
    words = ["--prometheus", url, "--service", "team-a/chat", "--since", "20m", "--until", until]
    assert await asyncio.to_thread(main, ["backtest", *words]) == 2
    assert "no request came in the period" in capsys.readouterr().err


async def test_a_query_that_is_refused_is_one_line(url: str, start_s: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["backtest", "--prometheus", url, "--selector", "pod=~("]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "HTTP 400" in line
