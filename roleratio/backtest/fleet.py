"""The scenario of a backtest: the demand meets a fleet that is known from settings and journals, and else assumed.

Rules:
1. What is told wins over what was recorded, which wins over what is assumed. Each assumption is a note for the user.
2. Without settings, bounds and budget are twice what perfect knowledge would have had at its peak: they bind nobody.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from autoscaler.errors import UserError
from autoscaler.model import RoleFleet
from autoscaler.settings import Settings
from perfmodel.profile import DEFAULT_PROFILE, FORMAT, Profile, ProfileError, Surface, load_profile
from policies.model import ROLES, Missing, Pair, Role
from roleratio.simulation import Prepared
from simulator.oracle import Steps
from simulator.roster import make_policy, oracle_needs
from simulator.scenario import parse_scenario

FIRST_S = 600.0
"""A fleet that is not known begins with what the demand of so long needs on average."""
NODE_GPUS = 8
MEASURED = 3
"""Cold starts that were measured so often are believed."""
MOST_MEASURED = 200
SCENARIO = "scenario.yaml"
_METRICS = ("windowS", "staleAfterS", "scrapeTimeoutS")

Object = dict[str, Any]

EMPTY: Object = {"nodes": {"count": 0, "gpus": NODE_GPUS}, "prefill": {"groups": 0}, "decode": {"groups": 0}}
"""A fleet of nothing, for what only looks at the demand."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the fleet: settings, and of journals the profile, groups and cold starts that were recorded.

    `profile_name`, `cold_start_s` and `nodes` (count, GPUs of each) are what the user says; `origin` is where the
    settings are from.
    """

    settings: Settings | None = None
    origin: str = ""
    profile: Profile | None = None
    fleet: Mapping[Role, RoleFleet] = field(default_factory=dict)
    cold_starts_s: tuple[float, ...] = ()
    profile_name: str | None = None
    cold_start_s: float | None = None
    nodes: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """A scenario that is ready to run, what was assumed for it, and the most groups that perfect knowledge has."""

    path: Path
    prepared: Prepared
    notes: tuple[str, ...]
    peak: Pair


def build(folder: Path, name: str, load: Object, duration_s: float, known: Known) -> Built:
    """Write the scenario into `folder`, its load's file beside it. Raises UserError."""
    path = folder / SCENARIO
    profile = _profile_name(folder, known)
    draft: Object = {
        "name": name,
        "durationS": duration_s,
        "load": load,
        "fleet": EMPTY,
        "start": _start(known),
        "autoscaler": _spec(known, profile, Pair(10_000, 10_000), 1_000_000),
    }
    first = _written(path, draft)
    needs = oracle_needs(first.scenario, first.profile, first.load(first.scenario.seed).requests)
    peak = Pair(*(max(groups for _, groups in needs[role].steps) for role in ROLES))
    most = Pair(*(max(8, 2 * peak[role]) for role in ROLES))
    gpus = first.profile.gpus
    spec = _spec(known, profile, most, (most.prefill + most.decode) * gpus)
    draft["autoscaler"] = spec
    groups = _groups(known, spec, gpus, Pair(*(_usual(needs[role].steps) for role in ROLES)))
    draft["fleet"] = _fleet(known, spec, gpus, groups)
    prepared = _written(path, draft)
    return Built(path, prepared, tuple(_notes(known, prepared, groups)), peak)


def check_policy(name: str, known: Known) -> None:
    """Raises UserError for a policy that cannot be made, and for a profile that cannot be used."""
    profile = known.profile_name or (known.settings.spec.profile if known.settings else DEFAULT_PROFILE)
    try:
        engines = known.profile if known.profile and not known.profile_name else load_profile(profile)
    except ProfileError as error:
        raise UserError(*error.problems) from error
    data = {
        "name": "check",
        "durationS": 1,
        "load": {"demo": True},
        "fleet": EMPTY,
        "autoscaler": _spec(known, profile, Pair(8, 8), 1_000),
    }
    scenario = parse_scenario(data, "backtest")
    make_policy(name, scenario, engines, lambda: (), engines)


