"""`roleratio scheduler`: places TP groups all or nothing; `explain` says why a gang stands where it does; `replay`
decides a recorded decision again."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoscaler.errors import UserError
from roleratio.commands.common import configure_logging, kube_config, port, run_server

if TYPE_CHECKING:
    from gangscheduler.model import Snapshot, Verdicts

EXAMPLE = "roleratio scheduler --kubeconfig kubeconfig --port 9091"
EXAMPLE_EXPLAIN = "roleratio scheduler explain default/decode --kubeconfig kubeconfig"
EXAMPLE_REPLAY = "roleratio scheduler replay decisions/decision-01750000000000.json.gz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The cluster, where to serve metrics and verdicts, and the two questions."""
    _cluster(parser, None)
    parser.add_argument("--port", type=port, help="serve /metrics, /healthz, /readyz, /v1/verdicts and /v1/fit there")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="listen there (default %(default)s)")
    parser.add_argument("--leader-elect", action="store_true", help="schedule only while holding a Lease")
    parser.add_argument(
        "--lease-namespace", metavar="NS", help="where the Lease is (default: the pod's own, or default)"
    )
    parser.add_argument(
        "--choice",
        choices=("pack", "best-fit", "most-allocated", "spread"),
        default="pack",
        help="which domain, where several hold a group (default %(default)s)",
    )
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep the newest decisions there, for replay")
    actions = parser.add_subparsers(dest="action", metavar="explain | replay")
    explain = actions.add_parser(
        "explain", help="print a gang's tree with each level's verdict", epilog=f"example: {EXAMPLE_EXPLAIN}"
    )
    explain.add_argument("gang", metavar="[NAMESPACE/]NAME", help="a PodGroup or CompositePodGroup")
    # What was given before the word `explain` stays.
    _cluster(explain, argparse.SUPPRESS)
    explain.add_argument("--decision", type=Path, metavar="FILE", help="of this recorded decision, not of the cluster")
    replay = actions.add_parser("replay", help="decide a recorded decision again", epilog=f"example: {EXAMPLE_REPLAY}")
    replay.add_argument("snapshot", type=Path, metavar="SNAPSHOT", help="a file of --record, or of GET /v1/decision")


def _cluster(parser: argparse.ArgumentParser, default: object) -> None:
    text = "the cluster (default: as kubectl)"
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", default=default, help=text)
    text = "node labels of the topology levels, outermost first (default: ours)"
    parser.add_argument("--topology", metavar="LABEL,...", default=default, help=text)


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C, or answer."""
    actions = {"explain": _explain, "replay": _replay}
    return actions.get(arguments.action, _schedule)(arguments)


def _schedule(arguments: argparse.Namespace) -> int:
    from gangscheduler.loop import run as run_scheduler
    from gangscheduler.model import Choice
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
        levels=_levels(arguments.topology),
        choice=Choice(arguments.choice),
        record=arguments.record,
    )
    run_server(_until_stopped(scheduler))
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    """Of a recorded decision what it said; of the cluster what would be decided now."""
    from gangscheduler.explain import NoSuchGang, explain
    from gangscheduler.place import place

    if arguments.decision is not None:
        snapshot, verdicts = _read(arguments.decision)
    else:
        snapshot = asyncio.run(_look(arguments))
        verdicts = place(snapshot)
    try:
        print("\n".join(explain(snapshot, verdicts, arguments.gang)))
    except NoSuchGang as error:
        raise UserError(str(error)) from error
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    """Exit code 1 at the first difference."""
    from gangscheduler.place import place

    snapshot, recorded = _read(arguments.snapshot)
    again = place(snapshot)
    size = f"{len(snapshot.nodes)} nodes, {len(snapshot.pods)} pods, {len(snapshot.groups)} groups"
    if again == recorded:
        print(f"{arguments.snapshot}: {size}: {len(again.bindings)} bindings, no difference")
        return 0
    print(f"{arguments.snapshot}: {size}: differs: {_first_difference(recorded, again)}")
    return 1


def _first_difference(recorded: Verdicts, again: Verdicts) -> str:
    for what in ("bindings", "nominations", "groups", "waiting"):
        before, after = (getattr(verdicts, what) for verdicts in (recorded, again))
        for one, other in zip(before, after, strict=False):
            if one != other:
                return f"{what}: recorded {one}, now {other}"
        if len(before) != len(after):
            return f"{what}: recorded {len(before)}, now {len(after)}"
    return "nothing"


def _read(path: Path) -> tuple[Snapshot, Verdicts]:
    from gangscheduler.record import BadRecord
    from gangscheduler.recorder import read

    try:
        return read(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a file of `roleratio scheduler --record`") from error
    except BadRecord as error:
        raise UserError(f"{path}: {error}") from error


async def _look(arguments: argparse.Namespace) -> Snapshot:
    from gangscheduler.look import look
    from kubeapi.client import KubeClient
    from kubeapi.errors import ApiError

    try:
        async with KubeClient(kube_config(arguments.kubeconfig), field_manager="roleratio-explain") as client:
            return await look(client, _levels(arguments.topology))
    except ApiError as error:
        raise UserError(f"cannot read the cluster: {error.message}") from error


def _levels(text: str | None) -> tuple[str, ...]:
    """The node's own name is always the innermost level."""
    from gangscheduler.model import LEVELS
    from kubeapi import names

    if text is None:
        return LEVELS
    given = [part.strip() for part in text.split(",")]
    if not all(given) or len(set(given)) < len(given):
        raise UserError(f"--topology {text}: expected different node labels, outermost first, such as zone,rack")
    return (*(label for label in given if label != names.HOSTNAME), names.HOSTNAME)


async def _until_stopped(running: Coroutine[Any, Any, None]) -> None:
    """SIGTERM is a cancellation, as Ctrl-C is, so that the Lease is given back; only Ctrl-C shows in the exit code."""
    task = asyncio.ensure_future(running)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
