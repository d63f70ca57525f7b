"""`roleratio recommend`: one decision, printed; nothing is changed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from roleratio.commands.common import cluster_errors, configure_logging
from roleratio.commands.controller import add_inputs, controller_options

EXAMPLE = "roleratio recommend --settings settings.yaml -o yaml"

_COLUMNS = ("role", "current", "ready", "needed", "recommended", "floor", "min_count_pods")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The controller's inputs and the form of the answer."""
    add_inputs(parser, "a RoleRatioAutoscaler object (YAML)", required=True)
    parser.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table", help="(default table)")


def run(arguments: argparse.Namespace) -> int:
    """Look, decide, print."""
    import asyncio
    import logging

    from autoscaler.drivers.recommend import recommend

    configure_logging(logging.WARNING)
    with cluster_errors():
        data = asyncio.run(recommend(controller_options(arguments))).data()
    if arguments.output == "json":
        print(json.dumps(data, indent=2))
    elif arguments.output == "yaml":
        import yaml

        yaml.safe_dump(data, sys.stdout, sort_keys=False)
    else:
        print(table(data))
    return 0


def table(data: Mapping[str, Any]) -> str:
    """The recommendation for people: a row per role, then the patch and the reasons."""
    rows = [[head.upper().replace("_", " ") for head in _COLUMNS]]
    rows += [["-" if row[key] is None else str(row[key]) for key in _COLUMNS] for row in data["roles"]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", f"would send: {data['patch'] or 'nothing'}", "why:"]
    lines += [f"  {reason}" for reason in data["why"]]
    return "\n".join(lines)
