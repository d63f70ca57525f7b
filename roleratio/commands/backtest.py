"""`roleratio backtest`: what each policy would have done with the demand that really came."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoscaler.errors import UserError
from roleratio.commands.common import number, whole
from roleratio.commands.runs import add_run_options, check, finish, list_all, run_all
from roleratio.problems import collected

if TYPE_CHECKING:
    from roleratio.backtest.fleet import Built
    from roleratio.backtest.sources import Source
    from roleratio.measured import Gaps

EXAMPLE = """roleratio backtest --prometheus http://127.0.0.1:9090 --since 7d --settings rra.yaml --report out
  roleratio backtest --journal decisions.jsonl* --policy ours --policy ours:forecastQuantile=0.95
  roleratio backtest --trace ../shared/data/traces/azure_llm_2023_conv.csv.gz --settings rra.yaml --seed 1 --seed 2"""

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source, what it lacks of the fleet, and the runs."""
    add = parser.add_argument
    add("--prometheus", metavar="URL", help="demand out of a Prometheus")
    add("--trace", type=Path, metavar="FILE", help="demand of an Azure CSV or a Mooncake JSONL, gzip or not")
    add(
        "--journal", type=Path, nargs="+", metavar="FILE", help="demand and fleet of the controller's decision journals"
    )
    add("--settings", type=Path, metavar="FILE", help="a RoleRatioAutoscaler (default: the journal's, else defaults)")
    add("--since", type=_seconds, metavar="TIME", help="--prometheus: how far back, like 36h (default 7d)")
    add(
        "--until",
        type=_moment,
        metavar="TIME",
        help="--prometheus: the end, like 2026-11-25T06:00 in UTC (default now)",
    )
    add("--service", metavar="NS/NAME", help="--prometheus: whose pods (default: of --settings)")
    add("--selector", metavar="LABELS", help="--prometheus: matchers in place of --service, like 'pod=~\"chat-.*\"'")
    add("--step", type=whole(1), metavar="S", help="--prometheus: seconds of one step (default: fits the period)")
    for name in ("token", "ca", "headers"):
        place = "$ROLERATIO_CREDENTIALS/HOST, else /etc/roleratio/credentials/HOST"
        add(f"--{name}-file", metavar="NAME", help=f"--prometheus: as metrics.prometheus{name.title()}File, in {place}")
    add(
        "--gaps",
        choices=("cut", "line"),
        help="missing time is cut out (default) or filled in by a line; not of --trace",
    )
    add("--burstiness", type=number(0.05), metavar="CV", help="of gaps between requests (default 1: Poisson); same")
    add("--spread", type=number(0.0), metavar="SIGMA", help="of log-normal lengths (default 1); same")
    add("--profile", metavar="NAME", help="how fast engines are (default: of the settings or the journal)")
    add(
        "--cold-start",
        type=number(0.0),
        metavar="S",
        help="seconds to start a group (default: as measured, or expected)",
    )
    add("--nodes", type=_nodes, metavar="NxG", help="N nodes with G GPUs each (default: enough for the budget)")
    add_run_options(parser, "ours, the fleet of the oracle's peak, hpa-queue, wva-v2 and dynamo")


def run(arguments: argparse.Namespace) -> int:
    """Check everything, read the source, run, print a table. Exit code 1 when the simulator was wrong."""
    from roleratio.sweep import Task

    if arguments.list:
        return list_all()
    source = _checked(arguments)
    with _folder(arguments.report) as folder:
        built, notes = _built(arguments, source, folder)
        policies = list(dict.fromkeys(arguments.policy or _usual(built)))
        seeds = list(dict.fromkeys(arguments.seed or [built.prepared.scenario.seed]))
        tasks = [Task(built.path, policy, seed) for policy in policies for seed in seeds]
        outcomes = run_all(built.prepared, tasks, arguments.jobs)
        return finish(arguments, built.prepared, outcomes, f"roleratio backtest: {source.name}", notes)


