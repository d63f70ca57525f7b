"""What a demo leaves behind: `report.json`, `report.html`, the settings, the journal, the logs."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from autoscaler.adapters.journal import Tick, read_journal
from roleratio.demo.fleet import Change, FleetLog
from roleratio.demo.manifests import GPUS_PER_GROUP
from roleratio.demo.plan import Plan
from roleratio.load import LoadRun
from roleratio.records import FleetSample, Restart, Run, ScaleEvent, SloTargets
from roleratio.report import numbers, page

SETTINGS = "settings.yaml"
JOURNAL = "decisions.jsonl"
JSON = "report.json"
HTML = "report.html"

# A patch is seen by the watch some milliseconds after the decision; the next decision is a sync period away.
_MATCH_S = 5.0


def clear(report: Path) -> None:
    """Remove what an earlier demo wrote here, so that nothing old is taken for new."""
    for pattern in (JSON, HTML, SETTINGS, f"{JOURNAL}*"):
        for path in report.glob(pattern):
            path.unlink()


def write(
    plan: Plan,
    load: LoadRun,
    fleet: FleetLog,
    slo: SloTargets,
    *,
    window_s: float,
    end_s: float,
    first_request_s: float | None,
    restarts: Iterable[tuple[float, str]] = (),
) -> dict[str, Any]:
    """Write both reports; what `report.json` holds."""
    journal = plan.report / JOURNAL
    ticks = read_ticks(journal)
    run = Run(
        title=plan.title,
        fleet=plan.fleet,
        window_s=window_s,
        end_s=end_s,
        spans=plan.spans,
        slo=slo,
        gpus_per_group=GPUS_PER_GROUP,
        requests=tuple(load.records),
        samples=tuple(_relative(sample, load.origin) for sample in fleet.samples),
        events=tuple(_event(change, load, ticks) for change in fleet.changes),
        min_count_patches=len(fleet.min_count_patches),
        first_request_s=first_request_s,
        decision_journal=JOURNAL if journal.exists() else None,
        settings={"seed": plan.seed, "cold_start_s": plan.shape.cold_start_s, "autoscaled": plan.autoscaled},
        versions={"roleratio": metadata.version("roleratio"), "python": platform.python_version()},
        requests_left_out=plan.arrivals_left_out,
        restarts=tuple(Restart(at - load.origin, what) for at, what in restarts),
    )
    summary = numbers.summary(run)
    style = resources.files("roleratio.report").joinpath("style.css").read_text(encoding="utf-8")
    (plan.report / JSON).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (plan.report / HTML).write_text(page.render(run, summary, style), encoding="utf-8")
    return summary


def closing_lines(plan: Plan, summary: Mapping[str, Any]) -> str:
    """What the demo says at its end."""
    hours = summary["gpu_hours"]
    peak = summary["max_groups"]
    attained = summary["slo_attainment"]
    restarts = [f"restarts   {one['what']} at {one['t_s']:.0f} s" for one in summary["restarts"]]
    return "\n".join(
        [
            f"requests   {summary['requests_ok']} ok, {summary['requests_failed']} failed, "
            f"SLO attainment {attained * 100:.1f} %",
            f"latency    TTFT p95 {_text(summary['ttft_ms']['p95'])} ms, ITL p95 {_text(summary['itl_ms']['p95'])} ms",
            f"groups     at most {peak['prefill']} prefill, {peak['decode']} decode; "
            f"{len(summary['scale_events'])} scale events, {summary['min_count_patches']} minimum patches",
            f"GPU-hours  {sum(hours.values()):.3f}; a static fleet of that peak: "
            f"{sum(summary['static_fleet']['gpu_hours'].values()):.3f}",
            *restarts,
            f"report     {plan.report / HTML}",
        ]
    )


def read_ticks(journal: Path) -> list[Tick]:
    """Every recorded tick, rotated files included, oldest first."""
    files = [path for path in journal.parent.glob(f"{journal.name}*") if path.stat().st_size]
    ticks = [tick for path in files for tick in read_journal(path).ticks]
    return sorted(ticks, key=lambda tick: tick.observation.now_s)


def reasons_for(change: Change, changed_unix_s: float, ticks: Iterable[Tick]) -> tuple[str, ...]:
    """Why the controller made this change: the reasons of the tick whose step it was; none if it was not its."""
    for tick in reversed(list(ticks)):
        step, age_s = tick.decision.step, changed_unix_s - tick.observation.now_s
        if step is None or not -1.0 <= age_s <= _MATCH_S:
            continue
        if (step.kind, step.role.value, step.before, step.after) == (
            "replicas",
            change.role,
            change.before,
            change.after,
        ):
            return tuple(str(reason) for reason in tick.decision.why if reason.role is None or reason.role == step.role)
    return ()


def _event(change: Change, load: LoadRun, ticks: list[Tick]) -> ScaleEvent:
    reasons = reasons_for(change, load.unix_origin_s + change.at - load.origin, ticks)
    return ScaleEvent(change.at - load.origin, change.role, change.before, change.after, change.by, reasons)


def _relative(sample: FleetSample, origin: float) -> FleetSample:
    return FleetSample(sample.t_s - origin, sample.role, sample.wanted, sample.ready, sample.starting, sample.draining)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
