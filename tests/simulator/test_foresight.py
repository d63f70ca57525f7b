"""Learned forecasts on ServeGen's m-large: the ratio of the roles' work, and a simulated service."""

from __future__ import annotations

import math
from copy import copy
from functools import cache

import pytest

from autoscaler.model import Series
from autoscaler.outlook import STEP_S
from forecasting import recent
from forecasting.online import Online
from policies.model import ROLES
from roleratio.simulation import Prepared, find_scenario, streams
from simulator.ours import STORED, Ours, history
from simulator.result import Result
from simulator.world import World
from tests.shared_data import shared

DAY_S, HOUR_S = 86_400.0, 3600.0
TOLD_STEPS = 3
RATES_S = 1.25 * DAY_S


def test_a_store_says_what_came_in_steps_with_zeros_where_nothing_did() -> None:
    came = [(-180.0, 100, 10), (-179.0, 300, 30), (-61.0, 60, 6), (-0.5, 600, 60), (5.0, 1, 1)]
    found = history(came, -180.0)
    assert found["requests_per_s"] == [(-150.0, 2 / 60), (-90.0, 1 / 60), (-30.0, 1 / 60)]
    assert [value for _, value in found["prompt_tokens_per_s"]] == pytest.approx([400 / 60, 1.0, 10.0])
    assert [value for _, value in found["output_tokens_per_s"]] == pytest.approx([40 / 60, 0.1, 1.0])
    assert history((), 0.0) == {}


@cache
def m_large() -> Prepared:
    return Prepared(find_scenario("m-large-weeks"), shared("data/traces"))


def begun(start_s: float, duration_s: float, history_s: float) -> Prepared:
    """m-large from a moment on, at a third of the scenario's demand, with so much history."""
    ready = copy(m_large())
    one = ready.scenario
    assert one.load.servegen
    part = one.load.servegen.model_copy(update={"start_s": start_s, "scale": 0.01})
    load = one.load.model_copy(update={"servegen": part})
    ready.scenario = one.model_copy(update={"load": load, "duration_s": duration_s, "history_s": history_s})
    return ready


def test_what_is_stored_is_what_came_before_the_begin() -> None:
    ready = begun(2 * HOUR_S, 600.0, 1.5 * HOUR_S)
    past = ready.past(7)
    came = list(past.requests)
    assert past.begin_s == -1.5 * HOUR_S
    assert all(past.begin_s <= at_s < 0 for at_s, _, _ in came)
    earlier = begun(0.5 * HOUR_S, 1.5 * HOUR_S, 0.0)
    sent = list(earlier.load(7).requests)
    assert [one[1:] for one in came] == [one[1:] for one in sent]
    assert [one[0] + 1.5 * HOUR_S for one in came] == pytest.approx([one[0] for one in sent])
    assert begun(0.0, 600.0, HOUR_S).past(7).begin_s == 0
    assert not list(begun(2 * HOUR_S, 600.0, 0.0).past(7).requests)


@cache
def rates() -> dict[Series, list[float]]:
    """What came from noon of the first day on."""
    ready = begun(0.5 * DAY_S, RATES_S, 0.0)
    steps = int(RATES_S / STEP_S)
    sums: dict[Series, list[float]] = {name: [0.0] * steps for name in STORED}
    for at_s, prompt_tokens, output_tokens in ready.load(7).requests:
        for name, more in zip(STORED, (1, prompt_tokens, output_tokens), strict=True):
            sums[name][int(at_s / STEP_S)] += more / STEP_S
    return sums


@cache
def medians(name: Series) -> list[float]:
    """What was foretold at the end of each step of a minute, three steps ahead."""
    online = Online(STEP_S)
    online.follow(TOLD_STEPS)
    found = []
    for value in rates()[name]:
        online.add(value)
        found.append(online.now(TOLD_STEPS).at(0.5))
    return found


def test_the_ratio_of_input_to_output_is_better_than_the_last_one() -> None:
    prompts, outputs = (rates()[name] for name in STORED[1:])
    told = [prompt / output for prompt, output in zip(*(medians(name) for name in STORED[1:]), strict=True)]
    last = [prompt / output for prompt, output in zip(prompts, outputs, strict=True)]
    scored = range(int(0.5 * DAY_S / STEP_S), len(last) - TOLD_STEPS)
    errors = [
        sum(abs(math.log(said[at] / last[at + TOLD_STEPS])) for at in scored) / len(scored) for said in (told, last)
    ]
    assert errors[0] < 0.9 * errors[1]
    # A median of each is no biased ratio.
    bias = sum(math.log(told[at] / last[at + TOLD_STEPS]) for at in scored) / len(scored)
    assert abs(bias) < 0.1 * errors[1]


def simulated(history_s: float) -> tuple[Result, dict[str, int]]:
    """Half an hour of the fourth day; who spoke, and how often."""
    ready = begun(3 * DAY_S, 1800.0, history_s)
    ours = ready.policy("ours", 7)
    assert isinstance(ours, Ours)
    spoke: dict[str, int] = {}

    def watch(*_: object) -> None:
        assert ours.last
        for role in ROLES:
            model = getattr(ours.last.forecast[role], "model", "missing")
            spoke[model] = spoke.get(model, 0) + 1

    scenario = ready.scenario
    return World(scenario, ready.profile, ready.load(7), ours, streams(7), 7).run(watch), spoke


def test_a_simulated_service_is_no_worse_with_it() -> None:
    (without, silent), (with_it, spoke) = simulated(0.0), simulated(0.6 * DAY_S)
    assert recent.TOLD not in silent
    assert spoke[recent.TOLD] > sum(spoke.values()) / 2
    missed = [sum(cause != 0 for cause in one.requests.cause) / len(one.requests) for one in (without, with_it)]
    assert missed[1] <= missed[0] + 0.005
    assert with_it.gpu_hours_total <= 1.01 * without.gpu_hours_total
    assert not with_it.problems
