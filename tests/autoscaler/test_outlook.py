"""Learned forecasts beside the ticks: what they are fed, when they speak, and that a tick stays a pure function.

`Service` plays the arrivals; everything that forecasts is the real thing.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from autoscaler.adapters.journal import JournalWriter
from autoscaler.codec import decode, encode
from autoscaler.core import tick
from autoscaler.drivers.replay import replay
from autoscaler.drivers.warm import Foresight, of_journal
from autoscaler.model import Observation, Outlook, Series, State
from autoscaler.outlook import HISTORY_S, STEP_S, History, Learned, leads_s
from autoscaler.settings import Settings
from forecasting.recent import TOLD
from perfmodel.profile import load_profile
from policies.model import ROLES, Missing, Role
from simulator.ours import STORED
from tests.autoscaler.arriving import ANSWER, PROMPT, Service
from tests.autoscaler.pages import observations, outlook, settings
from tests.autoscaler.plant import make_settings

TICK_S, LEAD_S = 5.0, 120.0
LEADS = dict.fromkeys(ROLES, LEAD_S)
HOUR_S = 3600.0


def jobs(at_s: float) -> float:
    """Requests/s: a job of ten minutes on the hour, as a clock starts it."""
    return 12.0 if at_s % HOUR_S < 600.0 else 4.0


def history(until_s: float, rate: Callable[[float], float], length_s: float = HISTORY_S) -> History:
    """What a Prometheus would have stored of it."""
    times = [until_s - length_s + (step + 0.5) * STEP_S for step in range(int(length_s / STEP_S))]
    factors: dict[Series, float] = {
        "requests_per_s": 1.0,
        "prompt_tokens_per_s": PROMPT,
        "output_tokens_per_s": ANSWER,
    }
    return {name: [(at_s, factor * rate(at_s)) for at_s in times] for name, factor in factors.items()}


def lived(
    service: Service, learned: Learned, begin_s: float, rates: Sequence[float], unknown: Sequence[int] = ()
) -> list[tuple[float, Outlook]]:
    """A tick every TICK_S at these rates, the way a driver does it; what was said before each."""
    said = []
    for index, rate in enumerate(rates):
        now_s = begin_s + index * TICK_S
        service.outlook = learned.say(now_s, LEADS)
        known = index not in unknown
        service.tick(now_s, rate * TICK_S, known=known, answers=known)
        learned.see(service.decision(now_s, known))
        said.append((now_s, service.outlook))
    return said


def median(said: Outlook, name: Series = "prompt_tokens_per_s") -> float:
    return said.series[name].at(0.5)


def named(name: str) -> Settings:
    chosen = make_settings()
    return chosen.model_copy(update={"spec": chosen.spec.model_copy(update={"service": name})})


def test_what_was_seen_is_what_is_learned() -> None:
    service, learned = Service(), Learned(make_settings())
    said = lived(service, learned, 1000.0, [3.0] * 400)
    last = said[-1][1]
    assert last.series.keys() == set(STORED)
    assert median(last, "requests_per_s") == pytest.approx(3.0)
    assert median(last) == pytest.approx(3.0 * PROMPT)
    assert median(last, "output_tokens_per_s") == pytest.approx(3.0 * ANSWER)
    # The step that is told of is the third: its middle is a lead of two minutes after what is said has half its time.
    assert {one.horizon_s for one in last.series.values()} == {180.0}


def test_what_is_not_known_is_missing_and_no_zero() -> None:
    service, learned = Service(), Learned(make_settings())
    said = lived(service, learned, 1000.0, [3.0] * 240, unknown=range(120, 180))
    assert {one.fallback for one in said[179][1].series.values()} == {"stale"}
    assert all(median(each) == pytest.approx(3.0 * PROMPT, rel=0.03) for _, each in said[20:])
    assert said[-1][1].series["requests_per_s"].fallback != "stale"


def test_a_slow_loop_counts_and_a_pause_longer_than_sources_stay_fresh_does_not() -> None:
    service, learned = Service(), Learned(make_settings(metrics={"staleAfterS": 200, "scrapeTimeoutS": 0.5}))
    for step in range(12):
        now_s = 1000.0 + 150.0 * step
        said = learned.say(now_s, LEADS)
        service.tick(now_s, 450.0 if step else 0.0)
        learned.see(service.decision(now_s))
    assert median(said) == pytest.approx(3.0 * PROMPT, rel=0.01)
    # All that has come in half an hour comes to light at once: when, nobody knows.
    service.tick(now_s + 1800.0, 1800.0)
    learned.see(service.decision(now_s + 1800.0))
    after = learned.say(now_s + 1860.0, LEADS)
    assert after.series["requests_per_s"].fallback == "stale"
    assert median(after) == pytest.approx(3.0 * PROMPT, rel=0.01)


def test_the_same_is_said_for_a_minute_and_services_do_it_at_moments_of_their_own() -> None:
    moments: dict[int, int] = {}
    for index in range(30):
        learned = Learned(named(f"service-{index}"))
        said = lived(Service(), learned, 6000.0, [4.0 + 0.01 * step for step in range(120)])
        times = [now_s for (now_s, one), (_, before) in zip(said[1:], said, strict=False) if one is not before]
        later = [now_s for now_s in times if now_s > 6060.0]
        assert [b - a for a, b in itertools.pairwise(later)] == [STEP_S] * (len(later) - 1)
        moments[int(later[0] % STEP_S // 10)] = moments.get(int(later[0] % STEP_S // 10), 0) + 1
    assert len(moments) == 6
    assert max(moments.values()) <= 12


def test_a_cold_one_says_that_it_is_young_and_one_without_any_value_says_nothing() -> None:
    learned = Learned(make_settings())
    said = lived(Service(), learned, 1000.0, [3.0] * 60)
    assert said[0][1].series == {}
    assert {one.fallback for _, each in said for one in each.series.values()} <= {"young", "catching up"}
    blind = Learned(make_settings())
    assert all(not each.series for _, each in lived(Service(), blind, 1000.0, [3.0] * 60, unknown=range(60)))


def test_a_history_tells_of_the_job_before_it_comes_and_the_tick_believes_it() -> None:
    """Over the hours the learned forecast has been right where the last value was late: it speaks, ahead of the job."""
    begin_s, rng = 40 * HOUR_S + 1800.0, Random(1)
    came = [jobs(begin_s + index * TICK_S) * rng.uniform(0.8, 1.2) for index in range(int(HOUR_S / TICK_S))]
    asked, spoke = {}, []
    for name, past in (("warm", history(begin_s, jobs)), ("cold", None)):
        service, learned = Service(lead_s=(LEAD_S, LEAD_S)), Learned(make_settings(), past, LEADS)
        asked[name] = []
        for index, rate in enumerate(came):
            lived(service, learned, begin_s + index * TICK_S, [rate])
            found = service.tick(begin_s + index * TICK_S, 0.0)[Role.PREFILL]
            asked[name].append(found.tokens_per_s_high)
            spoke += [found.model] if name == "warm" else []
    # From a minute and a half before the job on, when groups that it needs must be asked for.
    ahead = slice(int(1710 / TICK_S), int(1800 / TICK_S))
    assert set(spoke[ahead]) == {TOLD}
    assert min(asked["warm"][ahead]) > 12.0 * PROMPT
    assert max(asked["cold"][ahead]) < 8.0 * PROMPT


def test_one_that_has_been_wrong_does_not_speak() -> None:
    """What is foretold has nothing to do with what comes: the errors of the last minutes outweigh any record."""
    service, rng = Service(lead_s=(LEAD_S, LEAD_S)), Random(2)
    for index in range(300):
        service.outlook = outlook(median=PROMPT * rng.uniform(0.5, 6.0))
        found = service.tick(1000.0 + TICK_S * index, 3.0 * TICK_S * rng.uniform(0.8, 1.2))
    assert found[Role.PREFILL].model not in (TOLD, "now")
    assert 3.0 * PROMPT < found[Role.PREFILL].tokens_per_s_high < 4.0 * PROMPT


def test_alone_it_is_planned_with_its_median_and_the_errors_that_it_has_shown() -> None:
    service = Service(lead_s=(LEAD_S, LEAD_S))
    exact = replace(outlook(median=3.0 * PROMPT), only=True)
    service.outlook = exact
    found = service.run([3.0] * 100)[Role.PREFILL]
    assert found.model == TOLD
    assert (found.tokens_per_s_q50, found.tokens_per_s_high) == pytest.approx((3.0 * PROMPT, 3.0 * PROMPT))
    service.outlook = replace(outlook(median=2.0 * PROMPT), only=True)
    later = service.run([3.0] * 400, begin_s=2000.0)[Role.PREFILL]
    assert (later.tokens_per_s_q50, later.tokens_per_s_high) == pytest.approx((2.0 * PROMPT, 3.0 * PROMPT))


def test_where_nothing_is_foretold_all_is_as_without() -> None:
    without, service = Service(), Service()
    rates = [2.0 + (index % 7) for index in range(200)]
    expected = without.run(rates)
    service.outlook = Outlook({"requests_per_s": outlook().series["requests_per_s"]})
    assert service.run(rates) == expected
    assert service.state == without.state
    assert service.state.courses[Role.PREFILL].told == ()


def test_a_tick_replays_from_its_journal(tmp_path: Path) -> None:
    chosen, profile, state = settings(), load_profile(), State()
    writer, models = JournalWriter(tmp_path / "j.jsonl"), set()
    for index, seen in enumerate(observations(120, growth=0.0)):
        observation = replace(seen, outlook=outlook(median=100.0 + index))
        decision = tick(state, observation, chosen, profile)
        writer.append(state, observation, chosen, profile, decision)
        state = decision.state
        models |= {found.model for role in ROLES if not isinstance(found := decision.forecast[role], Missing)}
    writer.close()
    assert TOLD in models
    found = replay(tmp_path / "j.jsonl")
    assert (found.ticks, found.first_difference) == (120, None)


def test_an_observation_with_an_outlook_goes_through_json_and_one_without_is_as_before() -> None:
    (seen,) = observations(1)
    full = replace(seen, outlook=outlook())
    assert decode(Observation, encode(Observation, full)) == full
    old = {key: value for key, value in encode(Observation, seen).items() if key != "outlook"}
    assert decode(Observation, old) == seen


def test_a_journal_gives_its_demand_back(tmp_path: Path) -> None:
    chosen, profile, state = settings(), load_profile(), State()
    writer = JournalWriter(tmp_path / "j.jsonl", max_bytes=300_000)
    seen = observations(200)
    for observation in seen:
        decision = tick(state, observation, chosen, profile)
        writer.append(state, observation, chosen, profile, decision)
        state = decision.state
    writer.close()
    assert (tmp_path / "j.jsonl.1").exists()
    found = of_journal(tmp_path / "j.jsonl", chosen, seen[-1].now_s)
    assert found.keys() == set(STORED)
    points = found["requests_per_s"]
    assert [b - a for (a, _), (b, _) in itertools.pairwise(points)] == [STEP_S] * (len(points) - 1)
    assert len(points) > 10
    # The demand grows by 0.3 requests/s a tick.
    rates = [rate for _, rate in points[2:-2]]
    assert [b - a for a, b in itertools.pairwise(rates)] == pytest.approx([3.6] * (len(rates) - 1), rel=0.1)
    assert of_journal(tmp_path / "j.jsonl", named("other"), seen[-1].now_s) == {}
    assert of_journal(tmp_path / "none.jsonl", chosen, seen[-1].now_s) == {}


async def test_without_a_memory_it_starts_cold_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    foresight = Foresight(make_settings(), None, asyncio.Lock())
    assert foresight.say(1000.0, LEADS).series == {}
    foresight.see(Service().decision(1000.0))
    while not caplog.messages:
        await asyncio.sleep(0.01)
    foresight.close()
    assert caplog.messages == [
        "ns/demo: forecasts start cold: pods have no memory; a metrics.prometheusUrl or a --journal has one"
    ]


async def test_from_a_journal_it_starts_warm_beside_the_ticks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen, profile, state = settings(), load_profile(), State()
    writer, seen = JournalWriter(tmp_path / "j.jsonl"), observations(200, growth=0.0)
    for observation in seen:
        decision = tick(state, observation, chosen, profile)
        writer.append(state, observation, chosen, profile, decision)
        state = decision.state
    writer.close()
    caplog.set_level("INFO")
    foresight, now_s = Foresight(chosen, tmp_path / "j.jsonl", asyncio.Lock()), seen[-1].now_s + TICK_S
    leads = leads_s(chosen, decision)
    assert foresight.say(now_s, leads).series == {}
    foresight.see(decision)
    while not caplog.messages:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    said = foresight.say(now_s, leads)
    foresight.close()
    assert median(said, "requests_per_s") == pytest.approx(3.0, rel=0.01)
    assert said.series["requests_per_s"].measured.targets >= 10
    assert caplog.messages[-1].startswith("team-a/chat: forecasts start warm: 0.3 h of history from journal ")


def test_numpy_is_not_loaded_before_there_is_something_to_say() -> None:
    code = "import sys, autoscaler.outlook as _; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
