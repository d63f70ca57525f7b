"""What the selectors of one service match, role by role: workloads, pods, groups, pages, series, and each signal's age.

Rules:
1. Counted are the things themselves; a signal's age is that of the oldest sample that gives it.
2. A signal that no sample gives has the reasons why, never an age.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoscaler.adapters.fleet import World, belongs, title
from autoscaler.adapters.join import ScrapeTarget
from autoscaler.model import Observation, RoleFleet, RouterSample, WorkerSample
from kubeapi import names
from policies.model import Missing, Role

WORKER_SIGNALS = ("running", "waiting", "kv_usage", "prompt_tokens", "generation_tokens", "finished", "ttft", "itl")
ROUTER_SIGNALS = ("arrivals", "prompt_tokens", "generation_tokens", "finished", "in_flight", "ttft", "itl")


@dataclass(frozen=True, slots=True)
class SignalSeen:
    """One signal of a role: how many pods give it, the age of the oldest (s), and why others do not."""

    pods: int
    age_s: float | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoleSeen:
    """What the labels of one role match, and what was read. `problem`: why the role cannot be managed, or nothing.

    Groups are TP groups; a router has none. `pages_wanted`: routers and leaders that are ready, and what else answers.
    `engines`: pod -> what its page is of. `minimum`: of the gang, in words.
    """

    role: str
    selector: str
    workloads: tuple[str, ...]
    pods: int
    pages_wanted: int
    pages_read: int
    series: int
    engines: Mapping[str, str]
    signals: Mapping[str, SignalSeen]
    groups: Mapping[str, int] = field(default_factory=dict)
    minimum: str = ""
    problem: str = ""


def roles_seen(
    world: World, key: tuple[str, str], targets: Sequence[ScrapeTarget], seen: Observation
) -> tuple[RoleSeen, ...]:
    """Prefill, decode and router. `key`: namespace and service. Linear in workloads, pods and samples."""
    namespace, service = key
    workloads = [one for one in world.workloads if belongs(one, namespace, service)]
    pods = [pod for pod in world.pods if belongs(pod, namespace, service)]
    read = {one.pod for one in seen.samples.routers} | {one.pod for one in seen.samples.workers}
    found = []
    for role in (names.ROLE_PREFILL, names.ROLE_DECODE, names.ROLE_ROUTER):
        samples: Sequence[RouterSample | WorkerSample] = (
            seen.samples.routers
            if role == names.ROLE_ROUTER
            else [one for one in seen.samples.workers if one.role.value == role]
        )
        fleet = None if role == names.ROLE_ROUTER else seen.fleet[Role(role)]
        found.append(
            RoleSeen(
                role=role,
                selector=f"{names.LABEL_SERVICE}={service},{names.LABEL_ROLE}={role}",
                workloads=tuple(title(one) for one in workloads if _role(one) == role),
                pods=sum(_role(pod) == role for pod in pods),
                pages_wanted=sum(target.role == role and (target.leader or target.pod in read) for target in targets),
                pages_read=len(samples),
                series=sum(sample.series for sample in samples),
                engines={sample.pod: sample.engine or "unknown" for sample in samples},
                signals=_signals(samples, ROUTER_SIGNALS if fleet is None else WORKER_SIGNALS, seen.now_s),
                groups=_groups(fleet) if isinstance(fleet, RoleFleet) else {},
                minimum=_minimum(fleet) if isinstance(fleet, RoleFleet) else "",
                problem=fleet.missing if isinstance(fleet, Missing) else "",
            )
        )
    return tuple(found)


def _role(obj: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    return obj["metadata"]["labels"].get(names.LABEL_ROLE, "")


def _groups(fleet: RoleFleet) -> Mapping[str, int]:
    return {"wanted": fleet.replicas, "present": fleet.present, "ready": fleet.ready}


def _minimum(fleet: RoleFleet) -> str:
    if isinstance(fleet.min_pods, Missing):
        return f"no minimum: {fleet.min_pods.missing}"
    return f"minCount {fleet.min_pods} in PodGroup {fleet.pod_group}"


def _signals(
    samples: Sequence[RouterSample | WorkerSample], fields: Sequence[str], now_s: float
) -> Mapping[str, SignalSeen]:
    if not samples:
        return {}
    found = {}
    for name in fields:
        values = [(getattr(sample, name), now_s - sample.at_s) for sample in samples]
        ages_s = [age_s for value, age_s in values if not isinstance(value, Missing)]
        missing = dict.fromkeys(value.missing for value, _ in values if isinstance(value, Missing))
        found[name] = SignalSeen(len(ages_s), max(ages_s, default=None), tuple(missing))
    return found
