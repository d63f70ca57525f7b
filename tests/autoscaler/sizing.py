"""One moment of a service, made for the tests of size and bottleneck: demand, queues, ready groups."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from autoscaler.core.size import RoleSize, Sized, size
from autoscaler.model import (
    COLUMNS,
    Demand,
    Forecast,
    Latency,
    Observation,
    RoleFleet,
    RoleForecast,
    RoleSignals,
    Signals,
    State,
    Totals,
)
from autoscaler.settings import Settings
from perfmodel.profile import Profile, load_profile
from policies.model import ROLES, Missing, Role
from tests.autoscaler.plant import Load, Plant, make_settings

NOW_S = 1000.0
NOTHING = Missing("not given")


@dataclass(frozen=True)
class Moment:
    """What is there now; `expected` is the forecast's (median, high) over what arrives."""

    rps: float
    prompt_tokens: float = 1000.0
    output_tokens: float = 120.0
    expected: tuple[float, float] = (1.0, 1.0)
    ready: tuple[int, int] = (1, 1)
    unassigned: float = 0.0
    prefill_waiting: float = 0.0
    deferred: float = 0.0
    decode_waiting: float = 0.0
    engines: float = 1.0
    settings: Settings = field(default_factory=make_settings)
    profile: Profile = field(default_factory=load_profile)
    state: State = field(default_factory=State)

    def observation(self) -> Observation:
        """Only what sizes are made from: the router's queue, and the ready groups."""
        found = Plant(lambda t: Load(1.0, 1000.0, 100.0), now_s=NOW_S).observe()
        router = replace(found.samples.routers[0], in_flight={"unassigned": self.unassigned})
        fleets = {
            role: replace(fleet, ready=ready, replicas=ready)
            for role, ready in zip(ROLES, self.ready, strict=True)
            if isinstance(fleet := found.fleet[role], RoleFleet)
        }
        fleet = replace(found.fleet, prefill=fleets[Role.PREFILL], decode=fleets[Role.DECODE])
        return replace(found, samples=replace(found.samples, routers=(router,)), fleet=fleet)

    def signals(self) -> Signals:
        """As observe would give them."""
        latency = Latency(NOTHING, NOTHING, "router")
        demand = Demand(
            at_s=NOW_S,
            window_s=10.0,
            requests_per_s=self.rps,
            prompt_tokens_per_s=self.rps * self.prompt_tokens,
            output_tokens_per_s=self.rps * self.output_tokens,
            prompt_tokens_mean=self.prompt_tokens if self.rps else 0.0,
            output_tokens_mean=self.output_tokens if self.rps else 0.0,
        )
        prefill = RoleSignals(
            running=1.0,
            waiting=self.prefill_waiting + self.unassigned,
            waiting_deferred=NOTHING,
            kv_usage=0.1,
            cold_start_s=60.0,
            blind=False,
            groups_read=self.ready[0],
            engines_per_group=self.engines,
        )
        decode = replace(
            prefill,
            waiting=self.decode_waiting + self.deferred,
            waiting_deferred=self.deferred,
            groups_read=self.ready[1],
        )
        return Signals(demand, latency, latency, prefill, decode)

    def sized(self) -> Sized:
        """What is needed."""
        lengths = {Role.PREFILL: self.prompt_tokens, Role.DECODE: self.output_tokens}
        rates = [self.rps * share for share in self.expected]
        asks = (
            RoleForecast(
                60.0, 0.9, rates[0] * lengths[role], rates[1] * lengths[role], lengths[role] if rates[1] else 0.0
            )
            for role in ROLES
        )
        return size(self.state, self.observation(), self.signals(), Forecast(*asks), self.settings, self.profile)

    def of(self, role: Role) -> RoleSize:
        """The size of a role that has one."""
        found = self.sized()[role]
        assert not isinstance(found, Missing)
        return found


def history(arrivals: list[tuple[float, float, float]]) -> tuple[Totals, ...]:
    """Of (at_s, requests, prompt tokens) that came since the entry before."""
    totals, requests, tokens = [], 0.0, 0.0
    width = sum(len(columns) for columns in COLUMNS.values())
    for at_s, came, prompt_tokens in arrivals:
        requests, tokens = requests + came, tokens + prompt_tokens
        row: list[float | None] = [None] * width
        row[COLUMNS["router"]["arrivals"]] = requests
        row[COLUMNS["router"]["offered_tokens"]] = tokens
        totals.append(Totals(at_s, tuple(row)))
    return tuple(totals)
