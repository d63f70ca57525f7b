"""A scenario of the referee's for our own simulator: the same trace, engines, SLO, start-up and first sizes.

What is the same and what is not:
1. The scenario file names the trace that the referee replays and a profile made of the tables that every policy is told
   (`context.py`); `ours` gets the settings that the bridge gives it. A group costs from the moment it is asked for.
2. A request is bound to groups as there: in turn, to prefill on arrival, to decode when its prompt is computed. Where
   the referee's router looks at caches and loads, decode gets it where the fewest sequences are.
3. Nothing is given up: no limit to waiting, to a lease on KV or to a drain, and the same time after the last arrival.
4. Prefix caches are not shared between requests: a prompt is computed as a whole, also where the referee's router finds
   parts of it (`mooncake`).

The hard variant has what the referee has not: gangs of one pod per GPU, a budget of the GPUs that perfect knowledge
needs at its peak, no more nodes than that, and faults of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.dynosim.context import load_context, profile_document, settings_of
from benchmarks.dynosim.scenarios import GRACE_S, Router, Scenario
from policies.model import ROLES, Role
from simulator.router import Bind

NODE_GPUS, NODES = 8, 32
BIND: Mapping[Router, Bind] = {"round_robin": "turn", "kv_router": "arrival"}
FOREVER_S = 1e7
HANGS_S, BLIND_S, AWAY = 60.0, 60.0, 0.1
"""How long an engine hangs and pages cannot be read; which share of the load a node is away."""
FAULTS: tuple[tuple[float, Mapping[str, Any]], ...] = (
    (0.3, {"kind": "groupDies", "role": "decode"}),
    (0.4, {"kind": "nodeLost", "node": 0}),
    (0.55, {"kind": "engineHangs", "role": "prefill", "forS": HANGS_S}),
    (0.7, {"kind": "scrapeFails", "role": "router", "forS": BLIND_S}),
    (0.8, {"kind": "scrapeFails", "role": "decode", "forS": BLIND_S}),
)
"""At which share of the load what goes wrong."""


def document(
    scenario: Scenario, context: Path, profile: str, trace: Path, span_s: float, budget_gpus: int | None = None
) -> dict[str, Any]:
    """The scenario file of a trace of `span_s` seconds. `budget_gpus`: the hard variant, with that budget.

    Raises UserError for a context that cannot be read.
    """
    spec = settings_of(load_context(str(context)), None).spec.model_dump(by_alias=True, mode="json", exclude_unset=True)
    spec["profile"] = profile
    facts = {"name": scenario.name, "durationS": span_s, "tailS": GRACE_S, "load": {"trace": {"file": trace.name}}}
    hard = budget_gpus is not None
    if budget_gpus is not None:
        spec["gpuBudget"] = budget_gpus
        for role in ROLES:
            left = budget_gpus - scenario.tp[role.partner]
            spec[role.value]["maxGroups"] = max(1, left // scenario.tp[role])
    nodes = {"count": budget_gpus // NODE_GPUS if budget_gpus else NODES, "gpus": NODE_GPUS}
    roles = {role.value: _role(scenario, role, hard=hard) for role in ROLES}
    return {
        **facts,
        "fleet": {"nodes": nodes, **roles, "drainLimitS": FOREVER_S},
        "start": {"loadS": scenario.startup_s},
        "router": {"bind": BIND[scenario.router], "maxWaitS": FOREVER_S, "leaseS": FOREVER_S},
        "autoscaler": spec,
        "faults": _faults(span_s) if hard else [],
    }


def hard_budget(peak_groups: Mapping[str, int], scenario: Scenario) -> int:
    """GPUs of whole nodes that hold at once the most groups that each role ever needs, and the first ones."""
    most = {role: max(peak_groups[role.value], scenario.initial[role]) for role in ROLES}
    gpus = sum(most[role] * scenario.tp[role] for role in ROLES)
    return -(-gpus // NODE_GPUS) * NODE_GPUS


def write(folder: Path, name: str, scenario: dict[str, Any], context: Path) -> Path:
    """The scenario file and its profile, in the folder of the trace; the scenario's path."""
    profile = folder / scenario["autoscaler"]["profile"]
    profile.write_text(json.dumps(profile_document(load_context(str(context)))), encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(scenario, sort_keys=False), encoding="utf-8")
    return path


def _faults(span_s: float) -> list[dict[str, Any]]:
    faults = [{**fault, "atS": round(share * span_s, 1)} for share, fault in FAULTS]
    return [{**one, "forS": round(AWAY * span_s, 1)} if one["kind"] == "nodeLost" else one for one in faults]


def _role(scenario: Scenario, role: Role, *, hard: bool) -> dict[str, Any]:
    gpus = scenario.tp[role]
    return {"groups": scenario.initial[role], "gpus": gpus, "podsPerGroup": gpus if hard else 1}
