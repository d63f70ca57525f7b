"""Field case "exported-namespace": a controller in `scaler` speaks of services in `team-a` and `team-b`.

Whether or not Prometheus honours the labels of a page, every panel and rule shows the services' namespaces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from autoscaler.adapters.exporter import Exporter
from autoscaler.core import tick
from autoscaler.model import State
from autoscaler.settings import Settings
from gangscheduler.exporter import Exporter as SchedulerExporter
from gangscheduler.model import Reason, Verdict, Verdicts
from perfmodel.profile import load_profile
from roleratio.demo.status import free_ports
from serving.flight import RouterMetrics
from serving.metrics import WorkerMetrics, page
from tests.autoscaler.pages import observations, outlook, server, settings, text
from tests.dashboards.queries import RULES, Asked, expressions, filled, rules, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEAMS = ("team-a", "team-b")
OWN = {"namespace": "scaler", "pod": "controller-0", "service": "scaler-metrics", "container": "main"}
MORE = {"endpoint": "http", "node": "n0"}
SCRAPES = 4
LIMIT_S = 30.0
UP_TO_FOUR = f"count_over_time(up[1m]) >= {SCRAPES}"


class Leads:
    """A scheduler with which all is well."""

    def problem(self) -> str:
        return ""

    stalled = standing = problem

    def leads(self) -> bool:
        return True

    def largest(self) -> list[tuple[str, str, int]]:
        return [("8 GPUs", "rack", 4)]


def team_settings(team: str) -> Settings:
    """The settings of the service `chat` of a team."""
    found = settings()
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"namespace": team})})


async def controller(stack: AsyncExitStack) -> str:
    """A controller's page about both services; its address."""
    exporter, profile = Exporter(), load_profile()
    for team in TEAMS:
        ours, state = team_settings(team), State()
        for seen in observations(30):
            observation = replace(seen, outlook=outlook())
            decision = tick(state, observation, ours, profile)
            exporter.observe(ours, observation, decision, 0.003)
            state = decision.state
    port = await exporter.start("127.0.0.1", 0)
    stack.push_async_callback(exporter.stop)
    return f"127.0.0.1:{port}"


async def scheduler(stack: AsyncExitStack) -> str:
    """A scheduler's page about the PodGroups of both services; its address."""
    exporter = SchedulerExporter(Leads())
    groups = [
        Verdict(f"{team}/{role}", "chat", role, 2, 1, 1, "nvidia.com/gpu", Reason.INSUFFICIENT_RESOURCE)
        for team in TEAMS
        for role in ("prefill", "decode")
    ]
    exporter.show(Verdicts(groups=tuple(groups)))
    exporter.cycle_s.observe(0.01)
    port = free_ports(1)[0]
    await stack.enter_async_context(exporter.serve("127.0.0.1", port))
    return f"127.0.0.1:{port}"


def router_page(team: str) -> str:
    """A router that has answered."""
    metrics = RouterMetrics(f"{team}/chat")
    metrics.requests, metrics.finished["ok"] = 7, 7
    metrics.ttft.observe(0.3, 7)
    metrics.itl.observe(0.02, 70)
    return page(metrics.families()).decode()


def worker_page() -> str:
    """An engine that is half full."""
    families = WorkerMetrics("m").families(running=3, capacity=0, deferred=0, kv_usage=0.5, blocks=10, block_tokens=16)
    return page(families).decode()


def jobs(address: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Scrapes as a ServiceMonitor or PodMonitor would set them up."""
    for name in ("controller", "scheduler"):
        yield {"job_name": name, "static_configs": [{"targets": [address[name]], "labels": OWN | MORE}]}
    for team in TEAMS:
        for pod, role in (("router-0", "router"), ("decode-0", "decode")):
            labels = {"namespace": team, "pod": pod, "roleratio_service": "chat", "roleratio_role": role}
            labels |= {"service": "chat-metrics", "container": "main"} | MORE
            path = f"/{team}/{pod}"
            static = {"targets": [address["pods"]], "labels": labels | {"__metrics_path__": path}}
            yield {"job_name": f"{team}-{pod}", "static_configs": [static]}


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[False, True], ids=["honor_labels-false", "honor_labels-true"]
)
async def asked(
    request: pytest.FixtureRequest, prometheus: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Asked]:
    async with scraped(prometheus, tmp_path_factory.mktemp("prometheus"), honor=request.param) as found:
        yield found


@asynccontextmanager
async def scraped(binary: str, folder: Path, *, honor: bool) -> AsyncIterator[Asked]:
    """A Prometheus that has scraped everything a few times."""
    pages = {f"/{team}/router-0": text(router_page(team)) for team in TEAMS}
    pages |= {f"/{team}/decode-0": text(worker_page()) for team in TEAMS}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(server(pages))
        address = {"pods": url.removeprefix("http://"), "controller": await controller(stack)}
        address["scheduler"] = await scheduler(stack)
        scrapes = [{**job, "honor_labels": honor} for job in jobs(address)]
        every = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config = {"global": every, "rule_files": [str(RULES)], "scrape_configs": scrapes}
        found = await stack.enter_async_context(running(binary, folder, config, folder / "data"))
        async with asyncio.timeout(LIMIT_S):
            while len(await found.now(UP_TO_FOUR)) < len(scrapes):
                await asyncio.sleep(0.2)
        yield found


async def test_every_panel_shows_each_team_and_never_the_controllers_namespace(asked: Asked) -> None:
    for where, query in expressions():
        if where == "Scaled":
            continue  # Marks growth of a counter, which these pages do not show.
        for team in TEAMS:
            assert await asked.now(filled(query, team, "chat")), (where, team)
        if "$target_namespace" in query:
            assert not await asked.now(filled(query, "scaler", "chat")), where


async def test_the_variables_offer_the_services_namespaces(asked: Asked) -> None:
    assert await asked.get("label/target_namespace/values") == list(TEAMS)
    assert await asked.get("label/target_service/values") == ["chat"]


async def test_rules_speak_of_both_teams(asked: Asked) -> None:
    told = 0
    for rule in rules():
        for labels, _ in await asked.now(rule["expr"]):
            if "target_namespace" in labels:
                assert labels["target_namespace"] in TEAMS, rule
                told += 1
            assert labels.get("namespace") is None, rule
        if "record" in rule:
            seen = {labels["target_namespace"] for labels, _ in await asked.now(rule["expr"])}
            assert seen == set(TEAMS), rule["record"]
    assert told


async def test_no_label_of_ours_collides_with_one_of_the_scrape(asked: Asked) -> None:
    names = await asked.get("labels")
    assert [name for name in names if name.startswith("exported_")] == []
    assert await asked.get("label/namespace/values") == ["scaler", *TEAMS]
    of_the_controller = await asked.now('{__name__=~"roleratio_(controller|scheduler)_.*"}')
    assert {labels["namespace"] for labels, _ in of_the_controller} == {"scaler"}
