"""Forecasts made of the arrivals: on tables worked by hand, and in the place of ours where demand jumps."""

from __future__ import annotations

import pytest

from autoscaler.errors import UserError
from policies.model import ROLES, Role
from simulator.foreknown import KINDS, Foreknown, Kind, Known
from simulator.ramps import starts, wanted_of
from simulator.roster import make_policy, oracle_needs
from tests.simulator.small import PROFILE, run, scenario

JUMP = [(float(at), 100 if at < 100 else 300, 10) for at in range(200)]
"""A request a second, with prompts three times as long from 100 s on."""


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [
        pytest.param(54.0, {"last": 100, "half": 100, "horizon": 100, "path": 100}, id="nothing is in sight"),
        pytest.param(57.0, {"last": 100, "half": 120, "horizon": 140, "path": 140}, id="before the next look"),
        pytest.param(70.0, {"last": 100, "half": 200, "horizon": 300, "path": 300}, id="one horizon ahead"),
        pytest.param(130.0, {"last": 200, "half": 250, "horizon": 300, "path": 300}, id="half a minute later"),
        pytest.param(199.0, {"last": 300, "half": 300, "horizon": 300, "path": 300}, id="the load is over"),
    ],
)
def test_what_is_told(now_s: float, expected: dict[Kind, float]) -> None:
    known = Known(JUMP, 200, itl_ms=50)
    for kind in KINDS:
        said = Foreknown(kind, known, 5.0).say(now_s, {Role.PREFILL: 30.0, Role.DECODE: 30.0})
        (prompts, outputs) = (said.of(role) for role in ROLES)
        assert said.only
        assert prompts is not None
        assert outputs is not None
        assert (prompts.at(0.5), prompts.horizon_s) == (pytest.approx(expected[kind]), 30.0)
        assert outputs.at(0.5) == pytest.approx(10.0)


def test_what_has_passed_by_then_is_on_the_path_only() -> None:
    known = Known([(float(at), 500 if 100 <= at < 115 else 100, 10) for at in range(200)], 200, 50)
    leads = dict.fromkeys(ROLES, 30.0)
    told = {kind: Foreknown(kind, known, 5.0, times=2).say(97.0, leads).of(Role.PREFILL) for kind in KINDS}
    assert {kind: one.at(0.5) for kind, one in told.items() if one} == {
        "last": 200,
        "half": 200,
        "horizon": 200,
        "path": 1000,
    }


def test_answers_are_felt_as_long_as_they_take() -> None:
    # 400 tokens at 50 ms take 20 s, and half of what will be felt at 110 s has come by 100 s.
    known = Known(((float(at), 100, 400 if at < 100 else 1200) for at in range(200)), 200, 50 / 2)
    assert known.most(Role.DECODE, 110, 110) == pytest.approx(800)
    assert known.most(Role.PREFILL, 110, 110) == pytest.approx(100)


def test_nothing_comes_of_nothing() -> None:
    known = Known((), 0.5, 50)
    assert (known.last(Role.PREFILL, 0.0), known.most(Role.DECODE, 0.0, 9.0)) == (0.0, 0.0)


def test_a_better_forecast_starts_more_of_a_jump_ahead() -> None:
    one = scenario(durationS=320, start={"loadS": 30}, autoscaler__prefill__coldStartS=30)
    slow, fast = [at / 5 for at in range(1000)], [200 + at / 30 for at in range(3600)]
    requests = [(at_s, 1000, 5) for at_s in (*slow, *fast)]
    needs = oracle_needs(one, PROFILE, requests)[Role.PREFILL]
    assert needs.steps == [(0.0, 1), (200.0, 5), (320.0, 0)]
    ahead, attained = {}, {}
    for kind in KINDS:
        result = run(one, f"told:{kind}", requests=requests)
        found = starts(needs, wanted_of(result.fleet, Role.PREFILL, 320.0), 6)
        assert len(found) == 4
        ahead[kind], attained[kind] = sum(start.is_ahead for start in found), result.attainment
    assert (ahead["last"], ahead["horizon"], ahead["path"]) == (0, 4, 4)
    assert 0 < ahead["half"] < 4
    assert attained["last"] < attained["half"] < attained["horizon"] == 1.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("told:", "expected one of nothing, learned, last, half, horizon, path"),
        ("told:tomorrow", "'tomorrow': expected one of nothing"),
        ("told:last,times=0", "times=0: expected a number above 0"),
        ("told:last,times=x", "times=x: expected a number above 0"),
        ("told:last,forecastQuantile=2", "forecastQuantile"),
    ],
)
def test_a_wrong_name_is_told(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_policy(name, scenario(), PROFILE, lambda: (), PROFILE)
