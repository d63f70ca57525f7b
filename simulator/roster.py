"""Policies by their names, made for a scenario."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import yaml

from autoscaler.errors import UserError
from autoscaler.model import Observation
from autoscaler.outlook import Learned
from autoscaler.settings import Settings, parse_settings
from perfmodel.profile import Profile
from policies.model import ROLES, Pair, Role
from simulator.arrivals import Request
from simulator.foreknown import KINDS, Alone, Foreknown, Known
from simulator.oracle import Oracle, RoleNeeds, Steps, fluid_needs
from simulator.ours import Ours, history
from simulator.policies.dynamo_like import DynamoLike
from simulator.policies.heteroscale import HeteroScale
from simulator.policies.hpa_queue import HpaQueue
from simulator.policies.keda import KedaGuide
from simulator.policies.kpa import Kpa
from simulator.policies.static import Static
from simulator.policies.tokenscale import TokenScale
from simulator.policies.view import Service
from simulator.policies.wva_v2 import WvaV2
from simulator.port import Policy, SizePolicy, Sizes
from simulator.scenario import Scenario

Requests = Callable[[], Iterable[Request]]
"""Makes the scenario's requests anew."""

SAMPLE = 10_000
"""So many requests tell the mean lengths to those that ask for them."""

_BASELINES: dict[str, Callable[[Service, Requests], Sizes]] = {
    "hpa-queue": lambda service, _: HpaQueue(service),
    "keda": lambda service, _: KedaGuide(service),
    "kpa": lambda service, _: Kpa(service),
    "wva-v2": lambda service, _: WvaV2(service),
    "dynamo": lambda service, _: DynamoLike(service),
    "tokenscale": lambda service, _: TokenScale(service),
    "heteroscale": lambda service, requests: HeteroScale(service, *_means(requests)),
}
NAMES = ("ours", "ours:KEY=VALUE,...", "told:KIND,...", "oracle", *_BASELINES, "static", "static:P,D")

TOLD = ("nothing", "learned", *KINDS)
"""Which forecasts ours can be told: none, so that the tick's own are all; what was learned, alone; `foreknown`."""


@dataclass(frozen=True, slots=True)
class _Bounded:
    """Sizes inside the bounds of the service, for those that do not look at them."""

    sizes: Sizes
    service: Service

    def groups(self, seen: Observation) -> Pair | None:
        """As they say, but bounded."""
        found = self.sizes.groups(seen)
        return None if found is None else self.service.bounded(found)


@dataclass(frozen=True, slots=True)
class Past:
    """What came before the scenario's begin, at times from `begin_s` (below 0) on."""

    begin_s: float = 0.0
    requests: Iterable[Request] = ()


def make_policy(
    name: str,
    scenario: Scenario,
    profile: Profile,
    requests: Requests,
    real: Profile,
    past: Callable[[], Past] = Past,
) -> Policy:
    """A policy by its name; `static` alone stays at the scenario's groups. Raises UserError for an unknown one.

    `profile` is what an operator tells of the engines, `real` how they are, which the oracle alone knows.
    """
    service = service_of(scenario, profile)
    kind, _, sizes = name.partition(":")
    if kind == "ours":
        settings = _changed(scenario, sizes, name)
        return Ours(settings, profile, name, _learned(settings, past()))
    if kind == "told":
        return _told(name, sizes, scenario, profile, requests, past)
    if name in _BASELINES:
        return SizePolicy(name, _BASELINES[name](service, requests))
    if name == "oracle":
        oracle = Oracle.of(oracle_needs(scenario, real, requests()), scenario.autoscaler.sync_period_s)
        return SizePolicy(name, _Bounded(oracle, service))
    if kind == "static" and (pair := _pair(sizes) if sizes else _initial(scenario)) is not None:
        return SizePolicy(name, Static(pair))
    raise UserError(f"policy {name!r}: no such policy; use one of {', '.join(NAMES)}")


def _learned(settings: Settings, before: Past) -> Learned:
    return Learned(settings, history(before.requests, before.begin_s))


def _told(
    name: str, spec: str, scenario: Scenario, profile: Profile, requests: Requests, past: Callable[[], Past]
) -> Ours:
    """Ours, with other forecasts: `told:KIND[,times=FACTOR][,KEY=VALUE...]`. Raises UserError."""
    kind, _, rest = spec.partition(",")
    times, changes = 1.0, []
    for change in filter(None, rest.split(",")):
        key, _, text = change.partition("=")
        if key.strip() == "times":
            times = _factor(text, name)
        else:
            changes.append(change)
    settings = _changed(scenario, ",".join(changes), name)
    if kind == "nothing":
        return Ours(settings, profile, name)
    if kind == "learned":
        return Ours(settings, profile, name, Alone(_learned(settings, past())))
    found = next((one for one in KINDS if one == kind), None)
    if found is None:
        raise UserError(f"policy {name!r}: {kind!r}: expected one of {', '.join(TOLD)}, such as told:{TOLD[-1]}")
    fitting = (one for one in requests() if one[1] + one[2] <= profile.max_model_len)
    known = Known(fitting, scenario.duration_s, scenario.autoscaler.slo.itl.target_ms)
    return Ours(settings, profile, name, Foreknown(found, known, scenario.autoscaler.sync_period_s, times))


