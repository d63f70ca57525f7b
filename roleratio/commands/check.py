"""`roleratio check FILE`: what a file is, and every problem in it.

Rule: the kind is told by content; only where the content says nothing does the name count.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoscaler.errors import UserError

EXAMPLE = "roleratio check settings.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file."""
    parser.add_argument("file", type=Path, metavar="FILE", help="settings, profile, trace or journal")


def run(arguments: argparse.Namespace) -> int:
    """Say what it is. Raises UserError with every problem."""
    path: Path = arguments.file
    try:
        head = path.open("rb").read(65_536)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give an existing file") from error
    print(f"{path}: {_CHECKS[kind_of(head, path.name)](path)}")
    return 0


def kind_of(head: bytes, name: str) -> str:
    """trace, journal, profile or settings, from the first bytes and the name."""
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff").lstrip()
    if head.startswith(b"\x1f\x8b") or text.startswith("TIMESTAMP"):
        return "trace"
    first = _json(text.partition("\n")[0])
    if "timestamp" in first:
        return "trace"
    if "type" in first:
        return "journal"
    if text.startswith("{") and '"format"' in text:
        return "profile"
    return "trace" if name.endswith((".csv", ".jsonl")) else "settings"


def _json(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _settings(path: Path) -> str:
    from autoscaler.settings import load_settings
    from perfmodel.profile import ProfileError, load_profile

    settings = load_settings(path)
    try:
        load_profile(settings.spec.profile)
    except ProfileError as error:
        raise UserError(*(f"{path}: spec.profile: {problem}" for problem in error.problems)) from error
    spec = settings.spec
    return (
        f"settings of {settings.metadata.namespace}/{spec.service}: profile {spec.profile}, {spec.gpu_budget} GPUs, "
        f"TTFT p{spec.slo.ttft.percentile:g} {spec.slo.ttft.target_ms:g} ms, "
        f"ITL p{spec.slo.itl.percentile:g} {spec.slo.itl.target_ms:g} ms; no problem found"
    )


def _profile(path: Path) -> str:
    from perfmodel.profile import ProfileError, load_profile

    try:
        profile = load_profile(path)
    except ProfileError as error:
        raise UserError(*error.problems) from error
    made = profile.provenance
    engine = f"{made.backend} {made.backend_version}"
    return f"profile of {made.model} on {profile.gpus} x {made.gpu} ({engine}); no problem found"


def _trace(path: Path) -> str:
    from roleratio.traces import read

    trace = read(path)
    count = len(trace.arrivals)
    inputs = sum(arrival.input_tokens for arrival in trace.arrivals) / count
    outputs = sum(arrival.output_tokens for arrival in trace.arrivals) / count
    return (
        f"trace ({trace.format}): {count:,} requests over {trace.span_s:,.0f} s, "
        f"mean {inputs:,.0f} input and {outputs:,.0f} output tokens; no problem found"
    )


def _journal(path: Path) -> str:
    from autoscaler.adapters.journal import read_journal

    journal = read_journal(path)
    return f"journal: {len(journal.ticks):,} decisions; no problem found (roleratio replay decides them again)"


_CHECKS: dict[str, Callable[[Path], str]] = {
    "settings": _settings,
    "profile": _profile,
    "trace": _trace,
    "journal": _journal,
}
