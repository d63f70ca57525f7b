"""The benchmarks measure something and stop what they start. How fast things are is never asserted here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as runner
from benchmarks import (
    fleet_ticks,
    localcluster,
    metrics_pages,
    prometheus,
    rest,
    scheduler,
    scheduler_core,
    streaming,
    tick,
)
from benchmarks.figure import Claim, Figure, figure, table
from benchmarks.processes import BenchmarkError, Processes
from tests.dashboards.conftest import required

TINY: dict[str, Callable[[], list[Figure]]] = {
    "metrics_pages": lambda: metrics_pages.measure(metrics_pages.Sizes(pages=3, fleet=2)),
    "prometheus": lambda: prometheus.measure(prometheus.Sizes(pods=2, reads=2)),
    "rest": lambda: rest.measure(rest.Sizes(settle_s=0, rest_s=1)),
    "fleet_ticks": lambda: fleet_ticks.measure(
        fleet_ticks.Sizes(services=(2, 3), rounds=2, history_s=60, lives=2),
    ),
    "scheduler": lambda: scheduler.measure(
        scheduler.Sizes(nodes=6, gpus_per_node=8, services=2, groups=3, repeats=2),
    ),
    "scheduler_core": lambda: scheduler_core.measure(
        scheduler_core.Sizes(small_nodes=20, large_nodes=72, running_pods=200, repeats=1),
    ),
    "tick": lambda: tick.measure(tick.Sizes(ticks=2, history_s=40, looks=1, large_nodes=20, large_pods=60)),
    "localcluster": lambda: localcluster.measure(localcluster.Sizes(starts=2, calls=3, events=3)),
    "streaming": lambda: streaming.measure(
        streaming.Sizes(streams=3, prompt_tokens=20, output_tokens=4, repeats=1, demo_requests=2),
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_gives_figures_and_leaves_no_process(name: str) -> None:
    if name == "prometheus":
        required(name)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    figures = TINY[name]()
    assert all(value >= 0 for one in figures for value in one.values)
    assert len({one.name for one in figures}) == len(figures) > 3
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert name == "scheduler" or any(one.claims for one in figures)


def test_percentiles_are_samples_and_a_claim_is_a_strict_limit() -> None:
    one = figure("f", "ms", [float(value) for value in range(100, 0, -1)], median=51, p99=99)
    assert [one.at(statistic) for statistic in ("min", "median", "p95", "p99", "max")] == [1, 50, 95, 99, 100]
    assert one.missed == (Claim("p99", 99),)
    assert [claim["met"] for claim in one.to_json()["claims"]] == [True, False]


def test_few_samples_show_no_percentiles() -> None:
    shown = figure("f", "s", [0.25, 0.5, 0.75]).to_json()
    assert {"min", "median", "max"} <= shown.keys()
    assert "p95" not in shown
    assert figure("f", "s", [2.0]).cells() == ("f", "s", "1", "", "2", "", "", "", "", "")


def test_a_figure_without_samples_or_with_an_unknown_statistic_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        figure("f", "s", [])
    with pytest.raises(TypeError, match="mean"):
        figure("f", "s", [1.0], mean=3)


def test_the_table_is_aligned_and_names_what_was_missed() -> None:
    text = table([figure("short", "s", [1.0], max=2), figure("a longer name", "MB", [12345.0, 3.0], max=60)])
    header, first, second = text.splitlines()
    assert first.endswith("max < 2   ok")
    assert second.endswith("max < 60  MISSED")
    assert header.index("claim") == first.index("max < 2") == second.index("max < 60")


def test_a_missed_claim_is_no_error_and_a_failure_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> list[Figure]:
        raise BenchmarkError("the cluster did not start")

    monkeypatch.setattr(scheduler, "measure", lambda: [figure("place", "ms", [9.0], max=1)])
    file = tmp_path / "figures.json"
    assert runner.main(["scheduler", "--json", str(file)]) == 0
    assert "claims missed: scheduler: place" in capsys.readouterr().out
    assert json.loads(file.read_text())["figures"]["scheduler"][0]["median"] == 9.0
    monkeypatch.setattr(tick, "measure", fails)
    assert runner.main(["scheduler", "tick", "--json", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.err == "benchmarks: tick: the cluster did not start\n"
    assert json.loads(file.read_text())["failures"] == {"tick": "the cluster did not start"}


def test_every_benchmark_is_listed_with_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(runner.NAMES)
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tock"], "'tock': expected one of localcluster, workers, streaming, tick, scheduler"),
        (["tick", "--json", "no/such/folder/figures.json"], "No such file or directory; give another path"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = runner.main(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert line in said


def test_a_fleet_that_comes_to_no_decisions_is_an_error_and_no_figure() -> None:
    with pytest.raises(BenchmarkError, match=r"2 services: fleet_ticks: 2 of 2 services have no size in the end"):
        fleet_ticks.measure(fleet_ticks.Sizes(services=(2,), rounds=1, history_s=0, lives=2))


async def test_a_process_that_ends_is_an_error_that_quotes_it() -> None:
    async def never() -> bool:
        return False

    async with Processes() as processes:
        process = processes.start("serve", "roleratio", "serve", "router")
        with pytest.raises(BenchmarkError, match=r"serve ended with code 2: .*needs its workers"):
            await processes.until("the router", 20, never)
        with pytest.raises(BenchmarkError, match="ended with code 2"):
            await processes.finish(process, 20)


async def test_a_wait_is_bounded_and_everything_is_stopped() -> None:
    async def never() -> bool:
        await asyncio.sleep(0)
        return False

    async with Processes() as processes:
        process = processes.start("web", "http.server", "--bind", "127.0.0.1", "0")
        with pytest.raises(BenchmarkError, match=r"nothing: not within 0\.05 s \(web: "):
            await processes.until("nothing", 0.05, never)
    assert not psutil.pid_exists(process.child.pid)
    assert not processes.folder.exists()