def _factor(text: str, name: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = -1.0
    if not 0 < factor < math.inf:
        raise UserError(f"policy {name!r}: times={text}: expected a number above 0, such as times=1.2")
    return factor


def _changed(scenario: Scenario, changes: str, name: str) -> Settings:
    """The scenario's settings with `a.b=value,...` of the spec changed. Raises UserError."""
    spec: dict[str, Any] = scenario.autoscaler.model_dump(by_alias=True, mode="json", exclude_none=True)
    for change in filter(None, changes.split(",")):
        path, equals, text = change.partition("=")
        *parents, key = path.strip().split(".")
        place: Any = spec
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict):
            raise UserError(
                f"policy {name!r}: {change!r}: expected KEY=VALUE, KEY of the spec, such as prefill.minGroups=2"
            )
        place[key] = yaml.safe_load(text)
    document = {**scenario.settings.model_dump(by_alias=True, mode="json", exclude_none=True), "spec": spec}
    return parse_settings(document, f"policy {name!r}")


def started_for(name: str, scenario: Scenario) -> Scenario:
    """The scenario as it begins under a policy: fixed sizes are there from the start."""
    kind, _, sizes = name.partition(":")
    pair = _pair(sizes) if kind == "static" else None
    if pair is None:
        return scenario
    roles = {role.value: scenario.fleet.role(role).model_copy(update={"groups": pair[role]}) for role in ROLES}
    return scenario.model_copy(update={"fleet": scenario.fleet.model_copy(update=roles)})


def service_of(scenario: Scenario, profile: Profile) -> Service:
    """What an operator would tell any autoscaler of the scenario's service."""
    spec = scenario.autoscaler
    return Service(
        profiles={role: set_up(scenario, profile, role) for role in ROLES},
        ttft_ms=spec.slo.ttft.target_ms,
        itl_ms=spec.slo.itl.target_ms,
        minimum=Pair(spec.prefill.min_groups, spec.decode.min_groups),
        maximum=Pair(spec.prefill.max_groups, spec.decode.max_groups),
        gpus_per_group=Pair(*(scenario.shape(role, profile.gpus).gpus for role in ROLES)),
        budget_gpus=spec.gpu_budget,
    )


def set_up(scenario: Scenario, profile: Profile, role: Role) -> Profile:
    """The profile as a role's engines are set up."""
    return replace(profile, max_num_seqs=scenario.fleet.role(role).max_num_seqs or profile.max_num_seqs)


def oracle_needs(
    scenario: Scenario, profile: Profile, requests: Iterable[Request], felt_s: float = 0.0
) -> dict[Role, RoleNeeds]:
    """What the true demand needs, as a fluid, never below the bounds' minimum: nobody may go below that. `felt_s`: as
    means of so long, if that is more than the TTFT's target leaves.
    """
    spec, cold_start_s = scenario.autoscaler, scenario.start.typical_s
    limit = profile.max_model_len
    fitting = (one for one in requests if one[1] + one[2] <= limit)
    step_s = spec.slo.ttft.target_ms / 1e3
    decode = set_up(scenario, profile, Role.DECODE)
    needs = fluid_needs(fitting, decode, spec.slo.itl.target_ms, 0.0, step_s, felt_s)
    return {
        role: RoleNeeds(
            _at_least(needs[role], spec.role(role).min_groups, scenario.duration_s),
            cold_start_s,
            scenario.shape(role, profile.gpus).gpus,
            scenario.fleet.role(role).groups,
        )
        for role in ROLES
    }


def _at_least(steps: Steps, minimum: int, duration_s: float) -> list[tuple[float, int]]:
    """The steps over the whole duration, with a minimum."""
    raised: list[tuple[float, int]] = []
    for at_s, groups in steps or [(0.0, 0)]:
        need = max(minimum, groups)
        if at_s < duration_s and (not raised or raised[-1][1] != need):
            raised.append((at_s, need))
    return [*raised, (duration_s, 0)]


def _means(requests: Requests) -> tuple[float, float]:
    sample = list(islice(requests(), SAMPLE))
    count = max(1, len(sample))
    return sum(one[1] for one in sample) / count or 1.0, sum(one[2] for one in sample) / count or 1.0


def _initial(scenario: Scenario) -> Pair:
    return Pair(*(scenario.fleet.role(role).groups for role in ROLES))


def _pair(text: str) -> Pair | None:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        return None
    return Pair(int(parts[0]), int(parts[1]))
