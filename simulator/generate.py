"""Requests of a scenario's own clients, in phases."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import accumulate, pairwise

from simulator.arrivals import Gap, Request, Window, gaps, renewals, wave
from simulator.result import Span
from simulator.rng import Streams
from simulator.scenario import Client, Scenario, Step

WHOLE = (Step(name="all", share=1.0),)


def spans_of(scenario: Scenario) -> tuple[Span, ...]:
    """When each phase begins and ends."""
    phases = scenario.load.phases or WHOLE
    total = sum(phase.share for phase in phases)
    ends = accumulate((phase.share / total * scenario.duration_s for phase in phases), initial=0.0)
    return tuple(Span(phase.name, *edges) for phase, edges in zip(phases, pairwise(ends), strict=True))


def generated(scenario: Scenario, streams: Streams) -> Iterator[Request]:
    """All clients' requests in order of time."""
    clients = enumerate(scenario.load.clients)
    return merge(*(_client(scenario, client, streams, f"client {index}") for index, client in clients))


def _client(scenario: Scenario, client: Client, streams: Streams, name: str) -> Iterator[Request]:
    rng, phases, spans = streams(name), scenario.load.phases or WHOLE, spans_of(scenario)
    prompt, output = client.prompt.distribution, client.output.distribution
    now = 0
    for at_s in renewals(_windows(scenario, client, phases, spans), rng):
        while at_s >= spans[now].end_s and now < len(spans) - 1:
            now += 1
        phase = phases[now]
        yield at_s, prompt.draw(rng, phase.prompt_factor), output.draw(rng, phase.output_factor)


def _windows(
    scenario: Scenario, client: Client, phases: tuple[Step, ...], spans: tuple[Span, ...]
) -> Iterator[tuple[Window, Gap]]:
    gap = gaps(client.process, client.cv)
    if client.wave is None:
        whole = [Window(0.0, scenario.duration_s, client.rate_rps or 0.0)]
    else:
        whole = list(wave(client.wave.low_rps, client.wave.high_rps, client.wave.period_s, scenario.duration_s))
    for phase, span in zip(phases, spans, strict=True):
        for window in whole:
            start_s, end_s = max(window.start_s, span.start_s), min(window.end_s, span.end_s)
            if start_s < end_s:
                yield Window(start_s, end_s, window.rate_rps * phase.rate_factor), gap
