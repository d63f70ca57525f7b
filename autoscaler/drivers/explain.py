"""Explain: one decision as a page of text that can be read at 3 a.m.

Rules:
1. It says only what the journal or the status says; nothing is decided or estimated here.
2. The same page for a line of a journal and for a running controller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoscaler.adapters.journal import Journal, Tick, read_journal
from autoscaler.adapters.status import Status, from_json
from autoscaler.core.groups import named
from autoscaler.errors import UserError
from autoscaler.model import Demand, Latency, Number, RoleFleet, Step
from autoscaler.settings import Slo
from policies.model import ROLES, Missing, Role, Stage

_OLDEST_UNIX_S = 1e8
"""A smaller number counts seconds from the journal's beginning."""

_HEADINGS = {
    Stage.OBSERVE: "while observing",
    Stage.FORECAST: "while forecasting",
    Stage.SIZE: "while sizing",
    Stage.DECIDE: "by policy",
    Stage.PLAN: "while planning",
}


def explain_journal(path: Path, at: str | None) -> str:
    """The decision in force at a moment, or the last one that changed something. Raises UserError."""
    journal = read_journal(path)
    if not journal.ticks:
        return f"{path}: a journal without a decision yet"
    tick = _last_change(journal) if at is None else _in_force(journal, at)
    status = Status(
        settings=journal.settings,
        now_s=tick.observation.now_s,
        fleet=tick.observation.fleet,
        decision=tick.decision,
        failures=tick.observation.samples.failures,
    )
    into_s = tick.observation.now_s - journal.ticks[0].observation.now_s
    return _page(status, f"{path} line {tick.line}, {into_s:.1f} s into it, {len(journal.ticks)} decisions in all")


def explain_status(status: Mapping[str, Any]) -> str:
    """The last decision of each service in a controller's `/v1/status`. Raises UserError."""
    services = status.get("services")
    if not isinstance(services, Mapping):
        raise UserError("status: services: expected an object; ask a roleratio controller's /v1/status")
    if not services:
        return "the controller has not decided anything yet"
    pages = (_page(from_json(data, f"status of {name}"), "as of the last tick") for name, data in services.items())
    return "\n\n".join(pages)


def _last_change(journal: Journal) -> Tick:
    return next((tick for tick in reversed(journal.ticks) if tick.decision.step), journal.ticks[-1])


def _in_force(journal: Journal, at: str) -> Tick:
    first_s, last_s = journal.ticks[0].observation.now_s, journal.ticks[-1].observation.now_s
    at_s = _unix_s(at, first_s)
    if not first_s <= at_s <= last_s + journal.settings.spec.sync_period_s:
        covered = f"{_clock(first_s)} to {_clock(last_s)}, that is 0 to {last_s - first_s:.0f} s"
        raise UserError(f"--at {at}: outside of the journal {journal.path}, which covers {covered}")
    return next(tick for tick in reversed(journal.ticks) if tick.observation.now_s <= at_s)


def _unix_s(at: str, first_s: float) -> float:
    try:
        number = float(at)
    except ValueError:
        return _iso_s(at)
    return number if number >= _OLDEST_UNIX_S else first_s + number


