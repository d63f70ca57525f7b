"""What one sees while a demo runs: a live view on a terminal, else a line every few seconds.

Rules:
1. `look` gathers everything that both forms show, so that they cannot disagree.
2. What is not known is shown as a dash.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from autoscaler.adapters.status import Status as Decided
from policies.model import ROLES, Missing, Role
from roleratio.demo.fleet import FleetWatch
from roleratio.demo.plan import Plan
from roleratio.demo.status import Status
from roleratio.load import LoadRun
from roleratio.records import FleetSample, Outcome, RequestRecord, SloTargets, Span
from roleratio.report.numbers import attainment, percentile

VIEW_PERIOD_S = 0.5
LINE_PERIOD_S = 5.0
WINDOW_S = 20.0
CHANGES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the last `WINDOW_S`, in ms."""

    p50: float | None
    p95: float | None
    target: float


@dataclass(frozen=True, slots=True)
class Requests:
    """Counts since the load began; attainment over those that have ended."""

    sent: int
    running: int
    failed: int
    attained: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """One moment of the demo."""

    t_s: float
    phase: str
    fleet: Mapping[Role, FleetSample | None]
    decided: Decided | None
    waiting: tuple[str, ...]
    requests: Requests
    ttft: Latency
    itl: Latency
    changes: tuple[str, ...]
    prometheus: str = ""


class Screen:
    """Shows the demo until cancelled."""

    def __init__(self, plan: Plan, load: LoadRun, fleet: FleetWatch, status: Status, slo: SloTargets) -> None:
        self._plan = plan
        self._load = load
        self._fleet = fleet
        self._status = status
        self._slo = slo
        self._told = 0
        self._steps: deque[str] = deque(maxlen=CHANGES_SHOWN)
        self._last_step_s = 0.0

    async def run(self) -> None:
        """The live view on a terminal, else lines."""
        if self._plan.headless or not sys.stdout.isatty():
            await self._lines()
        else:
            await self._view()

    async def _lines(self) -> None:
        while True:
            await asyncio.sleep(LINE_PERIOD_S)
            look = self.look()
            print(line(look), flush=True)
            for text in self._fresh():
                print(text, flush=True)

    async def _view(self) -> None:
        from rich.console import Console
        from rich.live import Live

        from roleratio.demo.view import draw

        with Live(draw(self.look()), console=Console(), auto_refresh=False, transient=True) as live:
            while True:
                await asyncio.sleep(VIEW_PERIOD_S)
                live.update(draw(self.look()), refresh=True)

    def look(self) -> Look:
        """This moment. Linear in the requests of the last seconds, and in all for the attainment."""
        self._note_step()
        now_s = self._load.now_s()
        records = self._load.records
        ended = [record for record in records if record.outcome is not Outcome.OPEN]
        recent = _recent(records, now_s)
        ttfts = [r.ttft_s for r in recent if r.ttft_s is not None and r.at_s + r.ttft_s >= now_s - WINDOW_S]
        return Look(
            t_s=now_s,
            phase=phase_at(self._plan.spans, now_s),
            fleet={role: self._fleet.log.latest(role) for role in ROLES},
            decided=self._status.decision,
            waiting=tuple(
                f"{verdict['role']}: {verdict['message']}"
                for verdict in self._status.verdicts
                if verdict["admitted"] < verdict["desired"]
            ),
            requests=Requests(
                sent=len(records),
                running=len(records) - len(ended),
                failed=sum(record.outcome is not Outcome.OK for record in ended),
                attained=attainment(ended, self._slo),
            ),
            ttft=_latency(ttfts, self._slo.ttft_ms),
            itl=_latency(_recent_gaps(recent, now_s), self._slo.itl_ms),
            changes=tuple(self._steps),
            prometheus=self._status.prometheus,
        )

    def _note_step(self) -> None:
        """Remember a step that has not been seen yet, with the reasons of its role."""
        decided = self._status.decision
        if decided is None or decided.decision.step is None or decided.now_s <= self._last_step_s:
            return
        self._last_step_s = decided.now_s
        step = decided.decision.step
        reasons = [str(r) for r in decided.decision.why if r.role in (None, step.role)]
        what = "groups" if step.kind == "replicas" else "minimum"
        t_s = max(0.0, decided.now_s - self._load.unix_origin_s)
        self._steps.append(f"{t_s:5.0f} s {step.role} {what} {step.before} -> {step.after}: {'; '.join(reasons)}")

    def _fresh(self) -> list[str]:
        """Changes of replicas since the last line."""
        changes = self._fleet.log.changes[self._told :]
        self._told += len(changes)
        return [
            f"{c.at - self._load.origin:7.0f} s  * {c.role} {c.before} -> {c.after} by {c.by or 'somebody unknown'}"
            for c in changes
        ]


def line(look: Look) -> str:
    """One moment as one line."""
    roles = "  ".join(f"{role} {groups_text(look.fleet[role])}" for role in ROLES)
    requests = look.requests
    return (
        f"{look.t_s:7.0f} s  {look.phase:<12}  {roles}  "
        f"sent {requests.sent} running {requests.running} failed {requests.failed}  "
        f"TTFT p95 {ms_text(look.ttft.p95)}  ITL p95 {ms_text(look.itl.p95)}  "
        f"attained {percent_text(requests.attained)}"
    )


def groups_text(sample: FleetSample | None) -> str:
    """`2/3`: ready of wanted, with what drains."""
    if sample is None:
        return "-"
    return f"{sample.ready}/{sample.wanted}" + (f"-{sample.draining}" if sample.draining else "")


def ms_text(value: float | None) -> str:
    """Milliseconds, or a dash."""
    return "-" if value is None else f"{value:.0f} ms"


def percent_text(share: float | None) -> str:
    """A percentage, or a dash."""
    return "-" if share is None else f"{share * 100:.1f} %"


def number_text(value: float | Missing | None, form: str = ".0f") -> str:
    """A number, or a dash for what is not known."""
    return "-" if value is None or isinstance(value, Missing) else format(value, form)


def phase_at(spans: tuple[Span, ...], t_s: float) -> str:
    """The phase that holds a moment; after the last one the requests in flight finish."""
    return next((span.name for span in spans if span.start_s <= t_s < span.end_s), "finishing")


def _recent(records: list[RequestRecord], now_s: float) -> list[RequestRecord]:
    return [r for r in records if r.end_s is None or r.end_s >= now_s - WINDOW_S]


def _recent_gaps(records: list[RequestRecord], now_s: float) -> list[float]:
    """Gaps that ended within the window: read from the end, where they are newest."""
    found: list[float] = []
    for record in records:
        seen_s = now_s if record.end_s is None else record.end_s
        for gap in reversed(record.gaps_s):
            if seen_s < now_s - WINDOW_S:
                break
            found.append(gap)
            seen_s -= gap
    return found


def _latency(values_s: list[float], target_ms: float) -> Latency:
    ordered = sorted(values_s)
    p50, p95 = percentile(ordered, 0.5), percentile(ordered, 0.95)
    return Latency(None if p50 is None else p50 * 1e3, None if p95 is None else p95 * 1e3, target_ms)
