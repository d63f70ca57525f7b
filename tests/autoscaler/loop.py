"""Decide and plan in a closed loop over a LeaderWorkerSet fleet, with sizes that a test gives. For tests only.

Groups find a place while the cluster has GPUs, become ready a cold start later, and drain when they are taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autoscaler.core.decide import Decided, decide
from autoscaler.core.holds import Managed
from autoscaler.core.plan import plan
from autoscaler.core.size import RoleSize, Sized
from autoscaler.model import (
    Demand,
    Fleet,
    Forecast,
    Group,
    Latency,
    Observation,
    RoleFleet,
    RoleForecast,
    RoleSignals,
    Samples,
    Signals,
    State,
    Step,
)
from autoscaler.settings import Settings
from policies.model import ROLES, Code, Missing, Pair, Reason, Role
from tests.autoscaler.plant import make_settings

PODS = 2
NOT_KNOWN = Missing("not counted")
Sizes = Mapping[Role, RoleSize | Missing]


def need(groups: int, floor: int | None = None, load: float | None = None, most: float = 0.8) -> RoleSize:
    """A size; without more, the load that just fills its groups."""
    floor = groups if floor is None else floor
    load = groups * most if load is None else load
    return RoleSize(groups, floor, load, most, float(floor), float(groups))


def both(prefill: RoleSize | Missing, decode: RoleSize | Missing) -> Sizes:
    return {Role.PREFILL: prefill, Role.DECODE: decode}


@dataclass
class Member:
    """One group: when it got a place, when it is to be gone."""

    created_s: float
    placed_s: float | None = None
    gone_s: float | None = None


@dataclass
class Loop:
    """Virtual time and both roles. `changes` is put over what the roles' fleets say, `said` over their signals."""

    settings: Settings = field(default_factory=make_settings)
    gpus: Pair = field(default_factory=lambda: Pair(2, 2))
    room_gpus: int = 10_000
    cold_start_s: float = 10.0
    drain_s: float = 6.0
    period_s: float = 1.0
    now_s: float = 1000.0
    falls: bool = False
    state: State = field(default_factory=lambda: State(started_s=0.0))
    replicas: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 1))
    members: dict[Role, dict[int, Member]] = field(default_factory=lambda: {role: {} for role in ROLES})
    changes: dict[Role, dict[str, object]] = field(default_factory=lambda: {role: {} for role in ROLES})
    said: dict[Role, dict[str, object]] = field(default_factory=lambda: {role: {} for role in ROLES})
    why: tuple[Reason, ...] = ()
    steps: list[Step] = field(default_factory=list)

    def start(self, prefill: int, decode: int) -> Loop:
        """So many groups of each role, ready for long."""
        for role, groups in zip(ROLES, (prefill, decode), strict=True):
            self.replicas[role] = groups
            self.members[role] = {index: Member(0.0, 0.0) for index in range(groups)}
        return self

    def run(self, sizes: Sizes, seconds: float) -> Decided:
        """Tick for so long."""
        for _ in range(max(1, int(seconds / self.period_s))):
            decided = self.tick(sizes)
        return decided

    def tick(self, sizes: Sizes) -> Decided:
        """Look, decide, plan, carry out."""
        self._live()
        fleet = Managed(self.fleet(Role.PREFILL), self.fleet(Role.DECODE))
        seen = Observation(self.now_s, Samples(), Fleet(fleet.prefill, fleet.decode))
        signals, expected = self.signals(), self.expected(sizes)
        decided = decide(
            self.state,
            seen,
            fleet,
            signals,
            expected,
            Sized(sizes[Role.PREFILL], sizes[Role.DECODE], ()),
            self.settings,
        )
        (step, why), self.state = plan(decided.target, fleet, decided.state, signals, self.settings, self.now_s)
        self.why = (*decided.why, *why)
        if step:
            self.steps.append(step)
            if step.kind == "replicas":
                self.replicas[step.role] = step.after
                self._live()
        self.now_s += self.period_s
        return decided

    @property
    def now(self) -> Pair:
        return Pair(*(self.replicas[role] for role in ROLES))

    @property
    def codes(self) -> set[Code]:
        return {reason.code for reason in self.why}

    def reason(self, code: Code) -> Reason:
        return next(reason for reason in self.why if reason.code is code)

    @property
    def paid_gpus(self) -> int:
        """GPUs of all groups that are there or asked for."""
        return sum(len({*self.members[role], *range(self.replicas[role])}) * self.gpus[role] for role in ROLES)

    def fleet(self, role: Role) -> RoleFleet:
        members = self.members[role]
        ready = [index for index, member in members.items() if self._ready(member)]
        groups = tuple(
            Group(
                f"{role}-{index}",
                (f"{role}-{index}", f"{role}-{index}-1"),
                index in ready,
                waits=member.placed_s is None and member.gone_s is None,
                ordinal=index,
            )
            for index, member in sorted(members.items())
        )
        found = RoleFleet(
            kind="LeaderWorkerSet",
            namespace="ns",
            name=role.value,
            uid=role.value,
            created_s=0.0,
            replicas=self.replicas[role],
            ready=len(ready),
            present=len(members),
            draining=sum(member.gone_s is not None for member in members.values()),
            pods_per_group=PODS,
            gpus_per_group=self.gpus[role],
            fit=max(0, self.room_gpus - self._taken(waiting=True)) // max(1, self.gpus[role]),
            groups=groups,
            owner="us",
        )
        return replace(found, **self.changes[role])  # type: ignore[arg-type]

    def signals(self) -> Signals:
        demand = Demand(self.now_s, 15.0, 1.0, 100.0, 100.0, 100.0, 100.0)
        unseen = Latency(NOT_KNOWN, NOT_KNOWN, "router")
        plain = RoleSignals(0.0, 0.0, 0.0, 0.0, self.cold_start_s, blind=False)
        roles = [replace(plain, **self.said[role]) for role in ROLES]  # type: ignore[arg-type]
        return Signals(demand, unseen, unseen, prefill=roles[0], decode=roles[1])

    def expected(self, sizes: Sizes) -> Forecast:
        """As much as comes now, or half of it where demand `falls`."""
        ahead = RoleForecast(10.0, 0.9, 100.0, 50.0 if self.falls else 100.0, 100.0)
        roles = (size if isinstance(size, Missing) else ahead for size in sizes.values())
        return Forecast(*roles)

    def _ready(self, member: Member) -> bool:
        placed = member.placed_s is not None and member.placed_s + self.cold_start_s <= self.now_s
        return placed and member.gone_s is None

    def _taken(self, *, waiting: bool) -> int:
        return sum(
            self.gpus[role]
            for role in ROLES
            for member in self.members[role].values()
            if waiting or member.placed_s is not None
        )

    def _live(self) -> None:
        """What the workload's controller, the scheduler and the kubelets have done until now."""
        for role in ROLES:
            members, wanted = self.members[role], self.replicas[role]
            for index in [
                i for i, member in members.items() if member.gone_s is not None and member.gone_s <= self.now_s
            ]:
                del members[index]
            for index in sorted(members):
                if index >= wanted and members[index].gone_s is None:
                    serves = self._ready(members[index])
                    members[index].gone_s = self.now_s + (self.drain_s if serves else 0.0)
            for index in range(wanted):
                members.setdefault(index, Member(self.now_s))
            for _, member in sorted(members.items()):
                if member.placed_s is None and self._taken(waiting=False) + self.gpus[role] <= self.room_gpus:
                    member.placed_s = self.now_s
