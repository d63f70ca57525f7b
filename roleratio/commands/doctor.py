"""`roleratio doctor`: what the controller's selectors match, what it can read, and whether it could scale.

Rule: on a terminal, lines are folded to its width under their beginnings; in a pipe each finding stays one line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from autoscaler.errors import UserError
from roleratio.commands.common import cluster_errors, configure_logging, kube_config

if TYPE_CHECKING:
    from autoscaler.drivers.doctor import Diagnosis, DoctorOptions
    from autoscaler.drivers.matched import RoleSeen

EXAMPLE = """roleratio doctor --service team-a/chat
  roleratio doctor --as system:serviceaccount:roleratio-system:roleratio-controller"""


_BEGINNING = re.compile(r" *(?:- |(?:metrics|prefill|decode|router|demand) +)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which services, where, and the form of the answer."""
    add = parser.add_argument
    add("--service", metavar="NS/NAME", help="only this one (default: every service of the cluster)")
    add("--settings", type=Path, metavar="FILE", help="the service of a RoleRatioAutoscaler object (YAML)")
    add("--kubeconfig", type=Path, metavar="FILE", help="the cluster (default: as kubectl)")
    add("--as", dest="user", metavar="USER", help="whose rights are asked (default: your own)")
    add("-o", "--output", choices=("table", "json"), default="table", help="(default table)")


def run(arguments: argparse.Namespace) -> int:
    """Look, say, and judge: 0 if every asked service could be scaled, else 1."""
    import logging

    from autoscaler.drivers.doctor import LOOKED_FOR, diagnose

    # What the ticks warn of is said in full below.
    configure_logging(logging.ERROR)
    options = _options(arguments)
    with cluster_errors():
        found = asyncio.run(diagnose(options))
    if arguments.output == "json":
        print(json.dumps([asdict(one) for one in found], indent=2))
    elif found:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n\n".join("\n".join(folded(_lines(one), width)) for one in found))
    if not found:
        print(f"roleratio doctor: no service: looked for {LOOKED_FOR}, and found none", file=sys.stderr)
    return 1 if not found or any(one.cannot for one in found) else 0


def _options(arguments: argparse.Namespace) -> DoctorOptions:
    from autoscaler.drivers.doctor import DoctorOptions
    from autoscaler.settings import load_settings
    from perfmodel.profile import ProfileError, load_profile

    if arguments.service is not None and not all(arguments.service.partition("/")):
        raise UserError(f"--service {arguments.service}: expected NAMESPACE/SERVICE, like team-a/chat")
    if arguments.settings is None:
        return DoctorOptions(kube_config(arguments.kubeconfig), arguments.service, user=arguments.user)
    if arguments.service is not None:
        raise UserError("--service with --settings: the file names its service; leave one of them out")
    settings = load_settings(arguments.settings)
    try:
        profile = load_profile(settings.spec.profile)
    except ProfileError as error:
        raise UserError(*(f"{arguments.settings}: spec.profile: {problem}" for problem in error.problems)) from error
    return DoctorOptions(kube_config(arguments.kubeconfig), None, settings, profile, arguments.user)


def _lines(found: Diagnosis) -> Iterator[str]:
    """One service for people."""
    from autoscaler.drivers.doctor import unreadable_lines

    yield f"{found.name}  (mode {found.mode}, by {found.source})"
    if found.metrics:
        yield f"  {'metrics':<8} from {found.metrics}"
    yield from (line for role in found.roles for line in _role(role))
    if found.demand:
        yield f"  {'demand':<8} {found.demand}"
    yield from _section("cannot be read", unreadable_lines(found.unreadable))
    yield from _section("near misses", found.near)
    yield from _section("rights that are missing", found.lacks)
    yield from _section("also", found.also)
    yield f"  {_verdict(found)}"


def folded(lines: Iterable[str], width: int | None) -> Iterator[str]:
    """Lines of at most `width` columns where words allow; as they are without one."""
    for line in lines:
        if width is None or len(line) <= width:
            yield line
            continue
        begun = _BEGINNING.match(line)
        hang = " " * max(4, begun.end() if begun else 0)
        yield from textwrap.wrap(line, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)


def _verdict(found: Diagnosis) -> str:
    if found.cannot:
        return f"cannot scale: {found.cannot}"
    if found.source == "labels alone":
        return "can scale, but is only recommended for: create an rra that names it"
    return "can scale" if found.mode == "Active" else f"can scale, but mode {found.mode} only tells: set mode Active"


def _section(name: str, entries: Iterable[str]) -> Iterator[str]:
    lines = [f"    - {text}" for text in entries]
    yield from [f"  {name}:", *lines] if lines else []


def _role(seen: RoleSeen) -> Iterator[str]:
    """What the role's selector matched; what its pages gave; what they did not."""
    workloads = f" ({', '.join(seen.workloads)})" if seen.workloads else ""
    yield f"  {seen.role:<8} {_count(len(seen.workloads), 'workload')}{workloads}; {_count(seen.pods, 'pod')}"
    if seen.groups:
        groups = ", ".join(f"{count} {what}" for what, count in seen.groups.items())
        yield f"  {'':<8} groups: {groups}; {seen.minimum}"
    if seen.problem:
        yield f"  {'':<8} {seen.problem}"
    speak = Counter(seen.engines.values())
    engines = ", ".join(f"{name} on {_count(count, 'pod')}" for name, count in sorted(speak.items()))
    if seen.pages_wanted or seen.pages_read:
        what = f": {engines}; {seen.series} series" if engines else ""
        yield f"  {'':<8} {seen.pages_read} of {_count(seen.pages_wanted, 'page')} read{what}"
    yield from (f"  {'':<8} {line}" for line in _signals(seen))


def _signals(seen: RoleSeen) -> Iterator[str]:
    """Signals of one age together, then those that nobody gives, by their reasons."""
    ages: dict[str, list[str]] = {}
    lacking: dict[str, list[str]] = {}
    for name, signal in seen.signals.items():
        if signal.age_s is not None:
            pods = "" if signal.pods == seen.pages_read else f" ({signal.pods} of {_count(seen.pages_read, 'pod')})"
            ages.setdefault(f"{signal.age_s:.1f} s old", []).append(name + pods)
        else:
            lacking.setdefault("; ".join(signal.missing), []).append(name)
    for age, signals in ages.items():
        yield f"{', '.join(signals)}: {age}"
    for why, signals in lacking.items():
        yield f"no {', '.join(signals)}: {why}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
