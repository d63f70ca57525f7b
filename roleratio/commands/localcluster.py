"""`roleratio localcluster`: a Kubernetes API server, workload controllers and a node agent in one process."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoscaler.errors import UserError
from roleratio.commands.common import configure_logging, kubeconfig_out, port, run_server, whole

EXAMPLE = "roleratio localcluster --kubeconfig-out kubeconfig & kubectl --kubeconfig kubeconfig get nodes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the cluster and where it keeps its files."""
    add = parser.add_argument
    add("--port", type=port, default=0, help="port of the API server on 127.0.0.1 (default: a free one)")
    add("--state-dir", type=Path, default=Path("roleratio-localcluster"), help="logs of the pods")
    add("--kubeconfig-out", type=Path, help="where to write the kubeconfig (default: in --state-dir)")
    add("--nodes", type=whole(1), default=8, help="virtual nodes (default 8)")
    add("--gpus-per-node", type=whole(0), default=4, help="GPUs of each node (default 4)")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    from localcluster.options import LocalClusterOptions
    from localcluster.run import run as run_cluster

    configure_logging()
    if arguments.kubeconfig_out is not None:
        kubeconfig_out("--kubeconfig-out", arguments.kubeconfig_out)
    try:
        options = LocalClusterOptions(
            port=arguments.port,
            state_dir=arguments.state_dir,
            kubeconfig_out=arguments.kubeconfig_out or arguments.state_dir / "kubeconfig",
            nodes=arguments.nodes,
            gpus_per_node=arguments.gpus_per_node,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    run_server(run_cluster(options))
    return 0
