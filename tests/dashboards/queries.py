"""What the dashboard and the rules ask, and a real Prometheus to ask.

Rule: a query is asked as Grafana would ask it, with the variables and intervals filled in.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from dashboards.build import dashboard
from roleratio.demo.status import free_ports

Object = dict[str, Any]
Series = dict[str, str]

RULES = Path(__file__).resolve().parents[2] / "dashboards" / "rules.yaml"
READY_LIMIT_S = 30.0
RATE_INTERVAL = "10s"


def panels() -> list[Object]:
    """The panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """(where, query) of every panel, and of the annotation."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']}/{target['legendFormat']}", target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


def filled(query: str, namespace: str, service: str) -> str:
    """The query as Grafana sends it."""
    values = {"$target_namespace": namespace, "$target_service": service, "$__rate_interval": RATE_INTERVAL}
    for name, value in values.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def rules() -> list[Object]:
    """All rules of all groups."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


class Asked:
    """The HTTP API of a running Prometheus."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str, **params: str) -> Any:
        """The data of an answer, which must be a success."""
        async with self._session.get(f"{self.url}/api/v1/{path}", params=params) as answer:
            body = await answer.json()
        assert body["status"] == "success", (params, body)
        return body["data"]

    async def now(self, query: str) -> list[tuple[Series, float]]:
        """(labels, value) of every series of an instant query."""
        data = await self.get("query", query=query)
        return [(entry["metric"], float(entry["value"][1])) for entry in data["result"]]

    async def seen(self, query: str, start_s: float, end_s: float) -> list[Series]:
        """The series that had a number at any time of a range."""
        data = await self.get("query_range", query=query, start=f"{start_s}", end=f"{end_s}", step="1")
        return [
            entry["metric"]
            for entry in data["result"]
            if any(math.isfinite(float(value)) for _, value in entry["values"])
        ]


@asynccontextmanager
async def running(binary: str, folder: Path, config: Object, data: Path) -> AsyncIterator[Asked]:
    """A Prometheus of our own on a free port of 127.0.0.1, until the context ends."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as session:
            await _until_ready(session, f"http://{address}/-/ready")
            yield Asked(f"http://{address}", session)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _until_ready(session: aiohttp.ClientSession, url: str) -> None:
    deadline_s = asyncio.get_running_loop().time() + READY_LIMIT_S
    while asyncio.get_running_loop().time() < deadline_s:
        with suppress(aiohttp.ClientError):
            async with session.get(url) as answer:
                if answer.status == 200:
                    return
        await asyncio.sleep(0.1)
    raise AssertionError(f"no Prometheus at {url} within {READY_LIMIT_S:g} s; its log is beside its configuration")
