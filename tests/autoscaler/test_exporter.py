"""The controller's pages: what is unknown is absent, no label collides with a scrape's, a taken port is named."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.adapters.exporter import Exporter
from autoscaler.adapters.status import from_json
from autoscaler.core import tick
from autoscaler.drivers.explain import explain_status
from autoscaler.errors import UserError
from autoscaler.model import Decision, Fleet, Learned, Observation, Samples, State
from perfmodel.correction import Correction, RoleCorrection
from perfmodel.profile import load_profile
from policies.model import Missing, Role
from tests.autoscaler.pages import observations, outlook, settings

SETTINGS = settings()
PROFILE = load_profile()
COLLIDING = {"namespace", "pod", "service", "container", "job", "instance", "endpoint", "node", "prometheus"}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def served(clock: Clock) -> AsyncIterator[tuple[Exporter, str]]:
    exporter = Exporter(clock)
    port = await exporter.start("127.0.0.1", 0)
    yield exporter, f"http://127.0.0.1:{port}"
    await exporter.stop()


def run(count: int = 30) -> list[tuple[Observation, Decision]]:
    state, result = State(), []
    for observation in observations(count):
        decision = tick(state, observation, SETTINGS, PROFILE)
        result.append((observation, decision))
        state = decision.state
    return result


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def metrics(url: str) -> Series:
    _, page = await get(f"{url}/metrics")
    families = text_string_to_metric_families(page)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def of(series: Series, name: str, /, **labels: str) -> float | None:
    wanted = {"target_namespace": "team-a", "target_service": "chat", **labels}
    return series.get((f"roleratio_controller_{name}", frozenset(wanted.items())))


async def test_metrics_say_what_was_foretold_and_how_wrong_such_was(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    (observation, decision) = run()[-1]
    exporter.observe(SETTINGS, observation, decision, 0.003)
    series = await metrics(url)
    assert not [name for name, _ in series if "outlook" in name]
    ahead = decision.forecast.decode
    assert not isinstance(ahead, Missing)
    assert of(series, "forecast_model", role="decode", model=ahead.model) == 1
    exporter.observe(SETTINGS, replace(observation, outlook=outlook()), decision, 0.003)
    series = await metrics(url)
    for name in ("requests", "prompt_tokens", "output_tokens"):
        assert of(series, "outlook_value", series=name, quantile="0.9") == 750
        assert of(series, "outlook_horizon_seconds", series=name) == 180
        assert of(series, "outlook_coverage_ratio", series=name, quantile="0.99") == 0.985
        assert of(series, "outlook_wape_ratio", series=name) == 0.125
        assert of(series, "outlook_pinball", series=name, of="learned") == 8
        assert of(series, "outlook_pinball", series=name, of="last_value") == 10
        assert of(series, "outlook_weight_ratio", series=name, model="ridge") == 0.75
        assert of(series, "outlook_fallback", series=name, fallback="burst") == 1
    exporter.observe(SETTINGS, replace(observation, outlook=outlook(targets=0)), decision, 0.003)
    series = await metrics(url)
    assert of(series, "outlook_value", series="requests", quantile="0.5") == 500
    assert not [name for name, _ in series if "coverage" in name or "wape" in name or "pinball" in name]


async def test_the_status_has_what_was_foretold(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    (observation, decision) = run()[-1]
    exporter.observe(SETTINGS, replace(observation, outlook=outlook()), decision, 0.003)
    body = json.loads((await get(f"{url}/v1/status"))[1])
    assert from_json(body["services"]["team-a/chat"], "status").outlook == outlook()
    assert "learned (burst): 500 tokens/s in 180 s, WAPE 12.5%" in explain_status(body)


async def test_metrics_say_what_was_decided(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    ticks = run()
    for observation, decision in ticks:
        exporter.observe(SETTINGS, observation, decision, 0.003)
    series, (observation, decision) = await metrics(url), ticks[-1]
    assert decision.target
    assert of(series, "desired_groups", role="prefill") == decision.target.groups.prefill
    assert of(series, "floor_groups", role="decode") == decision.target.floor.decode
    assert of(series, "current_groups", role="prefill") == 1
    assert of(series, "ready_groups", role="decode") == 1
    assert of(series, "min_count_pods", role="decode") == 2
    assert of(series, "present_groups", role="decode") == 1
    assert of(series, "fit_groups", role="decode") == 4
    assert of(series, "group_limit", role="prefill", bound="max") == SETTINGS.spec.prefill.max_groups
    assert of(series, "ratio_limit", bound="min") == SETTINGS.spec.ratio_band.min
    assert of(series, "running_requests", role="decode") == 8
    assert of(series, "waiting_requests", role="decode") == 1
    assert of(series, "deferred_requests", role="decode") == 0
    assert of(series, "kv_usage_ratio", role="decode") == 0.4
    assert of(series, "attained_target_ratio", objective="itl") == 0.95
    assert of(series, "mode", mode=SETTINGS.spec.mode) == 1
    ahead = decision.forecast.prefill
    assert not isinstance(ahead, Missing)
    share = f"{SETTINGS.spec.slo.ttft.percentile / 100:g}"
    assert of(series, "forecast_tokens_per_second", role="prefill", quantile="0.5") == ahead.tokens_per_s_q50
    assert of(series, "forecast_tokens_per_second", role="prefill", quantile=share) == ahead.tokens_per_s_high
    assert not isinstance(decision.signals.demand, Missing)
    assert of(series, "demand_requests_per_second") == decision.signals.demand.requests_per_s
    assert of(series, "demand_tokens_per_second", role="decode") == decision.signals.demand.output_tokens_per_s
    assert of(series, "latency_target_seconds", objective="ttft") == 2.0
    assert of(series, "gpu_budget") == 16
    assert of(series, "failed_sources") == 1
    assert of(series, "last_tick_timestamp_seconds") == observation.now_s
    assert of(series, "tick_seconds_count") == len(ticks)


async def test_what_was_learned_is_shown_and_an_error_only_where_there_is_one(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    observation, decision = run()[-1]
    slow = RoleCorrection(1.25, samples=45, excluded=4, mape_before=0.2, mape_after=0.01)
    signals = decision.signals.with_role(Role.DECODE, replace(decision.signals.decode, stalled=("decode-3",)))
    learned = Learned(PROFILE.name, Correction(decode=slow), context=1.75)
    decision = replace(decision, signals=signals, state=replace(decision.state, learned=learned))
    exporter.observe(SETTINGS, observation, decision, 0.003)
    series = await metrics(url)
    assert of(series, "stalled_groups", role="decode") == 1
    assert of(series, "profile_factor", role="decode") == 1.25
    assert of(series, "profile_samples", role="decode", kind="taken") == 45
    assert of(series, "profile_samples", role="decode", kind="excluded") == 4
    assert of(series, "profile_error_ratio", role="decode", of="profile") == 0.2
    assert of(series, "profile_error_ratio", role="decode", of="learned") == 0.01
    assert of(series, "profile_factor", role="prefill") == 1.0
    assert of(series, "profile_context_factor") == 1.75
    assert of(series, "profile_error_ratio", role="prefill", of="profile") is None


async def test_reasons_steps_and_conditions_are_counted(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    ticks = run()
    for observation, decision in ticks:
        exporter.observe(SETTINGS, observation, decision, 0.003)
    series = await metrics(url)
    steps = [decision.step for _, decision in ticks if decision.step]
    assert steps
    for step in steps:
        direction = "up" if step.after > step.before else "down"
        same = [s for s in steps if (s.kind, s.role, s.after > s.before) == (step.kind, step.role, direction == "up")]
        labels = {"kind": step.kind, "role": step.role.value, "direction": direction}
        assert of(series, "steps_total", **labels) == len(same)
    reasons = [reason for _, decision in ticks for reason in decision.why]
    counted = [value for (name, _), value in series.items() if name == "roleratio_controller_reasons_total"]
    assert sum(counted) == len(reasons)
    for condition in ticks[-1][1].conditions:
        for status in ("True", "False", "Unknown"):
            value = of(series, "condition", type=condition.type, status=status)
            assert value == float(status == condition.status)


async def test_what_is_unknown_is_absent_and_goes_when_it_becomes_unknown(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    observation, decision = run()[-1]
    exporter.observe(SETTINGS, observation, decision, 0.003)
    assert of(await metrics(url), "desired_groups", role="prefill") is not None
    fleet = observation.fleet
    assert not isinstance(fleet.decode, Missing)
    half = Fleet(Missing("no workload"), replace(fleet.decode, min_pods=Missing("no PodGroup")))
    blind = Observation(observation.now_s + 5, Samples(failures={"r": "gone"}), half)
    exporter.observe(SETTINGS, blind, tick(State(), blind, SETTINGS, PROFILE), 0.003)
    series = await metrics(url)
    for name in ("desired_groups", "floor_groups", "current_groups", "ready_groups", "gpus_per_group"):
        assert of(series, name, role="prefill") is None, name
    for name in ("running_requests", "waiting_requests", "kv_usage_ratio", "desired_groups"):
        assert of(series, name, role="decode") is None, name
    assert of(series, "min_count_pods", role="decode") is None
    assert of(series, "current_groups", role="decode") == 1
    assert of(series, "demand_requests_per_second") is None
    assert of(series, "forecast_tokens_per_second", role="decode", quantile="0.5") is None
    assert of(series, "latency_seconds", objective="ttft") is None


async def test_steps_are_counted_from_zero_so_that_the_first_one_is_an_increase(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    observation, decision = run(1)[0]
    assert decision.step is None
    exporter.observe(SETTINGS, observation, decision, 0.003)
    series = await metrics(url)
    counted = [value for (name, _), value in series.items() if name == "roleratio_controller_steps_total"]
    assert counted == [0.0] * 8


async def test_no_label_has_a_name_that_a_scrape_adds(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    for observation, decision in run():
        exporter.observe(SETTINGS, observation, decision, 0.003)
    series = await metrics(url)
    assert len(series) > 50
    assert not {key for _, labels in series for key, _ in labels} & COLLIDING
    assert all(name.startswith("roleratio_controller_") for name, _ in series)


async def test_status_is_what_explain_reads(served: tuple[Exporter, str]) -> None:
    exporter, url = served
    for observation, decision in run():
        exporter.observe(SETTINGS, observation, decision, 0.003)
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/status") as response:
        status = await response.json()
    service = status["services"]["team-a/chat"]
    assert service["settings"]["spec"]["slo"]["ttft"] == {"percentile": 95, "targetMs": 2000}
    assert service["settings"]["spec"]["gpuBudget"] == 16
    assert service["fleet"]["prefill"]["replicas"] == 1
    assert service["decision"]["target"]["groups"].keys() == {"prefill", "decode"}
    assert "team-a/chat" in explain_status(status)


async def test_before_the_first_tick_nothing_is_claimed(served: tuple[Exporter, str]) -> None:
    _, url = served
    own = ("roleratio_controller_leader", "roleratio_controller_cluster_reachable")
    assert set(await metrics(url)) == {(name, frozenset()) for name in own}
    assert await get(f"{url}/healthz") == (200, "ok\n")
    assert await get(f"{url}/v1/status") == (200, '{"services": {}}')


async def test_health_ends_when_decisions_stop(served: tuple[Exporter, str], clock: Clock) -> None:
    exporter, url = served
    exporter.observe(SETTINGS, *run(1)[0], 0.003)
    clock.now_s = 59
    assert (await get(f"{url}/healthz"))[0] == 200
    clock.now_s = 61
    assert await get(f"{url}/healthz") == (503, "team-a/chat: no decision for 61 s\n")


async def test_a_service_that_is_given_up_leaves_no_gauge_and_no_complaint(
    served: tuple[Exporter, str], clock: Clock
) -> None:
    exporter, url = served
    exporter.observe(SETTINGS, *run(1)[0], 0.003)
    exporter.forget(SETTINGS)
    clock.now_s = 3600
    series = await metrics(url)
    assert {name for name, _ in series if name.endswith(("_groups", "_timestamp_seconds", "_budget", "_mode"))} == set()
    assert await get(f"{url}/healthz") == (200, "ok\n")
    assert await get(f"{url}/v1/status") == (200, '{"services": {}}')


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^port {port} on 127\.0\.0\.1 is taken; choose another one"):
            await Exporter().start("127.0.0.1", port)