def _iso_s(at: str) -> float:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        expected = "seconds into the journal, a Unix time, or ISO time such as 2026-11-25T03:00:00Z"
        raise UserError(f"--at {at}: not a time; give {expected}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _page(status: Status, source: str) -> str:
    lines = [
        f"{status.service} at {_clock(status.now_s)} ({source})",
        "",
        f"STEP        {_step(status.decision.step)}",
        *_targets(status),
        "",
        "SEEN",
        *_seen(status),
        "",
        "FORECAST",
        *_forecast(status),
        "",
        "WHY",
        *_why(status),
        "",
        "CONDITIONS",
        *_conditions(status),
    ]
    return "\n".join(lines)


def _step(step: Step | None) -> str:
    if step is None:
        return "none"
    unit = "TP groups" if step.kind == "replicas" else "pods of the PodGroup's minimum"
    return f"{step.role} {step.before} -> {step.after} {unit}"


def _targets(status: Status) -> Iterator[str]:
    spec, target = status.settings.spec, status.decision.target
    for role in ROLES:
        bounds = f"bounds {spec.role(role).min_groups} to {spec.role(role).max_groups}"
        wanted = f"{target.groups[role]} groups, floor {target.floor[role]}" if target else "unknown"
        if target and not target.desires(role):
            wanted = f"unknown, held at {target.groups[role]} groups"
        yield f"  {role:<9} target {wanted}; {bounds}"
    band = f"{spec.ratio_band.min:g} to {spec.ratio_band.max:g} prefill groups per decode group"
    yield f"  {'limits':<9} {spec.gpu_budget} GPUs; {band}; mode {spec.mode}"


def _seen(status: Status) -> Iterator[str]:
    signals, slo = status.decision.signals, status.settings.spec.slo
    yield from _demand(signals.demand)
    yield _latency("TTFT", signals.ttft, slo.ttft)
    yield _latency("ITL", signals.itl, slo.itl)
    for role in ROLES:
        yield from _role(status, role)
    for problem in status.fleet.problems:
        yield f"  {'problem':<9} {problem}"
    if signals.partial:
        yield f"  {'partial':<9} {signals.partial}"
    for why in dict.fromkeys(status.failures.values()):
        yield f"  {'no answer':<9} {named([source for source, said in status.failures.items() if said == why])}: {why}"


def _demand(demand: Demand) -> Iterator[str]:
    """The work of both roles; of what is not known, why, and once where it is the same."""
    if isinstance(demand.requests_per_s, Missing):
        yield f"  {'demand':<9} unknown: {demand.requests_per_s.missing}"
        return
    yield f"  {'demand':<9} {demand.requests_per_s:.2f} requests/s, as counted by {demand.basis}"
    for role, what in ((Role.PREFILL, "prompt"), (Role.DECODE, "output")):
        rate, mean = demand.tokens_per_s(role), demand.tokens_mean(role)
        length = f"mean {_number(mean, ',.0f')}"
        yield f"  {'':<9} {_number(rate, ',.0f')} {what} tokens/s ({length})"


def _latency(name: str, seen: Latency, slo: Slo) -> str:
    label = f"{name} p{slo.percentile:g}"
    if isinstance(seen.value_ms, Missing):
        return f"  {label:<9} unknown: {seen.value_ms.missing}; SLO {slo.target_ms:g} ms"
    if isinstance(seen.attained, Missing):
        met, share = seen.value_ms <= slo.target_ms, ""
    else:
        met, share = seen.attained * 100 >= slo.percentile, f", {seen.attained:.1%} within it"
    verdict = "met" if met else "MISSED"
    basis = "as the router saw it" if seen.basis == "router" else "estimated from workers"
    return f"  {label:<9} {seen.value_ms:,.0f} ms; SLO {slo.target_ms:g} ms {verdict}{share}; {basis}"


def _role(status: Status, role: Role) -> Iterator[str]:
    signals, fleet = status.decision.signals[role], status.fleet[role]
    if isinstance(fleet, RoleFleet):
        cost = _number(fleet.gpus_per_group)
        groups = f"{fleet.ready} of {fleet.replicas} groups ready, {fleet.present} with pods"
        room = f"room for {_number(fleet.fit)} more"
        yield f"  {role:<9} {groups}; {cost} GPUs each; minimum {_number(fleet.min_pods)} pods; {room}"
    else:
        yield f"  {role:<9} cannot be managed: {fleet.missing}"
    queue = f"waiting {_number(signals.waiting)} (for KV {_number(signals.waiting_deferred)})"
    fullest = "" if isinstance(signals.kv_usage_max, Missing) else f" (fullest engine {signals.kv_usage_max:.0%})"
    load = f"running {_number(signals.running)}, {queue}, KV use {_number(signals.kv_usage, '.0%')}{fullest}"
    if signals.engines_per_group != 1:
        load += f"; {signals.engines_per_group:g} engines a group"
    blind = "; BLIND" if signals.blind else f"; cannot read {named(signals.unread)}" if signals.unread else ""
    yield f"  {'':<9} {load}; cold start {signals.cold_start_s:.1f} s{blind}"


def _forecast(status: Status) -> Iterator[str]:
    for role in ROLES:
        ahead = status.decision.forecast[role]
        if isinstance(ahead, Missing):
            yield f"  {role:<9} none: {ahead.missing}"
            continue
        high = f"{ahead.tokens_per_s_high:,.0f} at quantile {ahead.quantile:g}"
        by = f", by {ahead.model}"
        yield f"  {role:<9} in {ahead.horizon_s:.0f} s: median {ahead.tokens_per_s_q50:,.0f} tokens/s, {high}{by}"
        if said := status.outlook.of(role):
            error = f"WAPE {said.measured.wape:.1%}" if said.measured.targets else "not measured yet"
            state = "" if said.fallback == "none" else f" ({said.fallback})"
            yield f"  {'':<9} learned{state}: {said.at(0.5):,.0f} tokens/s in {said.horizon_s:.0f} s, {error}"


def _why(status: Status) -> Iterator[str]:
    for stage, heading in _HEADINGS.items():
        reasons = [reason for reason in status.decision.why if reason.stage is stage]
        if reasons:
            yield f"  {heading}"
            yield from (f"    {reason}" for reason in reasons)
    if not status.decision.why:
        yield "  no reason was given"


def _conditions(status: Status) -> Iterator[str]:
    for condition in status.decision.conditions:
        message = f": {condition.message}" if condition.message else ""
        yield f"  {condition.type:<16} {condition.status:<8} {condition.reason}{message}"


def _number(value: Number, form: str = "g") -> str:
    return f"unknown ({value.missing})" if isinstance(value, Missing) else format(value, form)


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
