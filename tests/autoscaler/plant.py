"""A small fluid fleet in virtual time: what the core sees when its steps come true. For tests only.

Requests arrive as a smooth flow, groups take `cold_start_s` to become ready and `drain_s` to go.
Every tick checks the invariants that must hold whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

from autoscaler.core import tick
from autoscaler.model import (
    Decision,
    Fleet,
    Group,
    Histogram,
    Observation,
    RoleFleet,
    RouterSample,
    Samples,
    State,
    WorkerSample,
    Writer,
)
from autoscaler.settings import Settings, parse_settings
from perfmodel.profile import Profile, load_profile
from policies.model import ROLES, Missing, Pair, Role

PODS_PER_GROUP = 2
GPUS_PER_GROUP = 2
BOUNDS_S = (0.01, 0.03, 0.06, 0.1, 0.5, 1.0, 2.0, 5.0, float("inf"))


@dataclass(frozen=True)
class Load:
    """Requests per second, and tokens per request."""

    rps: float
    prompt_tokens: float
    output_tokens: float


def make_settings(**spec: object) -> Settings:
    role = {"scaleDown": {"stabilizationS": 20}, "coldStartS": 8}
    base = {
        "service": "demo",
        "mode": "Active",
        "profile": "qwen3-32b-a100-tp2",
        "gpuBudget": 32,
        "syncPeriodS": 1,
        "metrics": {"scrapeTimeoutS": 0.5, "windowS": 10},
        "prefill": role,
        "decode": {**role, "maxNumSeqs": 16},
    }
    return parse_settings({"metadata": {"name": "demo", "namespace": "ns"}, "spec": base | spec}, "test settings")


@dataclass
class RoleSide:
    """One role's groups: when each becomes ready, and until when drained ones stay."""

    ready_at_s: list[float]
    gone_at_s: list[float] = field(default_factory=list)
    min_pods: int = PODS_PER_GROUP