def _written(path: Path, data: Object) -> Prepared:
    text = yaml.safe_dump(data, sort_keys=False)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; give another --report") from error
    return Prepared(path)


def _spec(known: Known, profile: str, most: Pair, budget: int) -> Object:
    """The spec that policies follow: of the settings what a simulation can use, or the defaults."""
    if known.settings is None:
        cold = {} if known.cold_start_s is None else {"coldStartS": known.cold_start_s}
        bounds = {role.value: {"maxGroups": most[role], **cold} for role in ROLES}
        return {"profile": profile, "gpuBudget": budget, **bounds}
    spec: Object = known.settings.spec.model_dump(by_alias=True, mode="json", exclude_none=True)
    metrics = {key: value for key, value in spec["metrics"].items() if key in _METRICS}
    return {**spec, "metrics": metrics, "mode": "Active", "profile": profile}


def _profile_name(folder: Path, known: Known) -> str:
    """What the scenario calls the profile: one that was recorded is written beside it."""
    if known.profile_name is None and known.profile is not None:
        document = profile_document(known.profile)
        path = folder / f"{known.profile.name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return path.name
    name = known.profile_name or (known.settings.spec.profile if known.settings else DEFAULT_PROFILE)
    return str(Path(name).resolve()) if name.endswith(".json") else name


def profile_document(profile: Profile) -> Object:
    """A profile as its file would be."""
    made = asdict(profile.provenance)
    document: Object = {
        "format": FORMAT,
        "provenance": {**made, "notes": list(made["notes"])},
        "prefill_ms": _surface(profile.prefill),
        "decode_ms": _surface(profile.decode),
    }
    for key in ("tp", "gpus", "kv_bytes_per_token", "kv_capacity_tokens", "prefill_chunk_tokens", "max_model_len"):
        document[key] = getattr(profile, key)
    for key in ("max_num_seqs", "transfer_gb_per_s", "transfer_latency_ms"):
        document[key] = getattr(profile, key)
    return {key: value for key, value in document.items() if value is not None}


def _surface(one: Surface) -> Object:
    cells = [[cell * one.factor for cell in row] for row in one.ms]
    return {one.x_name: list(one.xs), one.y_name: list(one.ys), "ms": cells}


def _start(known: Known) -> Object:
    """Cold starts: as told, as measured, else as the settings expect."""
    if known.cold_start_s is not None:
        return {"loadS": known.cold_start_s}
    if len(known.cold_starts_s) >= MEASURED:
        every = math.ceil(len(known.cold_starts_s) / MOST_MEASURED)
        return {"loadS": {"valuesS": [round(time_s, 3) for time_s in sorted(known.cold_starts_s)[::every]]}}
    if known.settings is None:
        return {}
    return {"loadS": max(known.settings.spec.role(role).cold_start_s for role in ROLES)}


def _usual(steps: Steps) -> int:
    """The groups that the first minutes need on average, rounded up."""
    begin_s = steps[0][0]
    end_s = min(steps[-1][0], begin_s + FIRST_S)
    if end_s <= begin_s:
        return steps[0][1]
    spent = sum(groups * max(0.0, min(end_s, to_s) - at_s) for (at_s, groups), (to_s, _) in pairwise(steps))
    return math.ceil(spent / (end_s - begin_s) - 1e-9)


def _groups(known: Known, spec: Object, gpus: int, needed: Pair) -> Pair:
    """What the fleet begins with: as recorded or needed, within bounds and budget."""
    found = {role: known.fleet[role].replicas if role in known.fleet else needed[role] for role in ROLES}
    low = {role: spec.get(role.value, {}).get("minGroups", 1) for role in ROLES}
    for role in ROLES:
        found[role] = min(max(found[role], low[role]), spec[role.value].get("maxGroups", 8))
    while sum(found.values()) * gpus > spec["gpuBudget"] and any(found[role] > low[role] for role in ROLES):
        larger = max((role for role in ROLES if found[role] > low[role]), key=lambda role: found[role])
        found[larger] -= 1
    return Pair(found[Role.PREFILL], found[Role.DECODE])


