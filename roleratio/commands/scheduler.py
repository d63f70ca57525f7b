"""`roleratio scheduler`: places TP groups all or nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from roleratio.commands.common import configure_logging, kube_config, port, run_server

EXAMPLE = "roleratio scheduler --kubeconfig kubeconfig --port 9091"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The cluster, and where to serve metrics and verdicts."""
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="the cluster (default: as kubectl)")
    parser.add_argument("--port", type=port, help="serve /metrics, /healthz and /v1/verdicts on 127.0.0.1")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    from gangscheduler.loop import run as run_scheduler

    configure_logging()
    run_server(run_scheduler(kube_config(arguments.kubeconfig), http_port=arguments.port))
    return 0
