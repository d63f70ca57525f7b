"""`roleratio controller`: scales one service's prefill and decode groups."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from autoscaler.errors import UserError
from roleratio.commands.common import CONTROLLER_PORT, cluster_errors, configure_logging, kube_config, port, run_server

if TYPE_CHECKING:
    from autoscaler.drivers.live import ControllerOptions

EXAMPLE = "roleratio controller --settings settings.yaml --journal decisions.jsonl --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings and edges; also what to do only once, or only in words."""
    add_inputs(parser)
    add = parser.add_argument
    add("--port", type=port, default=CONTROLLER_PORT, help="status page and metrics (default %(default)s)")
    add("--journal", type=Path, metavar="FILE", help="write every decision there, as JSON lines")
    add("--dry-run", action="store_true", help="do everything but the patches, and print those")
    add("--once", action="store_true", help="end after the first decision that knows the demand")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """What `controller` and `recommend` have in common."""
    add = parser.add_argument
    add("--settings", type=Path, required=True, metavar="FILE", help="a RoleRatioAutoscaler object (YAML)")
    add("--kubeconfig", type=Path, metavar="FILE", help="the cluster (default: as kubectl)")
    add("--prometheus", metavar="URL", help="read metrics there (default: from settings, else from the pods)")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    from dataclasses import replace

    from autoscaler.drivers.live import run as run_controller

    configure_logging()
    options = replace(
        controller_options(arguments),
        port=None if arguments.once else arguments.port,
        journal=arguments.journal,
        dry_run=arguments.dry_run,
        once=arguments.once,
    )
    with cluster_errors():
        run_server(run_controller(options))
    return 0


def controller_options(arguments: argparse.Namespace) -> ControllerOptions:
    """Settings, profile and cluster, all checked. Raises UserError."""
    from autoscaler.drivers.live import ControllerOptions
    from autoscaler.settings import load_settings
    from perfmodel.profile import ProfileError, load_profile

    settings = load_settings(arguments.settings)
    if arguments.prometheus is not None:
        if not arguments.prometheus.startswith(("http://", "https://")):
            raise UserError(f"--prometheus {arguments.prometheus}: expected a URL that begins with http:// or https://")
        metrics = settings.spec.metrics.model_copy(update={"prometheus_url": arguments.prometheus})
        settings = settings.model_copy(update={"spec": settings.spec.model_copy(update={"metrics": metrics})})
    try:
        profile = load_profile(settings.spec.profile)
    except ProfileError as error:
        raise UserError(*(f"{arguments.settings}: spec.profile: {problem}" for problem in error.problems)) from error
    return ControllerOptions(settings=settings, profile=profile, config=kube_config(arguments.kubeconfig))