def _fleet(known: Known, spec: Object, gpus: int, groups: Pair) -> Object:
    count, node_gpus = known.nodes or (0, NODE_GPUS)
    most = max(1, spec["gpuBudget"] // gpus)
    roles: dict[str, Object] = {}
    for role in ROLES:
        pods = _pods(known.fleet.get(role), gpus, node_gpus)
        kind = known.fleet[role].kind if role in known.fleet else "LeaderWorkerSet"
        roles[role.value] = {"groups": groups[role], "podsPerGroup": pods, "kind": kind}
        if limit := spec[role.value].get("maxNumSeqs"):
            roles[role.value]["maxNumSeqs"] = limit
        if known.nodes is None:
            # One node more where pods of two sizes may not pack.
            fit = node_gpus // (gpus // pods) or 1
            count = max(count, math.ceil(most * pods / fit) + (pods != roles[ROLES[0].value]["podsPerGroup"]))
    return {"nodes": {"count": count, "gpus": node_gpus}, **roles}


def _pods(fleet: RoleFleet | None, gpus: int, node_gpus: int) -> int:
    """Pods of a group: as recorded, else as few as fit on nodes."""
    if fleet is not None and gpus % fleet.pods_per_group == 0:
        return fleet.pods_per_group
    return next(pods for pods in range(1, gpus + 1) if gpus % pods == 0 and (gpus // pods <= node_gpus or pods == gpus))


def _notes(known: Known, prepared: Prepared, groups: Pair) -> list[str]:
    spec, fleet, profile = prepared.scenario.autoscaler, prepared.scenario.fleet, prepared.profile
    slo = f"TTFT p{spec.slo.ttft.percentile:g} {spec.slo.ttft.target_ms:g} ms, ITL p{spec.slo.itl.percentile:g} "
    slo += f"{spec.slo.itl.target_ms:g} ms"
    bounds = ", ".join(f"{role} {spec.role(role).min_groups} to {spec.role(role).max_groups}" for role in ROLES)
    whose = known.origin or "no --settings: the defaults, bounds and budget twice what perfect knowledge needs at most"
    known_profile = known.profile_name or known.settings or known.profile
    made = "" if known_profile else "; --profile names another one"
    found = [
        f"settings: {whose}: {slo}; {bounds} groups, {spec.gpu_budget} GPUs",
        f"engines: profile {profile.name}, {profile.gpus} GPUs a group{made}",
        f"fleet: begins with {groups.prefill} prefill and {groups.decode} decode groups "
        f"({'as recorded' if known.fleet else 'what the first minutes need'}), on {fleet.nodes.count} nodes with "
        f"{fleet.nodes.gpus} GPUs each{'' if known.nodes else ' (enough for the budget)'}",
        f"cold start: {_cold(known, prepared.scenario.start.typical_s)}",
    ]
    gpus = {one.gpus_per_group for one in known.fleet.values() if not isinstance(one.gpus_per_group, Missing)}
    if gpus - {profile.gpus}:
        found.append(f"recorded groups have {sorted(gpus)[0]} GPUs, but the profile's {profile.gpus} are counted")
    return found


def _cold(known: Known, typical_s: float) -> str:
    if known.cold_start_s is not None:
        return f"{typical_s:g} s"
    if len(known.cold_starts_s) >= MEASURED:
        return f"{len(known.cold_starts_s)} as recorded, median {typical_s:.3g} s"
    return f"{typical_s:g} s, {'as in the settings' if known.settings else 'assumed'}; --cold-start gives another one"
