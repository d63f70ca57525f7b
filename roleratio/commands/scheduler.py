"""`roleratio scheduler`: places TP groups all or nothing."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from autoscaler.errors import UserError
from roleratio.commands.common import configure_logging, kube_config, port, run_server

EXAMPLE = "roleratio scheduler --kubeconfig kubeconfig --port 9091"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The cluster, and where to serve metrics and verdicts."""
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="the cluster (default: as kubectl)")
    parser.add_argument("--port", type=port, help="serve /metrics, /healthz, /readyz and /v1/verdicts there")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="listen there (default %(default)s)")
    parser.add_argument("--leader-elect", action="store_true", help="schedule only while holding a Lease")
    parser.add_argument(
        "--lease-namespace", metavar="NS", help="where the Lease is (default: the pod's own, or default)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    from gangscheduler.loop import run as run_scheduler
    from kubeapi.config import own_namespace

    if arguments.lease_namespace is not None and not arguments.leader_elect:
        raise UserError(
            f"--lease-namespace {arguments.lease_namespace} without --leader-elect: there is no Lease to hold; "
            "give --leader-elect too, or leave it out"
        )
    configure_logging()
    scheduler = run_scheduler(
        kube_config(arguments.kubeconfig),
        http_host=arguments.host,
        http_port=arguments.port,
        lease_namespace=(arguments.lease_namespace or own_namespace()) if arguments.leader_elect else None,
    )
    run_server(_until_stopped(scheduler))
    return 0


async def _until_stopped(running: Coroutine[Any, Any, None]) -> None:
    """SIGTERM is a cancellation, as Ctrl-C is, so that the Lease is given back; only Ctrl-C shows in the exit code."""
    task = asyncio.ensure_future(running)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
