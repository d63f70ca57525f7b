"""A real Prometheus beside the demo: it scrapes router, workers, controller and scheduler once a second.

Rules:
1. Pods are told to it by a file (file_sd), since Debian's build has no Kubernetes discovery; the file follows
   the watch of pods.
2. A pod's series carry `namespace`, `pod`, `roleratio_service` and `roleratio_role`. The last two have no name
   that a metric of ours uses as its own label.
3. Its files are in the report folder. It starts empty, keeps an hour and ends with the demo.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from autoscaler.errors import UserError
from kubeapi import names
from roleratio.demo.children import DemoError
from roleratio.demo.fleet import role_of

Object = dict[str, Any]

DEFAULT_BINARY = "prometheus"
SCRAPE_INTERVAL = "1s"
FOLLOW_PERIOD_S = 0.5
READY_PERIOD_S = 0.1
_CONFIG, _TARGETS, _DATA = "prometheus.yml", "pods.json", "data"


def find(binary: str) -> str:
    """The path of a Prometheus. Raises UserError with how to get one."""
    found = shutil.which(binary)
    if found is None:
        raise UserError(
            f"--prometheus {binary}: no such program; install one (Debian: apt-get install prometheus) "
            "or give the path of its binary"
        )
    return found


def config(statics: Mapping[str, str]) -> Object:
    """What it scrapes: the pods of the targets file, and `statics` (job -> host:port)."""
    jobs: list[Object] = [{"job_name": "pods", "file_sd_configs": [{"files": [_TARGETS]}]}]
    jobs += [{"job_name": job, "static_configs": [{"targets": [address]}]} for job, address in statics.items()]
    every = {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL}
    return {"global": every, "scrape_configs": jobs}


def targets(pods: Iterable[Object], port: int) -> list[Object]:
    """The targets file: running routers and leaders of TP groups; the other ranks have no metrics."""
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port}"],
            "labels": {
                "namespace": pod["metadata"]["namespace"],
                "pod": pod["metadata"]["name"],
                "roleratio_service": pod["metadata"]["labels"][names.LABEL_SERVICE],
                "roleratio_role": role_of(pod),
            },
        }
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
        if pod.get("status", {}).get("podIP")
        and pod["status"].get("phase") == "Running"
        and pod["metadata"]["labels"].get(names.LWS_WORKER_INDEX, "0") == "0"
    ]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One server: its program, its folder, its port on 127.0.0.1."""

    binary: str
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its command line."""
        return (
            f"--config.file={self.folder / _CONFIG}",
            f"--storage.tsdb.path={self.folder / _DATA}",
            "--storage.tsdb.retention.time=1h",
            "--storage.tsdb.retention.size=256MB",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        )

    def prepare(self, statics: Mapping[str, str]) -> None:
        """Write what it reads; remove what an earlier one stored."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / _CONFIG).write_text(yaml.safe_dump(config(statics), sort_keys=False), encoding="utf-8")
        self._write_targets([])

    async def ready(self, limit_s: float) -> None:
        """Wait until it answers queries. Raises DemoError."""
        try:
            async with asyncio.timeout(limit_s), aiohttp.ClientSession() as session:
                while not await _answers(session, f"{self.url}/-/ready"):
                    await asyncio.sleep(READY_PERIOD_S)
        except TimeoutError:
            raise DemoError(
                f"Prometheus was not ready within {limit_s:g} s; see its log in the report folder"
            ) from None

    async def follow(self, pods: Mapping[Any, Object], port: int) -> None:
        """Keep the targets file as the watch shows the pods, until cancelled."""
        told: list[Object] = []
        while True:
            seen = targets(pods.values(), port)
            if seen != told:
                self._write_targets(seen)
                told = seen
            await asyncio.sleep(FOLLOW_PERIOD_S)

    def _write_targets(self, seen: list[Object]) -> None:
        """Replace the file at once: half a file would end every target."""
        partial = self.folder / f"{_TARGETS}.partial"
        partial.write_text(json.dumps(seen, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.folder / _TARGETS)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
