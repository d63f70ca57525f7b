"""Pods of TP groups to what a role says: which pods are engines, which groups are unread, and how busy the rest is.

Rules:
1. A group's leader is an engine. Another pod of it is one only if it has ever served, or says that it is another
   data-parallel rank; else it repeats its leader or idles beside it, and its numbers are nobody's.
2. A role is the sum or the mean over its groups, never over pods, series or engines.
3. A ready group of which any pod could not be read is unread, and so is one whose counts are damaged.
4. A use above 1 is an error of units, and not used. What a page has, but damaged, is told once per cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from operator import attrgetter

from autoscaler.model import SAYS_NOTHING, Number, Observation, RoleFleet, RoleSignals, RouterSample, WorkerSample
from autoscaler.settings import Settings
from policies.capacity import node_start_s
from policies.model import Code, Detail, Missing, Reason, Role, Stage

# What floating-point arithmetic of an exporter may add to a full cache.
FULL = 1.0 + 1e-6
NAMED_MAX = 5
CAUSES_MAX = 10
COUNTED = ("arrivals", "finished", "failed", "in_flight", "prompt_tokens", "prompts", "generation_tokens")
UNIT_ERROR = "unit error"
"""What a reason says of a bounded gauge beyond its bound, also where the reader of the page has seen it already."""
_NOT_GIVEN = Missing("no worker gave it")
_KINDS = (RouterSample, WorkerSample)
_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in _KINDS}
_ALL = {kind: attrgetter(*names) for kind, names in _FIELDS.items()}
_COUNTS = {kind: attrgetter(*(name for name in COUNTED if name in names)) for kind, names in _FIELDS.items()}


def engines(workers: Iterable[WorkerSample]) -> list[WorkerSample]:
    """The pods that are engines of their own."""
    found = list(workers)
    leaders = {worker.group: worker for worker in found if worker.leader}
    if len(leaders) == len(found):
        return found
    return [worker for worker in found if worker.leader or _serves(worker, leaders.get(worker.group))]


def _serves(worker: WorkerSample, leader: WorkerSample | None) -> bool:
    counters = known((worker.prompt_tokens, worker.generation_tokens, worker.finished))
    return any(value > 0 for value in counters) or (leader is not None and bool(set(worker.ranks) - set(leader.ranks)))


def role_signals(
    seen: Observation, role: Role, fresh: Sequence[WorkerSample], settings: Settings, engines_before: float
) -> RoleSignals:
    """What the fresh samples of a role's workers say. `engines_before`: engines per group as last seen."""
    fleet = seen.fleet[role]
    workers = engines([worker for worker in fresh if worker.role is role])
    groups: dict[str, list[WorkerSample]] = {}
    for worker in workers:
        groups.setdefault(worker.group, []).append(worker)
    ready_after = sorted(fleet.ready_after_s) if isinstance(fleet, RoleFleet) else []
    default_s = settings.spec.role(role).cold_start_s
    room = fleet.fit if isinstance(fleet, RoleFleet) else fleet
    usages = [mean([_bounded(worker.kv_usage) for worker in group]) for group in groups.values()]
    peaks = known([_bounded(value) for worker in workers for value in (worker.kv_usage_max, worker.kv_usage)])
    count = sum([worker.engines for worker in workers])
    return RoleSignals(
        running=total([worker.running for worker in workers]),
        waiting=total([*(worker.waiting for worker in workers), *_held(seen, role, settings)]),
        waiting_deferred=total([_deferred(worker) for worker in workers]),
        kv_usage=mean(usages),
        cold_start_s=ready_after[min(len(ready_after) - 1, len(ready_after) * 9 // 10)] if ready_after else default_s,
        blind=isinstance(fleet, RoleFleet) and fleet.ready > 0 and not workers,
        kv_usage_max=max(peaks) if peaks else _NOT_GIVEN,
        groups_read=len(groups),
        engines_per_group=count / len(groups) if groups and count else engines_before,
        unread=_unread(seen, fleet, workers) if isinstance(fleet, RoleFleet) else (),
        node_start_s=node_start_s(1, room, settings.spec.capacity.policy),
    )


def _unread(seen: Observation, fleet: RoleFleet, workers: Sequence[WorkerSample]) -> tuple[str, ...]:
    read = {worker.pod for worker in workers}
    failed = {*seen.samples.failures, *[worker.pod for worker in workers if damaged_count(worker)]}
    return tuple(
        group.pods[0]
        for group in fleet.groups
        if group.ready and (group.pods[0] not in read or not failed.isdisjoint(group.pods))
    )


def unit_errors(workers: Iterable[WorkerSample]) -> list[Reason]:
    """A reason for each role in which a bounded gauge exceeds its bound."""
    wrong: dict[Role, dict[str, list[str]]] = {}
    for worker in workers:
        if why := _unit_error(worker.kv_usage) or _unit_error(worker.kv_usage_max):
            wrong.setdefault(worker.role, {}).setdefault(why, []).append(worker.pod)
    return [
        Reason(Stage.OBSERVE, Code.UNIT_ERROR, role, {"why": why, **_pods(pods)})
        for role, causes in sorted(wrong.items())
        for why, pods in sorted(causes.items())
    ]


def _unit_error(value: Number) -> str:
    """Why it is one, or nothing."""
    if isinstance(value, Missing):
        return value.missing if UNIT_ERROR in value.missing else ""
    return f"KV use is {value:g}, a {UNIT_ERROR}: it is at most 1" if value > FULL else ""


def damaged(samples: Iterable[RouterSample | WorkerSample]) -> list[Reason]:
    """A reason for each damaged signal of each role: numbers and histograms that say nothing, and why."""
    found: dict[tuple[str, str], list[str]] = {}
    for sample in samples:
        for why in sorted(set(_damages(_ALL[type(sample)](sample)))):
            found.setdefault((_role_of(sample), why), []).append(sample.pod)
    return [
        Reason(Stage.OBSERVE, Code.SIGNAL_DAMAGED, Role(role) if role else None, {"why": why, **_pods(pods)})
        for (role, why), pods in sorted(found.items())[:CAUSES_MAX]
    ]


def damaged_count(sample: RouterSample | WorkerSample) -> str:
    """Why what a pod has counted is not known, or nothing."""
    damages = _damages(_COUNTS[type(sample)](sample))
    return damages[0] if damages else ""


def _damages(values: Iterable[object]) -> list[str]:
    return [value.missing for value in values if isinstance(value, Missing) and SAYS_NOTHING in value.missing]


def _role_of(sample: RouterSample | WorkerSample) -> str:
    return sample.role.value if isinstance(sample, WorkerSample) else ""


def _pods(pods: Sequence[str]) -> Detail:
    return {"pods": len(pods), "named": named(pods)}


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(sorted(names)[:NAMED_MAX]) + more


def _bounded(value: Number) -> Number:
    if isinstance(value, Missing) or value <= 1.0:
        return value
    return 1.0 if value <= FULL else Missing(f"{value:g} is above 1")


def _deferred(worker: WorkerSample) -> Number:
    split = worker.waiting_by_reason
    return (
        split
        if isinstance(split, Missing)
        else split.get("deferred", Missing("no requests are told apart as deferred"))
    )


def _held(seen: Observation, role: Role, settings: Settings) -> list[Number]:
    """Requests that a router keeps until a prefill worker has room."""
    if role is Role.DECODE:
        return []
    stale_s = settings.spec.metrics.stale_after_s
    stages = [router.in_flight for router in seen.samples.routers if seen.now_s - router.at_s <= stale_s]
    return [stage["unassigned"] for stage in stages if not isinstance(stage, Missing) and "unassigned" in stage]


def known(values: Iterable[Number]) -> list[float]:
    """The values that are known."""
    return [value for value in values if not isinstance(value, Missing)]


def total(values: Sequence[Number]) -> Number:
    """The sum of the known ones."""
    found = known(values)
    return sum(found) if found else _NOT_GIVEN


def mean(values: Sequence[Number]) -> Number:
    """The mean of the known ones."""
    found = known(values)
    return sum(found) / len(found) if found else _NOT_GIVEN
