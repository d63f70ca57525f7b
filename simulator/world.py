"""One run: arrivals, router, groups, cluster and faults on one clock, and a policy that is asked once per sync period.

Rules:
1. Everything happens at a time of the clock; what is drawn comes from streams that are passed in, one per purpose.
2. The policy sees what our adapters would give it: pages of pods that are ready, workloads as the API server has them,
   what the scheduler says would fit. What it wants is set at once; the rest takes its time.
3. The fleet is there from the start: its first groups have been ready for a while, and its policy has seen nothing.
4. What must always hold is looked at after every decision: `Result.problems`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from autoscaler.model import Observation
from perfmodel.profile import Profile
from perfmodel.steps import ProfileSteps
from policies.model import ROLES, Role
from simulator.arrivals import Request
from simulator.clock import Clock
from simulator.cluster import Cluster
from simulator.config import EngineConfig, Mode
from simulator.driver import EngineDriver
from simulator.engine import Engine
from simulator.eyes import Eyes
from simulator.faults import Faults
from simulator.flight import Cause, Flight, Outcome
from simulator.groups import Group, Phase
from simulator.port import Policy, Wanted
from simulator.result import STARTING, FleetRow, Requests, Result, ScaleRow, Span, Target, judge
from simulator.rng import Streams
from simulator.router import Router
from simulator.scenario import Scenario
from simulator.workload import Workload

Watch = Callable[["World", Observation, Wanted], object]
"""Told after every decision, when what it wants has been set."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests in order of time, and the named stretches of it."""

    requests: Iterator[Request]
    spans: Sequence[Span]


