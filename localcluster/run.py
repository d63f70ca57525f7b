"""The local cluster in one process: API server, workload controllers, node agent.

Rule: it ends in the reverse order of its start, and leaves no process behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubeapi.config import Config
from localcluster.agent import node_agent
from localcluster.apiserver import ApiServer
from localcluster.controllers import controllers
from localcluster.options import LocalClusterOptions

log = logging.getLogger(__name__)

LOGS = "logs"


async def run(options: LocalClusterOptions) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the port is taken."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with local_cluster(options):
        await stop.wait()
        log.info("localcluster: stopping")


@asynccontextmanager
async def local_cluster(options: LocalClusterOptions) -> AsyncIterator[str]:
    """A running cluster, as its URL. The kubeconfig appears when everything is ready."""
    began = time.monotonic()
    log_dir = options.state_dir / LOGS
    log_dir.mkdir(parents=True, exist_ok=True)
    options.kubeconfig_out.unlink(missing_ok=True)
    async with ApiServer("127.0.0.1", options.port, log_dir) as api:
        config = Config(api.url)
        async with node_agent(options, config, log_dir), controllers(config):
            _write_kubeconfig(api, options.kubeconfig_out)
            log.info("localcluster: ready in %.2f s: %s", time.monotonic() - began, api.url)
            yield api.url


def _write_kubeconfig(api: ApiServer, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    api.write_kubeconfig(unfinished)
    unfinished.replace(path)
