"""Scenario files: every mistake at once, each in one line; what is shipped runs."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.errors import UserError
from policies.model import Pair, Role
from roleratio.simulation import SHIPPED, Prepared, find_scenario, load_scenario, shipped_scenarios, streams
from simulator.generate import generated, spans_of
from simulator.roster import NAMES, make_policy, oracle_needs, service_of, started_for
from simulator.scenario import Time, parse_scenario
from tests.simulator.small import PROFILE, SMALL, run, scenario


def problems(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        scenario(**changes)
    return caught.value.problems


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(
        durationS=-1,
        fleet__nodes__count="many",
        autoscaler__gpuBudget=0,
        surprise=1,
        load__phases=[{"name": "a", "share": 1, "rate": 2}],
    )
    assert found == (
        "small: durationS: -1: input should be greater than 0",
        "small: load.phases.0.rate: unknown key; remove it or check its spelling and place",
        "small: fleet.nodes.count: 'many': input should be a valid integer, unable to parse string as an integer",
        "small: autoscaler.gpuBudget: 0: input should be greater than or equal to 1",
        "small: surprise: unknown key; remove it or check its spelling and place",
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"load": {}}, "expected exactly one of demo, trace, servegen, measured and clients"),
        (
            {"load": {"demo": True, "trace": {"file": "x"}}},
            "expected exactly one of demo, trace, servegen, measured and clients",
        ),
        ({"load": {"demo": True, "phases": [{"name": "a", "share": 1}]}}, "phases are of clients"),
        (
            {"load__clients": [{"prompt": {"mean": 1}, "output": {"mean": 1}}]},
            "expected exactly one of rateRps and wave",
        ),
        ({"start__loadS": {"medianS": 1, "valuesS": [1]}}, "expected a number of seconds, or one of medianS"),
        ({"start__loadS": "soon"}, "start.loadS"),
        ({"faults": [{"kind": "earthquake", "atS": 1}]}, "faults.0"),
        ({"fleet__prefill__groups": 9}, "fleet.prefill.groups 9 is above autoscaler.prefill.maxGroups 6: lower it"),
        ({"autoscaler__prefill__minGroups": 20, "autoscaler__prefill__maxGroups": 30}, "gpuBudget 16 cannot hold"),
    ],
)
def test_what_does_not_fit_together_is_told(changes: dict[str, Any], says: str) -> None:
    found = problems(**changes)
    assert any(says in problem for problem in found), found
    assert all(len(problem.splitlines()) == 1 for problem in found)


def test_an_empty_file_is_no_scenario() -> None:
    with pytest.raises(UserError, match="expected a scenario"):
        parse_scenario(None, "x.yaml")


def test_gpus_that_cannot_be_shared_out_are_told() -> None:
    with pytest.raises(UserError, match=r"fleet.prefill.podsPerGroup 3: expected a divisor of the profile's 2"):
        scenario(fleet__prefill__podsPerGroup=3).shape(Role.PREFILL, PROFILE.gpus)
    with pytest.raises(UserError, match=r"fleet.prefill.podsPerGroup 2: expected a divisor of the role's 3"):
        scenario(fleet__prefill__gpus=3).shape(Role.PREFILL, PROFILE.gpus)


def test_roles_may_be_as_wide_as_they_like() -> None:
    """The wider role costs more, also by the account of those that look at a budget and of the oracle."""
    one = scenario(fleet__prefill__gpus=4)
    result = run(one, "static")
    assert result.gpus_per_group == {Role.PREFILL: 4, Role.DECODE: PROFILE.gpus}
    assert result.gpu_hours(Role.PREFILL) == pytest.approx(2 * result.gpu_hours(Role.DECODE))
    assert service_of(one, PROFILE).gpus_per_group == Pair(4, PROFILE.gpus)
    assert oracle_needs(one, PROFILE, [(0.0, 100, 10)])[Role.PREFILL].gpus_per_group == 4


def test_times() -> None:
    rng = streams(1)("x")
    assert Time(constant_s=3).draw(rng) == 3
    assert {Time(values_s=(1.0, 2.0)).draw(rng) for _ in range(50)} == {1.0, 2.0}
    drawn = sorted(Time(median_s=10, sigma=0.3).draw(rng) for _ in range(999))
    assert drawn[499] == pytest.approx(10, rel=0.05)
    assert Time(values_s=(5.0, 1.0, 2.0)).typical_s == 2.0


def test_streams_do_not_move_each_other() -> None:
    assert streams(1)("a").random() == streams(1)("a").random()
    assert streams(1)("a").random() != streams(1)("b").random() != streams(2)("b").random()


def test_phases_change_rate_and_lengths() -> None:
    phases = [
        {"name": "calm", "share": 1},
        {"name": "busy", "share": 3, "rateFactor": 4, "promptFactor": 2, "outputFactor": 0.5},
    ]
    one = scenario(durationS=400, load__phases=phases)
    assert [tuple(span) for span in spans_of(one)] == [("calm", 0.0, 100.0), ("busy", 100.0, 400.0)]
    sent = list(generated(one, streams(1)))
    calm, busy = [r for r in sent if r[0] < 100], [r for r in sent if r[0] >= 100]
    assert len(busy) / len(calm) == pytest.approx(12, rel=0.2)
    assert sum(r[1] for r in busy) / len(busy) == pytest.approx(2 * sum(r[1] for r in calm) / len(calm), rel=0.1)
    assert sum(r[2] for r in busy) / len(busy) == pytest.approx(0.5 * sum(r[2] for r in calm) / len(calm), rel=0.1)


def test_what_is_shipped_can_be_read() -> None:
    assert set(shipped_scenarios()) >= {"demo", "sine", "azure-code", "azure-conversation", "m-large-day"}
    for name in shipped_scenarios():
        assert load_scenario(SHIPPED / f"{name}.yaml").name == name
    with pytest.raises(UserError, match="shipped are azure-code"):
        find_scenario("nope")


def test_a_missing_trace_is_told() -> None:
    with pytest.raises(UserError, match=r"azure_llm_2023_code.csv.gz: no such file"):
        Prepared(find_scenario("azure-code"))


def test_every_policy_can_be_made_and_runs() -> None:
    for name in NAMES:
        one = name.replace("KEY=VALUE,...", "prefill.minGroups=2,forecastQuantile=0.95").replace("P,D", "2,3")
        one = one.replace("KIND,...", "half,times=1.2,forecastQuantile=0.9")
        result = run(scenario(durationS=20), one)
        assert result.policy == one
        assert len(result.requests) > 20


def test_engines_may_be_slower_than_the_policy_is_told(tmp_path: Path) -> None:
    data = {**SMALL, "fleet": {**SMALL["fleet"], "profile": "llama-3.1-70b-h100-tp4"}}
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    prepared = Prepared(path)
    assert prepared.told.name == "qwen3-32b-a100-tp2"
    assert prepared.profile.gpus == 4
    result = prepared.run("ours", 1)
    assert result.gpus_per_group[Role.DECODE] == 4
    assert result.problems == ()


def test_a_policy_that_cannot_be_made_is_told() -> None:
    one = scenario()
    for name, says in {
        "nope": "use one of ours",
        "static:2": "use one of ours",
        "ours:prefill": "expected KEY=VALUE",
        "ours:a.b=1": "expected KEY=VALUE",
        "ours:nope=1": "spec.nope: unknown key",
        "ours:prefill.minGroups=0": "spec.prefill.minGroups",
    }.items():
        with pytest.raises(UserError, match=says):
            make_policy(name, one, PROFILE, lambda: (), PROFILE)


def test_fixed_sizes_are_there_from_the_start_and_the_service_knows_its_engines() -> None:
    one = started_for("static:2,3", scenario())
    assert Pair(one.fleet.prefill.groups, one.fleet.decode.groups) == Pair(2, 3)
    assert run(scenario(), "static:2,3").events == []
    assert service_of(scenario(), PROFILE).profiles[Role.DECODE].max_num_seqs == 16
    assert deepcopy(SMALL) == SMALL
