"""A small scenario to change, and ways to run it. For tests only."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from perfmodel.profile import Profile, load_profile
from roleratio.simulation import streams
from simulator.arrivals import Request
from simulator.generate import generated, spans_of
from simulator.port import Policy
from simulator.result import Result
from simulator.roster import make_policy, started_for
from simulator.scenario import Scenario, parse_scenario
from simulator.world import Load, Watch, World

PROFILE = load_profile("qwen3-32b-a100-tp2")

SMALL: dict[str, Any] = {
    "name": "small",
    "durationS": 60,
    "load": {
        "clients": [{"rateRps": 3, "prompt": {"mean": 1000, "high": 3500}, "output": {"mean": 60, "high": 300}}],
    },
    "fleet": {
        "nodes": {"count": 4, "gpus": 4},
        "prefill": {"groups": 1, "podsPerGroup": 2},
        "decode": {"groups": 1, "podsPerGroup": 2, "maxNumSeqs": 16},
    },
    "start": {"imageS": 2, "loadS": 4},
    "autoscaler": {
        "profile": "qwen3-32b-a100-tp2",
        "gpuBudget": 16,
        "prefill": {"maxGroups": 6, "scaleDown": {"stabilizationS": 15}, "coldStartS": 6},
        "decode": {"maxGroups": 6, "scaleDown": {"stabilizationS": 15}, "coldStartS": 6, "maxNumSeqs": 16},
        "metrics": {"windowS": 10, "scrapeTimeoutS": 0.8},
        "syncPeriodS": 1,
    },
}


def scenario(**changes: Any) -> Scenario:
    """The small scenario with keys changed; `fleet__prefill__groups=2` reaches into it."""
    data = deepcopy(SMALL)
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = data
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = value
    return parse_scenario(data, "small")


def world(
    one: Scenario,
    policy: str | Policy = "static",
    seed: int = 1,
    requests: Iterable[Request] | None = None,
    profile: Profile = PROFILE,
) -> World:
    """A world to run."""

    def load() -> Load:
        found = generated(one, streams(seed)) if requests is None else iter(requests)
        return Load(found, spans_of(one))

    made = make_policy(policy, one, PROFILE, lambda: load().requests, profile) if isinstance(policy, str) else policy
    begun = started_for(policy, one) if isinstance(policy, str) else one
    return World(begun, profile, load(), made, streams(seed), seed)


def run(
    one: Scenario,
    policy: str | Policy = "static",
    seed: int = 1,
    requests: Iterable[Request] | None = None,
    watch: Watch | None = None,
) -> Result:
    """One run, whose invariants have held."""
    result = world(one, policy, seed, requests).run(watch)
    assert result.problems == ()
    return result
