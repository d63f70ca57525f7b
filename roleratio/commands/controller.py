"""`roleratio controller`: scales prefill and decode groups, of one service or of all that the cluster declares."""

from __future__ import annotations

import argparse
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoscaler.errors import UserError
from roleratio.commands.common import CONTROLLER_PORT, cluster_errors, configure_logging, kube_config, port, run_server

if TYPE_CHECKING:
    from autoscaler.drivers.live import ControllerOptions

EXAMPLE = "roleratio controller --settings settings.yaml --journal decisions.jsonl --dry-run"

_LEASE_NAMESPACE = "where the Lease is (default: with --settings the service's, else the pod's own, or default)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings and edges; also what to do only once, or only in words."""
    add_inputs(parser, "a RoleRatioAutoscaler object (YAML); without it, all those in the cluster are followed")
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="listen there (default %(default)s)")
    add("--port", type=port, default=CONTROLLER_PORT, help="status page and metrics (default %(default)s)")
    add("--journal", type=Path, metavar="FILE", help="write every decision there, as JSON lines")
    add("--dry-run", action="store_true", help="do everything but the patches, and print those")
    add("--once", action="store_true", help="end after the first decision that knows the demand")
    add("--leader-elect", action="store_true", help="act only while holding a Lease")
    add("--lease-namespace", metavar="NS", help=_LEASE_NAMESPACE)


def add_inputs(parser: argparse.ArgumentParser, settings_help: str, *, required: bool = False) -> None:
    """What `controller` and `recommend` have in common."""
    add = parser.add_argument
    add("--settings", type=Path, required=required, metavar="FILE", help=settings_help)
    add("--kubeconfig", type=Path, metavar="FILE", help="the cluster (default: as kubectl)")
    add("--prometheus", metavar="URL", help="read metrics there (default: from settings, else from the pods)")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    configure_logging()
    with cluster_errors():
        run_server(_one_service(arguments) if arguments.settings else _all_services(arguments))
    return 0


def _one_service(arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    from dataclasses import replace

    from autoscaler.drivers.live import run as run_controller

    options = controller_options(arguments)
    # Whoever scales this service, from wherever, competes for the same Lease: it is where the service is.
    lease_namespace = arguments.lease_namespace or options.settings.metadata.namespace
    options = replace(
        options,
        host=arguments.host,
        port=None if arguments.once else arguments.port,
        journal=arguments.journal,
        dry_run=arguments.dry_run,
        once=arguments.once,
        lease_namespace=lease_namespace if arguments.leader_elect else None,
    )
    return run_controller(options)


def _all_services(arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    from autoscaler.drivers.manager import ManagerOptions
    from autoscaler.drivers.manager import run as run_manager
    from kubeapi.config import own_namespace

    needs_settings = {"--once": arguments.once, "--journal": arguments.journal, "--prometheus": arguments.prometheus}
    for option, given in needs_settings.items():
        if given:
            raise UserError(f"{option} is for one service; give its settings with --settings FILE, or leave it out")
    options = ManagerOptions(
        config=kube_config(arguments.kubeconfig),
        host=arguments.host,
        port=arguments.port,
        dry_run=arguments.dry_run,
        lease_namespace=(arguments.lease_namespace or own_namespace()) if arguments.leader_elect else None,
    )
    return run_manager(options)


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
