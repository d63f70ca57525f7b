"""`roleratio explain`: why a decision was made, from a journal or from a running controller."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from autoscaler.errors import UserError
from roleratio.commands.common import CONTROLLER_PORT

EXAMPLE = """roleratio explain decisions.jsonl --at 90
  roleratio explain --service roleratio-demo/demo --controller http://127.0.0.1:9470"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Either a journal or a service."""
    add = parser.add_argument
    add("journal", nargs="?", type=Path, metavar="JOURNAL", help="a decision journal")
    add("--service", metavar="NS/NAME", help="ask the running controller about this service")
    add("--at", metavar="T", help="journal: seconds into it, a Unix time or an ISO time (default: the last change)")
    add("--controller", default=f"http://127.0.0.1:{CONTROLLER_PORT}", metavar="URL", help="(default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print the page."""
    from autoscaler.drivers.explain import explain_journal, explain_status

    if (arguments.journal is None) == (arguments.service is None):
        raise UserError("give either a JOURNAL or --service NS/NAME")
    if arguments.journal is not None:
        print(explain_journal(arguments.journal, arguments.at))
        return 0
    if arguments.at is not None:
        raise UserError(f"--at {arguments.at}: a running controller knows its last decision only; give its JOURNAL")
    status = _status(arguments.controller)
    services = status.get("services", {})
    if arguments.service not in services:
        known = ", ".join(services) or "none yet"
        raise UserError(f"--service {arguments.service}: not this controller's; it decides about: {known}")
    print(explain_status({"services": {arguments.service: services[arguments.service]}}))
    return 0


def _status(url: str) -> dict[str, Any]:
    try:
        with urlopen(f"{url.rstrip('/')}/v1/status", timeout=5) as answer:
            status = json.load(answer)
    except (URLError, OSError, ValueError) as error:
        raise UserError(f"--controller {url}: no status there: {error}; is the controller running?") from error
    if not isinstance(status, dict):
        raise UserError(f"--controller {url}: not a roleratio controller")
    return status
