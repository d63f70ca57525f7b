"""`roleratio localcluster`: a small Kubernetes in one process, or nodes for another one."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoscaler.errors import UserError
from roleratio.commands.common import cluster_errors, configure_logging, kube_config, kubeconfig_out, run_server, whole
from roleratio.commands.common import port as port_number

EXAMPLE = """roleratio localcluster --kubeconfig-out kubeconfig & kubectl --kubeconfig kubeconfig get nodes
  roleratio localcluster --kubeconfig FILE --namespace demo    (nodes for our pods of that namespace)"""

_OWN_ONLY = {"port": "--port", "kubeconfig_out": "--kubeconfig-out"}
_GUEST_ONLY = {"namespace": "--namespace", "lws_controller": "--lws-controller"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the cluster and where it keeps its files."""
    add = parser.add_argument
    add("--port", type=port_number, help="port of the API server on 127.0.0.1 (default: a free one)")
    add("--state-dir", type=Path, default=Path("roleratio-localcluster"), help="logs of the pods")
    add("--kubeconfig-out", type=Path, help="where to write the kubeconfig (default: in --state-dir)")
    add("--nodes", type=whole(1), default=8, help="virtual nodes (default 8)")
    add("--gpus-per-node", type=whole(0), default=4, help="GPUs of each node (default 4)")
    add("--kubeconfig", type=Path, metavar="FILE", help="no cluster of its own: nodes for this one")
    add("--namespace", metavar="NAME", help="with --kubeconfig: the nodes run our own pods of this namespace alone")
    add("--lws-controller", action="store_true", default=None, help="with --kubeconfig: run one for that namespace")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    _check(arguments)
    configure_logging()
    try:
        return _run_guest(arguments) if arguments.kubeconfig else _run_own(arguments)
    except ValueError as error:
        raise UserError(str(error)) from error


def _check(arguments: argparse.Namespace) -> None:
    guest = arguments.kubeconfig is not None
    for key, option in (_OWN_ONLY if guest else _GUEST_ONLY).items():
        if (value := getattr(arguments, key)) is not None:
            why = "there is no cluster of its own" if guest else "only for the nodes of another cluster"
            remedy = "leave one of the two out" if guest else "give --kubeconfig FILE too, or leave it out"
            given = option if value is True else f"{option} {value}"
            raise UserError(f"{given} {'with' if guest else 'without'} --kubeconfig: {why}; {remedy}")
    if guest and not arguments.namespace:
        raise UserError("--kubeconfig without --namespace: say whose pods the nodes run; give --namespace NAME")


def _run_own(arguments: argparse.Namespace) -> int:
    from kubeapi.kinds import RRA
    from localcluster.options import LocalClusterOptions
    from localcluster.run import run as run_cluster
    from roleratio.embedded import fill_in

    if arguments.kubeconfig_out is not None:
        kubeconfig_out("--kubeconfig-out", arguments.kubeconfig_out)
    options = LocalClusterOptions(
        port=arguments.port or 0,
        state_dir=arguments.state_dir,
        kubeconfig_out=arguments.kubeconfig_out or arguments.state_dir / "kubeconfig",
        nodes=arguments.nodes,
        gpus_per_node=arguments.gpus_per_node,
    )
    run_server(run_cluster(options, {RRA: fill_in}))
    return 0


def _run_guest(arguments: argparse.Namespace) -> int:
    from localcluster.options import GuestOptions
    from localcluster.run import run_agent

    options = GuestOptions(
        state_dir=arguments.state_dir,
        kubeconfig=arguments.kubeconfig,
        namespace=arguments.namespace,
        lws_controller=bool(arguments.lws_controller),
        nodes=arguments.nodes,
        gpus_per_node=arguments.gpus_per_node,
    )
    with cluster_errors():
        run_server(run_agent(kube_config(arguments.kubeconfig), options))
    return 0
