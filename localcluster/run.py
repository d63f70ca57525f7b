"""One process: a whole local cluster (API server, workload controllers, node agent), or what somebody else's needs
to run the demo: the node agent, and where there is none the LeaderWorkerSet controller.

Rule: it ends in the reverse order of its start, and leaves no process behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from kubeapi import names
from kubeapi.config import Config
from localcluster.agent import node_agent
from localcluster.agent.admission import refusal
from localcluster.apiserver import ApiServer, Models
from localcluster.controllers import controllers
from localcluster.kubeconfig import write_kubeconfig
from localcluster.options import GuestOptions, LocalClusterOptions

log = logging.getLogger(__name__)

LOGS = "logs"


async def run(options: LocalClusterOptions, models: Models | None = None) -> None:
    """Serve a local cluster until SIGTERM or SIGINT. Raises OSError when the port is taken."""
    await _until_stopped(local_cluster(options, models))


async def run_agent(config: Config, options: GuestOptions) -> None:
    """Give a cluster its nodes until SIGTERM or SIGINT. Raises ApiError when it refuses them."""
    await _until_stopped(agent_for(config, options))


@asynccontextmanager
async def local_cluster(options: LocalClusterOptions, models: Models | None = None) -> AsyncIterator[str]:
    """A running cluster, as its URL. The kubeconfig appears when everything is ready. `models` know custom kinds."""
    began = time.monotonic()
    log_dir = _log_dir(options.state_dir)
    options.kubeconfig_out.unlink(missing_ok=True)
    async with ApiServer(options.port, log_dir, models) as api:
        config = Config(api.url)
        async with node_agent(options, config, options.kubeconfig_out, log_dir), controllers(config):
            _write_kubeconfig(api, options.kubeconfig_out)
            log.info("localcluster: ready in %.2f s: %s", time.monotonic() - began, api.url)
            yield api.url


@asynccontextmanager
async def agent_for(config: Config, options: GuestOptions) -> AsyncIterator[None]:
    """Nodes of another cluster, and what runs on them. Raises ApiError when it refuses the nodes."""
    log_dir = _log_dir(options.state_dir)
    ours = (names.MANAGER_LWS,) if options.lws_controller else ()
    refuses = partial(refusal, namespace=options.namespace)
    async with (
        node_agent(options, config, options.kubeconfig, log_dir, refuses),
        controllers(config, ours, options.namespace),
    ):
        log.info("localcluster: %d nodes for %s", options.nodes, config.server)
        yield


async def _until_stopped(running: AbstractAsyncContextManager[object]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running:
        await stop.wait()
        log.info("localcluster: stopping")


def _log_dir(state_dir: Path) -> Path:
    log_dir = state_dir / LOGS
    log_dir.mkdir(parents=True, exist_ok=True)
    return log_dir


def _write_kubeconfig(api: ApiServer, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    write_kubeconfig(api.url, unfinished)
    unfinished.replace(path)