def _checked(arguments: argparse.Namespace) -> Source:
    """The source, when nothing is wrong. Raises UserError with all problems."""
    from autoscaler.settings import load_settings
    from roleratio.backtest.fleet import Known, check_policy
    from roleratio.backtest.sources import check_one, read

    problems: list[str] = []
    settings, source = None, None
    with collected(problems):
        settings = load_settings(arguments.settings) if arguments.settings else None
    known = Known(
        settings=settings,
        origin=str(arguments.settings or ""),
        profile_name=arguments.profile,
        cold_start_s=arguments.cold_start,
        nodes=arguments.nodes,
    )
    with collected(problems):
        check_one(arguments)
        source = read(arguments, known)
    with collected(problems):
        using = source.known if source else known
        check(arguments, arguments.policy or ["ours"], lambda name: check_policy(name, using))
    if problems or source is None:
        raise UserError(*dict.fromkeys(problems))
    return source


def _built(arguments: argparse.Namespace, source: Source, folder: Path) -> tuple[Built, list[str]]:
    """The scenario, and all that is to be known of it."""
    from roleratio import measured
    from roleratio.backtest.fleet import build
    from roleratio.backtest.sources import told

    if source.measured is None:
        load: Mapping[str, Any] = {"trace": {"file": str(source.trace)}}
        duration_s, notes = source.duration_s, list(source.notes)
    else:
        gaps: Gaps = arguments.gaps or "cut"
        stretches = measured.joined(source.measured.stretches, gaps)
        if not any(one.requests_per_s for one in stretches):
            raise UserError(f"{source.name}: no request came in the period; there is nothing to decide about")
        measured.write(folder / "demand.csv", stretches)
        cv, sigma = arguments.burstiness or 1.0, 1.0 if arguments.spread is None else arguments.spread
        drawn = {"process": "poisson" if cv == 1 else "gamma", "cv": cv, "sigma": sigma}
        load, duration_s = {"measured": {"file": "demand.csv", **drawn}}, stretches[-1].end_s
        notes = [*told(source.measured, gaps, cv, sigma), *source.notes]
    built = build(folder, f"backtest of {source.name}", dict(load), duration_s, source.known)
    if source.measured is not None and (mean := sum(source.measured.means)) > (
        most := built.prepared.profile.max_model_len
    ):
        raise UserError(
            f"{source.name}: requests have {mean:,.0f} tokens on average, but profile {built.prepared.profile.name} "
            f"holds at most {most:,}; give --profile of the model that was served"
        )
    return built, [*notes, *built.notes]


def _usual(built: Built) -> list[str]:
    """Policies to compare unless told: ours, the fleet that would always have been enough, and three others."""
    from policies.model import ROLES

    spec, peak = built.prepared.scenario.autoscaler, built.peak
    found = ["ours", "hpa-queue", "wva-v2", "dynamo"]
    gpus = (peak.prefill + peak.decode) * built.prepared.profile.gpus
    if gpus <= spec.gpu_budget and all(peak[role] <= spec.role(role).max_groups for role in ROLES):
        found.insert(1, f"static:{peak.prefill},{peak.decode}")
    return found


@contextmanager
def _folder(report: Path | None) -> Iterator[Path]:
    """Where the scenario is: in the report's folder, so that it can be run again; else nowhere for long."""
    if report is not None:
        yield report
        return
    with tempfile.TemporaryDirectory(prefix="roleratio-backtest-") as name:
        yield Path(name)


def _seconds(text: str) -> float:
    """An argument type: a time like 7d, 36h or 1h30m."""
    parts = re.fullmatch(r"(\d+[smhdw])+", text)
    total = sum(int(one[:-1]) * UNITS_S[one[-1]] for one in re.findall(r"\d+[smhdw]", text)) if parts else 0
    if not total:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time like 7d, 36h or 90m")
    return float(total)


def _moment(text: str) -> float:
    """An argument type: a date and time, in UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time like 2026-11-25T06:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _nodes(text: str) -> tuple[int, int]:
    """An argument type: a number of nodes and the GPUs of each."""
    parts = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if parts is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected nodes and GPUs of each, like 8x8")
    return int(parts[1]), int(parts[2])
