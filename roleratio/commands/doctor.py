"""`roleratio doctor`: what the controller's selectors match, what it can read, and whether it could scale."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from roleratio.commands.common import cluster_errors, configure_logging, kube_config

if TYPE_CHECKING:
    from autoscaler.drivers.doctor import Diagnosis, DoctorOptions, RoleSeen

EXAMPLE = "roleratio doctor --service team-a/chat"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which services, where, and the form of the answer."""
    add = parser.add_argument
    add("--service", metavar="NS/NAME", help="only this one (default: every service of the cluster)")
    add("--settings", type=Path, metavar="FILE", help="the service of a RoleRatioAutoscaler object (YAML)")
    add("--kubeconfig", type=Path, metavar="FILE", help="the cluster (default: as kubectl)")
    add("-o", "--output", choices=("table", "json"), default="table", help="(default table)")


def run(arguments: argparse.Namespace) -> int:
    """Look, say, and judge: 0 if every asked service could be scaled, else 1."""
    import logging

    from autoscaler.drivers.doctor import diagnose

    configure_logging(logging.ERROR)
    with cluster_errors():
        found = asyncio.run(diagnose(_options(arguments)))
    if arguments.output == "json":
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        print("\n\n".join("\n".join(_lines(one)) for one in found))
    return 1 if any(one.cannot for one in found) else 0


def _options(arguments: argparse.Namespace) -> DoctorOptions:
    from autoscaler.drivers.doctor import DoctorOptions
    from autoscaler.errors import UserError
    from autoscaler.settings import load_settings
    from perfmodel.profile import ProfileError, load_profile

    config = kube_config(arguments.kubeconfig)
    if arguments.service is not None and arguments.service.count("/") != 1:
        raise UserError(f"--service {arguments.service}: expected NAMESPACE/SERVICE, like team-a/chat")
    if arguments.settings is None:
        return DoctorOptions(config, arguments.service)
    if arguments.service is not None:
        raise UserError("--service with --settings: the file names its service; leave one of them out")
    settings = load_settings(arguments.settings)
    try:
        return DoctorOptions(config, settings=settings, profile=load_profile(settings.spec.profile))
    except ProfileError as error:
        raise UserError(*(f"{arguments.settings}: spec.profile: {problem}" for problem in error.problems)) from error


def _lines(found: Diagnosis) -> Iterator[str]:
    """One service for people."""
    yield f"{found.name}  (mode {found.mode}, by {found.source})"
    yield from (line for role in found.roles for line in _role(role))
    if found.demand:
        yield f"  {'demand':<8} {found.demand}"
    if found.findings:
        yield "  found:"
        yield from (f"    - {text}" for text in found.findings)
    yield f"  cannot scale: {found.cannot}" if found.cannot else "  can scale"


def _role(seen: RoleSeen) -> Iterator[str]:
    engines = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in seen.engines.items())
    age = "" if seen.age_s is None else f", {seen.age_s:.1f} s old at most"
    what = f" ({engines}; {seen.series} series{age})" if engines else ""
    pages = f"{seen.pages_read} of {seen.pages_wanted} pages read{what}"
    parts = [part for part in (seen.workload, seen.groups, _count(seen.pods, "pod"), pages) if part]
    yield f"  {seen.role:<8} {'; '.join(parts)}"
    if seen.signals:
        yield f"  {'':<8} {', '.join(f'{name} {value}' for name, value in seen.signals.items())}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
