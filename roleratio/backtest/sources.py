"""Where the demand of a backtest comes from: the options of the command line as one `Source`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoscaler.adapters.past import Period, selector_of
from autoscaler.errors import UserError
from autoscaler.settings import MetricsSettings, problem_line
from roleratio import traces
from roleratio.backtest.fleet import Known
from roleratio.backtest.journal import recorded
from roleratio.backtest.prometheus import measured, step_for
from roleratio.bars import bars
from roleratio.measured import Gaps, Measured, moment
from roleratio.problems import collected

SOURCES = ("prometheus", "trace", "journal")
OF_PROMETHEUS = ("service", "selector", "since", "until", "step", "token_file", "ca_file", "headers_file")
OF_RATES = ("gaps", "burstiness", "spread")
"""Options that only some sources use."""
SINCE_S = 7 * 86_400.0
TIMEOUT_S = 60.0
"""A range takes longer than the instant query of a controller."""


@dataclass(frozen=True, slots=True)
class Source:
    """What came: measured rates, or a trace with its duration; and what it says of the fleet."""

    name: str
    known: Known
    measured: Measured | None = None
    trace: Path | None = None
    duration_s: float = 0.0
    notes: tuple[str, ...] = ()


def check_one(arguments: argparse.Namespace) -> None:
    """Raises UserError for none, for several, and for options of another one."""
    given = [name for name in SOURCES if getattr(arguments, name) is not None]
    if not given:
        raise UserError("no demand: give one of --prometheus URL, --trace FILE and --journal FILE")
    if len(given) > 1:
        raise UserError(f"{' and '.join(f'--{name}' for name in given)}: give one source of demand, not {len(given)}")
    others = {"prometheus": (), "journal": OF_PROMETHEUS, "trace": (*OF_PROMETHEUS, *OF_RATES)}[given[0]]
    wrong = [name for name in others if getattr(arguments, name) is not None]
    if wrong:
        raise UserError(*(f"--{name.replace('_', '-')}: is not for --{given[0]}; leave it out" for name in wrong))


def read(arguments: argparse.Namespace, known: Known) -> Source:
    """The source that is given. Raises UserError."""
    if arguments.trace is not None:
        return _trace(arguments.trace, known)
    if arguments.journal is not None:
        return _journal(arguments.journal, known)
    return _prometheus(arguments, known)


def _trace(path: Path, known: Known) -> Source:
    trace = traces.read(path)
    said = f"demand: trace {path} ({trace.format}), each request as it came"
    return Source(path.name, known, trace=path.resolve(), duration_s=max(1.0, trace.span_s + 0.001), notes=(said,))


def _journal(paths: list[Path], known: Known) -> Source:
    found = recorded(paths)
    known = replace(
        known,
        settings=known.settings or found.settings,
        origin=known.origin or "as recorded",
        profile=None if known.settings else found.profile,
        fleet=found.fleet,
        cold_starts_s=found.cold_starts_s,
    )
    hours = (
        () if found.gpu_hours is None else (f"recorded: the fleet itself took {found.gpu_hours:.3f} GPU-hours then",)
    )
    return Source(found.measured.source, known, found.measured, notes=hours)


def _prometheus(arguments: argparse.Namespace, known: Known) -> Source:
    problems: list[str] = []
    name, selector, metrics = arguments.selector, arguments.selector or "", None
    with collected(problems):
        if not selector:
            service = _service(arguments.service, known)
            name, selector = "/".join(service), selector_of(*service)
    with collected(problems):
        metrics = _metrics(arguments, known)
    until_s = int(arguments.until or time.time())
    length_s = arguments.since or SINCE_S
    step_s = arguments.step or step_for(length_s)
    if length_s < 2 * step_s:
        problems.append(
            f"--since {length_s:g} s: expected at least two steps of {step_s} s; lengthen it, or give --step"
        )
    if problems or not selector or metrics is None:
        raise UserError(*problems)
    with bars() as bar:
        shown = bar.add_task("asking Prometheus", total=1.0)
        period = Period(until_s - int(length_s), until_s, step_s)
        found = measured(metrics, selector, period, lambda share: bar.update(shown, completed=share))
    return Source(name, known, found)


def _service(given: str | None, known: Known) -> tuple[str, str]:
    """Namespace and name. Raises UserError."""
    if given is not None:
        namespace, slash, name = given.partition("/")
        if not (namespace and slash and name) or '"' in given:
            raise UserError(f"--service {given}: expected NAMESPACE/NAME")
        return namespace, name
    if known.settings is None and known.origin:
        raise UserError()  # What is wrong with the settings has been told.
    if known.settings is None:
        raise UserError("--prometheus: whose demand? give --service NS/NAME, --selector LABELS or --settings FILE")
    return known.settings.metadata.namespace, known.settings.spec.service


def _metrics(arguments: argparse.Namespace, known: Known) -> MetricsSettings:
    """How to ask: as the settings say, with what the command line says. Raises UserError."""
    said: dict[str, Any] = known.settings.spec.metrics.model_dump(exclude_none=True) if known.settings else {}
    names = {key: getattr(arguments, f"{key}_file") for key in ("token", "ca", "headers")}
    said |= {f"prometheus_{key}_file": name for key, name in names.items() if name is not None}
    said |= {"prometheus_url": arguments.prometheus, "scrape_timeout_s": TIMEOUT_S}
    try:
        return MetricsSettings.model_validate(said)
    except ValidationError as error:
        raise UserError(*(problem_line("--prometheus", problem) for problem in error.errors())) from error


def told(found: Measured, gaps: Gaps, cv: float, sigma: float) -> Iterator[str]:
    """What was measured, what is missing, and how requests are made of it."""
    prompt, output = found.means
    yield (
        f"demand: {found.source}, {moment(found.start_s)} to {moment(found.end_s)} UTC: {found.requests:,.0f} requests "
        f"to expect, of {prompt:,.0f} prompt and {output:,.0f} output tokens on average"
    )
    yield from found.notes
    if found.missing_share > 0.0005:
        what = "cut out: time goes on after it" if gaps == "cut" else "filled in by a line between what was around it"
        why = sorted(found.missing.items(), key=lambda one: -one[1])[:3]
        reasons = "; ".join(f"{seconds:,.0f} s: {text}" for text, seconds in why)
        yield f"missing: {found.missing_share:.1%} of the time, {what} ({reasons})"
    process = "Poisson" if cv == 1 else f"Gamma, cv {cv:g},"
    yield f"requests: {process} within each step, lengths log-normal around its means, sigma {sigma:g}"
