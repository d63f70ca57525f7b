"""`roleratio demo`: everything at once, from arrival to scaled TP groups, and a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoscaler.errors import UserError
from roleratio.commands.common import kube_config, kubeconfig_out, number, whole

EXAMPLE = """roleratio demo --headless --report out
  roleratio demo --trace azure_llm_2023_conv.csv.gz --start-s 1800 --speed 2 --duration-s 240
  roleratio demo --kubeconfig ~/.kube/config"""

_TRACE_ONLY = {"start_s": "--start-s", "speed": "--speed"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to send, how the cluster behaves, what to write."""
    add = parser.add_argument
    add("--trace", type=Path, metavar="FILE", help="replay an Azure CSV or Mooncake JSONL (gzip or not)")
    add("--start-s", type=number(0), metavar="T", help="trace: begin this many seconds into it (default 0)")
    add("--speed", type=number(0, above=True), metavar="X", help="trace: this many times as fast (default 1)")
    add("--duration-s", type=number(4), metavar="S", help="length of the load (default: 240, or the whole trace)")
    add("--cold-start-s", type=number(0), default=8.0, metavar="C", help="start of a TP group (default 8)")
    add("--seed", type=whole(0), default=7, metavar="N", help="of the built-in load and of prompts (default 7)")
    add("--static", type=_static, metavar="P,D", help="fixed numbers of groups, no controller")
    add("--headless", action="store_true", help="a line every few seconds instead of the live view")
    add("--report", type=Path, default=Path("roleratio-report"), metavar="DIR", help="(default roleratio-report)")
    add(
        "--prometheus",
        nargs="?",
        const="prometheus",
        metavar="BINARY",
        help="start a Prometheus, and let the controller read through it (default binary: prometheus, from PATH)",
    )
    add("--kubeconfig-out", type=Path, metavar="FILE", help="where to write the kubeconfig, for kubectl")
    add("--kubeconfig", type=Path, metavar="FILE", help="run in this cluster instead of an embedded one, and clean up")
    add("--yes", action="store_true", help="with --kubeconfig: also in a cluster that is not on this machine")


def run(arguments: argparse.Namespace) -> int:
    """Check everything that was typed, then start."""
    for key, option in _TRACE_ONLY.items():
        if getattr(arguments, key) is not None and arguments.trace is None:
            raise UserError(
                f"{option} {getattr(arguments, key):g}: only with --trace; give --trace FILE or leave it out"
            )
    if arguments.kubeconfig_out is not None:
        kubeconfig_out("--kubeconfig-out", arguments.kubeconfig_out)
    _check_guest(arguments)
    from roleratio.demo.plan import make_plan
    from roleratio.demo.run import run_demo

    return run_demo(make_plan(arguments))


def _check_guest(arguments: argparse.Namespace) -> None:
    if arguments.kubeconfig is None:
        if arguments.yes:
            raise UserError("--yes: only with --kubeconfig; give --kubeconfig FILE or leave it out")
        return
    if arguments.kubeconfig_out is not None:
        raise UserError(
            f"--kubeconfig-out {arguments.kubeconfig_out} with --kubeconfig: there is no new cluster to write one for; "
            "leave one of the two out"
        )
    from roleratio.demo.guest import check_server

    check_server(kube_config(arguments.kubeconfig), arguments.yes)


def _static(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected P,D, two whole numbers of at least 1, such as 2,3")
    return int(parts[0]), int(parts[1])