@dataclass
class Plant:
    """Virtual time, a load, and both roles."""

    load: Callable[[float], Load]
    settings: Settings = field(default_factory=make_settings)
    profile: Profile = field(default_factory=load_profile)
    cold_start_s: float = 8.0
    drain_s: float = 6.0
    gpus_free: int = 1000
    pods_per_group: int = PODS_PER_GROUP
    gpus_per_group: int = GPUS_PER_GROUP
    state: State = field(default_factory=State)
    now_s: float = 1000.0
    changes: Callable[[Observation], Observation] = lambda observation: observation
    sides: dict[Role, RoleSide] = field(default_factory=lambda: {role: RoleSide([0.0]) for role in ROLES})
    counters: list[float] = field(default_factory=lambda: [0.0] * 4)
    decoding: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    seen: list[Observation] = field(default_factory=list)
    writers: dict[Role, Writer] = field(default_factory=dict)
    unowned: set[Role] = field(default_factory=set)

    def run(self, seconds: float) -> Self:
        """Tick once a second."""
        for _ in range(int(seconds)):
            self._flow()
            observation = self.changes(self.observe())
            decision = tick(self.state, observation, self.settings, self.profile)
            self.state = decision.state
            self.seen.append(observation)
            self.decisions.append(decision)
            self._apply(decision)
            self._check()
            self.now_s += 1.0
        return self

    def groups(self) -> Pair:
        return Pair(*(len(self.sides[role].ready_at_s) for role in ROLES))

    def scale_by_hand(self, role: Role, replicas: int, manager: str = "kubectl") -> None:
        side = self.sides[role]
        side.ready_at_s = (side.ready_at_s + [self.now_s + self.cold_start_s] * replicas)[:replicas]
        self.writers[role] = Writer(manager, self.now_s)

    def drop_by_apply(self, role: Role, manager: str) -> None:
        """An apply without replicas: the default, owned by nobody."""
        self.scale_by_hand(role, 1, manager)
        self.unowned.add(role)

    def observe(self) -> Observation:
        arrivals, prompt, generated, finished = self.counters
        counts = tuple(min(arrivals, arrivals * (i + 1) / len(BOUNDS_S)) for i in range(len(BOUNDS_S)))
        latency = Histogram(BOUNDS_S, counts, arrivals * 0.1)
        router = RouterSample(
            uid="router-1",
            pod="router",
            at_s=self.now_s,
            arrivals=arrivals,
            prompt_tokens=prompt,
            generation_tokens=generated,
            finished=finished,
            failed=0.0,
            ttft=latency,
            itl=latency,
            in_flight={"decode": self.decoding},
        )
        workers = tuple(self._worker(role, index) for role in ROLES for index in range(self._ready(role)))
        fleets = {role: self._fleet(role) for role in ROLES}
        return Observation(self.now_s, Samples((router,), workers), Fleet(fleets[Role.PREFILL], fleets[Role.DECODE]))

    def _flow(self) -> None:
        load = self.load(self.now_s - 1000.0)
        flow = (load.rps, load.rps * load.prompt_tokens, load.rps * load.output_tokens, load.rps)
        self.counters = [total + part for total, part in zip(self.counters, flow, strict=True)]

    def _worker(self, role: Role, index: int) -> WorkerSample:
        none = Missing("not given")
        pod = f"{role}-{index}"
        load = self.load(self.now_s - 1000.0)
        held = min(1.0, (load.prompt_tokens + load.output_tokens) / self.profile.kv_capacity_tokens)
        return WorkerSample(
            uid=pod,
            pod=pod,
            role=role,
            group=pod,
            at_s=self.now_s,
            running=1.0,
            waiting=0.0,
            waiting_by_reason={"capacity": 0.0, "deferred": 0.0},
            kv_usage=held,
            prompt_tokens=none,
            generation_tokens=none,
            finished=none,
            ttft=none,
            itl=none,
        )

    def _ready(self, role: Role) -> int:
        return sum(at_s <= self.now_s for at_s in self.sides[role].ready_at_s)

    def _fleet(self, role: Role) -> RoleFleet:
        side = self.sides[role]
        used = sum(self._present(other) for other in ROLES) * self.gpus_per_group
        return RoleFleet(
            kind="LeaderWorkerSet",
            namespace="ns",
            name=role.value,
            uid=f"uid-{role}",
            created_s=0.0,
            replicas=len(side.ready_at_s),
            ready=self._ready(role),
            present=self._present(role),
            draining=self._present(role) - len(side.ready_at_s),
            pods_per_group=self.pods_per_group,
            gpus_per_group=self.gpus_per_group,
            fit=max(0, self.gpus_free - used) // self.gpus_per_group,
            pod_group=role.value,
            min_pods=side.min_pods,
            writer=self.writers.get(role),
            owner="nobody" if role in self.unowned else "other" if role in self.writers else "us",
            ready_after_s=(self.cold_start_s,) * self._ready(role),
            groups=tuple(Group(f"{role}-{index}", (f"{role}-{index}",)) for index in range(self._ready(role))),
        )

    def _present(self, role: Role) -> int:
        side = self.sides[role]
        return len(side.ready_at_s) + sum(at_s > self.now_s for at_s in side.gone_at_s)

    def _apply(self, decision: Decision) -> None:
        step = decision.step
        if step is None:
            return
        side = self.sides[step.role]
        if step.kind == "min_count":
            assert side.min_pods == step.before
            side.min_pods = step.after
            return
        self.writers.pop(step.role, None)
        self.unowned.discard(step.role)
        assert len(side.ready_at_s) == step.before
        if step.after > step.before:
            side.ready_at_s += [self.now_s + self.cold_start_s] * (step.after - step.before)
        else:
            assert step.after == step.before - 1, "one TP group at a time"
            assert side.min_pods <= step.after * self.pods_per_group, "the minimum goes down before the replicas"
            side.ready_at_s.pop()
            side.gone_at_s.append(self.now_s + self.drain_s)

    def _check(self) -> None:
        step = self.decisions[-1].step
        grew = step is not None and step.kind == "replicas" and step.after > step.before
        if grew:
            gpus = sum(self._present(role) for role in ROLES) * self.gpus_per_group
            assert gpus <= self.settings.spec.gpu_budget, "growth beyond the budget"
        if step is not None and step.kind == "min_count":
            assert self.pods_per_group <= step.after <= max(1, self._ready(step.role)) * self.pods_per_group


def without_routers(observation: Observation, why: str = "timeout") -> Observation:
    """The same world with the router silent."""
    samples = replace(observation.samples, routers=(), failures={"router": why})
    return replace(observation, samples=samples)
