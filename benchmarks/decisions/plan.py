"""What is run: scenarios in parts, and the policies that are compared in each.

Rules:
1. A scenario of ServeGen's that lasts for more than a day is run day by day. Each day starts anew, with the scenario's
   first groups and with policies that have seen nothing, so that days can run side by side.
2. Ours is run over its one safety knob, every other policy of the roster at its defaults.
3. Fixed sizes are chosen with hindsight: from the mean to the peak of what the true demand needs, both roles in the
   proportion that the profile gives to that demand, and with a group more of either or a decode group less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from policies.model import ROLES, Role
from roleratio.simulation import find_scenario, load_scenario
from simulator.roster import NAMES
from simulator.scenario import Scenario

SCENARIOS = ("azure-code", "azure-code-x20", "azure-conversation", "m-large-weeks")
QUICK = ("azure-conversation", "m-large-weeks")
KNOB = "forecastQuantile"
KNOB_VALUES = (0.85, 0.9, 0.925, 0.95, 0.975)
OURS = tuple(f"ours:{KNOB}={value:g}" for value in KNOB_VALUES)
DEFAULTS = tuple(name for name in NAMES if ":" not in name and name not in ("ours", "static"))
"""Every other policy of the roster, the oracle among them."""
NEEDS = "needs"
"""No policy: what the true demand needs."""

DAY_S = 86_400.0
QUICK_TRACE_S, QUICK_SERVEGEN_S, NOON_S = 600.0, 3600.0, 43_200.0
SIZES, QUICK_SIZES = 6, 3
"""How many fixed sizes from the mean to the peak."""
DEAREST = 2.0
"""Fixed sizes that cost more than so many times the oracle's GPU-hours are left out: nobody compares with them."""

Key = tuple[str, str, int, float, float]
"""Scenario, policy, seed, where in the load it begins, how long it lasts, both in seconds."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a scenario. `start_s` is ServeGen's `startS`; a trace begins where its scenario says."""

    scenario: str
    path: Path
    seed: int
    start_s: float
    duration_s: float

    def of(self, scenario: Scenario) -> Scenario:
        """The scenario, cut to this part."""
        found = scenario.load.servegen
        if found is None:
            return scenario.model_copy(update={"duration_s": self.duration_s})
        load = scenario.load.model_copy(update={"servegen": found.model_copy(update={"start_s": self.start_s})})
        return scenario.model_copy(update={"duration_s": self.duration_s, "load": load})


@dataclass(frozen=True, slots=True)
class Run:
    """A part under a policy, or what it needs."""

    part: Part
    policy: str

    @property
    def key(self) -> Key:
        """What makes it the same run."""
        return self.part.scenario, self.policy, self.part.seed, self.part.start_s, self.part.duration_s


def parts(name: str, seeds: Sequence[int] = (), *, quick: bool = False) -> list[Part]:
    """A scenario's parts, by its name or file, under each seed (none: its own). Raises UserError."""
    path = find_scenario(name).resolve()
    scenario = load_scenario(path)
    return [
        Part(scenario.name, path, seed, start_s, duration_s)
        for seed in seeds or (scenario.seed,)
        for start_s, duration_s in _stretches(scenario, quick=quick)
    ]


def _stretches(scenario: Scenario, *, quick: bool) -> list[tuple[float, float]]:
    """(start, duration) in seconds."""
    whole_s, found = scenario.duration_s, scenario.load.servegen
    if found is None:
        return [(0.0, min(whole_s, QUICK_TRACE_S) if quick else whole_s)]
    if quick:
        return [(found.start_s + min(NOON_S, whole_s / 2), min(whole_s / 2, QUICK_SERVEGEN_S))]
    days = range(max(1, ceil(whole_s / DAY_S)))
    return [(found.start_s + day * DAY_S, min(DAY_S, whole_s - day * DAY_S)) for day in days]


def fixed_sizes(
    mean: Mapping[Role, float], peak: Mapping[Role, float], scenario: Scenario, most_groups: float, sizes: int
) -> list[str]:
    """`static:P,D` from the mean to the peak of the needs, in equal ratios, inside the service's bounds, at most so
    many groups together.
    """
    spec = scenario.autoscaler
    pairs: dict[tuple[int, int], None] = {}
    for index in range(sizes):
        share = index / (sizes - 1)
        prefill, decode = (ceil(mean[role] * (peak[role] / mean[role]) ** share - 1e-9) for role in ROLES)
        beside = [(prefill, decode), (prefill + 1, decode), (prefill, decode + 1), (prefill, decode - 1)]
        pairs.update(dict.fromkeys(beside))
    return [
        f"static:{prefill},{decode}"
        for prefill, decode in sorted(pairs)
        if spec.prefill.min_groups <= prefill <= spec.prefill.max_groups
        and spec.decode.min_groups <= decode <= spec.decode.max_groups
        and prefill + decode <= most_groups
    ]


def chosen(policies: Iterable[str], wanted: Sequence[str]) -> list[str]:
    """Of the policies, those of the kinds that are wanted (`ours`, `static`, `keda`, ...), all of them if none is; a
    wanted one that names its values (`ours:a=1`) comes in any case.
    """
    if not wanted:
        return list(policies)
    kinds = {name for name in wanted if ":" not in name}
    named = [name for name in wanted if ":" in name]
    return list(dict.fromkeys([*(one for one in policies if one.partition(":")[0] in kinds), *named]))
