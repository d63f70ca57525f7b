"""The warm start of a service's forecasts: what arrived before this process, from its Prometheus, else its journal.

Rules:
1. A warm start is a convenience: where it cannot be had, forecasts start cold, and one line in the log says so.
2. It takes seconds of work, in a thread of its own; ticks go on beside it, and services take turns.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoscaler.adapters.journal import KEEP, numbered, read_demands
from autoscaler.adapters.past import Past, Period, selector_of
from autoscaler.adapters.promclient import PromClient, PrometheusError
from autoscaler.errors import UserError
from autoscaler.model import Decision, Outlook, Series
from autoscaler.outlook import HISTORY_S, SERIES, STEP_S, History, Learned, leads_s
from autoscaler.settings import Settings
from policies.model import Missing, Role

log = logging.getLogger("roleratio.controller")

RANGE_TIMEOUT_S = 10.0
"""A range takes longer than the instant query of a tick."""


class Foresight:
    """One service's learned forecasts: cold from the first tick on, and warm when their history is learned.

    `turn` is shared by all services, which learn one after the other; without it no history is learned.
    """

    def __init__(self, settings: Settings, journal: Path | None, turn: asyncio.Lock | None) -> None:
        self._settings, self._journal, self._turn = settings, journal, turn
        self._learned = Learned(settings)
        self._begun: asyncio.Task[None] | None = None

    def say(self, now_s: float, leads: Mapping[Role, float]) -> Outlook:
        """What is foretold now, for each role as far ahead as its groups take to start. Raises what a bug has raised
        while the history was learned.
        """
        if self._begun is not None and self._begun.done() and not self._begun.cancelled():
            self._begun.result()
        return self._learned.say(now_s, leads)

    def see(self, decision: Decision) -> None:
        """What a tick has understood of what arrived. The first one, which has measured how long groups take to start,
        begins to learn the history.
        """
        self._learned.see(decision)
        if self._begun is None and self._turn is not None:
            now_s, leads = decision.signals.demand.at_s, leads_s(self._settings, decision)
            self._begun = asyncio.create_task(self._begin(self._turn, now_s, leads))

    def close(self) -> None:
        """Stop learning."""
        if self._begun:
            self._begun.cancel()

    async def _begin(self, turn: asyncio.Lock, now_s: float, leads: Mapping[Role, float]) -> None:
        stop = threading.Event()
        try:
            async with turn:
                found = await asyncio.to_thread(_warmed, self._settings, self._journal, now_s, leads, stop)
        finally:
            # A thread cannot be ended from outside, and a process waits for it.
            stop.set()
        self._learned = found or self._learned


def _warmed(
    settings: Settings, journal: Path | None, now_s: float, leads: Mapping[Role, float], stop: threading.Event
) -> Learned | None:
    name = _name(settings)
    history, source = _history(settings, journal, now_s, stop)
    steps = max((len(points) for points in history.values()), default=0)
    if not steps:
        log.info("%s: forecasts start cold: %s", name, source)
        return None
    learned = Learned(settings, history, leads)
    log.info("%s: forecasts start warm: %.1f h of history from %s", name, steps * STEP_S / 3600, source)
    return learned


def _history(settings: Settings, journal: Path | None, now_s: float, stop: threading.Event) -> tuple[History, str]:
    """What was, and from where; or nothing, and why."""
    if settings.spec.metrics.prometheus_url:
        selector = selector_of(settings.metadata.namespace, settings.spec.service)
        try:
            found = of_prometheus(settings, now_s, stop)
        except PrometheusError as error:
            return {}, f"Prometheus: {error}"
        return found, f"Prometheus{'' if found else f' has counted no requests of {{{selector}}}'}"
    if journal is not None:
        return of_journal(journal, settings, now_s), f"journal {journal}"
    return {}, "pods have no memory; a metrics.prometheusUrl or a --journal has one"


def of_prometheus(settings: Settings, now_s: float, stop: threading.Event) -> History:
    """The rates that a Prometheus has stored, step by step. Raises PrometheusError, also when told to stop."""

    def go_on() -> None:
        if stop.is_set():
            raise PrometheusError("the controller is stopping")

    metrics = settings.spec.metrics.model_copy(update={"scrape_timeout_s": RANGE_TIMEOUT_S})
    step_s = int(STEP_S)
    end_s = int(now_s) // step_s * step_s
    period = Period(end_s - int(HISTORY_S), end_s, step_s)
    client = PromClient(metrics)
    try:
        selector = selector_of(settings.metadata.namespace, settings.spec.service)
        came = Past(client, selector, period, go_on).came()
    finally:
        client.close()
    if came is None or not came.requests:
        return {}
    found: dict[Series, dict[int, float]] = {
        "requests_per_s": came.requests,
        "prompt_tokens_per_s": came.prompt_tokens,
        "output_tokens_per_s": came.output_tokens,
    }
    return {
        name: [(period.start_s + (step + 0.5) * step_s, values[step]) for step in sorted(values)]
        for name, values in found.items()
    }


def of_journal(path: Path, settings: Settings, now_s: float) -> History:
    """The demand that a journal's ticks have seen, averaged over steps; its files as far as they can be read."""
    sums: dict[Series, dict[int, list[float]]] = {name: {} for name in SERIES}
    for file in (numbered(path, number) for number in range(KEEP + 1)):
        for at_s, values in _ticks(file, settings):
            if now_s - HISTORY_S < at_s < now_s:
                for name, value in zip(SERIES, values, strict=True):
                    if not isinstance(value, Missing):
                        sums[name].setdefault(int(at_s // STEP_S), []).append(value)
    return {
        name: [((step + 0.5) * STEP_S, sum(steps[step]) / len(steps[step])) for step in sorted(steps)]
        for name, steps in sums.items()
        if steps
    }


def _ticks(file: Path, settings: Settings) -> Sequence[tuple[float, Sequence[float | Missing]]]:
    """(the middle of the window, values in the order of SERIES) of every tick of this service in a file."""
    if not file.exists():
        return ()
    try:
        whose, demands = read_demands(file)
    except UserError as error:
        log.info("%s", error)
        return ()
    if _name(whose) != _name(settings):
        return ()
    return [(one.at_s - one.window_s / 2, [getattr(one, name) for name in SERIES]) for one in demands]


def _name(settings: Settings) -> str:
    return f"{settings.metadata.namespace}/{settings.spec.service}"
