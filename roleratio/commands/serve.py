"""`roleratio serve router|prefill|decode`: a serving process, as a pod runs it.

Rule: this path stays light. A worker imports its engine and a small HTTP server, a rank the standard library.
"""

from __future__ import annotations

import argparse
from collections.abc import Coroutine
from typing import Any

from autoscaler.errors import UserError
from roleratio.commands.common import configure_logging, number, port, run_server, whole

EXAMPLE = "roleratio serve decode --host 127.0.0.1 --port 8000 --load-s 5 --max-num-seqs 16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of all three; what is left out comes from the pod's environment or the profile."""
    parser.add_argument("part", choices=("router", "prefill", "decode"), help="which process to be")
    add = parser.add_argument
    add("--host", metavar="IP", help="address to listen on (default: $POD_IP, else 127.0.0.1)")
    add("--port", type=port, help="HTTP port (default 8000; ranks above 0: 8002)")
    add("--service", metavar="NS/NAME", help="router: the service whose workers it discovers")
    add("--kubeconfig", metavar="FILE", help="router: the cluster (default: as kubectl)")
    add("--endpoint", action="append", metavar="ROLE=URL", help="router: a worker, instead of --service")
    add("--max-wait-s", type=number(0), help="router: how long a request waits for a ready worker")
    add("--model", dest="model_name", metavar="NAME", help="the model name that is served")
    add("--profile", metavar="NAME|FILE", help="performance profile (default: the shipped one)")
    add("--max-model-len", type=whole(1), metavar="TOKENS", help="longest prompt plus answer")
    add("--load-s", type=number(0), help="worker: seconds that loading the weights takes")
    add("--max-num-seqs", type=whole(1), help="worker: most sequences at once")
    add("--kv-capacity-tokens", type=whole(1), metavar="TOKENS", help="worker: room in the KV cache")
    add("--transfer-gb-per-s", type=number(0, above=True), help="worker: bandwidth of its KV link")
    add("--lease-s", type=number(0, above=True), help="prefill: how long computed KV waits to be pulled")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM has drained it."""
    from perfmodel.profile import ProfileError

    configure_logging()
    try:
        run_server(_server(arguments))
    except ProfileError as error:
        raise UserError(*error.problems) from error
    return 0


def _server(arguments: argparse.Namespace) -> Coroutine[Any, Any, None]:
    from serving.options import RankOptions, RouterOptions, WorkerOptions, env_whole

    try:
        if arguments.part == "router":
            from serving import router

            return router.run(RouterOptions(**_given(arguments, RouterOptions), endpoints=_endpoints(arguments)))
        if env_whole("LWS_WORKER_INDEX", 0) > 0:
            from serving import rank

            return rank.run(RankOptions(**_given(arguments, RankOptions)))
        options = WorkerOptions(**_given(arguments, WorkerOptions))
    except ValueError as error:
        raise UserError(str(error)) from error
    if arguments.part == "prefill":
        from serving import prefill

        return prefill.run(options)
    from serving import decode

    return decode.run(options)


def _given(arguments: argparse.Namespace, options: type) -> dict[str, Any]:
    """What was typed and these options know; an option that is not theirs is passed over, not an error,
    so that the pods of a group can share one command line."""
    known = options.__dataclass_fields__  # type: ignore[attr-defined]
    return {key: value for key, value in vars(arguments).items() if key in known and value is not None}


def _endpoints(arguments: argparse.Namespace) -> tuple[Any, ...]:
    from serving.options import StaticEndpoint

    found = []
    for text in arguments.endpoint or ():
        role, _, url = text.partition("=")
        if role not in ("prefill", "decode") or not url.startswith("http"):
            raise UserError(f"--endpoint {text}: expected prefill=URL or decode=URL with an http URL")
        found.append(StaticEndpoint(role=role, url=url))
    if not found and not arguments.service:
        raise UserError("serve router needs its workers: give --service NS/NAME, or --endpoint ROLE=URL for each")
    return tuple(found)