class World:
    """A scenario under one policy. `profile` is how fast its engines are; `seed` is for the result's record."""

    def __init__(
        self, scenario: Scenario, profile: Profile, load: Load, policy: Policy, streams: Streams, seed: int
    ) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.policy = policy
        self.requests = Requests()
        self._profile = profile
        self._costs = ProfileSteps(profile)
        self._configs = {role: self._config(role) for role in ROLES}
        self._load = load
        self._seed = seed
        self._start = streams("start")
        shapes = {role: scenario.shape(role, profile.gpus) for role in ROLES}
        provision, provision_rng = scenario.fleet.nodes.provision_s, streams("provision")
        self.cluster = Cluster(
            self.clock, scenario.fleet.nodes.nodes, shapes, lambda: provision.draw(provision_rng), self._placed
        )
        routing = scenario.router.routing(scenario.fleet.aggregated)
        self.router = Router(self.clock, routing, profile, self._ended, self._emptied)
        self.workloads = {
            role: Workload(role, scenario.fleet.role(role).kind, self._make, self._take) for role in ROLES
        }
        period_s = scenario.autoscaler.sync_period_s
        self.eyes = Eyes(self.clock, scenario.scrape, period_s, self.router, self.cluster, self.workloads)
        self._limit_tokens = min(config.max_model_len for config in self._configs.values())
        slo = scenario.autoscaler.slo
        self._target = Target(slo.ttft.target_ms / 1e3, slo.itl.target_ms / 1e3)
        self._made = self._left_out = self._ticks = self._minimum_changes = self._peak_gpus = self._starting = 0
        self._last_end_s = 0.0
        self._rows: list[FleetRow] = []
        self._last_rows: dict[Role, int] = {}
        self._events: list[ScaleRow] = []
        self._problems: dict[str, None] = {}
        self._faults = Faults(self, scenario.faults)

    def run(self, watch: Watch | None = None) -> Result:
        """From the first request to the end of the last one, or of the scenario's tail."""
        self._begin()
        period_s, duration_s = self.scenario.autoscaler.sync_period_s, self.scenario.duration_s
        limit_s = duration_s + self.scenario.tail_s
        due_s = 0.0
        self.clock.run(due_s)
        while due_s < duration_s or (self.router.in_flight and due_s < limit_s):
            self._tick(watch)
            due_s += period_s
            self.clock.run(due_s)
        self.router.give_up()
        return self._result()

    def kill(self, group: Group, cause: Cause) -> None:
        """A group is gone at once, with all that it had."""
        if group.phase is Phase.GONE:
            return
        if group.entry is not None:
            group.entry.cancel()
        had_engine, group.phase = group.driver is not None, Phase.GONE
        if had_engine:
            self._keep_counts(group)
            self.router.cut(group, cause)
        self._remove(group)

    def note(self) -> None:
        """Keep what the fleet is now, if it is not what it was."""
        self._starting = 0
        for role, workload in self.workloads.items():
            ready, draining, paid = workload.ready, workload.draining, workload.paid
            starting = paid - ready - draining
            if starting > 0:
                self._starting |= STARTING[role]
            row = FleetRow(self.clock.now_s, role, workload.replicas, ready, starting, draining)
            self._keep(row)
        gpus = sum(self.cluster.shapes[role].gpus * workload.present for role, workload in self.workloads.items())
        self._peak_gpus = max(self._peak_gpus, gpus)

    def _keep(self, row: FleetRow) -> None:
        """What lasts no time is not kept."""
        last = self._last_rows.get(row.role)
        if last is not None and self._rows[last].t_s == row.t_s:
            self._rows[last] = row
        elif last is None or self._rows[last][2:] != row[2:]:
            self._last_rows[row.role] = len(self._rows)
            self._rows.append(row)

    # The beginning and the end.

    def _begin(self) -> None:
        for role, workload in self.workloads.items():
            workload.scale(self.scenario.fleet.role(role).groups)
        self.clock.run(0.0)
        for workload in self.workloads.values():
            for group in workload.groups.values():
                if group.phase is Phase.STARTING and group.entry is not None:
                    group.entry.cancel()
                    group.created_s = -sum(part.draw(self._start) for part in self.scenario.start.parts)
                    self._is_ready(group, 0.0)
        self._faults.begin()
        self.eyes.begin()
        self._next_arrival()

    def _result(self) -> Result:
        duration_s = self.scenario.duration_s
        open_or_ended = len(self.requests)
        if self.router.counters.arrivals != open_or_ended:
            self._problems[f"{self.router.counters.arrivals} requests came, {open_or_ended} ended"] = None
        return Result(
            scenario=self.scenario.name,
            policy=self.policy.name,
            seed=self._seed,
            window_s=max(duration_s, self._last_end_s),
            target=self._target,
            gpus_per_group={role: self.cluster.shapes[role].gpus for role in ROLES},
            requests=self.requests,
            fleet=self._rows,
            events=self._events,
            spans=self._load.spans or (Span(self.scenario.name, 0.0, duration_s),),
            left_out=self._left_out,
            ticks=self._ticks,
            minimum_changes=self._minimum_changes,
            peak_gpus=self._peak_gpus,
            budget_gpus=self.scenario.autoscaler.gpu_budget,
            problems=tuple(self._problems),
        )

    # Requests.

    def _next_arrival(self) -> None:
        for at_s, prompt_tokens, output_tokens in self._load.requests:
            if at_s >= self.scenario.duration_s:
                return
            if prompt_tokens + output_tokens > self._limit_tokens:
                self._left_out += 1
                continue
            self.clock.at(at_s, partial(self._arrive, prompt_tokens, output_tokens))
            return

    def _arrive(self, prompt_tokens: int, output_tokens: int, now_s: float) -> None:
        self.router.arrive(Flight(now_s, prompt_tokens, output_tokens, self._starting))
        self._next_arrival()

    def _ended(self, flight: Flight, outcome: Outcome, cause: Cause, end_s: float) -> None:
        self._last_end_s = max(self._last_end_s, end_s)
        self.requests.add(flight, outcome, judge(flight, outcome, cause, self._target, self._profile), end_s)

    # Groups.

    def _config(self, role: Role) -> EngineConfig:
        fleet = self.scenario.fleet
        mode = Mode.BOTH if fleet.aggregated else Mode.PREFILL if role is Role.PREFILL else Mode.DECODE
        config = EngineConfig.from_profile(self._profile, mode)
        return replace(config, max_num_seqs=fleet.role(role).max_num_seqs or config.max_num_seqs)

    def _make(self, role: Role, index: int) -> Group:
        self._made += 1
        name = f"{role}-{index}"
        ranks = range(1, self.cluster.shapes[role].pods)
        pods = (name, *(f"{name}-{rank}" for rank in ranks))
        group = Group(role, index, f"{name}.{self._made}", pods, self.clock.now_s)
        self.cluster.add(group)
        return group

    def _placed(self, group: Group) -> None:
        """Its pods have nodes: it starts."""
        due_s = self.clock.now_s + sum(part.draw(self._start) for part in self.scenario.start.parts)
        group.entry = self.clock.at(due_s, partial(self._is_ready, group))

    def _is_ready(self, group: Group, now_s: float) -> None:
        group.phase, group.ready_s, group.entry = Phase.READY, now_s, None
        group.driver = EngineDriver(self.clock, Engine(self._configs[group.role], self._costs), self.router.happened)
        self.router.join(group)
        self.cluster.changed(group)
        self.note()

    def _take(self, group: Group) -> None:
        """Its workload wants it gone: it drains, unless it has never been ready."""
        now_s = self.clock.now_s
        if group.phase is not Phase.READY:
            if group.entry is not None:
                group.entry.cancel()
            group.phase = Phase.GONE
            group.entry = self.clock.at(now_s, lambda _: self._remove(group))
            return
        group.phase = Phase.DRAINING
        self.router.leave(group)
        self.cluster.changed(group)
        due_s = now_s + (self.scenario.fleet.drain_limit_s if group.flights else 0.0)
        group.entry = self.clock.at(due_s, lambda _: self.kill(group, Cause.DRAIN))

    def _emptied(self, group: Group) -> None:
        """A draining group has nothing left. Its engine may be in the middle of telling so: it goes next."""
        if group.entry is not None:
            group.entry.cancel()
        group.entry = self.clock.at(self.clock.now_s, lambda _: self.kill(group, Cause.DRAIN))

    def _keep_counts(self, group: Group) -> None:
        if group.role is Role.DECODE:
            self.eyes.passed.add(group.engine.snapshot())

    def _remove(self, group: Group) -> None:
        self.cluster.remove(group)
        self.workloads[group.role].gone(group)
        self.note()

    # The policy.

    def _tick(self, watch: Watch | None) -> None:
        self._ticks += 1
        seen = self.eyes.look()
        wanted = self.policy.decide(seen)
        self._carry_out(wanted)
        self._look_for_problems()
        if watch is not None:
            watch(self, seen, wanted)

    def _carry_out(self, wanted: Wanted) -> None:
        for role in ROLES:
            if wanted.minimum_pods is not None and wanted.minimum_pods[role] != self.cluster.min_pods[role]:
                self.cluster.set_minimum(role, wanted.minimum_pods[role])
                self._minimum_changes += 1
            workload = self.workloads[role]
            if wanted.groups is not None and wanted.groups[role] != workload.replicas:
                self._events.append(
                    ScaleRow(self.clock.now_s, role, workload.replicas, wanted.groups[role], wanted.why)
                )
                workload.scale(wanted.groups[role])
        self.note()

    def _look_for_problems(self) -> None:
        used = self.cluster.used_gpus
        for name, gpus in used.items():
            if gpus > self.scenario.fleet.nodes.gpus:
                self._problems[f"{gpus} GPUs in use on {name}, which has {self.scenario.fleet.nodes.gpus}"] = None
