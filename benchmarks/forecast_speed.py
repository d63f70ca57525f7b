"""Refreshing forecasts: three series with two weeks of history, one horizon each; and the memory of many series.

How: a wave with noise, 2,016 steps of 600 s; a refresh is one new value for each of the three and their quantiles,
with all that is fitted again. Memory is the growth of this process over COPIES copies of one of them.
"""

from __future__ import annotations

import math
import random
from copy import deepcopy

import psutil

from benchmarks.figure import Figure, figure
from benchmarks.stopwatch import timed
from forecasting.history import HISTORY
from forecasting.online import Online

MEAN_MS, P99_MS, TEN_THOUSAND_MB = 5.0, 20.0, 1000.0
STEP_S, STEPS = 600.0, 2
SERIES, REFRESHES, COPIES = 3, 300, 500
MANY = 10_000


def measure() -> list[Figure]:
    """Milliseconds of a refresh, and megabytes of many series."""
    three = [_filled(seed) for seed in range(SERIES)]
    spent_ms: list[float] = []
    for turn in range(REFRESHES):
        values = [_value(random.Random(turn), HISTORY + turn) for _ in three]
        with timed(spent_ms):
            for online, value in zip(three, values, strict=True):
                online.add(value)
                online.now(STEPS)
    before = psutil.Process().memory_info().rss
    copies = [deepcopy(three[0]) for _ in range(COPIES)]
    grown = (psutil.Process().memory_info().rss - before) / len(copies) * MANY / 1e6
    return [
        figure("three series, one horizon each: mean", "ms", [sum(spent_ms) / len(spent_ms)], median=MEAN_MS),
        figure("three series, one horizon each", "ms", spent_ms, p99=P99_MS),
        figure(f"{MANY} series (from {COPIES})", "MB", [grown], median=TEN_THOUSAND_MB),
    ]


def _filled(seed: int) -> Online:
    online, rng = Online(STEP_S), random.Random(seed)
    online.follow(STEPS)
    for place in range(HISTORY):
        online.add(_value(rng, place))
    return online


def _value(rng: random.Random, place: int) -> float:
    return 100 * (1.5 + math.sin(2 * math.pi * place / 144)) * math.exp(rng.gauss(0, 0.1))
